"""What a method is, how it is found (an entry point), what it is handed beside its task, and what a fit may write.

The search is one; those that it is compared with are the others.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from torch import Tensor

from ipo.captions import NO_CAPTIONS, Captions
from ipo.clip.base import ClipModel
from ipo.config import LLMSettings, Section, Settings, describe_validation
from ipo.data.uses import Use, in_order
from ipo.draws import Draws
from ipo.errors import ConfigError, RunError
from ipo.llm.base import LLM, Usage
from ipo.registry import require_method
from ipo.scoring import Aggregate, Predictor, PromptPredictor
from ipo.screen import say
from ipo.store.curves import CURVES_FILE, curve_row
from ipo.store.files import append_rows, parse_rows, truncate_rows
from ipo.store.stop import stop_is_asked
from ipo.store.tensors import damaged as damaged_tensors
from ipo.store.tensors import load_tensors, save_tensors
from ipo.task import FewShotTask, TaskTexts

CHECKPOINT = "checkpoint.safetensors"
LEARNED_FILE = "learned.safetensors"
"""What a fit learned, in the folder of its run."""

Options = TypeVar("Options", bound=Section)


@dataclass(frozen=True)
class Fitted:
    """What a fit returns. The first predictor stands for the method in tables, unless another is `chosen`."""

    predictors: Mapping[str, Predictor]
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    """What was learned, for `learned.safetensors`."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Further figures for `result.json`."""
    found: Mapping[str, Any] = field(default_factory=dict)
    """What a search found and how it ended, as fields of `ipo.runs.result.Result`."""
    draws: Mapping[str, Draws] = field(default_factory=dict)
    """What chance alone does, by the name of what was drawn."""
    own_classes_only: bool = False
    """Whether the predictors know the classes of the fit only, so that there is nothing to say about new ones."""
    chosen: str | None = None
    """The predictor that stands for the method, where it is not the first."""
    uses: Mapping[str, Sequence[Use] | None] = field(default_factory=dict)
    """Of predictors that saw something else than the method did, such as controls: what; None where nobody knows."""
    before: str | None = None
    """The predictor that the method set out from, if any: recall per class is compared with it."""
    usage: Usage | None = None
    """What was asked of an LLM; the time that the fit took is in it."""
    cost: float | None = 0.0
    """US dollars paid for that; None where no price is known."""

    @property
    def headline(self) -> str:
        """Name of the predictor that stands for the method."""
        return self.chosen or next(iter(self.predictors))

    def prompts(self, name: str) -> list[str] | None:
        """The prompts of a predictor that is made of prompts."""
        predictor = self.predictors[name]
        return [prompt.text for prompt in predictor.prompts] if isinstance(predictor, PromptPredictor) else None

    def aggregate(self, name: str) -> Aggregate | None:
        """How the prompts of a predictor are put together; None where it is not made of prompts."""
        predictor = self.predictors[name]
        return predictor.aggregate if isinstance(predictor, PromptPredictor) else None


@dataclass(frozen=True)
class CheckpointState:
    """How far a checkpoint had come: epochs or steps, rows of the curve, seconds."""

    done: int
    rows: int
    seconds: float

    @classmethod
    def parse(cls, metadata: Mapping[str, str], path: Path) -> CheckpointState:
        """The state in the metadata of a checkpoint. Raises `RunError`."""
        try:
            state = cls(int(metadata["done"]), int(metadata["rows"]), float(metadata["seconds"]))
        except (KeyError, ValueError) as error:
            raise damaged_tensors(path, f"no count of what was done ({error})") from error
        if min(state.done, state.rows) < 0 or not state.seconds >= 0:
            raise damaged_tensors(path, f"done {state.done}, rows {state.rows}, seconds {state.seconds}")
        return state


@dataclass(frozen=True)
class Means:
    """What a method is handed beside its task: nothing, or an LLM and captions where it is one that asks an LLM."""

    llm: LLM | None = None
    sampling: LLMSettings = field(default_factory=LLMSettings)
    """How the LLM is to be sampled."""
    captioned: bool = False
    """Whether there is a captioner; there may be no captions yet."""
    captions: Captions = NO_CAPTIONS
    shown_captions: tuple[str, ...] = ()
    """As many captions as fit into one question, drawn by the seed of the run."""


