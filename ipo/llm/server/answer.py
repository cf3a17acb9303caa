"""What a chat completion says, read from an answer of any shape; what is none keeps the server's own words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from ipo.llm.parse import bounded_int, well_formed
from ipo.prompt import visible

MAX_CHARACTERS = 300_000
"""Longest text of a reply that is read, thoughts and all: many times what `llm.max_tokens` and their room allow."""
_WORDS = 300
"""Most characters of a server's own words in a message."""
_LOOK = 4000
"""So much of a body that is no completion is looked at."""
_CUT = frozenset({"length", "max_tokens", "max_length", "max_output_tokens", "token_limit", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "prohibited_content", "blocklist", "recitation"})
_DECODER = json.JSONDecoder(strict=False, parse_int=bounded_int)
_TEXT_PARTS = (None, "text", "output_text")
_PART_FIELDS = ("text", "thinking", "reasoning", "summary")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")


@dataclass(frozen=True)
class Answer:
    """The first choice of a chat completion. `problem` says why there is no text, in the server's own raw words."""

    text: str = ""
    thoughts: str = ""
    """What a reasoning model thought, where the server keeps it apart from the text."""
    finish: Literal["stop", "length", "filtered"] = "stop"
    problem: str | None = None
    is_completion: bool = True
    declined: bool = False
    """Whether it is the model that gives no text, and not the server that breaks off."""
    usage: tuple[object, object] = (None, None)
    """Prompt and completion tokens as the server gives them: anything."""


def read_answer(body: bytes) -> Answer:
    """What the body of a successful HTTP answer says. Never raises."""
    value = load_json(body)
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict | None):
        return Answer(problem="no chat completion", is_completion=False)
    message = message or {}
    text, thoughts = _content(message.get("content"))
    thoughts = next(filter(None, (_plain(message.get(name)) for name in _THOUGHTS)), thoughts)
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) else "without a reason"
    reason = finish.casefold()
    said = _message({"error": choice.get("error") or value.get("error")})
    answer = Answer(
        text=text,
        thoughts=thoughts,
        finish="length" if reason in _CUT else "filtered" if reason in _FILTERED else "stop",
        usage=_usage(value),
    )
    if said is not None:
        return replace(answer, text="", problem=f"the server broke off: {said[:_LOOK]}")
    fits = 0 < len(text) <= MAX_CHARACTERS and answer.finish != "filtered"
    return answer if fits else _without_text(answer, message, finish)


def _without_text(answer: Answer, message: dict[str, Any], finish: str) -> Answer:
    if len(answer.text) > MAX_CHARACTERS:
        return replace(answer, text="", problem=f"an answer of {len(answer.text)} characters, where few were asked for")
    refusal = message.get("refusal")
    words = refusal if isinstance(refusal, str) else "only thoughts" if answer.thoughts else finish
    problem = None if message.get("content") == "" and not answer.thoughts else f"no text came back ({words[:_LOOK]})"
    return Answer("", answer.thoughts, answer.finish, problem, declined=True, usage=answer.usage)


def load_json(body: bytes) -> Any:
    """The JSON value of a body; None where it is none, or nested deeper than anything can be read."""
    try:
        return _DECODER.decode(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def own_words(body: bytes) -> str:
    """What a server says in a body that is no completion: the message of its error, or the beginning of the text."""
    value, text = load_json(body), body[:_LOOK].decode("utf-8-sig", "replace")
    if value is None:
        events = re.findall(r"^data:(.*)$", text, re.MULTILINE)
        said = next(filter(None, (_message(load_json(event.encode())) for event in events)), None)
        if events:
            return line(f"an event stream that nobody asked for: {said or text}")
        if text.lstrip().startswith("<"):
            title = re.search(r"<title[^<>]{0,99}>([^<]*)<", text, re.IGNORECASE)
            return line("a page of HTML: " + (title[1] if title else re.sub(r"<[^<>]*>", " ", text)))
        return line(text) or "it is empty"
    return line(_message(value) or text)


def line(text: str) -> str:
    """A text of a server as one line that can be shown and written anywhere, bounded in length."""
    return " ".join(visible(well_formed(text[:_LOOK])).split())[:_WORDS]


def _message(value: Any) -> str | None:
    """The sentence in the JSON of an error, as OpenAI, FastAPI and others write it."""
    for name in ("error", "detail", "message", "msg", "title", "errors"):
        while isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return value if isinstance(value, str) else None


def _content(content: Any) -> tuple[str, str]:
    """Text and thoughts of a message's content: a text, or a list of parts that hold one each."""
    if isinstance(content, str):
        return well_formed(content), ""
    parts = content if isinstance(content, list) else []
    return _plain([part for part in parts if not _is_thought(part)]), _plain([*filter(_is_thought, parts)])


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") not in _TEXT_PARTS


def _plain(value: Any) -> str:
    """The texts in a text or a list of parts, two levels deep, as one."""
    texts = []
    for part in value if isinstance(value, list) else [value]:
        inner = next((part[name] for name in _PART_FIELDS if part.get(name)), "") if isinstance(part, dict) else part
        for piece in inner if isinstance(inner, list) else [inner]:
            text = piece.get("text") if isinstance(piece, dict) else piece
            texts.append(text if isinstance(text, str) else "")
    return well_formed("".join(texts))


def _usage(value: dict[str, Any]) -> tuple[object, object]:
    usage = value.get("usage")
    return (usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else (None, None)
