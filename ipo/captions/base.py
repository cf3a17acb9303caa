"""One caption an image, made once, remembered by image content and by who made it."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ipo.clip.hashes import ContentHashes
from ipo.errors import DataError, LLMError
from ipo.llm.base import Spent
from ipo.progress import track
from ipo.prompt import one_line
from ipo.screen import counted
from ipo.store.cache import warn_unwritable
from ipo.store.table import OpenTable, Table

NO_HUB = "Use --captioner none or describe, hf:FOLDER, or openai:MODEL with captions.base_url"
"""What to do where no hub can be reached."""
MAX_CHARACTERS = 400
"""Longest caption that is kept; the paper's run to about 360."""

_TAG = re.compile(r"<[^<>\s][^<>\n]{0,80}>")

_log = logging.getLogger(__name__)


class Declined(LLMError):
    """A model will not describe an image, in its own words; it may describe others."""


class Describer(Protocol):
    """Puts images into words. It is shown the picture alone: neither its class, nor its file name."""

    @property
    def name(self) -> str:
        """The model and all that shapes its answers, for records and cache keys."""

    @property
    def spent(self) -> Spent:
        """The tokens that it was paid for so far; none for a model on this machine."""

    def describe(self, images: Sequence[Path]) -> Iterator[tuple[Path, str | LLMError]]:
        """Each image and what is said about it, in the order it comes; empty where the model declines to answer.

        An error in its place says why: `Declined` by the model, else refused by the server, which may mean the image,
        if it takes others, or every request.
        """


class Captioner:
    """Captions of image files by one describer, kept in a SQLite file in `folder`."""

    def __init__(self, describer: Describer, folder: Path) -> None:
        self.describer = describer
        self._hashes = ContentHashes(folder / "contents.json")
        columns = ("captioner TEXT", "image BLOB", "caption TEXT")
        self._table = Table(folder / "captions.sqlite", "caption cache", "captions", columns)
        self._key = describer.name
        self.refusals: dict[Path, str] = {}
        """Why there is no caption of an image, where that was said."""

    @property
    def name(self) -> str:
        """Who made the captions."""
        return self.describer.name

    @property
    def spent(self) -> Spent:
        """The tokens that its captions took; what was remembered took none."""
        return self.describer.spent

    def caption(self, paths: Sequence[Path]) -> list[str]:
        """One caption an image, in order; empty for one that the model declined to describe, with a warning.

        Each caption is on disk as soon as it comes, so a run that breaks off goes on where it stopped.
        """
        if not paths:
            return []
        hashes, problems = self._hashes.of(paths)
        if problems:
            path, reason = next(iter(problems.items()))
            raise DataError(f"cannot read image: {reason}", where=str(path))
        with self._table.opened() as opened:
            captions = self._stored(opened, list(set(hashes.values())))
            missing = {digest: path for path, digest in hashes.items() if digest not in captions}
            for digest, caption in self._made(missing, bool(captions)):
                captions[digest] = caption
                self._keep(opened, digest, caption)
        self._warn_of_declined([path for path in dict.fromkeys(paths) if not captions[hashes[path]]])
        return [captions[hashes[path]] for path in paths]

    def _made(self, missing: Mapping[bytes, Path], works: bool) -> Iterator[tuple[bytes, str]]:
        """New captions by the hash of the image, as they come; empty where there is none, which is noted.

        Raises the `LLMError` of a refusal before the first answer, unless it `works` as older captions show: it need
        not be about the image then.
        """
        digests = {path: digest for digest, path in missing.items()}
        for path, answer in track(self.describer.describe(list(digests)), "captions", len(digests)):
            if not isinstance(answer, LLMError):
                yield digests[path], clean(answer)
            elif works or isinstance(answer, Declined):
                self.refusals[path] = answer.what
                yield digests[path], ""
            else:
                raise answer
            works = True

    def _warn_of_declined(self, declined: Sequence[Path]) -> None:
        if declined:
            count, why = counted(len(declined), "image"), self.refusals.get(declined[0])
            place = f"{declined[0]} ({why})" if why else declined[0]
            _log.warning("%s gave no caption for %s, the first is %s", self.name, count, place)

    def _stored(self, opened: OpenTable, digests: Sequence[bytes]) -> dict[bytes, str]:
        """The captions that were made before."""
        found = opened.load(self._key, digests)
        return {digest: caption for digest, caption in found.items() if isinstance(caption, str)}

    def _keep(self, opened: OpenTable, digest: bytes, caption: str) -> None:
        """Write a caption to disk, if it can be; where there is none, the image is asked about again another time."""
        if not caption:
            return
        try:
            opened.save(self._key, [(digest, caption)], replace=True)
        except sqlite3.OperationalError as error:
            warn_unwritable(self._table.path.parent, str(error))


def short_hash(text: str) -> str:
    """What tells one wording from another inside a describer's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def clean(answer: str) -> str:
    """A model's answer as one harmless line: without tags, invisible characters and brackets, and bounded in length."""
    line = one_line(_TAG.sub(" ", answer)).strip()
    if len(line) <= MAX_CHARACTERS:
        return line
    return line[:MAX_CHARACTERS].rpartition(" ")[0] or line[:MAX_CHARACTERS]


def pick_captions(
    captions: Sequence[str], token_budget: int, token_count: Callable[[str], int], seed: int
) -> list[str]:
    """As many captions as fit into the budget, drawn by `seed`; one that no longer fits is passed over."""
    drawn = [caption for caption in captions if caption]
    random.Random(seed).shuffle(drawn)
    picked, left = [], token_budget
    for caption in drawn:
        tokens = token_count(caption)
        if tokens <= left:
            picked.append(caption)
            left -= tokens
    return picked
