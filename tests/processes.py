"""Processes that tests start, each waited for with a bound, so that one that stands still fails its test by name."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 240.0
"""Far more than any of them takes on a busy machine, and less than the time-out of a whole test (pyproject.toml)."""


def run_process(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end, whatever its exit status.

    Both streams are captured as text unless `options`, those of `subprocess.run`, say otherwise.
    """
    captured = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False, "timeout": SECONDS}
    return subprocess.run(command, **{**captured, **options})
