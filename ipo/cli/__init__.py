"""The `ipo` command: builds objects from settings and calls the library."""
