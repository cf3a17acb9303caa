"""A disk that fails from its k-th change on, and a short search and a short fit that meet it."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import filelock
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from ipo import run as running
from ipo.clip.load import load_clip
from ipo.clip.text.cache import TextCache, open_text_caches
from ipo.config import Settings, load_settings
from ipo.errors import IpoError
from ipo.llm.base import UNPAID, Message, Reply, ReplyForm
from ipo.runs.folder import RunFolder
from ipo.runs.path import require_free
from ipo.runs.resume import plan_resumption
from tests.fakes import FakeClip

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)


class FailingDisk:
    """Counts changes of the disk; from number `first` on each fails with `code`. `first` 0 lets all happen."""

    def __init__(self, first: int = 0, code: int = errno.ENOSPC) -> None:
        self.first, self.code, self.changes = first, code, 0

    def change(self) -> None:
        self.changes += 1
        if self.first and self.changes >= self.first:
            raise OSError(self.code, os.strerror(self.code))

    def change_database(self) -> None:
        try:
            self.change()
        except OSError as error:
            raise sqlite3.OperationalError("database or disk is full") from error

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            self.change()
            return function(*arguments, **options)

        return changed

    def opened(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wax+"):
                self.change()
            return function(path, mode, *arguments, **options)

        return changed

    @contextmanager
    def installed(self) -> Iterator[FailingDisk]:
        disk, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                disk.change_database()
                return super().execute(*arguments)

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                disk.change_database()
                return super().executemany(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "write"), (Path, "mkdir"), (Path, "replace"), (Path, "rename")):
                patch.setattr(owner, name, self.before(getattr(owner, name)))
            for name in ("TemporaryFile", "mkdtemp"):
                patch.setattr(tempfile, name, self.before(getattr(tempfile, name)))
            patch.setattr(filelock.FileLock, "acquire", self.before(filelock.FileLock.acquire))
            patch.setattr(Path, "open", self.opened(Path.open))
            patch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, factory=Connection, **named))
            yield self


class RememberingClip(FakeClip):
    """Keeps text features in the file of the run."""

    cache: TextCache | None = None

    def use_text_cache(self, path: Path | None) -> None:
        self.cache = open_text_caches(self, path)[True]

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        encode = super().encode_texts
        return encode(texts) if self.cache is None else self.cache.fetch(texts, encode)


class SeededLLM:
    """Proposes prompts that the seed of the step decides; it captions, too."""

    name, template, caption_tokens, spent = "seeded", "ipo.j2", 300, UNPAID
    form: ReplyForm = "line"

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
        unnamed: Sequence[str] = (),
    ) -> list[Reply]:
        words = [hashlib.sha256(f"{seed} {index}".encode()).hexdigest()[:6] for index in range(n)]
        return [Reply(f"a {word} of a <CLASS>.", "line", "stop", 10, 5, 0.1) for word in words]

    def token_count(self, text: str) -> int:
        return len(text.split())

    refusals: ClassVar[dict[Path, str]] = {}

    def caption(self, paths: list[Path]) -> list[str]:
        return [f"a picture of {path.stem}" for path in paths]


def draw(folder: Path) -> Path:
    """Three classes with three pictures to learn from and two to test on."""
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("blue", "green", "red"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Small models in the place of all that a run would load."""
    patch.setattr("ipo.run.load_llm", lambda *_, **__: SeededLLM())
    patch.setattr(
        "ipo.run.load_clip",
        lambda chosen, **offline: (
            load_clip(chosen, **offline) if chosen.model.startswith("local-dir:") else RememberingClip()
        ),
    )
    patch.setattr("ipo.run.make_captioner", lambda *_, **__: SeededLLM())


def settings_of(pictures: Path, steps: int = 2) -> Settings:
    values = {
        "data": {"dataset": f"folder:{pictures}", "shots": 2},
        "captions": {"captioner": "describe"},
        "clip": {"workers": 0},
        "search": {"steps": steps, "candidates": 2, "english_only": False, "controls": False},
    }
    return load_settings(None, values)


def search(chosen: Settings, path: Path) -> None:
    """What `ipo optimize --out` does."""
    require_free(path)
    job = running.prepare("ipo", chosen)
    with running.start(job, path) as folder:
        running.run(job, folder)


def resume(path: Path) -> None:
    """What `--resume` does."""
    with RunFolder.open(path) as folder:
        job, resumption = running.plan(plan_resumption(path))
        running.reopen(job, folder, resumption)
        running.run(job, folder)


def fit_settings(pictures: Path, model: str) -> Settings:
    """A tiny open_clip model, for a fit that trains."""
    values = {
        "data": {"dataset": f"folder:{pictures}", "shots": 2},
        "clip": {"model": model, "workers": 0, "device": "cpu"},
        "offline": True,
    }
    return load_settings(None, values)


def fit_coop(chosen: Settings, path: Path) -> None:
    """What `ipo baseline coop --out` does."""
    require_free(path)
    job = running.prepare("coop", chosen, {"epochs": 2})
    with running.start(job, path) as folder:
        running.run(job, folder)


def one_error(act: Callable[[], None]) -> IpoError | None:
    """The error that ends `act`, if one does: one line, with a place and a remedy."""
    try:
        act()
    except IpoError as error:
        assert "\n" not in str(error)  # noqa: PT017 - that there is an error is not said
        return error
    return None
