"""`result.json`: what it holds, and the one place where it is written, with `correct.json` beside it, and read.

Every value has its type, every number is finite. What runs of earlier versions lack has a default here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from ipo.config import MetricName
from ipo.data.uses import Use
from ipo.errors import RunError
from ipo.runs.folder import RESULT_FILE, RunFolder, read_run_json

CORRECT_FILE = "correct.json"

SCHEMA = 2
"""Number of this shape of `result.json`; files without one are of the first."""

RESTORE = "Restore the file, or make the run anew"
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Interval = Annotated[list[Share], Field(min_length=2, max_length=2)]
T = TypeVar("T", bound=BaseModel)


class Part(BaseModel):
    """A part of what the files hold: exact types, finite numbers, nothing changes."""

    model_config = ConfigDict(
        strict=True, frozen=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )


class Valued(Part):
    """Accuracy, or mean average precision where images have several labels: one of them."""

    accuracy: Share | None = None
    map: Share | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.accuracy is None) == (self.map is None):
            raise ValueError("it needs either 'accuracy' or 'map'")
        return self

    @property
    def value(self) -> float:
        """The one that is there."""
        return self.accuracy or self.map or 0.0


class Figures(Valued):
    """What was reached on `n` test images, with its interval."""

    low: Share
    high: Share
    n: NonNegativeInt
    absent: list[str] = []
    """Names of the classes that no image has, which are left out of a mean average precision."""


class Predictor(Part):
    """What one predictor did on each test set."""

    base: Figures
    new: Figures | None = None
    H: Share | None = None
    H_interval: Interval | None = None
    targets: dict[str, Figures] = {}
    prompts: list[str] | None = None
    aggregate: Literal["feature_mean", "score_mean"] = "feature_mean"
    """How several prompts are put together: by the mean of their features, of unit length, or of their cosines."""
    uses: list[Use] | None = None
    """What it saw, where that is not what the method did."""


class Clip(Part):
    """Fingerprint of the CLIP model."""

    name: str
    weights: str = ""
    preprocessing: str = ""
    precision: str = "float32"


class _Score(Part):
    """Of training images: one of three figures."""

    accuracy: Share | None = None
    map: Share | None = None
    confidence: Finite | None = None
    loss: Finite

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if len([name for name in ("accuracy", "map", "confidence") if getattr(self, name) is not None]) != 1:
            raise ValueError("it needs either 'accuracy', 'map' or 'confidence'")
        return self

    @property
    def value(self) -> float:
        """The one that is there."""
        return self.accuracy or self.map or self.confidence or 0.0

    @property
    def metric(self) -> Literal["accuracy", "map", "confidence"]:
        """Which one that is."""
        return "confidence" if self.confidence is not None else "map" if self.map is not None else "accuracy"


class Best(Part):
    """The best prompt, and its place in the history."""

    text: str
    score: _Score
    id: NonNegativeInt = 0
    step: NonNegativeInt = 0
    parent: NonNegativeInt | None = None


class Ensemble(Part):
    """Prompts that predict together."""

    prompts: list[str]
    score: _Score


class _Tokens(Part):
    model: str = ""
    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt = 0


class _Usage(Part):
    steps: NonNegativeInt
    proposals: NonNegativeInt
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    seconds: Finite = 0.0
    captions: _Tokens = _Tokens()


class Gain(Part):
    """Recall, or average precision, of one class under the prompt that a search set out from, and the best one."""

    name: str = Field(alias="class")
    first: Share
    best: Share
    gain: Finite


class Difference(Part):
    """Of two figures on the same images, with its 95% interval."""

    value: Finite
    low: Finite
    high: Finite


class Comparison(Part):
    """What the best prompt of a search is better by than a plain one, on each test set where it can be told."""

    prompt: str
    differences: dict[str, Difference]


class Drawn(Part):
    """Accuracy, or mean average precision, of draws on one test set, with the mean and the ends of the middle 95%."""

    values: Annotated[list[Share], Field(min_length=1)]
    mean: Share
    low: Share
    high: Share
    percentile: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percent of the draws that did worse than the predictor beside them; half of those that did the same."""


class Draws(Part):
    """What chance alone does: classifiers that differ in what was drawn."""

    what: str
    beside: str = ""
    """The predictor that they are compared with."""
    sets: dict[str, Drawn]
    """By test set; `H` is one where there are new classes."""


class Calibrated(Part):
    """How the predictor that stands for the method becomes probabilities; see `ipo.predict.calibration`."""

    temperature: Annotated[Finite, Field(gt=0)]
    shots: Literal["training", "validation"]
    """The shots that it was fitted on: validation shots for what was learned from the others, where there are any."""
    level: Share
    thresholds: list[Share]
    """For each class of the fit the least probability with which a picture is taken for one of it."""
    kept: Share
    """Share of the shots that the thresholds let pass."""
    caught: Share | None = None
    """Share of them that are turned down where their class is not among the names."""


