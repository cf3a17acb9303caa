"""Models of the Hugging Face hub as folders: found on this machine, or fetched in sight, with an end to all waiting."""

from __future__ import annotations

import fnmatch
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, XetDownloadError
from huggingface_hub.utils.tqdm import tqdm

from ipo.errors import ModelError
from ipo.net.addresses import in_time, require_usable_proxies
from ipo.net.hub_errors import fetch_error
from ipo.screen import say, shown_address

ANSWER_SECONDS = 20.0
"""Until the hub has to have said what a model consists of, and to have begun with a file."""
STALL_SECONDS = 300.0
"""Until the next piece of a file (10 MB, or its end) has to have come."""
TIDY_SECONDS = 2.0
"""Until a download that is interrupted has to have removed its part of a file."""
REPORT_SECONDS = 30.0
"""Between the lines about a download where no bar is shown."""
_ODD_ANSWERS = (TypeError, KeyError, AttributeError, RecursionError)
_FAILURES = (OSError, ValueError, RuntimeError, httpx2.HTTPError, httpx2.InvalidURL, XetDownloadError, *_ODD_ANSWERS)
"""What a client of the hub raises, the last few where what answers is no hub."""


@dataclass(frozen=True)
class Wanted:
    """Which files of a repository make a model: one of each group, the first that is there, and all that match."""

    groups: tuple[tuple[str, ...], ...]
    patterns: tuple[str, ...] = ()

    def chosen(self, names: Sequence[str]) -> list[str]:
        """The files to have out of `names`; that of the first group comes last, and so marks a model that is whole."""
        loose = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in self.patterns)]
        loose = [name for name in loose if "/" not in name and not name.startswith("consolidated")]
        keys = [next(name for name in group if name in names) for group in self.groups if set(group) & set(names)]
        return [*(name for name in loose if name not in keys), *reversed(keys)]

    def lacking(self, there: Callable[[str], bool]) -> str:
        """The first group of which nothing is there, in words; empty if there is none."""
        return next((" or ".join(group) for group in self.groups if not any(map(there, group))), "")


TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
TEXT_FILES = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
LANGUAGE_MODEL = Wanted((("config.json",), WEIGHTS, TOKENIZER), (*TEXT_FILES, "*.safetensors"))
"""What transformers needs of a model that writes text."""


def hub_folder(repo: str, wanted: Wanted, *, offline: bool, instead: str) -> Path:
    """The folder with the wanted files of a model `org/name`, fetched if need be; what is here is used unasked.

    `instead` says, for the error, what to use where the hub is out of reach. Raises `ModelError`.
    """
    return require_repository(repo, wanted, offline=offline, instead=instead) or _fetch(repo, wanted, instead)


def require_repository(repo: str, wanted: Wanted, *, offline: bool, instead: str) -> Path | None:
    """The folder of a model that is here; None for one that is to be fetched. No hub is asked.

    Raises `ModelError` for no name of a model, and offline for one that is not here.
    """
    cached = cached_folder(repo, wanted)
    if cached is None and offline:
        what = "the model is not on this machine, and --offline forbids to fetch it"
        remedy = f"{instead}. Or fetch it once without --offline and IPO_OFFLINE"
        raise ModelError(what, where=f"hf:{repo}", remedy=remedy)
    return cached


def cached_folder(repo: str, wanted: Wanted) -> Path | None:
    """The folder of a model that lies whole in the hub's cache, else None. Raises `ModelError` for no name of one."""
    try:
        found = [try_to_load_from_cache(repo, name) for name in wanted.groups[0]]
    except HFValidationError as error:
        raise ModelError(f"'{repo}' is no name of a hub model", remedy="Write it like org/model") from error
    folder = next((Path(name).parent for name in found if isinstance(name, str)), None)
    if folder is None or wanted.lacking(lambda name: (folder / name).is_file()):
        return None
    return folder if all((folder / shard).is_file() for shard in _shards(folder, wanted)) else None


