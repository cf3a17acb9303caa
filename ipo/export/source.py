"""What is exported: one predictor of a finished run, with its prompts, its class names and its model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ipo.config import STAND_INS, Settings
from ipo.errors import ConfigError, ModelError, RunError, UnknownName
from ipo.runs.folder import read_run, read_settings
from ipo.runs.result import Result, read_result

BEST, ENSEMBLE = "best", "ensemble"
_CODE_REMEDY = "Use --to text or json for the prompts, or --to safetensors or onnx for the classifier"


@dataclass(frozen=True)
class Exported:
    """A predictor of a run."""

    folder: Path
    result: Result
    name: str
    """What `result.json` calls the predictor."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Its prompts; none where it was learned."""
        return tuple(self.result.predictors[self.name].prompts or ())

    @property
    def aggregate(self) -> Literal["feature_mean", "score_mean"]:
        """How its prompts are put together."""
        return self.result.predictors[self.name].aggregate

    @cached_property
    def settings(self) -> Settings:
        """Of the run."""
        return read_settings(self.folder)

    @cached_property
    def run(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return read_run(self.folder)

    @cached_property
    def classnames(self) -> tuple[str, ...]:
        """The classes of the fit: those that the run recorded, else those of its dataset. Raises `RunError`."""
        recorded = self.run.get("classnames")
        if isinstance(recorded, list) and recorded:
            return tuple(map(str, recorded))
        return self._classnames_of_dataset()

    def _classnames_of_dataset(self) -> tuple[str, ...]:
        """For a run of an earlier version, which recorded no names."""
        from ipo.data.fewshot import class_half  # reading data takes libraries that texts need not wait for
        from ipo.data.listing import named_dataset
        from ipo.runs.facts import text_hash

        dataset = named_dataset(self.settings.data, self.settings.seed)
        if self.result.class_names and text_hash(dataset.classnames) != self.result.class_names:
            remedy = "Put the dataset back as it was, or make the run anew"
            raise RunError("the dataset has other class names than the run", where=str(self.folder), remedy=remedy)
        return class_half(dataset, "base" if self.result.classes == "base" else "all").classnames

    def require_prompts(self) -> tuple[str, ...]:
        """Its prompts. Raises `ConfigError` where it has none, as a learned context."""
        if not self.prompts:
            what = f"'{self.name}' is not made of prompts: what {self.result.method} learned cannot be written as text"
            raise ConfigError(what, where=str(self.folder), remedy="Use --to safetensors or onnx")
        return self.prompts

    def require_feature_mean(self) -> tuple[str, ...]:
        """Its prompts, which are put together as other programs do it. Raises `ConfigError` where they are not."""
        prompts = self.require_prompts()
        if self.aggregate == "score_mean" and len(prompts) > 1:
            what = (
                f"'{self.name}' takes the mean of the cosines of its prompts, and other programs that of the features"
            )
            raise ConfigError(what, where=str(self.folder), remedy="Use --to safetensors or onnx")
        return prompts

    def require_open_clip(self) -> str:
        """The spec of its model. Raises `ModelError` where open_clip does not have it."""
        if self.result.model in STAND_INS:
            what = f"'{self.result.model}', the offline stand-in, is neither an open_clip nor a transformers model"
            raise ModelError(what, where=str(self.folder), remedy=_CODE_REMEDY)
        return self.result.model


def read_exported(folder: Path, predictor: str = BEST) -> Exported:
    """A predictor of a finished run: `best` stands for the method, `ensemble` beside it, or by its own name.

    Raises `RunError` for a run that is not finished, and `UnknownName` for another predictor.
    """
    result = read_result(folder)
    name = {BEST: result.main_predictor, ENSEMBLE: f"{result.main_predictor}-ensemble"}.get(predictor, predictor)
    if name not in result.predictors:
        raise UnknownName("predictor", predictor, (BEST, *result.predictors))
    return Exported(folder, result, name)
