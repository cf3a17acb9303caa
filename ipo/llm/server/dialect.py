"""Which request options one OpenAI-compatible server knows, and how much room its model needs: learnt from answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ipo.config import ResponseFormat
from ipo.errors import ConfigError
from ipo.llm.base import ReplyForm

SIDES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"before": {"type": "string"}, "after": {"type": "string"}},
    "required": ["before", "after"],
    "additionalProperties": False,
}
"""The two sides of the class slot. No `pattern` and no lengths: servers differ in what they do with them."""
_PHRASE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"phrase": {"type": "string"}},
    "required": ["phrase"],
    "additionalProperties": False,
}
THINKING_TOKENS = (0, 1024, 4096, 16384)
"""Room for thoughts beside the answer, by level. It is a bound, not a price: a model that does not think stays at 0."""
_HIDDEN_THOUGHTS = 2
"""The level where a server wants `max_completion_tokens`, since it counts hidden thoughts too."""
PROBE = 2
"""The level that is tried once where a cut reply may be thoughts without a mark."""
_OPTIONAL = ("seed", "top_p", "temperature")
_FORMAT = ("response_format", "schema", "json_object", "grammar")
_TOO_LONG = ("context_length", "context length", "context size", "context window")
_TOKEN_LIMIT = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Dialect:
    """The options in use. JSON is asked for by schema, else as any object, else in words only (the template's)."""

    json: Literal["schema", "object", "none"]
    learns_json: bool = True
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    dropped: frozenset[str] = frozenset()
    thinking: int = 0
    """Level of `THINKING_TOKENS`."""
    most_thinking: int = len(THINKING_TOKENS) - 1
    """The highest level that the server has not refused."""

    @classmethod
    def of(cls, form: ReplyForm, setting: ResponseFormat) -> Dialect:
        """What is asked for at first; a setting other than `auto` is kept whatever the server says.

        Raises `ConfigError` where JSON is set, and the template asks for another form of reply.
        """
        if form == "phrase object":
            if setting not in ("auto", "schema"):
                what = f"llm.response_format is {setting}, but llm.grammar is phrase, which is asked for by schema"
                raise ConfigError(what, remedy="Leave one of them out")
            return cls("schema", learns_json=False)
        if form != "sides":
            if setting in ("schema", "object"):
                raise ConfigError(f"llm.response_format is {setting}, but the preset has replies of the form '{form}'")
            return cls("none")
        return cls("schema") if setting == "auto" else cls(setting, learns_json=False)

    def token_bound(self, max_tokens: int) -> int:
        """Most tokens of a reply, thoughts included, where a proposal may take `max_tokens`."""
        return max_tokens + THINKING_TOKENS[self.thinking]

    def request(self, options: dict[str, Any]) -> dict[str, Any]:
        """`options` (temperature, max_tokens, ...) as this server takes them, with the response format.

        A `pattern` among them is the grammar of phrases that the reply has to keep to.
        """
        request = {name: value for name, value in options.items() if name not in self.dropped}
        request[self.token_limit] = self.token_bound(request.pop("max_tokens"))
        pattern = request.pop("pattern", None)
        if self.json == "schema":
            schema = {"name": "prompt", "strict": True, "schema": phrase_schema(pattern) if pattern else SIDES_SCHEMA}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.json == "object":
            request["response_format"] = {"type": "json_object"}
        return request

    def after_refusal(self, message: str, request: dict[str, Any]) -> Dialect | None:
        """The dialect to try after a refused request; None when there is nothing left to give up.

        A refusal that names an option is believed; one that names none may be about the response format.
        """
        too_long = any(words in message for words in _TOO_LONG)
        if self.token_limit == "max_tokens" and "max_completion_tokens" in message and not too_long:
            thinking = min(max(self.thinking, _HIDDEN_THOUGHTS), self.most_thinking)
            return replace(self, token_limit="max_completion_tokens", thinking=thinking)
        if self.thinking and (too_long or any(name in message for name in _TOKEN_LIMIT)):
            return replace(self, thinking=self.thinking - 1, most_thinking=self.thinking - 1)
        if too_long:
            return None
        for option in _OPTIONAL:
            if option in message and option in request:
                return replace(self, dropped=self.dropped | {option})
        return self.with_less_json()

    def with_less_json(self) -> Dialect | None:
        """The dialect that asks for JSON in a way that more servers know; None where there is none or it is set."""
        if not self.learns_json or self.json == "none":
            return None
        return replace(self, json="object" if self.json == "schema" else "none")

    def with_more_room(self) -> Dialect | None:
        """The dialect that leaves more room for thoughts; None where the server allows no more."""
        return replace(self, thinking=self.thinking + 1) if self.thinking < self.most_thinking else None


def phrase_schema(pattern: str) -> dict[str, Any]:
    """The schema of a JSON object whose `phrase` is in the language of a regular expression."""
    return {**_PHRASE_SCHEMA, "properties": {"phrase": {"type": "string", "pattern": f"^{pattern}$"}}}


def names_the_format(message: str) -> bool:
    """Whether what a server says is about the response format."""
    return any(name in message for name in _FORMAT)


def names_an_option(message: str) -> bool:
    """Whether a refusal says which option is at fault, so that the server need not be asked with it again."""
    return any(name in message for name in ("max_completion_tokens", *_OPTIONAL, *_FORMAT))
