"""IPO: the best prompts so far with accuracy and loss, and descriptions of the images; one question a step."""

from __future__ import annotations

from collections.abc import Sequence

from ipo.search.meta_prompt import build_messages
from ipo.search.strategy import Ask, NoOptions, Strategy, View


def ask(view: View, _: NoOptions) -> Sequence[Ask]:
    """The best prompts, best last, with their scores; the proposals descend from the best that is shown."""
    shown = view.top()
    messages = build_messages(view.template, shown, view.captions, view.form)
    return [Ask(tuple(messages), view.settings.candidates, (shown[-1].id,) if shown else ())]


STRATEGY = Strategy(
    name="ipo",
    summary="the best prompts with accuracy and loss, and image descriptions, in one question a step",
    ask=ask,
    paper="IPO: Interpretable Prompt Optimization for Vision-Language Models, arXiv 2410.15397",
)