class _Said(Part):
    reason: str
    text: str


class Unusable(Part):
    """The last `steps` of a search in a row without a proposal that could be used, and examples of what was said."""

    steps: PositiveInt
    of: PositiveInt
    """Steps of the search."""
    gave_up: bool
    replies: list[_Said]


class Result(Part):
    """The content of `result.json`."""

    schema_number: Annotated[int, Field(alias="schema", ge=1)] = 1
    ipo: str = ""
    """Version that made it."""
    method: str
    metric: MetricName = "accuracy"
    paper: str | None = None
    options: dict[str, Any] | None = None
    """Of a method that has options of its own; those of a search stand in `config.toml`."""
    dataset: str
    split_source: str = ""
    split_hash: str = ""
    class_names: str = ""
    dataset_hash: str = ""
    classes: Literal["base", "all"]
    class_count: NonNegativeInt = 0
    targets: list[str] = []
    target_splits: list[str] = []
    test_hashes: dict[str, str] = {}
    shots: PositiveInt
    training_images: NonNegativeInt = 0
    training_content: str = ""
    seed: NonNegativeInt
    model: str
    clip: Clip | None = None
    device: str = ""
    llm: str = ""
    captioner: str = ""
    phrases: str = ""
    """Digest of the word lists that phrases were made of."""
    offline: bool = False
    uses: list[Use] | None = None
    """What the method saw beside the names of its classes; None where it does not declare it, or the run is older."""
    headline: str = ""
    """The predictor that stands for the method."""
    predictors: Annotated[dict[str, Predictor], Field(min_length=1)]
    draws: dict[str, Draws] = {}
    """What chance alone does, by the name of what was drawn."""
    figures: dict[str, Any] = {}
    calibration: Calibrated | None = None
    """Of the predictor that stands for the method; None in runs of earlier versions."""
    strategy: str = ""
    """Of a search."""
    stopped: str = ""
    unusable: Unusable | None = None
    best: Best | None = None
    untestable: list[str] = []
    ensemble: Ensemble | None = None
    rejects: dict[str, NonNegativeInt] = {}
    """How many proposals were not scored, by the kind of reason."""
    comparisons: list[Comparison] | None = None
    """Of the best prompt with the plain ones; None where that was not asked."""
    per_class_gain: list[Gain] = []
    usage: _Usage | None = None
    seconds: Annotated[Finite, Field(ge=0)]
    evaluation_seconds: Finite = 0.0
    cost: Annotated[Finite, Field(ge=0)] | None

    @property
    def main_predictor(self) -> str:
        """The predictor that stands for the method; runs of the first versions name none, and it is their first."""
        return self.headline or next(iter(self.predictors))


def with_draws(result: Result, draws: Mapping[str, Mapping[str, Any]]) -> Result:
    """The result with what `ipo.draws.drawn_figures` gives for some draws."""
    typed = {name: Draws.model_validate(figures) for name, figures in draws.items()}
    return result.model_copy(update={"draws": typed}) if typed else result


def write_result(folder: RunFolder, result: Result, verdicts: dict[str, Any]) -> None:
    """Write both files; `verdicts` is what `ipo.task.verdicts` gives."""
    folder.write(CORRECT_FILE, verdicts)
    folder.write(RESULT_FILE, to_json(result))


def to_json(result: Result) -> dict[str, Any]:
    """The content of `result.json`."""
    return {"schema": SCHEMA} | result.model_dump(mode="json", by_alias=True, exclude_unset=True)


def read_result(folder: Path) -> Result:
    """`result.json` of a finished run. Raises `RunError` for a missing or damaged one, or one of a later version."""
    content = read_run_json(folder, RESULT_FILE)
    number = content.get("schema", 1)
    if isinstance(number, int) and number > SCHEMA:
        what = f"{RESULT_FILE} is of a later version of ipo: schema {number}, and this one reads {SCHEMA}"
        raise RunError(what, where=str(folder), remedy="Update ipo")
    return checked_content(Result, content, folder, RESULT_FILE)


def checked_content(kind: type[T], content: dict[str, Any], folder: Path, name: str) -> T:
    """The content of a file as its type. Raises `RunError` that names the file and the first place that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_context=False, include_input=False)
        place = ".".join(map(str, first["loc"]))
        more = f", and {len(others)} more" if others else ""
        raise RunError(
            f"{name} is damaged: {place}: {first['msg']}{more}", where=str(folder), remedy=RESTORE
        ) from error
