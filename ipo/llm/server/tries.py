"""Several tries at one reply: whether another is worth it, and what all of them took."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from ipo.errors import PromptError
from ipo.llm.base import Reply, TextForm
from ipo.llm.parse import read_prompt, read_texts
from ipo.llm.server.answer import Answer
from ipo.llm.thoughts import answer_of, thinks_aloud

MALFORMED = "malformed"
"""Finish reason of an answer that came but is none, such as a page of HTML."""


def since(started: float) -> float:
    """Seconds since a time of the monotonic clock, to a tenth of a millisecond."""
    return round(time.monotonic() - started, 4)


def last_of(tries: Sequence[Reply]) -> Reply:
    """The last of several tries, with what all of them took."""
    return replace(
        tries[-1],
        prompt_tokens=sum(reply.prompt_tokens for reply in tries),
        completion_tokens=sum(reply.completion_tokens for reply in tries),
        seconds=round(sum(reply.seconds for reply in tries), 4),
    )


def is_cut_in_thoughts(answer: Answer, bound: int) -> bool:
    """Whether a reply was cut off, and thoughts took some or all of its room. Some servers do not say that they cut."""
    said = answer.usage[1]
    cut = answer.finish == "length" or (isinstance(said, int) and said >= bound and answer_of(answer.text) is None)
    return cut and (not answer.text or bool(answer.thoughts) or thinks_aloud(answer.text))


def is_whole(reply: Reply) -> bool:
    """Whether a reply, not cut off, holds a prompt; of texts that are none, at least one may be whole."""
    cut = reply.finish_reason != "stop"
    if reply.form in get_args(TextForm):
        return bool(read_texts(reply.text, reply.form, cut=cut))
    try:
        read_prompt(reply.text, reply.form)
    except PromptError:
        return False
    return not cut


def keeps_to(reply: Reply, expression: str) -> bool:
    """Whether a reply holds a prompt in the language of a regular expression."""
    try:
        return re.fullmatch(expression, read_prompt(reply.text, reply.form).text) is not None
    except PromptError:
        return False


def worth_repeating(reply: Reply) -> bool:
    """Whether an answer came that holds no prompt. A request that failed was repeated by the SDK already."""
    if reply.error is not None:
        return reply.finish_reason == MALFORMED
    return not is_whole(reply)
