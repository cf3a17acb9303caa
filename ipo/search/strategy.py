"""What one step of a search shows and asks: a strategy, found by the entry points of the group `ipo.strategies`.

A strategy is a function of the history and the seed, so that going on with a run is a replay: it must not remember
anything between its calls, and must draw from the generator that it is handed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from ipo.config import SearchOptions, SearchSettings, Section, SelectionRule, StrategySettings, describe_validation
from ipo.errors import ConfigError, UnknownName
from ipo.llm.base import Message, ReplyForm
from ipo.prompt import HistoryEntry, Score
from ipo.search.history import History
from ipo.seeds import step_seed

GROUP = "ipo.strategies"
ABOUT_AN_LLM = ("llm", "captions", "search.template", "search.min_likelihood")
"""Settings that are read only where an LLM is asked."""


@dataclass(frozen=True)
class Ask:
    """One question of a step; a step may have several. Either the LLM is asked, or `texts` are proposed without it."""

    messages: tuple[Message, ...] = ()
    count: int = 0
    """Replies wanted."""
    parents: tuple[int, ...] = ()
    """Ids of the entries that a proposal descends from, the nearest first."""
    texts: tuple[str, ...] = ()
    """Proposals that need no LLM; they take the way of replies all the same."""
    sets: tuple[tuple[int, ...], ...] = ()
    """Sets of prompts as proposals: the ids, in order, of two scored entries or more that hold one prompt each."""


@dataclass(frozen=True)
class Mistake:
    """A training image that a prompt puts into a wrong class."""

    image: int
    """Its place among the training images."""
    truth: str
    """The name of its class."""
    taken_for: str
    """The name of the class that it was put into."""
    caption: str = ""
    """What the captioner says of it; empty without one."""


@dataclass(frozen=True)
class View:
    """All that a strategy may look at before a step. Every figure in it is on the training images."""

    step: int
    """From 1 on."""
    settings: SearchSettings
    history: History
    captions: tuple[str, ...]
    """Descriptions of training images, as many as suit the LLM."""
    classnames: tuple[str, ...]
    """Of the fit. Showing them to the LLM is to be said in the strategy's summary."""
    unnamed: tuple[str, ...]
    """Those of them that a proposal must not name."""
    form: ReplyForm
    """The form of reply that the LLM is asked for."""
    template: str
    """The meta-prompt's template: the user's, or the one that fits the LLM."""
    run_seed: int
    """Of the run; a step has one of its own."""
    mistakes: Callable[[str], list[Mistake]]
    """The mistakes of a prompt on the training images, in their order; images with several labels have none."""

    @property
    def continues(self) -> bool:
        """Whether the LLM is a small one that continues a pattern rather than follows an instruction."""
        return self.template == "continue.j2"

    @property
    def seed(self) -> int:
        """Of this step."""
        return step_seed(self.run_seed, self.step)

    def draws(self, step: int | None = None) -> random.Random:
        """A new generator, of this step or another; that of one step is the same at each call."""
        return random.Random(step_seed(self.run_seed, step or self.step))

    def template_or(self, own: str) -> str:
        """The user's template where one is given, else the strategy's own."""
        return self.settings.template or own

    def top(self) -> list[HistoryEntry]:
        """The best entries, best last, as many as the settings show."""
        return self.history.top(self.settings.history, self.settings.keep_first)


class NoOptions(Section):
    """Nothing to choose."""


def _own_first_prompts(settings: SearchSettings, _: Section) -> tuple[str, ...]:
    return settings.first_prompts


