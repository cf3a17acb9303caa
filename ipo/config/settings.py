"""The settings of a run, typed and frozen. A setting is a line here and its use; a `Flag` makes it an option, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ipo.config.section import Flag, Section
from ipo.net.addresses import Address

DEFAULT_CLIP = "ViT-B-16-quickgelu/openai"
OFFLINE_CLIP = "mini"
STAND_INS = (OFFLINE_CLIP, "mini-conse")
"""The offline model, and what it was before it knew drawings and heard wording."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bfloat16", "float16"]
TrackerName = Literal["none", "trackio", "wandb"]
GrammarName = Literal["auto", "free", "phrase"]
ResponseFormat = Literal["auto", "schema", "object", "none"]
MetricName = Literal["accuracy", "map"]
LabelRule = Literal["accuracy", "loss", "margin", "fold_accuracy", "fold_loss"]
LabelFreeRule = Literal["carprt", "zpe"]
SelectionRule = Literal[LabelRule, LabelFreeRule]


class DataSettings(Section):
    """What is classified, and how few labelled images are used."""

    dataset: Annotated[str, Flag("--dataset", "-d")] = ""
    """A name (`ipo datasets`), a path, or `folder:PATH`, `csv:FILE`, `hf:NAME`, `wds:SHARDS`; there is no default."""
    root: Annotated[Path | None, Flag("--data-root")] = None
    """Folder that holds the datasets; by default IPO_DATA, or a cache folder."""
    shots: Annotated[PositiveInt, Flag("--shots")] = 16
    """Labelled training images a class."""
    classes: Annotated[Literal["auto", "base", "all"], Flag("--classes")] = "auto"
    """Optimise on the base half of the classes, or on all; `auto` is base for benchmarks, all for one's own data."""
    domains: Annotated[tuple[str, ...], Flag("--domains", commas=True)] = ()
    """Domains to use, where the dataset has several; none named means all."""
    targets: Annotated[tuple[str, ...], Flag("--target")] = ()
    """Other datasets to test the result on: `NAME`, or `NAME@DOMAIN` for one domain of it."""
    names: Path | None = None
    """JSON or TOML file that maps the classes of one's own data to names; by default a classnames.json or .toml beside
    them, else the folder names or labels themselves."""
    metric: Annotated[MetricName, Flag("--metric")] = "accuracy"
    """What prompts are scored by: accuracy, or `map`, the mean average precision, for pictures with several labels
    each. They come from a `csv:` table with | or ; between the labels of a picture, or a line for each of them."""
    skip_unreadable: bool = False
    """Leave unreadable images out (they are named and counted) instead of stopping."""


class ClipSettings(Section):
    """The vision-language model that scores prompts."""

    model: Annotated[str, Flag("--clip")] = "auto"
    """`NAME/TAG` as in open_clip, `hf-hub:org/repo`, `local-dir:PATH`, `mini`, or `mini-conse`; `auto` is
    ViT-B-16-quickgelu/openai, as in the paper, and `mini` with `--offline`."""
    device: Annotated[Device, Flag("--device")] = "auto"
    """Where CLIP runs, and by the option a local LLM, too; `auto` takes CUDA, then MPS, then the CPU."""
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

    spec: Annotated[str, Flag("--llm")] = "local-llama"
    """A preset name, `hf:org/model`, a folder, a `.gguf` file, or `openai:MODEL`."""
    base_url: Annotated[Address | None, Flag("--base-url")] = None
    """Address of an OpenAI-compatible server; only for `openai:` models."""
    temperature: Annotated[NonNegativeFloat, Flag("--temperature")] = 1.0
    """Sampling temperature."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; by default what the preset says (0.9 for small models), else 1."""
    max_tokens: PositiveInt = 96
    """Most tokens a proposal may take; a proposal cut there is a reject."""
    device: Annotated[Device, Flag("--device")] = "auto"
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

    captioner: Annotated[str, Flag("--captioner")] = "none"
    """`none`, `describe` (what `mini` sees), `hf:org/model` or `openai:MODEL`."""
    base_url: Address | None = None
    """Address of an OpenAI-compatible server for `openai:` captioners."""
    token_budget: NonNegativeInt | None = None
    """Most tokens of captions in one meta-prompt, by default what suits the LLM (300 for the offline one, else 2000);
    as many captions as fit are drawn by the run's seed."""


class SearchSettings(Section):
    """The loop: how long, how wide, what is shown and what is kept."""

    steps: Annotated[PositiveInt, Flag("--steps")] = 100
    """Rounds of the loop."""
    candidates: Annotated[PositiveInt, Flag("--candidates")] = 8
    """Prompts asked for in each step."""
    history: Annotated[NonNegativeInt, Flag("--history")] = 20
    """Best prompts shown in the meta-prompt; 0 is no feedback."""
    keep_first: bool = False
    """Show the first prompts whatever their rank, as the paper does; they count among those of `history`."""
    select: Annotated[SelectionRule, Flag("--select")] = "accuracy"
    """Rule that ranks prompts: training accuracy then loss (the paper's), or another score. With data.metric=map
    `accuracy` stands for the mean average precision, and `loss` is the only other rule. `carprt` and `zpe` hide the
    labels of the training images and go by how clearly these fall into classes."""
    ensemble: PositiveInt = 5
    """Most prompts in the ensemble that stands beside the single best prompt."""
    template: Annotated[str | None, Flag("--template")] = None
    """Meta-prompt: a Jinja file of one's own, or a shipped one by its name, such as `ipo.j2`; by default the one that
    fits the LLM."""
    first_prompts: tuple[str, ...] = ("a photo of a <CLASS>.",)
    """Prompts scored before the first step."""
    controls: Annotated[bool, Flag("--controls/--no-controls")] = True
    """Test beside the result what it has to beat: the best and the mean of 80 hand-made prompts, random words that all
    classes share (WaffleCLIP), and 100 random sets of the 80 of the size of the ensemble."""
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
    max_tokens: Annotated[PositiveInt | None, Flag("--max-tokens")] = None
    """Stop after so many LLM tokens, prompt and reply together, and those of captions by an API."""
    max_cost: float | None = Field(default=None, gt=0)
    """Stop after so many US dollars by the price table."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Stop after so many minutes."""


class ReportSettings(Section):
    """The report page of a run."""

    pictures: NonNegativeInt = 8
    """Most thumbnails of test images of a kind (right now, wrong now, still wrong) in the report; 0 keeps every picture
    out of the run folder."""


class StrategySettings(Section):
    """What one step of the search shows and asks; each strategy has options of its own here."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Flag("--strategy")] = "ipo"
    """What a step shows and asks; `ipo optimize --strategies` lists the strategies."""

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
    report: ReportSettings = ReportSettings()
    seed: Annotated[NonNegativeInt, Flag("--seed")] = 1
    """Seed of every random choice, a drawn split among them."""
    tracker: TrackerName = "none"
    """Experiment tracker that follows the search; it has to be installed (the extra `trackers` brings trackio)."""
    offline: Annotated[bool, Flag("--offline")] = Field(default_factory=lambda: offline_by_environment())
    """Use only models from package registries, `mini` and SmolLM2; IPO_OFFLINE=1 asks for it, too."""


def offline_by_environment() -> bool:
    """Whether IPO_OFFLINE asks for offline defaults."""
    return os.environ.get("IPO_OFFLINE", "").lower() in ("1", "true", "yes")
