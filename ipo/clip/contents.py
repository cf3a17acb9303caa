"""Which content a file has, without reading it again while its size and time of change stay the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from ipo.errors import RunError
from ipo.files import write_atomic

DIGEST_BYTES = 16
"""Bytes of SHA-256 that are kept: 128 bits tell any number of images apart."""

_THREADS = 8
"""Files read at once; hashing releases the interpreter, and network disks like several requests."""

_PART = 128
"""Files handed to a thread together: one by one, the handing over would take longer than the look at a file."""


class ContentHashes:
    """Content hashes of files, remembered in one JSON `file` by path, size and time of change.

    The memory is a convenience: it may be lost, or overwritten by another process, at the cost of hashing again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, paths: Sequence[Path]) -> tuple[dict[Path, bytes], dict[Path, str]]:
        """The hash of each different file, in order; and for each that cannot be opened, the reason."""
        known = self._read()
        hashes, problems, seen = dict[Path, bytes](), dict[Path, str](), dict[str, list[int | str]]()
        distinct = list(dict.fromkeys(paths))
        parts = [distinct[start : start + _PART] for start in range(0, len(distinct), _PART)]
        with ThreadPoolExecutor(_THREADS) as pool:
            outcomes = chain.from_iterable(pool.map(lambda part: [_identify(path, known) for path in part], parts))
            for path, outcome in zip(distinct, outcomes, strict=True):
                if isinstance(outcome, str):
                    problems[path] = outcome
                else:
                    seen[str(path.absolute())] = outcome
                    hashes[path] = bytes.fromhex(str(outcome[2]))
        if any(known.get(key) != row for key, row in seen.items()):
            write_cache(self._file, json.dumps(known | seen))
        return hashes, problems

    def _read(self) -> dict[str, list[int | str]]:
        """Remembered rows of size, time of change (ns) and hash by path; none where the file is missing or damaged."""
        try:
            rows = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return rows if isinstance(rows, dict) else {}


def write_cache(path: Path, data: str | bytes) -> None:
    """Write a file of a cache, and its folder if need be. Raises `RunError` where that is not possible."""
    try:
        write_atomic(path, data)
    except OSError as error:
        remedy = "Free its disk, or set IPO_CACHE to a folder of yours"
        raise RunError(f"cannot write to the cache: {error.strerror}", where=str(path.parent), remedy=remedy) from error


def _identify(path: Path, known: dict[str, list[int | str]]) -> list[int | str] | str:
    """Size, time of change and content hash of a file, or why it cannot be opened."""
    try:
        status = path.stat()
        row = known.get(str(path.absolute()), [])
        if row[:2] == [status.st_size, status.st_mtime_ns]:
            return row
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()[:DIGEST_BYTES]
        return [status.st_size, status.st_mtime_ns, digest.hex()]
    except OSError as error:
        return error.strerror or str(error)
