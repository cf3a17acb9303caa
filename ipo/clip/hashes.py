"""Which content a file has, without reading it again while all that the file system tells of it stays the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from ipo.data.splits import relative
from ipo.data.types import Dataset, Item
from ipo.errors import DataError
from ipo.store.cache import cache_folder, write_cache

DIGEST_BYTES = 16
"""Bytes of SHA-256 that are kept: 128 bits tell any number of images apart."""

_THREADS = 8
"""Files read at once; hashing releases the interpreter, and network disks like several requests."""

_PART = 128
"""Files handed to a thread together: one by one, the handing over would take longer than the look at a file."""


SAMPLE = 1000
"""Images of a dataset whose content its hash is over: to read all those of a large one would take too long."""

MEMORY_FILE = "contents.json"
"""Name of the memory of content hashes in a cache folder."""

SETTLED_NS = 3_000_000_000
"""Age (ns) from which a change is believed to be the last one: no file system counts time in coarser steps than 2 s."""

_HASH = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")

Row = list[int | str]
"""What the system tells of a file (`state_of`), and at the end its hash."""


class ContentHashes:
    """Content hashes of files, remembered in one JSON `file`.

    A file is known while its device, inode, size and times of modification and of change are those remembered for its
    path: whatever is written, moved, copied or unpacked in its place differs in one of them, also where it brings its
    time of modification along. A file that was changed moments before it was hashed is not remembered, for a second
    change might bear the same time. In doubt a file is hashed again. The memory may be lost, or overwritten by another
    process, at the same cost.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, paths: Sequence[Path]) -> tuple[dict[Path, bytes], dict[Path, str]]:
        """The hash of each different file, in order; and for each that cannot be opened, the reason."""
        known = self._read()
        hashes, problems, seen = dict[Path, bytes](), dict[Path, str](), dict[str, Row]()
        distinct = list(dict.fromkeys(paths))
        started = time.time_ns()
        parts = [distinct[start : start + _PART] for start in range(0, len(distinct), _PART)]
        with ThreadPoolExecutor(_THREADS) as pool:
            outcomes = chain.from_iterable(pool.map(lambda part: [_identify(path, known) for path in part], parts))
            for path, outcome in zip(distinct, outcomes, strict=True):
                if isinstance(outcome, str):
                    problems[path] = outcome
                    continue
                hashes[path] = bytes.fromhex(str(outcome[-1]))
                if is_settled(outcome, started):
                    seen[str(path.absolute())] = outcome
        if any(known.get(key) != row for key, row in seen.items()):
            write_cache(self._file, json.dumps(known | seen))
        return hashes, problems

    def _read(self) -> dict[str, Row]:
        """Remembered rows by path; none where the file is missing or damaged."""
        try:
            rows = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return rows if isinstance(rows, dict) else {}


def content_memory() -> ContentHashes:
    """The memory that all image features in the cache folder share."""
    return ContentHashes(cache_folder() / "features" / MEMORY_FILE)


def content_hash(items: Sequence[Item], memory: ContentHashes | None = None) -> str:
    """sha256 over content and label of the images, in order; it stays the same where their folder is moved.

    Raises `DataError` that names an image which cannot be opened.
    """
    hashes, problems = (memory or content_memory()).of([item.path for item in items])
    for path, reason in problems.items():
        raise DataError(f"cannot read image: {reason}", where=str(path), remedy="Restore the file")
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.label_text}\t{hashes[item.path].hex()}\n".encode())
    return digest.hexdigest()


def digest_of(data: bytes) -> bytes:
    """The content hash of a file that was read."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def _identify(path: Path, known: dict[str, Row]) -> Row | str:
    """State and content hash of a file, or why it cannot be opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "not a file"
        row = known.get(str(path.absolute()))
        if isinstance(row, list) and row[:-1] == state_of(status) and _HASH.fullmatch(str(row[-1])):
            return row
        with path.open("rb") as file:
            state = state_of(os.fstat(file.fileno()))  # before the content: a change meanwhile makes it an old one
            digest = hashlib.file_digest(file, "sha256").digest()[:DIGEST_BYTES]
        return [*state, digest.hex()]
    except OSError as error:
        return error.strerror or str(error)


def state_of(status: os.stat_result) -> Row:
    """All that tells one content of a path from another without reading it."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def is_settled(row: Row, now: int) -> bool:
    """Whether the state of a file speaks for its content: it was changed some time before `now`, and not only made up.

    Packed file systems that are mounted whole, where all times may be one, give both times in seconds, and the same.
    """
    modified, changed = int(row[3]), int(row[4])
    made_up = modified == changed and changed % 1_000_000_000 == 0
    return not made_up and now - (changed if os.name == "posix" else modified) > SETTLED_NS


def dataset_hash(dataset: Dataset, memory: ContentHashes | None = None) -> str:
    """sha256 that tells a dataset from others of its name, whatever its split and wherever it lies.

    It is over the class names, over path and class of all images, and over the content of SAMPLE of them.
    """
    items = {relative(item.path, dataset.root): item for item in (*dataset.train, *dataset.val, *dataset.test)}
    places = sorted(items)
    sample = [items[place].path for place in places[:: max(1, -(-len(places) // SAMPLE))]]
    hashes, _ = (memory or content_memory()).of(sample)
    digest = hashlib.sha256("\n".join(dataset.classnames).encode())
    for place in places:
        content = hashes.get(items[place].path, b"").hex()
        digest.update(f"{place}\t{items[place].label_text}\t{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
