"""The contract of a language model that proposes prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol, runtime_checkable

from ipo.store.files import EXACT

TextForm = Literal["lines", "sentence"]
"""How an answer holds texts that are no prompts: `lines`, each after a dash, or a `sentence`."""
ReplyForm = Literal["line", "phrase", "phrase object", "sides", "free", "set", "lines", "sentence"]
"""How a reply holds its proposal: `line`, the whole text is a prompt by grammar; `phrase`, the same by the grammar of
phrases; `phrase object`, a JSON object whose `phrase` is one was asked for; `sides`, a JSON object with the text
`before` and `after` the class slot was; `free`, anything, with the prompt between <INS> and </INS>; `set`, the ids of
prompts that stand together, of which no model is asked. Those of `TextForm` hold no prompt."""
PHRASE_FORMS: frozenset[ReplyForm] = frozenset(("phrase", "phrase object"))
"""Forms of which two replies with the same words in another order are one proposal."""


CAPTION_TOKENS = 2000
"""Tokens of captions that a large model is shown."""


@dataclass(frozen=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Reply:
    """One answer, exactly as it came. `error` is set, and `text` empty, when the model failed to answer."""

    text: str
    form: ReplyForm
    finish_reason: str
    """`stop` when the answer is whole; `length` when it was cut off, which makes it a reject."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    error: str | None = None

    __pydantic_config__: ClassVar = EXACT


@dataclass(frozen=True)
class Spent:
    """Tokens that one model took; `model` is its name in the price table."""

    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    __pydantic_config__: ClassVar = EXACT

    @property
    def tokens(self) -> int:
        """Prompt and reply tokens together."""
        return self.prompt_tokens + self.completion_tokens


UNPAID = Spent()
"""What a model on this machine took of a server's tokens."""


@dataclass(frozen=True)
class Usage:
    """What a run has used so far."""

    steps: int = 0
    proposals: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    captions: Spent = UNPAID
    """What the captions took before the first step."""

    @property
    def tokens(self) -> int:
        """Prompt and reply tokens together, those of the captions included."""
        return self.prompt_tokens + self.completion_tokens + self.captions.tokens


@dataclass(frozen=True)
class Style:
    """How a local model is best used: by its chat template or as a continuation, and what its samples need."""

    chat: bool
    template: str
    top_p: float = 1.0
    min_likelihood: float | None = None
    caption_tokens: int = CAPTION_TOKENS
    grammar: Literal["free", "phrase", "lines", "sentence"] = "free"


NOTHING_YET: Mapping[int, Reply] = MappingProxyType({})
"""No reply of a step is there yet."""


class LLM(Protocol):
    """Proposes prompts. Equal arguments on the same machine give equal replies from a local model."""

    @property
    def name(self) -> str:
        """The resolved model, for run records: never a preset name alone."""

    @property
    def template(self) -> str:
        """Meta-prompt template that suits this model: `ipo.j2`, or `continue.j2` for small and base models."""

    @property
    def form(self) -> ReplyForm:
        """The form of reply that it is asked for; the template words the request accordingly."""

    @property
    def caption_tokens(self) -> int:
        """Most tokens of captions in one meta-prompt that suit this model."""

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
        """`n` replies to `messages`; a model that can, proposes nothing of `known` (`ipo.prompt.text_key` of texts).

        `unnamed` are class names that no proposal should hold: the grammar of phrases leaves them out.

        Raises `LLMError` only when no reply at all can be had.
        """

    def token_count(self, text: str) -> int:
        """Tokens of `text`: exact for local models, an estimate from the length for remote ones."""


@runtime_checkable
class RemoteLLM(Protocol):
    """A language model that is asked for its replies one by one, and paid for each."""

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
        """The place (0 to `n` - 1) and the reply of each request as it comes; places that `have` holds are not asked.

        Raises `LLMError` when no reply at all can be had.
        """


@runtime_checkable
class LikelihoodModel(Protocol):
    """A language model that can also say how likely it finds a text."""

    @property
    def min_likelihood(self) -> float | None:
        """Bound on the value below that its preset recommends for proposals; None for no bound."""

    def mean_log_likelihood(self, texts: Sequence[str], context: str = "") -> list[float]:
        """Mean log-likelihood a token (nats, at most 0) of each text after `context`; exp(-value) is its perplexity."""
