"""Files that survive a crash: whole files by temporary name and rename, logs by append, flush and fsync."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ipo.errors import RunError

T = TypeVar("T")


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a whole file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people and programs, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as text, one JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines in one write and wait until the disk has them."""
    with path.open("ab") as file:
        file.write(json_lines(rows).encode())
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log. A torn last line, left by a crash, is passed over; damage elsewhere is an error."""
    return parse_rows(path, dict)


def parse_rows(path: Path, parse: Callable[[dict[str, Any]], T]) -> list[T]:
    """`parse` of each of `read_rows`. A row that it cannot take (TypeError, ValueError, KeyError) is damage, too."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError("not a JSON object")
            rows.append(parse(row))
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"a line of the log is damaged: {f'no {error}' if isinstance(error, KeyError) else error}",
                where=f"{path}:{number}",
                remedy="Restore the file, or start a new run",
            ) from error
    return rows


def truncate_rows(path: Path, keep: int) -> None:
    """Cut a log after its first `keep` lines; what is before stays byte for byte."""
    if not path.exists():
        return
    kept = path.read_bytes().split(b"\n")[:keep]
    write_atomic(path, b"".join(line + b"\n" for line in kept))
