"""A run as it lies on disk: what was found, how it came to be, and with what settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ipo.api.arguments import Place, folder
from ipo.api.table import Table
from ipo.config import Device, Settings
from ipo.errors import RunError
from ipo.prompt import AnyScore, HistoryEntry, Score
from ipo.runs.folder import RESULT_FILE, read_run, read_settings, require_run
from ipo.runs.result import Result, read_result
from ipo.screen import silence
from ipo.search.history import History
from ipo.search.record import HISTORY_FILE

if TYPE_CHECKING:
    from ipo.predict.classify import Classifier, Prediction
    from ipo.predict.pictures import Source


class Best(NamedTuple):
    """The best prompt of a search, and how it did on the training shots."""

    prompt: str
    score: AnyScore


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of the history: a prompt with its figures on the training shots, or a rejected text with the reason."""

    id: int
    step: int
    text: str
    accuracy: float | None
    """Share of the training shots (0..1) that are recognised; None for a reject, as all figures."""
    map: float | None
    """Mean average precision (0..1) in its place, where pictures have several labels."""
    low: float | None
    high: float | None
    """Ends of its 95% interval."""
    loss: float | None
    """Mean cross-entropy in nats."""
    reason: str | None
    """Why it was not scored; None where it was."""
    parent: int | None
    """The id of the candidate that it descends from."""

    @classmethod
    def of(cls, entry: HistoryEntry) -> Candidate:
        """The row of an entry."""
        score = entry.score
        if score is None:
            return cls(entry.id, entry.step, entry.text, None, None, None, None, None, entry.reason, entry.parent)
        accuracy, precision = (score.value, None) if isinstance(score, Score) else (None, score.value)
        figures = (accuracy, precision, score.low, score.high, score.loss)
        return cls(entry.id, entry.step, entry.text, *figures, None, entry.parent)


class Run:
    """A run of any method, finished or not. Nothing is changed by it, and no model is loaded before it predicts."""

    def __init__(self, path: Place) -> None:
        self.path: Path = folder(path)
        require_run(self.path)
        self._facts: dict[str, Any] = read_run(self.path)
        self._classifiers: dict[Any, Classifier] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.method}, {self.status})"

    @property
    def method(self) -> str:
        """The name of its method; `ipo` is the search."""
        return str(self._facts.get("method", ""))

    @property
    def status(self) -> str:
        """`done`, `running`, or how it ended; what it was when the run was loaded."""
        return str(self._facts.get("status", ""))

    @cached_property
    def settings(self) -> Settings:
        """All settings, such as `run.settings.data.shots`."""
        return read_settings(self.path)

    @cached_property
    def result(self) -> Result:
        """The figures on the test images, and all else of `result.json`. Raises `RunError` before the end of a run."""
        if not (self.path / RESULT_FILE).exists():
            what, remedy = f"the run has no result yet: it is {self.status or 'not done'}", "Go on with it: ipo.resume"
            raise RunError(what, where=str(self.path), remedy=f"{remedy}({str(self.path)!r})")
        return read_result(self.path)

    @property
    def classnames(self) -> tuple[str, ...]:
        """The names of the classes that it was fitted on, in the order of its predictions."""
        names = self._facts.get("classnames")
        if not names:
            remedy = "Go on with it once where its dataset is, which writes them: ipo.resume or --resume"
            raise RunError("an earlier version of ipo kept no class names here", where=str(self.path), remedy=remedy)
        return tuple(names)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts that stand for the run: the best one of a search, or a set of them, which predict together.

        Raises `RunError` for a method that has none, such as CoOp.
        """
        result = self.result
        found = result.predictors[result.main_predictor].prompts
        if not found:
            what = f"{self.method} finds no prompt that can be read"
            raise RunError(what, where=str(self.path), remedy="Use run.predict, or run.result")
        return tuple(found)

    @property
    def best(self) -> Best:
        """The best prompt so far with its score on the training shots. Raises `RunError` where it is no search."""
        entry = self._history().best()
        assert entry.score is not None
        return Best(entry.text, entry.score)

    @cached_property
    def history(self) -> Table[Candidate]:
        """Every candidate in the order it came, rejects too."""
        other = "accuracy" if self.settings.data.metric == "map" else "map"

        def record(row: Candidate) -> dict[str, Any]:
            return {name: value for name, value in asdict(row).items() if name != other}

        return Table(map(Candidate.of, self._history()), record, "candidate")

    def predict(
        self,
        images: Source | Iterable[Source],
        *,
        none: bool = False,
        classnames: Sequence[str] | None = None,
        device: Device | None = None,
        progress: bool = False,
    ) -> Table[Prediction]:
        """The class of each picture with its calibrated confidence and all probabilities.

        `images` are paths, folders or PIL pictures. With `none` a picture for which no class is likely enough has no
        class. A picture that cannot be read has an `error` and no class. `classnames` compete in the place of the run's
        own, where its method can tell other classes, too.
        """
        with silence(not progress):
            rows = tuple(self.predictions(images, none=none, classnames=classnames, device=device))
        return Table(rows, lambda row: row.to_json(), "prediction")

    def predictions(
        self,
        images: Source | Iterable[Source],
        *,
        none: bool = False,
        classnames: Sequence[str] | None = None,
        device: Device | None = None,
    ) -> Iterator[Prediction]:
        """What `predict` gives, one by one as they are made."""
        from ipo.predict.pictures import pictures_of  # it imports torch

        pictures = pictures_of(images)
        return self.classifier(classnames, device).predictions(pictures, none=none)

    def classifier(self, classnames: Sequence[str] | None = None, device: Device | None = None) -> Classifier:
        """What predicts, kept for the next time. Raises `RunError` where the run cannot predict."""
        from ipo.predict.classify import Classifier

        key = (None if classnames is None else tuple(classnames), device)
        if key not in self._classifiers:
            own = self.classnames
            self._classifiers[key] = Classifier.restore(self.path, self.settings, self.result, own, classnames, device)
        return self._classifiers[key]

    def _history(self) -> History:
        path = self.path / HISTORY_FILE
        if not path.exists():
            what = f"a run of {self.method} has no history of prompts" if self.method != "ipo" else "no history here"
            raise RunError(what, where=str(self.path), remedy="Use run.predict, or run.result")
        return History.read(self.settings.search.select, path)


def load(path: Place) -> Run:
    """The run in a folder. Raises `RunError` where there is none."""
    return Run(path)
