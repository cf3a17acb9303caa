"""A run on disk and beside it: its place, its folder, its settings, what is checked before it and recorded of it."""
