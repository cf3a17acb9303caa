"""One reader for each way in which a benchmark lies on disk. All sort what they list: no order is the disk's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipo.data.benchmarks.catalogue import CatalogueEntry, Layout
from ipo.data.benchmarks.official import OFFICIAL
from ipo.data.folders import Listing, class_folders
from ipo.data.splits import Parts, hold_out, read_split_file, safe_path, seeded_split
from ipo.data.types import Item, Split
from ipo.errors import DataError
from ipo.store.inputs import read_input


@dataclass(frozen=True)
class Place:
    """Where a dataset was found: its `folder`, its split file if there is one, and where else its lists may lie."""

    folder: Path
    split_file: Path | None = None
    beside: tuple[Path, ...] = ()

    def find(self, *names: str) -> Path:
        """The first existing path of these names in the dataset's folder or beside it; `DataError` if none is."""
        folders = (self.folder, *self.beside)
        found = next((folder / name for folder in folders for name in names if (folder / name).exists()), None)
        if found is None:
            raise DataError(
                f"missing {' or '.join(names)}",
                where=", ".join(str(folder) for folder in folders),
                remedy="`ipo datasets prepare` fetches it, or says where it comes from",
            )
        return found


@dataclass(frozen=True)
class Reading:
    """What a reader found: the folder that paths are relative to, class names in label order, items, split source."""

    images: Path
    classnames: Sequence[str]
    parts: Parts
    source: str


def read_layout(entry: CatalogueEntry, place: Place, seed: int) -> Reading:
    """The dataset as its layout says; `seed` draws the split where none is published."""
    try:
        return _READERS[entry.layout](entry, place, seed)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"the lists of '{entry.name}' cannot be read: {error!r}", where=str(place.folder), remedy="Fetch them again"
        ) from error


def labelled(folder: Path, classes: Sequence[str], domain: str = "", listing: Listing | None = None) -> list[Item]:
    """The images of each class folder with the position of its name in `classes` as label; missing ones are skipped.

    `listing` is one over more class folders than these.
    """
    present = {label: folder / name for label, name in enumerate(classes) if (folder / name).is_dir()}
    listing = listing or Listing(folder, list(present.values()))
    return [Item(path, label, domain) for label, own in present.items() for path in listing.images(own)]


def _read_split(entry: CatalogueEntry, place: Place, seed: int) -> Reading:
    images = place.folder / entry.images
    if place.split_file:
        names, parts = read_split_file(place.split_file, images)
        return Reading(images, names, parts, f"published ({place.split_file.name})")
    if entry.name in OFFICIAL:
        names, train, test = OFFICIAL[entry.name](images, place.find)
        if test:
            kept, val = hold_out(train, 0.2, seed)
            return Reading(images, names, {"train": kept, "val": val, "test": test}, _official_source(seed))
        return Reading(images, names, seeded_split(train, seed), f"seeded ({seed})")
    return _read_classes(entry, place, seed)


def _official_source(seed: int) -> str:
    return f"official test, seeded val ({seed})"


def _read_classes(entry: CatalogueEntry, place: Place, seed: int) -> Reading:
    images = place.folder / entry.images
    folders = class_folders(images, entry.ignored)
    names = [entry.renames.get(folder, folder) for folder in folders]
    return Reading(images, names, seeded_split(labelled(images, folders), seed), f"seeded ({seed})")


def _read_variants(entry: CatalogueEntry, place: Place, _seed: int) -> Reading:
    images = place.folder / entry.images
    names = place.find("variants.txt").read_text(encoding="utf-8").split("\n")
    names = [name.strip() for name in names if name.strip()]
    label_of = {name: label for label, name in enumerate(names)}
    parts: Parts = {}
    for split in ("train", "val", "test"):
        file = place.find(f"images_variant_{split}.txt")
        parts[split] = []
        for line in file.read_text(encoding="utf-8").splitlines():
            image, _, name = line.strip().partition(" ")
            if name not in label_of:
                raise DataError(f"variant '{name}' is not in variants.txt", where=str(file))
            parts[split].append(Item(safe_path(images, f"{image}.jpg", file), label_of[name]))
    return Reading(images, names, parts, "published (images_variant_{train,val,test}.txt)")


