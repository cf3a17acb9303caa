"""Sentences of one's own, tried on the training images of a run with the model that it was scored with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from ipo.clip.features import feature_store
from ipo.clip.load import load_clip
from ipo.config import Settings
from ipo.data.listing import read_listing
from ipo.errors import RunError
from ipo.llm.base import Spent
from ipo.prompt import AnyScore, HistoryEntry, Prompt
from ipo.runs.facts import task_facts
from ipo.runs.folder import RunFolder, read_run, read_settings
from ipo.scoring import score_prompts
from ipo.search.human import add_sentence, require_new
from ipo.search.method import scored_on
from ipo.search.propose import Checks, start_problem
from ipo.search.record import Record
from ipo.search.strategy import choose
from ipo.serve.runs import read_history
from ipo.task import FewShotTask, load_task

_SAME = ("clip", "training_content", "class_names")
"""Facts of a run that have to be as they were, or scores could not be compared."""


@dataclass(frozen=True)
class Tried:
    """A sentence with its score, and how much better it is than the best of the run, in points."""

    text: str
    score: AnyScore
    ahead: float

    def to_json(self) -> dict[str, Any]:
        """What the page is told."""
        score = self.score
        figures = {"value": score.value, "low": score.low, "high": score.high, "ahead": self.ahead / 100}
        return {
            "text": self.text,
            "loss": round(score.loss, 4),
            **{name: round(100 * share, 2) for name, share in figures.items()},
        }


class Bench:
    """The model and the images of the run that sentences were tried on last; they take seconds to load."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._folder: Path | None = None
        self._task: FewShotTask | None = None

    def attempt(self, folder: Path, text: str) -> Tried:
        """The score of a sentence. Raises `IpoError` for one that is no prompt, too long, or names a class."""
        prompt = Prompt(text.strip())
        with self._lock:
            return self.tried(folder, prompt)

    def add(self, folder: Path, text: str) -> HistoryEntry:
        """Score a sentence and put it into the history of a run that nobody works on. Raises `IpoError`."""
        prompt = Prompt(text.strip())
        with self._lock, RunFolder.open(folder) as run:
            settings, facts = read_settings(folder), read_run(folder)
            first = choose(settings.strategy).first(settings.search)
            spent = Spent(**facts.get("caption_usage", {}))
            record = Record.resume(settings.search.select, run.path, first, spent)
            require_new(prompt, record.history)
            record.next_place()
            return add_sentence(record, prompt, self.tried(folder, prompt).score)

    def tried(self, folder: Path, prompt: Prompt) -> Tried:
        """The score of a prompt on the training images of a run. Raises `IpoError`."""
        settings, history = read_settings(folder), read_history(folder)
        if history is None:
            raise RunError("this is no search: it has no history", where=str(folder), remedy="Choose another run")
        task = self._task_of(folder, settings)
        if problem := start_problem(prompt, Checks.of(settings.search, task.room, task.classnames, None)):
            raise RunError(f"the search would refuse it: {problem.reason}", remedy="Write it in another way")
        (score,) = score_prompts(task.clip, [prompt], scored_on(task, settings.search), task.classnames)
        best = history.best().score
        assert best is not None
        return Tried(prompt.text, score, 100 * (score.value - best.value))

    def _task_of(self, folder: Path, settings: Settings) -> FewShotTask:
        """The task of a run, whose model and images are the same as when it was made. Raises `IpoError`."""
        if self._task is None or self._folder != folder:
            clip = load_clip(settings.clip, offline=settings.offline)
            listing = read_listing(settings.data, settings.seed)
            store = feature_store(settings.clip, clip, skip_unreadable=settings.data.skip_unreadable)
            protocol = load_task(listing, clip, store)
            now, was = task_facts(listing, protocol), read_run(folder)
            if other := [name for name in _SAME if now[name] != was.get(name)]:
                what = f"the model or the images are no longer those of the run: {', '.join(other)}"
                raise RunError(what, where=str(folder), remedy="Put them back, or start a new run")
            self._folder, self._task = folder, protocol.task
        return self._task