def _shards(folder: Path, wanted: Wanted) -> set[str]:
    """The files that an index of weights names."""
    index = folder / WEIGHTS[1]
    if WEIGHTS not in wanted.groups or (folder / WEIGHTS[0]).is_file() or not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return {f"{WEIGHTS[1]} that can be read"}


def _fetch(repo: str, wanted: Wanted, instead: str) -> Path:
    from huggingface_hub import HfApi  # it takes a third of a second

    _require_permission(repo, instead)
    try:
        info = in_time(lambda: HfApi().model_info(repo, files_metadata=True), lambda: ANSWER_SECONDS)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = wanted.chosen(list(sizes))
        if lacking := wanted.lacking(sizes.__contains__):
            raise ModelError(f"the repository holds no {lacking}", where=f"hf:{repo}", remedy=instead)
        total = sum(sizes[name] for name in names if not isinstance(try_to_load_from_cache(repo, name), str))
        _require_room(repo, total, Path(constants.HF_HUB_CACHE))
        say(f"fetching hf:{repo} ({total / 1e6:,.0f} MB) from {shown_address(constants.ENDPOINT)}")
        # One after the other: those which came whole are kept, and no pool of threads is waited for at the end.
        folders = {_download(repo, name) for name in names}
        if len(folders) != 1:
            raise OSError("the model was changed on the hub meanwhile")
        return folders.pop()
    except _FAILURES as error:
        raise fetch_error(repo, error, instead) from error


def require_dataset(repo: str, revision: str | None, *, instead: str) -> None:
    """Raise `ModelError` unless the hub has this dataset for us, and says so in time."""
    from huggingface_hub import HfApi

    _require_permission(repo, instead)
    try:
        in_time(lambda: HfApi().dataset_info(repo, revision=revision), lambda: ANSWER_SECONDS)
    except _FAILURES as error:
        raise fetch_error(repo, error, instead, "dataset") from error


def _require_permission(repo: str, instead: str) -> None:
    if constants.HF_HUB_OFFLINE:
        what = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids to ask the hub"
        raise ModelError(what, where=f"hf:{repo}", remedy=f"Unset it. Or: {instead}")
    require_usable_proxies()


def _download(repo: str, name: str) -> Path:
    """The folder that a file was fetched into; the client takes a broken connection up again where it broke."""

    from huggingface_hub import hf_hub_download

    class Bar(tqdm):
        """The hub's own progress bar, which also counts the bytes that came."""

        monitor_interval = 0  # else each class of bars has a thread for good
        came, patience, reported, wanted = 0.0, ANSWER_SECONDS, time.monotonic(), True

        def __init__(self, *arguments: Any, **options: Any) -> None:
            Bar.patience = STALL_SECONDS
            super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            Bar.came += n or 0
            if not Bar.wanted:
                raise OSError("given up")
            if self.disable and time.monotonic() - Bar.reported > REPORT_SECONDS:
                Bar.reported = time.monotonic()
                say(f"{name}: {Bar.came / 1e6:,.0f} MB so far")
            shown: bool | None = super().update(n)
            return shown

    ended = Event()

    def fetch() -> str:
        try:
            return hf_hub_download(repo, name, tqdm_class=Bar)
        finally:
            ended.set()

    try:
        return Path(in_time(fetch, lambda: Bar.patience, lambda: Bar.came)).parent
    except BaseException:
        Bar.wanted = False
        ended.wait(TIDY_SECONDS)  # the client removes what it has of a file, if it comes to that
        raise


def _require_room(repo: str, needed: int, cache: Path) -> None:
    place = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ModelError(
            f"the disk is full: {needed / 1e6:,.0f} MB are needed for hf:{repo}, {free / 1e6:,.0f} are free",
            where=str(cache),
            remedy="Free some space, or set HF_HOME to a folder on another disk",
        )
