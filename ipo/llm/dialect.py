"""Which request options one OpenAI-compatible server knows, learnt from what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

SIDES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"before": {"type": "string"}, "after": {"type": "string"}},
    "required": ["before", "after"],
    "additionalProperties": False,
}
"""The two sides of the class slot. No `pattern` and no lengths: servers differ in what they do with them."""
REASONING_TOKENS = 4096
"""Room for hidden thoughts where a server wants `max_completion_tokens`, since it counts them too."""
_OPTIONAL = ("seed", "top_p", "temperature")
_FORMAT = ("response_format", "schema", "json_object", "grammar")
_TOO_LONG = ("context_length", "context length", "context size", "context window")


@dataclass(frozen=True)
class Dialect:
    """The options in use. JSON is asked for by schema, else as any object, else in words only (the template's)."""

    wants_json: bool
    json: Literal["schema", "object", "words"] = "schema"
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    dropped: frozenset[str] = frozenset()

    def request(self, options: dict[str, Any]) -> dict[str, Any]:
        """`options` (temperature, max_tokens, ...) as this server takes them, with the response format."""
        request = {name: value for name, value in options.items() if name not in self.dropped}
        if self.token_limit == "max_completion_tokens":
            request["max_completion_tokens"] = request.pop("max_tokens") + REASONING_TOKENS
        if self.wants_json and self.json == "schema":
            schema = {"name": "prompt", "strict": True, "schema": SIDES_SCHEMA}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.wants_json and self.json == "object":
            request["response_format"] = {"type": "json_object"}
        return request

    def after_refusal(self, message: str, request: dict[str, Any]) -> Dialect | None:
        """The dialect to try after a refused request; None when there is nothing left to give up.

        A refusal that names an option is believed; one that names none may be about the response format.
        """
        if any(words in message for words in _TOO_LONG):
            return None
        if "max_completion_tokens" in message and self.token_limit == "max_tokens":
            return replace(self, token_limit="max_completion_tokens")
        for option in _OPTIONAL:
            if option in message and option in request:
                return replace(self, dropped=self.dropped | {option})
        if "response_format" in request:
            return replace(self, json="object" if self.json == "schema" else "words")
        return None


def names_an_option(message: str) -> bool:
    """Whether a refusal says which option is at fault, so that the server need not be asked with it again."""
    return any(name in message for name in ("max_completion_tokens", *_OPTIONAL, *_FORMAT))
