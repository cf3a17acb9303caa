"""OPRO: the best prompts with accuracy alone, worst first, and class names with a confusion each."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, NonNegativeInt

from ipo.config import Section
from ipo.prompt import HistoryEntry
from ipo.search.history import leading
from ipo.search.meta_prompt import one_message, single_line
from ipo.search.strategy import Ask, Mistake, Strategy, View


class OproOptions(Section):
    """What is shown."""

    threshold: float = Field(default=0.0, ge=0, le=1)
    """Prompts with a lower training accuracy, a fraction from 0 to 1, are not shown."""
    buckets: NonNegativeInt = 100
    """Accuracies are shown as whole numbers from 0 to this; 0 shows them as they are, with three decimals."""
    exemplars: NonNegativeInt = 3
    """So many classes are shown by name, each with one that an image of it was taken for; drawn anew in each step."""


def ask(view: View, options: OproOptions) -> Sequence[Ask]:
    """One question a step; the proposals descend from the best that is shown."""
    best_first = sorted(view.history.scored(), key=_accuracy)[::-1]  # of equals the later one is shown further down
    shown = leading(best_first, view.settings.history, view.settings.keep_first)[::-1]
    shown = [entry for entry in shown if _accuracy(entry) >= options.threshold]
    best = max(map(_accuracy, shown), default=0.0)
    messages = one_message(
        view.template_or("opro.j2"),
        continues=view.continues,
        form=view.form,
        history=[{"text": entry.text, "score": _shown(_accuracy(entry), options.buckets)} for entry in shown],
        next_score=_shown(min(1.0, best + 1 / (options.buckets or 100)), options.buckets),
        full_score=options.buckets or 1,
        exemplars=_exemplars(view, best_first, options.exemplars),
        may_name_classes=view.settings.class_names_allowed,
    )
    return [Ask(tuple(messages), view.settings.candidates, (shown[-1].id,) if shown else ())]


def _accuracy(entry: HistoryEntry) -> float:
    assert entry.score is not None, "only scored entries are shown"
    return entry.score.value


def _shown(accuracy: float, buckets: int) -> str:
    return str(round(buckets * accuracy)) if buckets else f"{accuracy:.3f}"


def _exemplars(view: View, best_first: Sequence[HistoryEntry], count: int) -> list[dict[str, str]]:
    """Some classes of which the best prompt mistakes an image, each with the wrong one, in the order of the images."""
    if not count or not best_first:
        return []
    by_class: dict[str, list[Mistake]] = {}
    for mistake in view.mistakes(best_first[0].text):
        by_class.setdefault(mistake.truth, []).append(mistake)
    draws = view.draws()
    drawn = [draws.choice(by_class[name]) for name in draws.sample(list(by_class), min(count, len(by_class)))]
    return [
        {"truth": single_line(mistake.truth), "taken_for": single_line(mistake.taken_for)}
        for mistake in sorted(drawn, key=lambda mistake: mistake.image)
    ]


STRATEGY = Strategy(
    name="opro",
    summary="the best prompts with accuracy alone, and, in place of its exemplars, names of classes that the best one "
    "mistakes for others, which the LLM is thus shown",
    ask=ask,
    one_label=lambda _: True,
    passes_over=("captions",),
    names_classes=lambda options: options.exemplars > 0,
    options=OproOptions,
    paper="Large Language Models as Optimizers, arXiv 2309.03409",
)
