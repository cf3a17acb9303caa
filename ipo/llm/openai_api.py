"""OpenAI and every server that speaks its chat completions: vLLM, llama.cpp, Ollama and others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from ipo.config import LLMSettings
from ipo.errors import LLMError, ModelError, PromptError
from ipo.llm.base import CAPTION_TOKENS, Message, Reply, ReplyForm
from ipo.llm.dialect import Dialect, names_an_option
from ipo.llm.parse import read_prompt, well_formed
from ipo.llm.server import Server, estimated_tokens, side_by_side

_SEED_RANGE = 2**31
_SEED_STEP = 7919
MALFORMED = "malformed"
"""Finish reason of an answer that came but is none, such as a page of HTML."""


class OpenAILLM:
    """One model on one server. Transport errors are repeated by the SDK, replies that do not parse by us; both bounded.

    The first request of all goes out alone: from its refusals the client learns which options the server knows.
    """

    def __init__(self, model: str, settings: LLMSettings, form: ReplyForm = "sides", template: str = "ipo.j2") -> None:
        self.form, self.template, self.caption_tokens = form, template, CAPTION_TOKENS
        self._settings = settings
        self._server = Server(
            f"openai:{model}", settings.base_url, "llm.base_url", timeout=settings.timeout, retries=settings.retries
        )
        self.client = self._server.client
        self.model = self._first_model() if model == "auto" else model
        self.name = self._server.name_of(self.model)
        self._dialect = Dialect(wants_json=form == "sides")
        self._settled = False

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
    ) -> list[Reply]:
        """`n` replies, as many requests; a request that failed is a reply with `error`. `LLMError` if all failed."""
        del known  # no server can be told; repeats are turned down later
        options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
        if self._settings.top_p is not None:
            options["top_p"] = self._settings.top_p
        chat = [{"role": message.role, "content": message.content} for message in messages]
        seeds = [(seed + row) % _SEED_RANGE for row in range(n)]
        alone = 0 if self._settled else 1
        replies = [self._ask(chat, options, one) for one in seeds[:alone]]
        if alone and replies[0].error is not None:
            raise self._failure(replies)
        self._settled = True
        replies += side_by_side(
            lambda one: self._ask(chat, options, one), seeds[alone:], threads=self._settings.concurrency
        )
        if all(reply.error is not None for reply in replies):
            raise self._failure(replies)
        return replies

    def token_count(self, text: str) -> int:
        """An estimate from the length."""
        return estimated_tokens(text)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _ask(self, chat: Any, options: dict[str, Any], seed: int) -> Reply:
        """One reply, asked for again as often as the settings allow while what comes back does not parse."""
        tries = [self._once(chat, options, seed)]
        while len(tries) <= self._settings.retries and _worth_repeating(tries[-1]):
            tries.append(self._once(chat, options, (seed + _SEED_STEP * len(tries)) % _SEED_RANGE))
        return replace(
            tries[-1],
            prompt_tokens=sum(reply.prompt_tokens for reply in tries),
            completion_tokens=sum(reply.completion_tokens for reply in tries),
            seconds=round(sum(reply.seconds for reply in tries), 4),
        )

    def _once(self, chat: Any, options: dict[str, Any], seed: int) -> Reply:
        """One reply, after as many refusals as the dialect has options to give up.

        What a refusal names is given up for good; a refusal that may have another cause changes this reply alone.
        """
        started = time.monotonic()
        dialect, certain = self._dialect, True
        while True:
            request = dialect.request(options | {"seed": seed})
            try:
                answer = self.client.chat.completions.create(model=self.model, messages=chat, **request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refusal = f"{error.message} {error.body}"
                simpler = dialect.after_refusal(refusal, request)
                if simpler is None:
                    return self._failed(error, started)
                dialect, certain = simpler, certain and names_an_option(refusal)
                if certain:
                    self._dialect = dialect
            except openai.OpenAIError as error:
                return self._failed(error, started)
            except ValueError as error:
                return self._failed(f"the server's answer is no JSON ({error})", started, MALFORMED)
            else:
                return self._read(answer, chat, started)

    def _read(self, answer: Any, chat: Any, started: float) -> Reply:
        """The reply in an answer of any shape: servers send HTML, no choices, or choices without a message."""
        choices = answer.choices if isinstance(answer, ChatCompletion) else None
        if not isinstance(choices, list) or not choices:
            return self._failed("the server's answer is no chat completion", started, MALFORMED)
        text = getattr(choices[0].message, "content", None)
        reason = choices[0].finish_reason
        if isinstance(text, str) and reason != "content_filter":
            reply = Reply(
                well_formed(text), self.form, "length" if reason == "length" else "stop", seconds=_since(started)
            )
        else:
            refusal = getattr(choices[0].message, "refusal", None)
            reply = self._failed(f"no text came back ({refusal or reason})", started, MALFORMED)
        asked = sum(estimated_tokens(message["content"]) for message in chat)
        prompt_tokens, completion_tokens = self._server.tokens(answer, asked, estimated_tokens(reply.text))
        return replace(reply, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def _failed(self, error: Exception | str, started: float, reason: str = "error") -> Reply:
        return Reply("", self.form, reason, seconds=_since(started), error=self._server.reason(error))

    def _failure(self, replies: Sequence[Reply]) -> LLMError:
        return LLMError(
            f"no reply could be had: {replies[-1].error}",
            where=self.name,
            remedy="Check llm.base_url, the model's name and OPENAI_API_KEY; `--resume` goes on with the run",
        )

    def _first_model(self) -> str:
        """The first model that the server lists."""
        try:
            listed = self.client.with_options(timeout=min(10.0, self._settings.timeout)).models.list()
            return str(listed.data[0].id)
        except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise ModelError(
                f"no list of models from the server: {self._server.reason(error)}",
                where=self._server.url,
                remedy="Start it, or name the model with openai:MODEL and the server with llm.base_url",
            ) from error


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)


def _worth_repeating(reply: Reply) -> bool:
    """Whether an answer came that holds no prompt. A request that failed was repeated by the SDK already."""
    if reply.error is not None:
        return reply.finish_reason == MALFORMED
    try:
        read_prompt(reply.text, reply.form)
    except PromptError:
        return True
    return reply.finish_reason != "stop"
