"""What a comparison method is, how it is found (entry points of the group `ipo.methods`), and what a fit may write."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ipo.config import Section, describe_validation
from ipo.errors import ConfigError, RunError
from ipo.evaluate import Predictor, PromptPredictor
from ipo.files import append_rows, checked, parse_rows, truncate_rows, write_atomic
from ipo.protocols import FewShotTask
from ipo.registry import require_method
from ipo.screen import say

CURVES, CHECKPOINT = "curves.jsonl", "checkpoint.safetensors"


@dataclass(frozen=True)
class Fitted:
    """What a fit returns. The first predictor is the one that stands for the method in tables."""

    predictors: Mapping[str, Predictor]
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    """What was learned, for `learned.safetensors`."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Further figures for `result.json`."""
    own_classes_only: bool = False
    """Whether the predictors know the classes of the fit only, so that there is nothing to say about new ones."""

    @property
    def headline(self) -> str:
        """Name of the predictor that stands for the method."""
        return next(iter(self.predictors))

    def prompts(self, name: str) -> list[str] | None:
        """The prompts of a predictor that is made of prompts."""
        predictor = self.predictors[name]
        return [prompt.text for prompt in predictor.prompts] if isinstance(predictor, PromptPredictor) else None


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
            raise _damaged(path, f"no count of what was done ({error})") from error
        if min(state.done, state.rows) < 0 or not state.seconds >= 0:
            raise _damaged(path, f"done {state.done}, rows {state.rows}, seconds {state.seconds}")
        return state


def curve_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `curves.jsonl`: finite numbers by name, among them the epoch. Raises `ValueError` or `KeyError`."""
    return {"epoch": row["epoch"], **_curve_row(row)}


_curve_row = checked(dict[str, FiniteFloat])


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
    _rows: int = 0
    _earlier: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Time spent in the fit, before the checkpoint that it went on from included."""
        return self._earlier + time.monotonic() - self._started

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row of numbers to `curves.jsonl`, among them the epoch; those that are not finite are left out."""
        self._rows += 1
        if self.folder is not None and self.writes:
            append_rows(self.folder / CURVES, [{name: value for name, value in row.items() if math.isfinite(value)}])

    def save(self, tensors: Mapping[str, Tensor], done: int) -> None:
        """Write a checkpoint of the state after `done` epochs or steps, replacing the last."""
        if self.folder is not None and self.writes:
            state = {"done": done, "rows": self._rows, "seconds": self.seconds}
            save_tensors(self.folder / CHECKPOINT, tensors, {name: str(value) for name, value in state.items()})

    def restore(self) -> tuple[dict[str, Tensor], int]:
        """The last checkpoint's tensors and how far it had come; nothing and 0 where there is none."""
        tensors, state = dict[str, Tensor](), CheckpointState(0, 0, 0.0)
        if self.folder is not None and os.path.lexists(path := self.folder / CHECKPOINT):
            tensors, metadata = load_tensors(path)
            state = CheckpointState.parse(metadata, path)
        self._rows, self._earlier = state.rows, state.seconds
        if self.folder is not None and self.writes:
            curves = self.folder / CURVES
            if len(parse_rows(curves, curve_row)) < state.rows:
                what, remedy = f"it lacks rows: the checkpoint follows {state.rows}", "Restore the file"
                raise RunError(what, where=str(curves), remedy=f"{remedy}, or remove {CHECKPOINT} to start anew")
            truncate_rows(curves, state.rows)
        return tensors, state.done


@dataclass(frozen=True)
class Method:
    """One way to get a classifier from a few-shot task; an entry point of the group `ipo.methods` names an instance."""

    name: str
    summary: str
    options: type[Section]
    """Its hyper-parameters, each with a docstring."""
    fit: Callable[[FewShotTask, Any, FitRun], Fitted]
    """Called with the task, an instance of `options` and the run."""
    paper: str | None = None
    """Title and arXiv number."""
    published: Callable[[str, int], Mapping[str, Any]] = lambda *_: {}
    """The options that the paper uses for a dataset and a number of shots, where they differ from the defaults."""
    check: Callable[[FewShotTask, Any], None] = lambda *_: None
    """Raises an `IpoError` where the options cannot work on the task; called before anything is fitted or written."""

    def configure(self, dataset: str, shots: int, overrides: Mapping[str, Any] | None = None) -> Section:
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


def find_method(name: str) -> Method:
    """The registered method of this name. Raises `UnknownName`, or `ConfigError` where the entry point is broken."""
    entry = require_method(name)
    try:
        method = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method '{name}' cannot be loaded: {error}", where=entry.value) from error
    if not isinstance(method, Method):
        raise ConfigError(f"method '{name}' is not an ipo.methods.Method", where=entry.value)
    return method


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors, atomically."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(whole, dict(metadata or {})))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that `save_tensors` wrote. Raises `RunError` for a broken file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> RunError:
    return RunError(f"cannot read tensors: {what}", where=str(path), remedy="Remove it to start anew")