@dataclass(frozen=True)
class Strategy:
    """One way to search; an entry point of the group `ipo.strategies` names an instance."""

    name: str
    summary: str
    ask: Callable[[View, Any], Sequence[Ask]]
    """The questions of a step, from what is known before it and the options; none of them ends the search."""
    options: type[Section] = NoOptions
    """Its options, each with a docstring: `--set strategy.KEY=VALUE`."""
    first: Callable[[SearchSettings, Any], tuple[str, ...]] = field(default=_own_first_prompts)
    """The prompts that are scored before the first step; the settings' first prompts are among them, and first."""
    paper: str | None = None
    """Title and arXiv number."""
    asks_llm: Callable[[Any], bool] = lambda _: True
    """Whether it asks an LLM under these options; without one none is loaded."""
    passes_over: tuple[str, ...] = ()
    """Settings of the search that it does not read, as `section.key`, or `section` for a whole one: who sets one
    beside it is told. Without an LLM those about one are passed over in any case."""
    one_label: Callable[[Any], bool] = lambda _: False
    """Whether it needs images with one label each under these options, as one that looks at mistakes does."""
    widest: Callable[[Any], int] = lambda _: 0
    """Most proposals of a step under these options, where the first step may have fewer."""
    names_classes: Callable[[Any], bool] = lambda _: False
    """Whether the LLM is shown names of classes under these options; captions, which may name some, apart."""

    def configure(self, values: Mapping[str, Any]) -> Section:
        """Its options with `values` above the defaults. Raises `ConfigError` naming each bad key."""
        try:
            return self.options.model_validate(values)
        except ValidationError as error:
            known = ", ".join(self.options.model_fields) or "none"
            where, remedy = f"options of strategy {self.name}", f"It has: {known}"
            raise ConfigError(describe_validation(error), where=where, remedy=remedy) from error


def available_strategies() -> list[str]:
    """Names of all registered strategies."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def find_strategy(name: str) -> Strategy:
    """The registered strategy of this name. Raises `UnknownName`, or `ConfigError` where its entry point is broken."""
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise UnknownName("strategy", name, available_strategies())
    if len(found) > 1:
        owners = ", ".join(entry.value for entry in found)
        raise ConfigError(f"strategy '{name}' is registered more than once", where=owners, remedy="Uninstall one")
    try:
        strategy = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"strategy '{name}' cannot be loaded: {error}", where=found[0].value) from error
    if not isinstance(strategy, Strategy):
        raise ConfigError(f"strategy '{name}' is not an ipo.search.strategy.Strategy", where=found[0].value)
    return strategy


@dataclass(frozen=True)
class Chosen:
    """A strategy with its options."""

    strategy: Strategy
    options: Section

    def ask(self, view: View) -> tuple[Ask, ...]:
        """The questions of a step."""
        return tuple(self.strategy.ask(view, self.options))

    def first(self, settings: SearchSettings) -> tuple[str, ...]:
        """The prompts that are scored before the first step."""
        return self.strategy.first(settings, self.options)

    def passes_over(self, key: str) -> bool:
        """Whether it does not read a setting of the search."""
        without_llm = () if self.asks_llm else ABOUT_AN_LLM
        return any(key == name or key.startswith(f"{name}.") for name in (*self.strategy.passes_over, *without_llm))

    @property
    def one_label(self) -> bool:
        """Whether it needs images with one label each."""
        return self.strategy.one_label(self.options)

    @property
    def widest(self) -> int:
        """Most proposals of a step, where the first may have fewer."""
        return self.strategy.widest(self.options)

    @property
    def asks_llm(self) -> bool:
        """Whether an LLM is asked."""
        return self.strategy.asks_llm(self.options)

    def may_name_classes(self, captioned: bool) -> bool:
        """Whether the LLM may be shown names of classes: by the strategy itself, or in captions where there are any."""
        shows_captions = captioned and not self.passes_over("captions")
        return self.asks_llm and (shows_captions or self.strategy.names_classes(self.options))


def choose(settings: StrategySettings) -> Chosen:
    """The strategy that the settings name, with its options. Raises `ConfigError`."""
    strategy = find_strategy(settings.name)
    return Chosen(strategy, strategy.configure(settings.options))


def imagined(rule: SelectionRule, texts: Sequence[str]) -> History:
    """A history of these prompts with figures that stand for those to come, to see what would be asked."""
    score = Score(accuracy=0.5, loss=1.0, low=0.0, high=1.0, margin=0.0, fold_accuracy=0.5, fold_loss=1.0)
    history = History(rule)
    history.append([HistoryEntry(index, 0, text, score=score) for index, text in enumerate(texts)])
    return history


def try_out(options: SearchOptions, captioned: bool, template: str, form: ReplyForm) -> None:
    """Let the strategy ask as it would at the first step, to nobody, with figures that stand for those to come.

    Raises `ConfigError` naming the file and the line or the variable where a template cannot be filled in.
    """
    search, chosen = options.search, choose(options.strategy)
    history = imagined(search.select, chosen.first(search))
    captions = ("a picture",) if captioned else ()
    mistake = Mistake(0, "one", "other", *captions)
    view = View(1, search, history, captions, (), (), form, search.template or template, 0, lambda _: [mistake])
    chosen.ask(view)
