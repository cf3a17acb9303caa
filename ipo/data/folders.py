"""What lies in the folders of a dataset: pictures and class folders, each folder once, and what is passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ipo.data.formats import HEIF_ADVICE, HEIF_INSTALLED, HEIF_SUFFIXES, IMAGE_SUFFIXES
from ipo.errors import DataError
from ipo.screen import counted

DROPPINGS = frozenset(
    (
        "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found", "lost.dir",
        "$recycle.bin", "recycler", "system volume information", "#recycle", "#snapshot", "@eadir", "@tmp", "@__thumb",
        "@recycle", "@recently-snapshot", "network trash folder", "temporary items",
    )
)  # fmt: skip
"""Names, in lower case, of what archivers, systems and file servers leave among pictures; it is never looked at."""


def is_dropping(name: str) -> bool:
    """Whether a file or folder is hidden or one of `DROPPINGS`."""
    return name.startswith((".", "~$")) or name.lower() in DROPPINGS


def is_image(path: Path) -> bool:
    """Whether the ending is that of an image; what a file holds is not looked at."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def class_folders(folder: Path, ignored: Iterable[str] = ()) -> list[str]:
    """Names of the folders inside `folder` in ASCII order, without droppings and `ignored` ones."""
    if not folder.is_dir():
        raise DataError(
            "no such folder", where=str(folder), remedy="It should hold one folder of images for each class"
        )
    with _readable(folder):
        return sorted({entry.name for entry in _inside(folder) if _is_folder(entry)} - set(ignored))


def loose_images(folder: Path) -> list[Path]:
    """The images directly inside `folder`, in no folder of a class."""
    pictures = (*IMAGE_SUFFIXES, *HEIF_SUFFIXES)
    with _readable(folder):
        found = [Path(entry.path) for entry in _inside(folder) if not _is_folder(entry)]
    return [path for path in found if path.suffix.lower() in pictures]


def images_below(folder: Path) -> list[Path]:
    """All images below a folder, in its own folders or in none, sorted by folder. Raises `DataError` for none."""
    found: list[Path] = []
    if folder.is_dir():
        inside = [folder / name for name in class_folders(folder)]
        listing = Listing(folder, inside)
        found = [path for path in loose_images(folder) if is_image(path)]
        found += [path for one in inside for path in listing.images(one)]
    if not found:
        raise DataError("no folder with images", where=str(folder), remedy="Give a folder that holds some")
    return found


class Listing:
    """Lists the pictures below some class folders; it keeps in mind where it has been, and what it passed over.

    Links to folders are followed, each folder once: one that is a folder above, or was listed already, is passed over.
    Raises `DataError` where two of the class folders are one.
    """

    def __init__(self, root: Path, class_folders: Sequence[Path]) -> None:
        self._root = root
        top = root.resolve()
        self._above = {_identity(path): path for path in (top, *top.parents)}
        self._seen: dict[tuple[int, int], tuple[Path, Path]] = {}
        self._loops: list[str] = []
        self._unread: list[Path] = []
        self.overlaps: list[str] = []
        """Folders that were passed over since another class, or another split, holds them: a sentence for each."""
        for folder in class_folders:
            other = self._above.get(_identity(folder)) or self._seen.setdefault(_identity(folder), (folder, folder))[0]
            if other != folder:
                what = f"{self._named(folder)} is {self._named(other)} again, by a link"
                raise DataError(what, where=str(root), remedy="Remove the link: every class needs a folder of its own")

    def images(self, class_folder: Path) -> list[Path]:
        """All images below one of the class folders, sorted by path. Broken links count: reading them is an error."""
        found: list[Path] = []
        waiting = _inside(class_folder)[::-1]
        while waiting:
            entry = waiting.pop()
            path = Path(entry.path)
            with _readable(path):
                if _is_folder(entry):
                    waiting += _inside(path)[::-1] if self._is_new(path, class_folder) else []
                elif is_image(path) and (entry.is_symlink() or entry.is_file()):
                    found.append(path)
                elif is_image(path):
                    self._loops.append(f"passed over {self._named(path)}, which is a pipe, socket or device")
                else:
                    self._unread.append(path)
        return found

    def _is_new(self, folder: Path, class_folder: Path) -> bool:
        key = _identity(folder)
        above = self._above.get(key)
        other, owner = (above, class_folder) if above else self._seen.setdefault(key, (folder, class_folder))
        if other == folder:
            return True
        again = f"{self._named(folder)}, which is {self._named(other)} again"
        within = owner == class_folder or other in class_folder.parents
        (self._loops if within else self.overlaps).append(f"passed over {again}")
        return False

    def _named(self, path: Path) -> str:
        inside = path != self._root and path.is_relative_to(self._root)
        return path.relative_to(self._root).as_posix() if inside else str(path)

    def notes(self, loose: Sequence[Path] = ()) -> list[str]:
        """What was passed over else, a sentence for each kind; `loose` are images in no class folder."""
        notes = list(self._loops)
        if self._unread:
            endings = Counter(path.suffix.lower() or "without ending" for path in self._unread)
            kinds = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
            what = f"passed over {counted(len(self._unread), 'file')} without the ending of an image: {kinds}"
            notes.append(f"{what}; the first is {self._named(self._unread[0])}")
            if not HEIF_INSTALLED and any(ending in HEIF_SUFFIXES for ending in endings):
                notes.append(HEIF_ADVICE)
        if loose:
            what = f"passed over {counted(len(loose), 'file')} beside the class folders"
            notes.append(f"{what}; the first is {self._named(loose[0])}")
        return notes


def _inside(folder: Path) -> list[os.DirEntry[str]]:
    """What is directly inside a folder, without droppings, sorted. Entries know what they are without another look."""
    with _readable(folder), os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not is_dropping(entry.name)), key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link that leads to one."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What the system refuses inside is a `DataError`."""
    try:
        yield
    except OSError as error:
        remedy = "Give yourself the right to read it, or move it away"
        raise DataError(f"cannot look into folder: {error.strerror}", where=str(path), remedy=remedy) from error


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder is, by whichever path or link one came to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino
