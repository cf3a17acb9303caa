"""The loop: ask for new prompts as the strategy says, score them, remember them (IPO, arXiv 2410.15397, 3).

history -> strategy -> questions -> LLM -> replies -> candidates -> CLIP scores -> history
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from ipo.clip.base import ClipModel
from ipo.clip.lengths import TextRoom
from ipo.config import LLMSettings, SearchSettings, StrategySettings
from ipo.errors import ConfigError
from ipo.llm.base import LLM, PHRASE_FORMS, RemoteLLM, Reply
from ipo.llm.prices import cost
from ipo.prompt import AnyScore, HistoryEntry, Prompt, text_key
from ipo.scoring import NOT_FINITE, ImageSet, PromptPredictor, score_candidates, score_prompts
from ipo.screen import counted
from ipo.search.history import History
from ipo.search.propose import Checks, Reject, accept, start_problem, unnamed_classes
from ipo.search.record import Record
from ipo.search.sets import PromptSet, as_reply, read_sets, score_sets
from ipo.search.stopping import stop_reason
from ipo.search.strategy import Ask, Chosen, Mistake, View, choose, imagined
from ipo.seeds import step_seed


@dataclass(frozen=True)
class Search:
    """All that the loop works with. It sees the training shots only."""

    settings: SearchSettings
    sampling: LLMSettings
    clip: ClipModel
    llm: LLM | None
    """None where the strategy asks nobody."""
    images: ImageSet
    classnames: tuple[str, ...]
    room: TextRoom
    """What prompts must fit."""
    captions: tuple[str, ...]
    """As many as the LLM is shown."""
    seed: int
    image_captions: tuple[str, ...] = ()
    """One an image, in the order of `images`; none without a captioner."""
    chosen: Chosen = field(default_factory=lambda: choose(StrategySettings()))
    """The strategy, with its options."""

    @property
    def first_prompts(self) -> tuple[str, ...]:
        """The prompts that are scored before the first step."""
        return self.chosen.first(self.settings)

    def view(self, history: History, step: int) -> View:
        """What the strategy may look at before a step."""
        return View(
            step=step,
            settings=self.settings,
            history=history,
            captions=self.captions,
            classnames=self.classnames,
            unnamed=unnamed_classes(self.settings, self.classnames),
            form=self.llm.form if self.llm else "line",
            template=self.settings.template or (self.llm.template if self.llm else ""),
            run_seed=self.seed,
            mistakes=self.mistakes,
        )

    def mistakes(self, text: str) -> list[Mistake]:
        """The training images that a prompt puts into a wrong class, in their order.

        Raises `ConfigError` for images with several labels.
        """
        if self.images.metric == "map":
            what = f"strategy {self.chosen.strategy.name} looks at mistakes, and images with several labels have none"
            raise ConfigError(what, remedy="Use another --strategy")
        predictor = PromptPredictor(self.clip, (Prompt(text),))
        taken = predictor.logits(self.images, self.classnames).argmax(dim=-1).tolist()
        captions = self.image_captions or ("",) * len(taken)
        return [
            Mistake(place, self.classnames[item.label], self.classnames[wrong], caption)
            for place, (item, wrong, caption) in enumerate(zip(self.images.items, taken, captions, strict=True))
            if wrong != item.label
        ]


def optimize(
    search: Search,
    record: Record,
    watch: Callable[[Record], None] = lambda _: None,
    trying: Callable[[Sequence[str]], None] = lambda _: None,
) -> str:
    """Run, or go on with, a search until something stops it; the reason is returned.

    `watch` is called after every step, `trying` with the prompts that are about to be scored.
    """
    if record.last_step < 0:
        record.history.append(_first_entries(search))
    watch(record)
    while (reason := stop_reason(search.settings, record, search.llm.name if search.llm else "")) is None:
        step = record.last_step + 1
        asks = search.chosen.ask(search.view(record.history, step))
        if not asks:
            return f"{search.chosen.strategy.name} has nothing more to ask"
        answers = _answers(search, record, step, asks)
        started = time.monotonic()
        lineages = [ask.parents for ask, replies in zip(asks, answers, strict=True) for _ in replies]
        replies = [reply for replies in answers for reply in replies]
        record.history.append(_judge(search, record.history, replies, lineages, trying))
        record.log_scoring(step, time.monotonic() - started)
        watch(record)
    return reason


def estimate(search: Search) -> str:
    """What a whole run may take: proposals, and tokens where an LLM is asked, of a full history and long replies."""
    limits, llm = search.settings, search.llm
    first = search.first_prompts
    texts = [*first, *[first[0]] * (limits.history + 1 - len(first))]
    history = imagined(limits.select, texts)
    every = range(1, limits.steps + 1)
    steps = bisect_left(every, True, key=lambda step: not search.chosen.ask(search.view(history, step)))
    asks = search.chosen.ask(search.view(history, 1))
    first_step = sum(ask.count + len(ask.texts) + len(ask.sets) for ask in asks)
    proposals = steps * max(first_step, search.chosen.widest)
    whole = f"at most {counted(proposals, 'proposal')} in {counted(steps, 'step')}"
    if llm is None:
        return whole
    prompts = steps * sum(llm.token_count(message.content) for ask in asks for message in ask.messages)
    replies = proposals * search.sampling.max_tokens
    paid = cost(llm.name, prompts, replies)
    return f"{whole}; about {prompts:,} prompt tokens, at most {replies:,} of replies" + (
        f", ${paid:.2f}" if paid else ""
    )


def _first_entries(search: Search) -> list[HistoryEntry]:
    """One entry a first prompt: scored, or rejected if an earlier one is nearly identical.

    Those that the strategy adds to the settings' own are rejected too where a proposal would be that is too long,
    names a class or has no score.
    """
    own = len(search.settings.first_prompts)
    prompts = [Prompt(text) for text in search.first_prompts]
    checks = Checks.of(search.settings, search.room, search.classnames, None)
    problems = [None if index < own else start_problem(prompt, checks) for index, prompt in enumerate(prompts)]
    seen = set[str]()
    for index, prompt in enumerate(prompts):
        if prompt.key() in seen:
            problems[index] = Reject(prompt.text, "duplicate")
        seen.add(prompt.key())
    fit = [index for index, problem in enumerate(problems) if problem is None]
    certain = [prompts[index] for index in fit if index < own]
    added = [prompts[index] for index in fit if index >= own]
    scores: list[AnyScore | None] = [*score_prompts(search.clip, certain, search.images, search.classnames)]
    scores += score_candidates(search.clip, added, search.images, search.classnames)
    found = dict(zip(fit, scores, strict=True))
    entries = []
    for index, (prompt, problem) in enumerate(zip(prompts, problems, strict=True)):
        score = found.get(index)
        reason = _reason(problem or prompt, score)
        entries.append(HistoryEntry(index, 0, prompt.text, score=score, reason=reason))
    return entries


def _reason(verdict: Prompt | PromptSet | Reject, score: AnyScore | None) -> str | None:
    """Why a candidate has no score; None where it has one."""
    if isinstance(verdict, Reject):
        return verdict.reason
    return None if score is not None else Reject(verdict.text, "no score", NOT_FINITE).reason


def _answers(search: Search, record: Record, step: int, asks: Sequence[Ask]) -> list[list[Reply]]:
    """The replies to each question of a step: those of the log, and then what is asked now."""
    answers: list[list[Reply]] = []
    known = record.history.keys()
    for place, ask in enumerate(asks):
        replies = record.replies(step, place)
        if replies is None:
            replies = _ask(search, record, (step, place), ask, known)
        known |= {text_key(reply.text) for reply in replies}
        answers.append(replies)
    return answers


def _ask(search: Search, record: Record, place: tuple[int, int], ask: Ask, known: AbstractSet[str]) -> list[Reply]:
    """Put one question of a step to the LLM, or take the proposals that come without one; what came is kept."""
    started = time.monotonic()
    if search.llm is None or ask.texts or ask.sets:
        replies = [*(Reply(text, "line", "stop") for text in ask.texts), *map(as_reply, ask.sets)]
    else:
        replies = _put(search, search.llm, record, place, ask, known)
    record.log_replies(*place, ask.messages, replies, time.monotonic() - started)
    return replies


def _put(
    search: Search, llm: LLM, record: Record, place: tuple[int, int], ask: Ask, known: AbstractSet[str]
) -> list[Reply]:
    """The LLM's replies; those that are paid for one by one are kept as they come."""
    started = time.monotonic()
    terms: dict[str, Any] = {
        "n": ask.count,
        "temperature": search.sampling.temperature,
        "max_tokens": search.sampling.max_tokens,
        "seed": step_seed(search.seed, *place),
    }
    if llm.form in PHRASE_FORMS:
        terms["unnamed"] = unnamed_classes(search.settings, search.classnames)
    if not isinstance(llm, RemoteLLM):
        return llm.generate(ask.messages, **terms, known=known)
    came = dict(record.begin(*place, ask.messages))
    for index, reply in llm.arriving(ask.messages, **terms, have=dict(came)):
        record.keep(index, reply, time.monotonic() - started)
        came[index] = reply
    return [came[index] for index in range(ask.count)]