@dataclass
class FitRun:
    """Where a fit writes its curve and its checkpoints; without a folder it writes nothing.

    A checkpoint knows how many curve rows came before it, so that a resumed fit drops those that an interrupted one
    wrote afterwards.
    """

    folder: Path | None = None
    writes: bool = True
    """Off in all but the first of several processes."""
    report: Callable[[str], None] = say
    """Where a line for the user goes, such as the time that the fit will take."""
    means: Means = Means()
    watch: Callable[[Any], None] = lambda _: None
    """Shown the record of a search, an `ipo.search.record.Record`, after every step."""
    trying: Callable[[Sequence[str]], None] = lambda _: None
    """Told of the prompts that a search is about to score."""
    follow: Callable[[int, Mapping[str, float]], None] = lambda *_: None
    """Given figures by their names at a step or epoch, for an experiment tracker."""
    _rows: int = field(default=0, init=False)
    _earlier: float = field(default=0.0, init=False)
    _started: float = field(default_factory=time.monotonic, init=False)

    @property
    def seconds(self) -> float:
        """Time spent in the fit, before the checkpoint that it went on from included."""
        return self._earlier + time.monotonic() - self._started

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row of numbers to `curves.jsonl`, among them the epoch; those that are not finite are left out."""
        self._rows += 1
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        if self.folder is not None and self.writes:
            append_rows(self.folder / CURVES_FILE, [finite])
        self.follow(int(row["epoch"]), finite)

    def save(self, tensors: Mapping[str, Tensor], done: int) -> None:
        """Write a checkpoint of the state after `done` epochs or steps, replacing the last.

        Raises `RunError` where somebody asked the fit to stop.
        """
        if self.folder is not None and self.writes:
            state = {"done": done, "rows": self._rows, "seconds": self.seconds}
            save_tensors(self.folder / CHECKPOINT, tensors, {name: str(value) for name, value in state.items()})
            if stop_is_asked(self.folder):
                raise RunError("the fit was asked to stop", where=str(self.folder), remedy="Nothing is lost")

    def restore(self) -> tuple[dict[str, Tensor], int]:
        """The last checkpoint's tensors and how far it had come; nothing and 0 where there is none."""
        tensors, state = dict[str, Tensor](), CheckpointState(0, 0, 0.0)
        if self.folder is not None and os.path.lexists(path := self.folder / CHECKPOINT):
            tensors, metadata = load_tensors(path)
            state = CheckpointState.parse(metadata, path)
        self._rows, self._earlier = state.rows, state.seconds
        if self.folder is not None and self.writes:
            curves = self.folder / CURVES_FILE
            if len(parse_rows(curves, curve_row)) < state.rows:
                what, remedy = f"it lacks rows: the checkpoint follows {state.rows}", "Restore the file"
                raise RunError(what, where=str(curves), remedy=f"{remedy}, or remove {CHECKPOINT} to start anew")
            truncate_rows(curves, state.rows)
        return tensors, state.done


Restore = Callable[[ClipModel, tuple[str, ...], Options, Mapping[str, Tensor]], Mapping[str, Predictor]]
"""From a model, class names, options and what was learned to predictors."""


