"""The prompt in a reply, by the form that was asked for. What is not in that form is an error, never a guess."""

from __future__ import annotations

import json
import re
from typing import Any

from ipo.errors import PromptError
from ipo.llm.base import ReplyForm
from ipo.llm.thoughts import answer_of
from ipo.prompt import CLASS_PLACEHOLDER, Prompt, one_line, text_key, unescaped, visible

MAX_ANSWER = 20_000
"""Most characters of an answer without its thoughts; a prompt takes a fortieth."""
_MAX_BRACES = 100
"""So many braces that open no JSON object may stand in an answer; each may be read to the end of the answer."""
_MOST_DIGITS = 1000
_LONGEST_LINE = 200
"""Most characters of a line that is a text; a description takes a tenth."""
_BULLET = re.compile(r"\s*(?:[-*•–]|\d{1,2}[.)])\s+(\S.*)")
_SENTENCE = re.compile(r"\w(?:[^.!?]|[.!?](?=[^\s\"'])){8,400}[.!?](?=[\s\"']|$)")
_SLOT = re.compile(
    r"[<{]{1,3}\s?(?:class|category|label|object|name|noun|subject)(?:[ _-]?name)?\s?[>}]{1,3}", re.IGNORECASE
)
"""How models spell the class slot beside the one that was asked for."""


def bounded_int(digits: str) -> int:
    """A number of JSON; Python reads no longer ones, and nobody means them."""
    return int(digits[:_MOST_DIGITS])


_DECODER = json.JSONDecoder(strict=False, parse_int=bounded_int)
"""Line breaks inside a text are no reason to lose it, and neither is a number of thousands of digits."""


def read_prompt(text: str, form: ReplyForm) -> Prompt:
    """The prompt in a whole reply, without its invisible characters. Raises `PromptError` saying what is missing."""
    text = visible(text)
    answer = text if form in ("line", "phrase") else answer_of(text)
    if answer is None:
        raise PromptError("thoughts without an end")
    if len(answer) > MAX_ANSWER:
        raise PromptError(f"an answer of {len(answer)} characters")
    return _READERS[form](answer)


def read_texts(text: str, form: ReplyForm, *, cut: bool = False) -> list[str]:
    """The texts in an answer of a `TextForm`, each once; none where it holds none in that form.

    The last line of an answer that was `cut` is left out.
    """
    answer = answer_of(visible(text)) or ""
    if len(answer) > MAX_ANSWER:
        return []
    answer = answer.replace("**", "").strip("\"' \n")
    if form == "sentence":
        sentence = _SENTENCE.match(" ".join(answer.split()))
        return [one_line(sentence[0])] if sentence else []
    lines, texts = answer.splitlines(), dict[str, str]()
    for match in map(_BULLET.match, lines[:-1] if cut else lines):
        text = one_line(match[1]).strip(" .,;:\"'*") if match else ""
        if 0 < len(text) <= _LONGEST_LINE:
            texts.setdefault(text_key(text), text)
    return list(texts.values())


def begins(text: str, form: ReplyForm) -> bool:
    """Whether a reply, cut off or not, has come to its proposal."""
    marks = {"phrase object": "{", "sides": "{", "free": "<INS>", "lines": "- "}
    return marks.get(form, "") in text


def well_formed(text: str) -> str:
    """The text with lone surrogates, which JSON can carry and UTF-8 cannot, turned into question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _from_line(text: str) -> Prompt:
    return Prompt(" ".join(text.split()))


def _from_tags(text: str) -> Prompt:
    pieces = [piece.partition("<INS>") for piece in text.split("</INS>")[:-1]]
    tagged = [inside for _, mark, inside in pieces if mark]
    if len(tagged) != 1:
        raise PromptError(f"{len(tagged)} texts between <INS> and </INS>")
    return Prompt(" ".join(tagged[0].split()))


def _from_sides(text: str) -> Prompt:
    before, after = (_SLOT.sub(CLASS_PLACEHOLDER, unescaped(well_formed(side))) for side in _only_pair(text))
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


def _from_object(text: str) -> Prompt:
    objects = _objects(text)
    found = {str(one["phrase"]) for one in objects if isinstance(one.get("phrase"), str)}
    if len(found) > 1:
        raise PromptError(f"{len(found)} proposals in one reply")
    if not found:
        raise PromptError("no text `phrase`" if objects else "no JSON object")
    return Prompt(" ".join(well_formed(found.pop()).split()))


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
    found, braces = [], 0
    position = text.find("{")
    while position >= 0:
        try:
            value, end = _DECODER.raw_decode(text, position)
        except ValueError:
            end, braces = position + 1, braces + 1
        except RecursionError as error:
            raise PromptError("brackets without end") from error
        else:
            found.append(value)
        if braces > _MAX_BRACES:
            raise PromptError(f"more than {_MAX_BRACES} braces that open no JSON object")
        position = text.find("{", end)
    return found


_READERS = {
    "line": _from_line,
    "phrase": _from_line,
    "phrase object": _from_object,
    "sides": _from_sides,
    "free": _from_tags,
}
