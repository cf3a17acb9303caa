"""The `ipo` command, also as `python -m ipo`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command. Ctrl-C while its modules are imported is one line, too."""
    try:
        from ipo.cli.main import main as command
    except KeyboardInterrupt:
        print("ipo: interrupted", file=sys.stderr)
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
