"""Typed, frozen settings of a run: built from defaults, a TOML file and `--set key=value`, in that order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ipo.errors import ConfigError
from ipo.net.addresses import Address
from ipo.store.toml import parse_toml, read_toml

DEFAULT_CLIP = "ViT-B-16-quickgelu/openai"
OFFLINE_CLIP = "mini"
STAND_INS = (OFFLINE_CLIP, "mini-conse")
"""The offline model, and what it was before it knew drawings and heard wording."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bfloat16", "float16"]
TrackerName = Literal["none", "trackio", "wandb"]
GrammarName = Literal["auto", "free", "phrase"]
ResponseFormat = Literal["auto", "schema", "object", "none"]
SelectionRule = Literal["accuracy", "loss", "margin", "fold_accuracy", "fold_loss"]


_NO_TEXT = re.compile("[\ud800-\udfff]")


def _numbers_of(annotation: Any) -> set[type]:
    """Which of `int`, `float` and `bool` a type is made of, such as `PositiveInt | None`, or a list of them."""
    found = {kind for kind in (int, float, bool) if annotation is kind}
    return found.union(*map(_numbers_of, get_args(annotation)))


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    changeable: ClassVar[frozenset[str]] = frozenset()
    """Of a method's options, those that change no result, so that a fit may go on with others."""

    only_with: ClassVar[Mapping[str, tuple[str, Any]]] = {}
    """Of a method's options, those that are read only where another one has some value: that option, and the value."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes `true` for 1, and 1 for `true`; who wrote the one did not mean the other."""
        wanted = _numbers_of(cls.model_fields[info.field_name or ""].annotation)
        given = value if isinstance(value, list | tuple) else [value]
        if bool not in wanted and wanted & {int, float} and any(isinstance(one, bool) for one in given):
            raise ValueError("a number is wanted, not true or false")
        if wanted == {bool} and any(isinstance(one, int | float) and not isinstance(one, bool) for one in given):
            raise ValueError("true or false is wanted, not a number")
        return value

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        """Half a character, as names in another encoding leave them, could stand in no file of a run."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and _NO_TEXT.search(str(text)):
                raise ValueError("not UTF-8")
        return value


class DataSettings(Section):
    """What is classified, and how few labelled images are used."""

    dataset: str = ""
    """A catalogue name (`ipo datasets`), or `folder:PATH`, `csv:FILE`, `hf:NAME`, `wds:SHARDS`; there is no default."""
    root: Path | None = None
    """Folder that holds the datasets; by default IPO_DATA, or a cache folder."""
    shots: PositiveInt = 16
    """Labelled training images a class."""
    classes: Literal["auto", "base", "all"] = "auto"
    """Optimise on the base half of the classes, or on all; `auto` is base for benchmarks, all for one's own data."""
    domains: tuple[str, ...] = ()
    """Domains to use, where the dataset has several; none named means all."""
    targets: tuple[str, ...] = ()
    """Other datasets to test the result on: `NAME`, or `NAME@DOMAIN` for one domain of it."""
    names: Path | None = None
    """JSON or TOML file that maps the classes of one's own data to names; by default a classnames.json or .toml beside
    them, else the folder names or labels themselves."""
    skip_unreadable: bool = False
    """Leave unreadable images out (they are named and counted) instead of stopping."""


class ClipSettings(Section):
    """The vision-language model that scores prompts."""

    model: str = "auto"
    """`NAME/TAG` as in open_clip, `hf-hub:org/repo`, `local-dir:PATH`, `mini`, or `mini-conse`; `auto` is the paper's
    ViT-B-16-quickgelu/openai, and `mini` under `--offline`."""
    device: Device = "auto"
    """Where CLIP runs; `auto` takes CUDA, then MPS, then the CPU."""
    precision: Precision = "float32"
    """Precision of the towers; the final cosine product is always float32."""
    image_batch: PositiveInt = 64
    """Images encoded at once."""
    text_memory_mb: PositiveInt = 512
    """Bound on the working memory of text encoding."""
    workers: NonNegativeInt = 2
    """Processes that decode images."""


