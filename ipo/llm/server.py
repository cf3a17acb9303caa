"""An OpenAI-compatible server: its address, the key, what its errors say and what its answers cost."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

import openai

from ipo.errors import ConfigError, ModelError
from ipo.net import server_address

OPENAI_URL = "https://api.openai.com/v1"
_CHARACTERS_PER_TOKEN = 4

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger(__name__)


class Server:
    """A client of one server. `user` is what needs it and `setting` where its address is set, both for errors."""

    def __init__(self, user: str, base_url: str | None, setting: str, *, timeout: float, retries: int) -> None:
        self.url = server_address(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self._key = _api_key()
        if not self._key and self.url == OPENAI_URL:
            raise ModelError(
                f"{user} needs an API key", remedy=f"Set OPENAI_API_KEY, or give {setting} of your own server"
            )
        self.client = openai.OpenAI(
            api_key=self._key or "none", base_url=self.url, timeout=timeout, max_retries=retries
        )
        self._counts = True

    def name_of(self, model: str) -> str:
        """A model's name in run records and in the price table."""
        return f"openai:{model}" + (f" at {self.url}" if self.url != OPENAI_URL else "")

    def reason(self, error: Exception | str) -> str:
        """What went wrong in one line without the key, with the cause or the answer where the SDK leaves it out."""
        text = str(error) or type(error).__name__
        if isinstance(error, openai.APIConnectionError) and error.__cause__:
            text = f"{text} ({error.__cause__})"
        if isinstance(error, openai.APIStatusError) and " - " not in text and error.body:
            text = f"{text} - {error.body}"
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:300]

    def tokens(self, answer: Any, prompt: int, reply: int) -> tuple[int, int]:
        """Prompt and reply tokens of an answer; `prompt` and `reply`, estimates, where the server does not count."""
        usage = getattr(answer, "usage", None)
        counted = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        if isinstance(counted[0], int) and isinstance(counted[1], int) and counted[0] > 0:
            return counted[0], counted[1]
        if self._counts:
            self._counts = False
            _log.warning("%s does not count tokens; they are estimated from the length of the texts", self.url)
        return prompt, reply


def estimated_tokens(text: str) -> int:
    """An estimate: a token holds about four characters of English."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def side_by_side(function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """`function` of each item, in order, several at once.

    Its threads are daemons that nobody waits for: a command that is interrupted ends at once, not with the last answer.
    """
    if not items:
        return
    pool = ThreadPool(min(threads, len(items)))
    try:
        yield from pool.imap(function, items)
    finally:
        pool.terminate()


def _api_key() -> str:
    """The key of the environment; a line end that a file left on it is no part of it."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ConfigError(
            "OPENAI_API_KEY holds a character that no key has, such as a space or a typographic dash",
            remedy="Copy the key again",
        )
    return key
