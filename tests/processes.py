"""Processes that tests start, each waited for with a bound, so that one that stands still fails its test by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 400.0
"""Far more than any of them takes on a busy machine, and less than the time-out of a whole test (pyproject.toml)."""


def run_process(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a command to its end, whatever its exit status.

    Both streams are captured as text unless `options`, those of `subprocess.run`, say otherwise.
    """
    captured = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False, "timeout": SECONDS}
    return subprocess.run(command, **{**captured, **options})


IN_ONE_PROCESS = """
import io, json, sys
from ipo.cli.main import main
ended = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ipo", *arguments]
    sys.stdout, sys.stderr = streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    try:
        main()
    except SystemExit as end:
        code = end.code
    for stream in streams:
        stream.flush()
    ended.append([code, *(stream.buffer.getvalue().decode() for stream in streams)])
print(json.dumps(ended), file=sys.__stdout__)
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run_commands(commands: Sequence[Sequence[str]], folder: Path) -> list[Ended]:
    """How each of several `ipo` commands ends in a folder, all in one process, since a start is slow."""
    done = run_process([sys.executable, "-c", IN_ONE_PROCESS, json.dumps(commands)], cwd=folder, check=True)
    return [Ended(*one) for one in json.loads(done.stdout)]