class LLMSettings(Section):
    """The language model that proposes prompts."""

    spec: str = "local-llama"
    """A preset name, `hf:org/model`, a folder, a `.gguf` file, or `openai:MODEL`."""
    base_url: Address | None = None
    """Address of an OpenAI-compatible server; only for `openai:` models."""
    temperature: NonNegativeFloat = 1.0
    """Sampling temperature."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; by default what the preset says (0.9 for small models), else 1."""
    max_tokens: PositiveInt = 96
    """Most tokens a proposal may take; a proposal cut there is a reject."""
    device: Device = "auto"
    """Where a local model runs."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of a local model; `auto` is float32 on a CPU and bfloat16 elsewhere."""
    response_format: ResponseFormat = "auto"
    """How a server is asked for JSON: by schema, as any object, or (`none`) in words only; `auto` learns what works."""
    grammar: GrammarName = "auto"
    """What a proposal may be: `phrase`, words of lists put together by a grammar, so that a person could have written
    it, or `free`, any words; `auto` is what the preset says (`phrase` for the offline model). A server is given the
    grammar, too."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds until a request is given up, however slowly its answer drips."""
    retries: NonNegativeInt = 2
    """Repeats of a request after a transport error (0 switches them off), and of one whose reply does not parse."""
    concurrency: PositiveInt = 8
    """Requests under way at once."""


class CaptionSettings(Section):
    """Descriptions of the training images in the meta-prompt."""

    captioner: str = "none"
    """`none`, `describe` (what `mini` sees), `hf:org/model` or `openai:MODEL`."""
    base_url: Address | None = None
    """Address of an OpenAI-compatible server for `openai:` captioners."""
    token_budget: NonNegativeInt | None = None
    """Most tokens of captions in one meta-prompt, by default what suits the LLM (300 for the offline one, else 2000);
    as many captions as fit are drawn by the run's seed."""


class SearchSettings(Section):
    """The loop: how long, how wide, what is shown and what is kept."""

    steps: PositiveInt = 100
    """Rounds of the loop."""
    candidates: PositiveInt = 8
    """Prompts asked for in each step."""
    history: NonNegativeInt = 20
    """Best prompts shown in the meta-prompt; 0 is no feedback."""
    keep_first: bool = False
    """Show the first prompts whatever their rank, as the paper does; they count among those of `history`."""
    select: SelectionRule = "accuracy"
    """Rule that ranks prompts: training accuracy then loss (the paper's), or another score."""
    ensemble: PositiveInt = 5
    """Most prompts in the ensemble that stands beside the single best prompt."""
    template: str | None = None
    """Jinja file of the meta-prompt; by default the one that fits the LLM."""
    first_prompts: tuple[str, ...] = ("a photo of a <CLASS>.",)
    """Prompts scored before the first step."""
    controls: bool | None = None
    """Test the best and the mean of 80 hand-made prompts beside the result; by default under `--offline` only."""
    min_likelihood: float | None = None
    """Reject a proposal whose mean log-likelihood a token under the local LLM is lower; by default the preset's."""
    english_only: bool = True
    """Reject proposals with words that are not English or not fit to be read."""
    class_names_allowed: bool = False
    """Accept proposals that name a class of the fit, unless a first prompt names it already."""
    patience: PositiveInt | None = None
    """Stop after so many steps without a better prompt."""
    give_up: NonNegativeInt = 5
    """Stop after so many steps in a row without one proposal that could be used; 0 never does."""
    max_proposals: PositiveInt | None = None
    """Stop after so many proposals."""
    max_scored: PositiveInt | None = None
    """Stop after so many prompts that were scored."""
    max_tokens: PositiveInt | None = None
    """Stop after so many LLM tokens, prompt and reply together, and those of captions by an API."""
    max_cost: float | None = Field(default=None, gt=0)
    """Stop after so many US dollars by the price table."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Stop after so many minutes."""