def _judge(
    search: Search,
    history: History,
    replies: Sequence[Reply],
    lineages: Sequence[Sequence[int]],
    trying: Callable[[Sequence[str]], None],
) -> list[HistoryEntry]:
    """One history entry a reply: scored if it holds a prompt that is fit and new, else rejected with the reason."""
    checks = Checks.of(search.settings, search.room, search.classnames, search.llm)
    accepted = iter(accept([reply for reply in replies if reply.form != "set"], history.keys(), checks))
    sets = iter(read_sets([reply for reply in replies if reply.form == "set"], history))
    verdicts = [next(sets) if reply.form == "set" else next(accepted) for reply in replies]
    trying([verdict.text for verdict in verdicts if not isinstance(verdict, Reject)])
    scores = _scores(search, verdicts)
    step = max((entry.step for entry in history), default=-1) + 1
    entries = []
    for index, (verdict, lineage) in enumerate(zip(verdicts, lineages, strict=True), start=len(history)):
        score = scores.get(index - len(history))
        entry = HistoryEntry.child(index, step, verdict.text, lineage, score, _reason(verdict, score))
        if isinstance(verdict, PromptSet) and score is not None:
            entry = replace(entry, members=verdict.members)
        entries.append(entry)
    return entries


def _scores(search: Search, verdicts: Sequence[Prompt | PromptSet | Reject]) -> dict[int, AnyScore | None]:
    """The scores of what is no reject, by its place; None where there is none."""
    prompts = {place: verdict for place, verdict in enumerate(verdicts) if isinstance(verdict, Prompt)}
    sets = {place: verdict for place, verdict in enumerate(verdicts) if isinstance(verdict, PromptSet)}
    of_prompts = score_candidates(search.clip, list(prompts.values()), search.images, search.classnames)
    of_sets = score_sets(search.clip, list(sets.values()), search.images, search.classnames)
    return dict(zip([*prompts, *sets], [*of_prompts, *of_sets], strict=True))
