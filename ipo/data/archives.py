"""Extraction that cannot leave its folder, fill the disk, or be seen half done."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from ipo.errors import DataError
from ipo.store.disk import reason_of, writing

MAX_MEMBERS = 3_000_000
"""Most files and folders of one archive (ImageNet, the largest known here, has 1.3 million)."""
MAX_RATIO = 20
"""Most that an archive may grow when extracted; images hardly shrink in an archive, so real ones stay near 1."""
MIN_ALLOWANCE = 1 << 30
"""Bytes that any archive may take when extracted, whatever its own size."""

BROKEN_ARCHIVE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    RuntimeError,
    ValueError,
)
"""What the standard library raises for a broken or encrypted archive."""
CHUNK = 1 << 20
"""Bytes of a member that are copied at once."""


def is_archive(path: Path) -> bool:
    """Whether the file's ending is one that `unpack` reads."""
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"))


def unpack(archive: Path, folder: Path) -> None:
    """Extract a tar or zip file into an existing folder. Only plain files and folders below it are written.

    Raises `DataError` for an absolute path, `..`, a link, a device, more than `MAX_MEMBERS` members, more bytes than
    `MAX_RATIO` allows or than the disk has, and for a broken archive.
    """
    with _reading(archive):
        budget = Budget([archive], folder)
        for name, is_folder, reader in members(archive):
            target = safe_target(folder, name, archive)
            with writing(target, DataError), _reading(archive, BROKEN_ARCHIVE):
                (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
                if not is_folder:
                    with target.open("wb") as output, reader() as source:
                        budget.copy(source, output)


@contextmanager
def _reading(archive: Path, failures: tuple[type[Exception], ...] = (*BROKEN_ARCHIVE, OSError)) -> Iterator[None]:
    """Inside, these failures become a `DataError` about the archive."""
    try:
        yield
    except failures as error:
        if isinstance(error, BROKEN_ARCHIVE):
            raise broken_archive(archive, error) from error
        raise unreadable(error, archive) from error


def verify(file: Path, checksum: str) -> None:
    """Raises `DataError` if the file's hash is not `checksum` (`md5:...` or `sha256:...`; empty passes)."""
    if not checksum:
        return
    kind, _, expected = checksum.partition(":")
    try:
        with file.open("rb") as stream:
            got = hashlib.file_digest(stream, kind).hexdigest()
    except OSError as error:
        raise unreadable(error, file) from error
    if got != expected:
        raise DataError(
            f"wrong checksum: {kind} is {got}, not {expected}",
            where=str(file),
            remedy="The file is broken or not the published one; fetch it again",
        )


def safe_target(folder: Path, name: str, archive: Path) -> Path:
    """The place below `folder` of a member called `name`; raises `DataError` if it would lie elsewhere."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\0" in name:
        raise DataError(
            f"archive member {name!r} would be written outside its folder",
            where=str(archive),
            remedy="Nothing was extracted; do not trust this archive",
        )
    return folder.joinpath(*path.parts)


def broken_archive(archive: Path, error: Exception) -> DataError:
    """One of `BROKEN_ARCHIVE` as a `DataError` with a remedy."""
    return DataError(f"archive is broken: {error}", where=str(archive), remedy="Remove it and fetch it again")


def unreadable(error: Exception, file: Path) -> DataError:
    """An operating system's error at reading a file as a `DataError` with a remedy."""
    reason = reason_of(error) if isinstance(error, OSError) else error
    return DataError(f"cannot read: {reason}", where=str(file), remedy="Give another file, or restore it")


class Budget:
    """Counts bytes written, and stops archives that outgrow their bound or the disk; without archives only the disk.

    `limit` is the most bytes that may be written.
    """

    def __init__(self, archives: Sequence[Path], folder: Path) -> None:
        self._where = ", ".join(str(archive) for archive in archives)
        free = shutil.disk_usage(folder).free
        allowance = max(MIN_ALLOWANCE, MAX_RATIO * sum(archive.stat().st_size for archive in archives))
        self._bounded = bool(archives) and allowance <= free
        self.limit = allowance if self._bounded else free
        self._bytes = 0

    def copy(self, source: IO[bytes], output: IO[bytes]) -> None:
        """Copy one member within the bounds; raises `DataError` beyond them."""
        while chunk := source.read(CHUNK):
            self._bytes += len(chunk)
            if self._bytes > self.limit:
                raise self._exceeded()
            output.write(chunk)

    def _exceeded(self) -> DataError:
        bound = f"{MAX_RATIO} times its size" if self._bounded else "the disk has room for"
        remedy = "do not trust this archive" if self._bounded else "free some space, then run the command again"
        return DataError(
            f"the content takes more than {bound} ({self.limit:,} bytes)",
            where=self._where,
            remedy=f"Nothing was extracted; {remedy}",
        )


Member = tuple[str, bool, Callable[[], IO[bytes]]]
"""Name of an archive's member, whether it is a folder, and what opens it."""


def members(archive: Path) -> Iterator[Member]:
    """Files and folders of a tar or zip archive, in order.

    Raises `DataError` at a link or a device, and past `MAX_MEMBERS`.
    """
    found = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
    for count, member in enumerate(found, 1):
        if count > MAX_MEMBERS:
            raise DataError(
                f"archive holds more than {MAX_MEMBERS:,} files and folders",
                where=str(archive),
                remedy="Nothing was extracted",
            )
        yield member


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise _special_file(member.name, archive)
            yield member.name, member.isdir(), partial(_opened, tar, member)


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(member)
    if source is None:
        raise _special_file(member.name, Path(os.fsdecode(tar.name or "")))
    return source


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _special_file(info.filename, archive)
            yield info.filename, info.is_dir(), partial(packed.open, info)


def _special_file(name: str, archive: Path) -> DataError:
    return DataError(
        f"archive member {name!r} is a link or a device",
        where=str(archive),
        remedy="Nothing was extracted; do not trust this archive",
    )