class StrategySettings(Section):
    """What one step of the search shows and asks; each strategy has options of its own here."""

    model_config = ConfigDict(extra="allow")

    name: str = "ipo"
    """The strategy; see `ipo optimize --strategies`."""

    @property
    def options(self) -> dict[str, Any]:
        """The options that were set, which the strategy checks."""
        return dict(self.model_extra or {})


class SearchOptions(Section):
    """All that a search is asked to do."""

    search: SearchSettings
    strategy: StrategySettings


class Settings(Section):
    """All settings of a run. `config.toml` in a run folder holds them resolved; it never holds a secret."""

    data: DataSettings = DataSettings()
    clip: ClipSettings = ClipSettings()
    llm: LLMSettings = LLMSettings()
    captions: CaptionSettings = CaptionSettings()
    search: SearchSettings = SearchSettings()
    strategy: StrategySettings = StrategySettings()
    seed: NonNegativeInt = 1
    """The one seed; every random choice of the run derives from it."""
    tracker: TrackerName = "none"
    """Experiment tracker that follows the search; it has to be installed (the extra `trackers` brings trackio)."""
    offline: bool = Field(default_factory=lambda: offline_by_environment())
    """Use only models that package registries deliver."""


def offline_by_environment() -> bool:
    """Whether IPO_OFFLINE asks for offline defaults."""
    return os.environ.get("IPO_OFFLINE", "").lower() in ("1", "true", "yes")


def load_settings(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file and nested `overrides` above it. Raises `ConfigError` naming each bad key."""
    values = {} if file is None else read_toml(file)
    try:
        settings = Settings.model_validate(merge(values, overrides or {}))
        return resolved(settings)
    except ValidationError as error:
        raise ConfigError(describe_validation(error), where=str(file or "settings")) from error


def resolved(settings: Settings) -> Settings:
    """The settings with what `auto` and unset values stand for where other settings decide it."""
    clip, search = settings.clip, settings.search
    clip = clip.model_copy(update={"model": clip_model(clip.model, settings.offline)})
    if search.controls is None:
        search = search.model_copy(update={"controls": settings.offline})
    return settings.model_copy(update={"clip": clip, "search": search})


def clip_model(name: str, offline: bool) -> str:
    """The CLIP model that a setting names: `auto` is the paper's, and the stand-in offline."""
    if name != "auto":
        return name
    return OFFLINE_CLIP if offline else DEFAULT_CLIP


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one; where both have a value, the one `above` holds. A value is no section: `ConfigError`."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key, {})
        if isinstance(value, Mapping) and not isinstance(under, Mapping):
            raise ConfigError(f"'{key}' = {under!r}: a section of settings, not a value")
        result[key] = merge(under, value) if isinstance(value, Mapping) else value
    return result


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["search.steps=10"]` as a nested mapping. The value is read as TOML, or else as a plain string."""
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{assignment}' is not key=value", remedy="Write it like --set search.steps=10")
        value = _assigned(text)
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def _assigned(text: str) -> Any:
    """A value in TOML's notation; any other text is itself."""
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


_MESSAGES = {
    "tuple_type": 'input should be a list, such as ["..."]',
    "model_type": "a section of settings, not a value: write one of them, such as section.key=value",
}
"""Our words for what pydantic says of its own types."""


def describe_validation(error: ValidationError) -> str:
    """One line that names each bad key with what is wrong with it."""
    problems = []
    for row in error.errors():
        key = ".".join(str(part) for part in row["loc"])
        message = _MESSAGES.get(row["type"], row["msg"].removeprefix("Value error, "))
        if row["type"] == "extra_forbidden":
            problems.append(f"unknown key '{key}'")
        else:
            problems.append(f"'{key}' = {row['input']!r}: {message[0].lower()}{message[1:]}")
    return "; ".join(problems)
