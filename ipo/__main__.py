"""`python -m ipo`, the same as the `ipo` command."""

from ipo.cli.main import main

if __name__ == "__main__":
    main()
