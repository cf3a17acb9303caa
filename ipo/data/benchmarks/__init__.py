"""The datasets of the catalogue: where they lie, how they are laid out, how they are fetched and checked."""
