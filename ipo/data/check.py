"""Whether a dataset is what it should be: counts as published, every listed image there, every image readable."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ipo.data.benchmarks.catalogue import CATALOGUE, CatalogueEntry
from ipo.data.formats import IMAGE_SUFFIXES
from ipo.data.images import decode_image, read_file, unopenable
from ipo.data.splits import SPLITS, relative
from ipo.data.types import Dataset, Item, Split
from ipo.errors import DataError
from ipo.progress import track
from ipo.screen import counted


def all_items(dataset: Dataset) -> tuple[Item, ...]:
    """Train, val and test items, in this order."""
    return (*dataset.train, *dataset.val, *dataset.test)


def count_problems(entry: CatalogueEntry, dataset: Dataset) -> list[str]:
    """Where the numbers of classes and images differ from the published ones; empty if they agree."""
    problems = []
    if len(dataset.classnames) != entry.classes:
        problems.append(f"{counted(len(dataset.classnames), 'class')}, published {entry.classes}")
    sizes = (len(dataset.train), len(dataset.val), len(dataset.test))
    if missing_domains(entry, dataset):
        return problems  # a part of the domains has no published size of its own
    if entry.total or dataset.split_source.startswith("seeded"):
        total = entry.total or sum(entry.sizes)
        if total and sum(sizes) != total:
            problems.append(f"{counted(sum(sizes), 'image')}, published {total}")
    elif sizes != entry.sizes:
        found, published = ("/".join(str(size) for size in row) for row in (sizes, entry.sizes))
        problems.append(f"train/val/test {found}, published {published}")
    return problems


def missing_domains(entry: CatalogueEntry, dataset: Dataset) -> list[str]:
    """Domains of the catalogue without an image here."""
    present = {item.domain for item in all_items(dataset)}
    return [domain for domain in entry.domains if domain not in present]


def missing_images(dataset: Dataset) -> list[str]:
    """Relative paths of listed images that are not files."""
    return [relative(item.path, dataset.root) for item in all_items(dataset) if not item.path.is_file()]


def looked_at(paths: Sequence[Path], workers: int = 0) -> Iterator[tuple[str, bytes]]:
    """What is wrong with each image (nothing if it can be decoded) and the hash of its content, in order.

    `workers` processes decode (0: this one).
    """
    if not workers:
        yield from map(_look, track(paths, "images"))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from track(pool.map(_look, paths, chunksize=64), "images", len(paths))


def _look(path: Path) -> tuple[str, bytes]:
    digest = b""
    try:
        data = read_file(path)
        digest = hashlib.sha256(data).digest()
        decode_image(data, path)
    except DataError as error:
        return f"{error.what} ({error.where})", digest
    return "", digest


def require_openable(items: Sequence[Item], what: str, *, skip_unreadable: bool) -> None:
    """Raise `DataError` where there is no image, or one that is missing or no image; with `skip_unreadable` if all are.

    Files are opened and not decoded, so that this is quick enough to come before all work.
    """
    if not items:
        raise DataError(f"there are no {what}", remedy="Add some; `ipo evaluate --images all` takes all that there are")
    found = unopenable(item.path for item in items)
    first = "".join(f", such as {path}: {reason}" for path, reason in list(found.items())[:1])
    if len(found) == len({item.path for item in items}):
        raise DataError(f"none of the {len(items)} {what} can be read{first}", remedy="Replace them")
    if found and not skip_unreadable:
        remedy = "Replace or remove them, or leave them out: --set data.skip_unreadable=true"
        raise DataError(f"{len(found)} of {len(items)} {what} cannot be read{first}", remedy=remedy)


def require_complete(entry: CatalogueEntry, dataset: Dataset) -> None:
    """Raises `DataError` unless all listed images exist and the counts are the published ones."""
    missing = missing_images(dataset)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(all_items(dataset))} listed images are missing, such as {missing[0]}",
            where=str(dataset.root),
            remedy="Remove the folder and prepare it again",
        )
    problems = count_problems(entry, dataset)
    if problems:
        raise DataError(
            f"'{entry.name}' is not as published: {'; '.join(problems)}",
            where=str(dataset.root),
            remedy="Is the archive complete? Remove it and prepare the dataset again",
        )


def problems(dataset: Dataset, workers: int = 0) -> Iterator[str]:
    """All that is wrong with a dataset, one line each, as found. `workers` decode images (0: this process)."""
    published = dataset.name in CATALOGUE and not dataset.own
    if published:
        entry = CATALOGUE[dataset.name]
        yield from count_problems(entry, dataset)
        yield from (f"domain {domain} is not there" for domain in missing_domains(entry, dataset))
    yield from dataset.overlaps
    places = [(split, item) for split in SPLITS for item in getattr(dataset, split)]
    counts = Counter(item.path for _, item in places)
    yield from (f"{path} is listed twice" for path, count in counts.items() if count > 1)
    for split, part in (("training", dataset.train), ("test", dataset.test)):
        empty = (
            sorted(set(range(len(dataset.classnames))) - {label for item in part for label in item.classes})
            if part
            else []
        )
        yield from (f"class '{dataset.classnames[label]}' has no {split} images" for label in empty)
    first: dict[bytes, tuple[Split, Item]] = {}
    for (split, item), (problem, digest) in zip(places, looked_at([i.path for _, i in places], workers), strict=True):
        if problem:
            yield problem
        other = first.setdefault(digest, (split, item)) if digest and not published else (split, item)
        if other[1].path != item.path and (other[0], other[1].classes) != (split, item.classes):
            yield _twofold(dataset, other, (split, item))


def _twofold(dataset: Dataset, one: tuple[Split, Item], two: tuple[Split, Item]) -> str:
    """That two files of different classes or splits are one picture."""
    named = [
        f"{relative(item.path, dataset.root)} ({split}, class '{dataset.classnames[item.label]}')"
        for split, item in (one, two)
    ]
    return f"{named[0]} and {named[1]} are the same picture"


def require_shots(classnames: Sequence[str], train: Sequence[Item], root: Path) -> None:
    """Raise `DataError` for classes without a training image."""
    trained = {label for item in train for label in item.classes}
    empty = [name for label, name in enumerate(classnames) if label not in trained]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise DataError(
            f"no training images of {', '.join(empty[:5])}{more}",
            where=str(root),
            remedy=f"Give every class some ({' '.join(sorted(IMAGE_SUFFIXES))}), or take it out",
        )