@dataclass(frozen=True)
class Method(Generic[Options]):
    """One way to get a classifier from a few-shot task; an entry point names an instance.

    Its group is `ipo.methods`, `ipo.llm_methods` for one that is handed an LLM and captions, or
    `ipo.local_llm_methods` for one that is handed an LLM of transformers, to work with its weights.
    """

    name: str
    summary: str
    options: type[Options]
    """Its hyper-parameters, each with a docstring."""
    fit: Callable[[FewShotTask, Options, FitRun], Fitted]
    """Called with the task, an instance of `options` and the run."""
    paper: str | None = None
    """Title and arXiv number."""
    published: Callable[[str, int], Mapping[str, Any]] = lambda *_: {}
    """The options that the paper uses for a dataset and a number of shots, where they differ from the defaults."""
    check: Callable[[TaskTexts, Options], None] = lambda *_: None
    """Raises an `IpoError` where the options cannot work on the task; called before an image is encoded."""
    needs_patches: Callable[[Options], bool] = lambda _: False
    """Whether the task is to come with patch features, which only some models have and which take room."""
    ready: Callable[[Options, Means], None] = lambda *_: None
    """Raises an `IpoError` where the options cannot work with the LLM; called before anybody is asked for captions."""
    reopen: Callable[[Path, Options], None] = lambda *_: None
    """Raises an `IpoError` where a fit cannot go on with the files in a run folder; changes nothing."""
    restore: Restore[Options] | None = None
    """Makes the predictors of a fit anew from the names of its classes and what was learned; None where that is not
    enough."""
    multi_label: bool = False
    """Whether it can be fitted on images with several labels each; others are refused them."""
    asks_llm: Callable[[Options], bool] = lambda _: True
    """Of a method of `ipo.llm_methods`: whether it asks the LLM under these options; otherwise it is handed none."""
    of_settings: Callable[[Settings], Options] | None = None
    """How its options are read from the settings, where they stand there in the place of options of its own."""
    uses: Callable[[Options, Means], AbstractSet[Use]] | None = None
    """What it sees under these options beside the names of its classes; all else of the task is withheld from it.

    A method without it is handed the task whole, and tables say that its uses are not declared. Published options of
    this dataset alone need no word: `uses_of` finds them.
    """

    def options_of(self, settings: Settings, dataset: str, own: Mapping[str, Any] | None = None) -> Options:
        """Its options for a dataset: those in the settings, or the published ones with `own` above them.

        Raises `ConfigError` for options of its own where they stand in the settings.
        """
        if self.of_settings is None:
            return self.configure(dataset, settings.data.shots, own)
        if own:
            raise ConfigError(f"'{next(iter(own))}' is no setting", remedy="Write it as section.key=value")
        return self.of_settings(settings)

    def uses_of(self, options: Options, means: Means, dataset: str, shots: int) -> list[Use] | None:
        """What it sees, in the order of tables; None where it does not declare it."""
        if self.uses is None:
            return None
        here, elsewhere = self.published(dataset, shots), self.published("", shots)
        own = {key for key in here if here[key] != elsewhere.get(key, self.options.model_fields[key].default)}
        uses = set(self.uses(options, means))
        if any(getattr(options, key) == here[key] for key in own):
            uses.add("per_dataset_settings")
        return in_order(uses)

    def configure(self, dataset: str, shots: int, overrides: Mapping[str, Any] | None = None) -> Options:
        """The published options with `overrides` above them; paths in them no longer depend on the working folder.

        Raises `ConfigError` naming each bad key.
        """
        try:
            options = self.options.model_validate({**self.published(dataset, shots), **(overrides or {})})
        except ValidationError as error:
            known = ", ".join(self.options.model_fields) or "none"
            raise ConfigError(
                describe_validation(error), where=f"options of {self.name}", remedy=f"It has: {known}"
            ) from error
        for name, (other, needed) in self.options.only_with.items():
            if getattr(options, name) != self.options.model_fields[name].default and getattr(options, other) != needed:
                what = f"'{name}' is set, and read only with {other}={str(needed).lower()}"
                raise ConfigError(what, where=f"options of {self.name}", remedy="Leave it out")
        places = {name: value.expanduser().absolute() for name, value in options if isinstance(value, Path)}
        return options.model_copy(update=places)


def find_method(name: str) -> Method[Any]:
    """The registered method of this name. Raises `UnknownName`, or `ConfigError` where the entry point is broken."""
    entry = require_method(name)
    try:
        method = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method '{name}' cannot be loaded: {error}", where=entry.value) from error
    if not isinstance(method, Method):
        raise ConfigError(f"method '{name}' is not an ipo.methods.Method", where=entry.value)
    return method
