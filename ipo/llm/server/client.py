"""An OpenAI-compatible server: its address, the key, what its errors say and what its answers cost."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

import openai

from ipo.errors import ConfigError, ModelError
from ipo.llm.server.answer import Answer, line, load_json, own_words, read_answer
from ipo.llm.server.limits import BoundedClient
from ipo.net.addresses import require_usable_proxies, server_address
from ipo.screen import shown_address, without_secrets

OPENAI_URL = "https://api.openai.com/v1"
_SHORTEST_KEY = 6
_LONG_KEY = 16
"""Characters of a key that is no word which a reply may hold."""
_PASSING = (408, 409, 425)
"""Refusals that may be gone after a while, beside those of a server that is at fault (500 and above)."""
_CHARACTERS_PER_TOKEN = 4
_MOST_CHARACTERS_PER_TOKEN = 16
_MOST_TOKENS_PER_CHARACTER = 4
_HIDDEN_TOKENS = 20_000
"""What a server may add to a question (its own instructions, or tokens of an image) or to a reply unasked."""

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger(__name__)


class Server:
    """A client of one server. `user` is what needs it and `setting` where its address is set, both for errors."""

    def __init__(self, user: str, base_url: str | None, setting: str, *, timeout: float, retries: int) -> None:
        require_usable_proxies()
        self.url = server_address(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self.setting, self._key = setting, _api_key()
        if not self._key and self.url == OPENAI_URL:
            raise ModelError(
                f"{user} needs an API key", remedy=f"Set OPENAI_API_KEY, or give {setting} of your own server"
            )
        self.client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=self.url,
            timeout=timeout,
            max_retries=retries,
            http_client=BoundedClient(),
        )
        self._counts = True

    @property
    def address(self) -> str:
        """The address as it may be shown and recorded."""
        return shown_address(self.url)

    def name_of(self, model: str) -> str:
        """A model's name in run records and in the price table."""
        return f"openai:{model}" + (f" at {self.address}" if self.url != OPENAI_URL else "")

    def ask(self, model: str, messages: Any, **options: Any) -> Answer:
        """What the server says to a chat. Raises `openai.OpenAIError` where no answer came."""
        raw = self.client.chat.completions.with_raw_response.create(model=model, messages=messages, **options)
        body = raw.http_response.content
        answer = read_answer(body)
        if answer.is_completion:
            return self._without_key(answer)
        return replace(answer, problem=f"the server's answer is no chat completion: {self._words(body)}")

    def first_model(self, timeout: float) -> str:
        """The first model that the server lists. Raises `ModelError`."""
        try:
            raw = self.client.with_options(timeout=timeout).models.with_raw_response.list()
        except openai.OpenAIError as error:
            raise self._no_models(self.reason(error)) from error
        listed = load_json(raw.http_response.content)
        models = listed.get("data") if isinstance(listed, dict) else None
        first = models[0] if isinstance(models, list) and models else None
        name = first.get("id") if isinstance(first, dict) else None
        if not isinstance(name, str) or not name or name != line(name):
            raise self._no_models(self._words(raw.http_response.content))
        return name

    def reason(self, error: Exception | str) -> str:
        """What went wrong in one line without the key, with the cause or the answer where the SDK leaves it out."""
        text = str(error) or type(error).__name__
        if isinstance(error, openai.APIConnectionError) and error.__cause__:
            text = f"{text} ({error.__cause__})"
        if isinstance(error, openai.APIStatusError):
            text = f"HTTP {error.status_code}: {self._words(error.response.content)}"
        return line(without_secrets(text.replace(self._key, "***") if self._is_secret else text))

    def remedy(self, error: Exception | str) -> str:
        """What to do about a failure."""
        if isinstance(error, openai.APITimeoutError):
            own = self.setting.startswith("llm.")
            return "Raise llm.timeout, or ask a faster server" if own else "Ask a faster server"
        if isinstance(error, openai.APIConnectionError):
            return f"See whether the server runs, and check {self.setting}"
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status in (401, 403):
            return f"Check OPENAI_API_KEY and {self.setting}"
        if status in (402, 429):
            return "Wait a while, or look at the limits and the balance of the account"
        if status is not None and (status in _PASSING or status >= 500):
            return "Wait a while, or look into the server's log"
        if isinstance(error, str) or status == 404:
            return f"Check {self.setting}, which often ends in /v1, and the model's name"
        return f"Check {self.setting}, the model's name and OPENAI_API_KEY"

    def tokens(self, answer: Answer, prompt: int, limit: int = _HIDDEN_TOKENS, unseen: int = 0) -> tuple[int, int]:
        """Prompt and reply tokens of an answer; estimates where the server does not count, or what it counts cannot be.

        `prompt` and `unseen` are estimates for the texts and the images that were asked about, and `limit` is how many
        tokens the reply might take.
        """
        reply = estimated_tokens(answer.text)
        asked, said = answer.usage
        if _believable(asked, prompt, _HIDDEN_TOKENS) and _believable(said, reply, limit):
            return int(asked), int(said)  # type: ignore[call-overload]
        if self._counts and answer.is_completion:
            self._counts = False
            what = "does not count tokens" if asked is None and said is None else "counts tokens as they cannot be"
            _log.warning("%s %s; they are estimated from the length of the texts", self.address, what)
        return prompt + unseen, min(reply + estimated_tokens(answer.thoughts), max(reply, limit))

    @property
    def _is_secret(self) -> bool:
        """Whether the key is one: servers of one's own are given words such as `none`."""
        return len(self._key) >= _SHORTEST_KEY

    def _without_key(self, answer: Answer) -> Answer:
        """The answer without the key, which some servers show where it is wrong: what they say is recorded."""
        if len(self._key) < _LONG_KEY or self._key not in answer.text + answer.thoughts:
            return answer
        text, thoughts = (part.replace(self._key, "***") for part in (answer.text, answer.thoughts))
        return replace(answer, text=text, thoughts=thoughts)

    def _words(self, body: bytes) -> str:
        """A server's own words, in which it may show the key that it was given."""
        return without_secrets(own_words(body.replace(self._key.encode(), b"***") if self._is_secret else body))

    def _no_models(self, reason: str) -> ModelError:
        remedy = f"Start it, or name the model with openai:MODEL and the server with {self.setting}"
        return ModelError(f"no list of models from the server: {reason}", where=self.address, remedy=remedy)