def _read_wnid_names(place: Place) -> dict[str, str]:
    """CoOp's classnames.txt: `<wnid> <name>` a line, in label order."""
    rows = place.find("classnames.txt").read_text(encoding="utf-8").splitlines()
    return {wnid: name for wnid, _, name in (row.strip().partition(" ") for row in rows) if name}


def _named(folders: Sequence[str], names: Mapping[str, str], place: Place) -> list[str]:
    missing = [folder for folder in folders if folder not in names]
    if missing:
        raise DataError(f"classnames.txt lacks {', '.join(missing[:3])}", where=str(place.folder))
    return [names[folder] for folder in folders]


def _read_imagenet(entry: CatalogueEntry, place: Place, _seed: int) -> Reading:
    images = place.folder / entry.images
    folders = class_folders(images / "val")
    parts: Parts = {"train": labelled(images / "train", folders), "test": labelled(images / "val", folders)}
    return Reading(images, _named(folders, _read_wnid_names(place), place), parts, "folders")


def _read_numbered(entry: CatalogueEntry, place: Place, _seed: int) -> Reading:
    images = place.folder / entry.images
    names = list(_read_wnid_names(place).values())
    items = labelled(images, [str(label) for label in range(len(names))])
    return Reading(images, names, {"test": items}, "folders")


def _read_wnids(entry: CatalogueEntry, place: Place, _seed: int) -> Reading:
    images = place.folder / entry.images
    folders = class_folders(images)
    names = _named(folders, _read_wnid_names(place), place)
    return Reading(images, names, {"test": labelled(images, folders)}, "folders")


def _read_domains(entry: CatalogueEntry, place: Place, seed: int) -> Reading:
    nested = place.folder / entry.images
    images = nested if nested.is_dir() else place.folder
    domains = [domain for domain in entry.domains if (images / domain).is_dir()]
    if entry.sizes[0]:
        return _read_domain_lists(images, place.find("splits"), domains)
    folders = sorted({name for domain in domains for name in class_folders(images / domain)})
    items = [item for domain in domains for item in labelled(images / domain, folders, domain)]
    names = [entry.renames.get(folder, folder) for folder in folders]
    if entry.held_out:
        kept, held = hold_out(items, entry.held_out, seed)
        return Reading(images, names, {"train": kept, "test": held}, f"seeded ({seed})")
    return Reading(images, names, seeded_split(items, seed), f"seeded ({seed})")


def _read_domain_lists(images: Path, lists: Path, domains: Sequence[str]) -> Reading:
    """DomainNet: `<domain>_{train,test}.txt` with lines `domain/class/image.jpg label`."""
    names: dict[int, str] = {}
    parts: Parts = {"train": [], "test": []}
    splits: tuple[Split, ...] = ("train", "test")
    files = ((domain, split, lists / f"{domain}_{split}.txt") for domain in domains for split in splits)
    for domain, split, file in files:
        for path, label in _domain_rows(file):
            name = path.split("/")[-2]
            if names.setdefault(label, name) != name:
                raise DataError(f"label {label} is both '{names[label]}' and '{name}'", where=str(file))
            parts[split].append(Item(safe_path(images, path, file), label, domain))
    if set(names) != set(range(len(names))):
        raise DataError(f"labels are not 0 to {len(names) - 1} without gaps", where=str(lists))
    ordered = [names[label] for label in range(len(names))]
    return Reading(images, ordered, parts, "published (<domain>_{train,test}.txt)")


def _domain_rows(file: Path) -> Iterator[tuple[str, int]]:
    """Path and label of each line."""
    for line in _lines(file):
        path, _, number = line.rpartition(" ")
        if not number.isdigit() or path.count("/") < 2:
            raise DataError(f"not 'domain/class/image label': {line!r}", where=str(file))
        yield path, int(number)


def _lines(file: Path) -> list[str]:
    return [line for line in read_input(file, "list", remedy="Fetch it again").splitlines() if line.strip()]


_READERS: Mapping[Layout, Callable[[CatalogueEntry, Place, int], Reading]] = {
    "split": _read_split,
    "classes": _read_classes,
    "variants": _read_variants,
    "imagenet": _read_imagenet,
    "numbered": _read_numbered,
    "wnids": _read_wnids,
    "domains": _read_domains,
}
