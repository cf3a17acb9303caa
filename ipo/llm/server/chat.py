"""OpenAI and every server that speaks its chat completions: vLLM, llama.cpp, Ollama and others."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import openai

from ipo.config import LLMSettings
from ipo.errors import LLMError
from ipo.llm.base import CAPTION_TOKENS, NOTHING_YET, Message, Reply, ReplyForm
from ipo.llm.parse import begins
from ipo.llm.phrases import pattern, word_lists
from ipo.llm.server.answer import Answer, line
from ipo.llm.server.client import Server, as_they_come, estimated_tokens
from ipo.llm.server.dialect import PROBE, Dialect, names_an_option, names_the_format
from ipo.llm.server.tries import MALFORMED, is_cut_in_thoughts, is_whole, keeps_to, last_of, since, worth_repeating
from ipo.llm.thoughts import thinks_aloud

_SEED_RANGE = 2**31
_SEED_STEP = 7919
_MODELS_SECONDS = 10.0
_MOST_TRIES = 8
"""Requests for one reply while the room for thoughts is found."""
THOUGHTS = "thoughts"
"""Finish reason of an answer whose thoughts took all the tokens that it was given."""

_log = logging.getLogger(__name__)


class OpenAILLM:
    """One model on one server. Transport errors are repeated by the SDK, replies that do not parse by us; both bounded.

    The first request of all goes out alone: from its refusals the client learns which options the server knows, and
    from its thoughts how much room they need.
    """

    def __init__(self, model: str, settings: LLMSettings, form: ReplyForm = "sides", template: str = "ipo.j2") -> None:
        self.form, self.template, self.caption_tokens = form, template, CAPTION_TOKENS
        self._settings = settings
        self._server = Server(
            f"openai:{model}", settings.base_url, "llm.base_url", timeout=settings.timeout, retries=settings.retries
        )
        self.client = self._server.client
        seconds = min(_MODELS_SECONDS, settings.timeout)
        self.model = self._server.first_model(seconds) if model == "auto" else model
        self.name = self._server.name_of(self.model)
        self._dialect = Dialect.of(form, settings.response_format)
        self._lists = word_lists() if form == "phrase object" else None
        self._settled, self._probed = False, False
        self._remedy = ""

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
        unnamed: Sequence[str] = (),
    ) -> list[Reply]:
        """`n` replies, as many requests; a request that failed is a reply with `error`. `LLMError` if all failed."""
        del known  # no server can be told; repeats are turned down later
        replies = dict(self.arriving(messages, n, temperature, max_tokens, seed, unnamed=unnamed))
        return [replies[row] for row in range(n)]

    def arriving(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        have: Mapping[int, Reply] = NOTHING_YET,
        unnamed: Sequence[str] = (),
    ) -> Iterator[tuple[int, Reply]]:
        """Each reply with its place, as it comes; what `have` holds is not asked again. `LLMError` if all failed."""
        options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
        if self._settings.top_p is not None:
            options["top_p"] = self._settings.top_p
        chat = [{"role": message.role, "content": message.content} for message in messages]
        shown = "\n".join(message.content for message in messages)
        lists = self._lists and self._lists.without(unnamed)

        def ask(row: int) -> tuple[int, Reply]:
            grammar = {"pattern": pattern(lists.sample(shown, random.Random(f"{seed} {row}")))} if lists else {}
            return row, self._ask(chat, options | grammar, (seed + row) % _SEED_RANGE)

        rows = [row for row in range(n) if row not in have]
        came = bool(have)
        if rows and not self._settled:
            row, reply = ask(rows.pop(0))
            if reply.error is not None:
                raise self._failure(reply)
            self._settled = came = True
            yield row, reply
        for row, reply in as_they_come(ask, rows, self._settings.concurrency):
            came = came or reply.error is None
            yield row, reply
        if rows and not came:
            raise self._failure(reply)

    def token_count(self, text: str) -> int:
        """An estimate from the length."""
        return estimated_tokens(text)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _ask(self, chat: Any, options: dict[str, Any], seed: int) -> Reply:
        """One reply, asked for again as often as the settings allow while what comes back does not parse."""
        tries = [self._with_room(chat, options, seed)]
        while len(tries) <= self._settings.retries and worth_repeating(tries[-1]):
            tries.append(self._with_room(chat, options, (seed + _SEED_STEP * len(tries)) % _SEED_RANGE))
        return last_of(tries)

    def _with_room(self, chat: Any, options: dict[str, Any], seed: int) -> Reply:
        """One reply, asked for with more room as long as its thoughts take all there is; the room is remembered."""
        tries: list[Reply] = []
        while len(tries) < _MOST_TRIES:
            reply, dialect = self._once(chat, options, seed, self._dialect)
            tries.append(reply)
            if self._may_think_unmarked(tries[-1]):
                tries.append(self._probe(chat, options, seed))
            if tries[-1].finish_reason != THOUGHTS or not self._gives_more_room(dialect):
                break
        return last_of(tries)

    def _gives_more_room(self, dialect: Dialect) -> bool:
        """Whether there is more room for thoughts than in `dialect`; made here, or by a request beside this one."""
        if self._dialect.thinking == dialect.thinking:
            self._dialect = self._dialect.with_more_room() or self._dialect
        return self._dialect.thinking > dialect.thinking

    def _may_think_unmarked(self, reply: Reply) -> bool:
        """Whether a reply was cut before its proposal began; some templates leave out the mark that opens thoughts."""
        cut = reply.finish_reason == "length" and not begins(reply.text, reply.form)
        return cut and not self._probed and self._dialect.thinking < PROBE <= self._dialect.most_thinking

    def _probe(self, chat: Any, options: dict[str, Any], seed: int) -> Reply:
        """A reply with room for thoughts. The room is kept where it was of use, and never tried again where not."""
        self._probed = True
        roomy = replace(self._dialect, thinking=PROBE)
        reply, _ = self._once(chat, options, seed, roomy)
        if reply.finish_reason == THOUGHTS or (reply.error is None and (is_whole(reply) or thinks_aloud(reply.text))):
            self._dialect = replace(self._dialect, thinking=PROBE)
        return reply

    def _once(self, chat: Any, options: dict[str, Any], seed: int, dialect: Dialect) -> tuple[Reply, Dialect]:
        """One reply, after as many refusals as the dialect has options to give up, and the dialect that it came by.

        What a refusal names is given up for good; a refusal that may have another cause changes this reply alone. So
        does a breakdown at the first request of all, unless the server breaks down at the same request again.
        """
        started, certain, whole = time.monotonic(), True, dialect
        broken: openai.InternalServerError | None = None
        while True:
            request = dialect.request(options | {"seed": seed})
            try:
                answer = self._server.ask(self.model, chat, **request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refusal = error.response.text
                simpler = dialect.after_refusal(refusal, request)
                if simpler is None:
                    return self._failed(error, started), dialect
                less_room = simpler.most_thinking < dialect.most_thinking
                dialect, certain = simpler, certain and (less_room or names_an_option(refusal))
                if certain:
                    self._dialect = dialect
            except openai.InternalServerError as error:
                broken, plainer = broken or error, None if self._settled else dialect.with_less_json()
                if plainer is None:
                    return self._failed(broken, started), dialect
                dialect = plainer
            except openai.OpenAIError as error:
                return self._failed(error, started), dialect
            else:
                bound = dialect.token_bound(options["max_tokens"])
                replies = [self._read(answer, chat, started, bound)]
                if broken is not None:
                    again = self._past(broken, chat, whole.request(options | {"seed": seed}))
                    if again is None:
                        self._dialect = dialect
                    else:  # it was no breakdown at the format; what that answer took is counted
                        replies[:0] = [
                            self._read(one, chat, started, whole.token_bound(options["max_tokens"])) for one in again
                        ]
                return self._checked(last_of(replies), options.get("pattern")), dialect

    def _past(self, broken: openai.InternalServerError, chat: Any, request: dict[str, Any]) -> list[Answer] | None:
        """What the server says to a request that it broke down at; None where it breaks down again, or at the format.

        Any server may break down for a moment, and without the format many a model writes worse.
        """
        if not names_the_format(broken.response.text):
            try:
                return [self._server.ask(self.model, chat, **request)]
            except openai.InternalServerError:
                pass
            except openai.OpenAIError:
                return []
        _log.warning("%s breaks down where JSON is asked for; it is no longer (%s)", self.name, broken.status_code)
        return None

    def _read(self, answer: Answer, chat: Any, started: float, bound: int) -> Reply:
        """The reply in an answer that may take `bound` tokens: one that holds no text is an error."""
        if is_cut_in_thoughts(answer, bound):
            thoughts = line(answer.thoughts or answer.text)[:100]
            what = f"the model's thoughts took all {bound} tokens that it was given ({thoughts or 'and are not shown'})"
            reply = self._failed(what, started, THOUGHTS)
            self._remedy = "In a new run raise llm.max_tokens (--set llm.max_tokens=...), or let the model think less"
        elif answer.problem is not None:
            reply = self._failed(answer.problem, started, MALFORMED)
            if answer.is_completion:
                self._remedy = "Ask another model, or with another --template; `--resume` goes on with the run"
        else:
            reply = Reply(answer.text, self.form, answer.finish, seconds=since(started))
        asked = sum(estimated_tokens(message["content"]) for message in chat)
        prompt_tokens, completion_tokens = self._server.tokens(answer, asked, bound)
        return replace(reply, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def _checked(self, reply: Reply, expression: str | None) -> Reply:
        """The reply, or an error where a whole one is no phrase of the grammar that the server was given."""
        if expression is None or reply.error is not None or reply.finish_reason != "stop":
            return reply
        if keeps_to(reply, expression):
            return reply
        self._remedy = (
            "Ask a server that keeps to a `pattern` in a JSON schema, or start anew with --set llm.grammar=free"
        )
        what = f"the reply does not keep to the grammar of phrases: {line(reply.text)[:100]}"
        return replace(reply, finish_reason=MALFORMED, error=what)

    def _failed(self, error: Exception | str, started: float, reason: str = "error") -> Reply:
        self._remedy = f"{self._server.remedy(error)}; `--resume` goes on with the run"
        return Reply("", self.form, reason, seconds=since(started), error=self._server.reason(error))

    def _failure(self, reply: Reply) -> LLMError:
        remedy = self._remedy
        if self._lists is not None and "llm.grammar" not in remedy:
            remedy += "; a server without JSON schemas needs --set llm.grammar=free"
        return LLMError(f"no reply could be had: {reply.error}", where=self.name, remedy=remedy)
