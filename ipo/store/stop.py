"""The file by which a run is asked to end: who sees a run asks, and the run looks between its steps."""

from __future__ import annotations

from pathlib import Path

from ipo.store.disk import writing
from ipo.store.files import write_atomic

STOP_FILE = "stop"


def ask_to_stop(folder: Path) -> None:
    """Ask the run in a folder to end when its present step is done. Raises `RunError` where nothing can be written."""
    write_atomic(folder / STOP_FILE, "")


def stop_is_asked(folder: Path) -> bool:
    """Whether somebody asked the run in a folder to end."""
    return (folder / STOP_FILE).exists()


def forget_stop(folder: Path) -> None:
    """Take a wish of an earlier time away, so that a run that is gone on with does go on."""
    with writing(folder / STOP_FILE):
        (folder / STOP_FILE).unlink(missing_ok=True)
