"""What the operating system says of the disk, as one `IpoError` that names the file, the reason and what to do.

Everything that changes the disk stands inside `with writing(path)`, or in what is called from there;
`tests/test_one_door.py` looks through the sources for it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipo.errors import IpoError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    errno.EISDIR: "a folder stands in its place",
    errno.ENOTEMPTY: "a folder stands in its place",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a symbolic link leads to itself",
}
_REMEDIES = {
    errno.EACCES: "Change its permissions, or give another place",
    errno.EPERM: "Change its permissions, or give another place",
    errno.EROFS: "Make it writable, or give another place",
    errno.EIO: "Check the disk, then run the command again",
}


def reason_of(error: OSError) -> str:
    """Why the operating system refused, in a few words."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def disk_error(error: OSError, path: Path, kind: type[IpoError] = RunError) -> IpoError:
    """An operating system's error at a write, as one that names the file, the reason and what to do."""
    if error.errno in _FULL:
        return kind("the disk is full", where=str(path), remedy="Free some space, then run the command again")
    remedy = _REMEDIES.get(error.errno or 0, "Give another place, or clear this one")
    return kind(f"cannot write: {reason_of(error)}", where=str(path), remedy=remedy)


@contextmanager
def writing(path: Path, kind: type[IpoError] = RunError) -> Iterator[None]:
    """Where `path` is written, made, moved or removed: an `OSError` inside becomes an error of this `kind`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, kind) from error
