"""Files that survive a crash: whole ones by temporary name and rename, logs by append, flush and fsync.

What cannot be written or read is one `RunError` that names the file.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ipo.errors import RunError
from ipo.store.disk import reason_of, writing

T = TypeVar("T")

EXACT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For dataclasses that are lines of a log (`__pydantic_config__`): nothing is converted, added or not a number."""

_RESTORE = "Restore the file, or start a new run"
_TEMPORARY = ".ipo-*.tmp"
_NAMED = 3


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a whole file so that a reader sees the old content or the new, never a part. Raises `RunError`.

    A symbolic link stays, and the file that it names is written; so does a device or a pipe, which gets the content.
    """
    content = data.encode() if isinstance(data, str) else data
    with writing(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(content)
            return
        place = Path(os.path.realpath(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.parent / _TEMPORARY.replace("*", secrets.token_hex(6))
        try:
            with temporary.open("xb") as file:
                _write_through(file.fileno(), content)
            temporary.replace(place)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(place.parent)


def require_place(path: Path) -> None:
    """Raise `RunError` where no file can be made, before it is worth the while; nothing is changed."""
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.exists():
            nearest = next(place for place in path.absolute().parents if place.exists())
            with tempfile.TemporaryFile(dir=nearest):
                pass


def sweep(folder: Path, idle: float = 0.0) -> None:
    """Remove temporary files that a killed process left, if nothing was written to them for `idle` seconds."""
    with suppress(OSError):  # litter does no harm
        for path in folder.glob(_TEMPORARY):
            if time.time() - path.stat().st_mtime >= idle:
                path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that `write_atomic` had under way."""
    return path.match(_TEMPORARY)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people and programs, atomically."""
    write_atomic(path, json_text(value, indent=2) + "\n")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as text, one JSON object a line."""
    return "".join(json_text(row) + "\n" for row in rows)


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON. Raises `RunError` for a number that is none or infinite, which JSON does not have."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError as error:
        remedy = "Report it with the command; float32 (--set clip.precision=float32) may avoid it"
        raise RunError("a figure is no finite number, and is not written", remedy=remedy) from error


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines in one write and wait until the disk has them. Raises `RunError`."""
    content = json_lines(rows).encode()
    with writing(path):
        new = not path.exists()
        with path.open("ab") as file:
            _write_through(file.fileno(), content)
        if new:
            _sync_folder(path.parent)


def truncate_rows(path: Path, keep: int) -> None:
    """Cut a log after its first `keep` lines, in place; what is before stays byte for byte. Raises `RunError`."""
    whole = _content(path)
    size = sum(len(line) + 1 for line in whole.split(b"\n")[:-1][:keep])
    if size < len(whole):
        with writing(path), path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log. A torn last line, left by a crash, is passed over; damage elsewhere is an error."""
    return parse_rows(path, dict)


def parse_rows(path: Path, parse: Callable[[dict[str, Any]], T]) -> list[T]:
    """`parse` of each of `read_rows`. A row that it cannot take (TypeError, ValueError, KeyError) is damage, too."""
    rows = []
    for number, line in enumerate(_content(path).split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError("not a JSON object")
            rows.append(parse(row))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(
                f"a line of the log is damaged: {_fault(error)}", where=f"{path}:{number}", remedy=_RESTORE
            ) from error
    return rows


def checked(shape: type[T]) -> Callable[[object], T]:
    """What turns a JSON value into a `shape`, any annotated type, or raises a `ValueError` that names what is wrong.

    Nothing is converted: `"3"` and `true` are no numbers.
    """
    adapter = TypeAdapter(shape)

    def check(value: object) -> T:
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            raise ValueError("; ".join(_misfits(error)[:_NAMED])) from error

    return check


def _misfits(error: ValidationError) -> list[str]:
    """Each key that does not fit, and why."""
    rows = error.errors(include_url=False, include_input=False)
    keys = [".".join(str(part) for part in row["loc"]) for row in rows]
    messages = [f"{row['msg'][0].lower()}{row['msg'][1:]}" for row in rows]
    return [f"'{key}': {message}" if key else message for key, message in zip(keys, messages, strict=True)]


def read_json(path: Path, parse: Callable[[object], T]) -> T:
    """`parse` of the content of a JSON file, such as one that `checked` makes.

    Raises `RunError` naming a file that cannot be read, `FileNotFoundError` where there is none.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunError(f"cannot read {path.name}: {_fault(error)}", where=str(path.parent), remedy=_RESTORE) from error


def read_text(path: Path) -> str:
    """A whole text file. Raises `RunError`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path.name}: {_fault(error)}", where=str(path), remedy=_RESTORE) from error


def _content(path: Path) -> bytes:
    """The bytes of a log; none where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunError(f"cannot read {path.name}: {reason_of(error)}", where=str(path), remedy=_RESTORE) from error


def _fault(error: Exception) -> str:
    """What is wrong with a file, as one line."""
    if isinstance(error, OSError):
        return reason_of(error)
    if isinstance(error, KeyError):
        return f"no {error}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())


def _write_through(descriptor: int, content: bytes) -> None:
    """Write all of it, and wait until the disk has it."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder; some systems and file systems cannot be asked to."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
