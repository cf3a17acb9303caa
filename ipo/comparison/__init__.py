"""Finished runs side by side: read back, grouped into rows, printed."""