def estimated_tokens(text: str) -> int:
    """An estimate: a token holds about four characters of English."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def as_they_come(function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """`function` of each item, several at once, each as soon as it is there.

    After one that fails no other is begun; those under way are still given, and then its error is raised. The threads
    are daemons that nobody waits for: a command that is interrupted ends at once, not with the last answer.
    """
    if not items:
        return
    failures: list[Exception] = []

    def attempt(item: T) -> list[R]:
        try:
            return [] if failures else [function(item)]
        except Exception as error:  # noqa: BLE001 (raised again when the others are done)
            failures.append(error)
            return []

    pool = ThreadPool(min(threads, len(items)))
    try:
        for results in pool.imap_unordered(attempt, items):
            yield from results
    finally:
        pool.terminate()
    if failures:
        raise failures[0]


def _believable(count: object, estimate: int, more: int) -> bool:
    """Whether a text of an estimated length can have so many tokens, and up to `more` that are not seen."""
    least = estimate * _CHARACTERS_PER_TOKEN // _MOST_CHARACTERS_PER_TOKEN
    most = estimate * _CHARACTERS_PER_TOKEN * _MOST_TOKENS_PER_CHARACTER + more
    return isinstance(count, int) and not isinstance(count, bool) and max(least, min(estimate, 1)) <= count <= most


def _api_key() -> str:
    """The key of the environment; a line end that a file left on it is no part of it."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ConfigError(
            "OPENAI_API_KEY holds a character that no key has, such as a space or a typographic dash",
            remedy="Copy the key again",
        )
    return key
