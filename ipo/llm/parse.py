"""The prompt in a reply, by the form that was asked for. What is not in that form is an error, never a guess."""

from __future__ import annotations

import json
import re
from typing import Any

from ipo.errors import PromptError
from ipo.llm.base import ReplyForm
from ipo.prompt import CLASS_PLACEHOLDER, Prompt, visible

_TAGGED = re.compile(r"<INS>(.*?)</INS>", re.DOTALL)


def read_prompt(text: str, form: ReplyForm) -> Prompt:
    """The prompt in a whole reply, without its invisible characters. Raises `PromptError` saying what is missing."""
    text = visible(text)
    if form == "line":
        return Prompt(" ".join(text.split()))
    answer = text.rpartition("</think>")[2]  # reasoning models put their thoughts first
    return _from_sides(answer) if form == "sides" else _from_tags(answer)


def well_formed(text: str) -> str:
    """The text with lone surrogates, which JSON can carry and UTF-8 cannot, turned into question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _from_tags(text: str) -> Prompt:
    tagged = _TAGGED.findall(text)
    if len(tagged) != 1:
        raise PromptError(f"{len(tagged)} texts between <INS> and </INS>")
    return Prompt(" ".join(tagged[0].split()))


def _from_sides(text: str) -> Prompt:
    before, after = (visible(well_formed(side)) for side in _only_pair(text))
    before, after = before.removesuffix(CLASS_PLACEHOLDER), after.removeprefix(CLASS_PLACEHOLDER)
    if CLASS_PLACEHOLDER in before + after:
        raise PromptError("more than one class slot")
    if not re.search(r"[^\W\d_]", before + after):
        raise PromptError("no words around the class slot")
    if before[-1:].isalnum():
        before += " "
    if after[:1].isalnum():
        after = f" {after}"
    return Prompt.from_sides(before, after)


def _only_pair(text: str) -> tuple[str, str]:
    """The one pair of sides in a text, whether its JSON object is bare, fenced, among other words or repeated."""
    objects = _objects(text)
    pairs = {(str(one["before"]), str(one["after"])) for one in objects if _has_sides(one)}
    if len(pairs) > 1:
        raise PromptError(f"{len(pairs)} proposals in one reply")
    if not pairs:
        raise PromptError("no texts `before` and `after`" if objects else "no JSON object")
    return pairs.pop()


def _has_sides(value: dict[str, Any]) -> bool:
    return isinstance(value.get("before"), str) and isinstance(value.get("after"), str)


def _objects(text: str) -> list[dict[str, Any]]:
    """All JSON objects in a text, outermost ones only."""
    found, decoder = [], json.JSONDecoder()
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError:
            end = position + 1
        except RecursionError as error:
            raise PromptError("brackets without end") from error
        else:
            found.append(value)
        position = text.find("{", end)
    return found
