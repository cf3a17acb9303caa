"""Captions by a server that speaks OpenAI's chat completions and reads images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai

from ipo.captions.base import Declined, short_hash
from ipo.data.images import load_image
from ipo.errors import LLMError
from ipo.llm.base import Spent
from ipo.llm.server.answer import Answer
from ipo.llm.server.client import Server, as_they_come, estimated_tokens
from ipo.llm.thoughts import answer_of
from ipo.render import render

TEMPLATE = "caption.j2"
IMAGE_SIDE = 512
"""Longest side of the image that is sent, in pixels; servers bill larger ones by the tile."""

IMAGE_TOKENS = 255
"""What such an image takes where the server does not count (OpenAI: 85, and 170 for its one tile)."""

MAX_ANSWER = 20_000
"""Most characters of an answer that are looked at; a caption takes a fiftieth."""

_JPEG_QUALITY = 90
TIMEOUT = 60.0
"""Seconds until a request for a caption is given up."""
RETRIES = 2
"""Repeats of such a request after a transport error."""
_CONCURRENCY = 8


@dataclass(frozen=True)
class _Answer:
    """What came back about one image: a text, empty if the model declines, or the server's refusal."""

    text: str | LLMError
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ApiDescriber:
    """Asks a server about each image. Transport errors are repeated by the SDK, a bounded number of times."""

    def __init__(self, model: str, base_url: str | None) -> None:
        self._server = Server(
            f"captioner openai:{model}", base_url, "captions.base_url", timeout=TIMEOUT, retries=RETRIES
        )
        self._model, self._question = model, render(TEMPLATE)
        self.name = f"openai:{model} at {self._server.address}, question {short_hash(self._question)}"
        self.spent = Spent(self._server.name_of(model))

    def describe(self, images: Sequence[Path]) -> Iterator[tuple[Path, str | LLMError]]:
        """An answer an image, as it comes, several asked for at once. Raises `LLMError` where the server fails."""
        # The first question goes out alone: a wrong address or model is then found out once, not a thousand times.
        for image in images[:1]:
            yield image, self._count(self._ask(image))
        for image, answer in as_they_come(lambda image: (image, self._ask(image)), images[1:], _CONCURRENCY):
            yield image, self._count(answer)

    def _count(self, answer: _Answer) -> str | LLMError:
        self.spent = replace(
            self.spent,
            prompt_tokens=self.spent.prompt_tokens + answer.prompt_tokens,
            completion_tokens=self.spent.completion_tokens + answer.completion_tokens,
        )
        return answer.text

    def _ask(self, image: Path) -> _Answer:
        content = [
            {"type": "text", "text": self._question},
            {"type": "image_url", "image_url": {"url": data_url(image)}},
        ]
        chat: Any = [{"role": "user", "content": content}]
        try:
            answer = self._server.ask(self._model, chat)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return _Answer(self._failure(error))
        except openai.OpenAIError as error:
            raise self._failure(error) from error
        if not answer.is_completion:
            raise self._failure(answer.problem or "")
        asked = estimated_tokens(self._question)
        prompt_tokens, completion_tokens = self._server.tokens(answer, asked, unseen=IMAGE_TOKENS)
        return _Answer(self._caption(answer), prompt_tokens, completion_tokens)

    def _caption(self, answer: Answer) -> str | LLMError:
        """The caption in an answer, without thoughts; empty, or the words of its refusal, where the model declines."""
        said = answer_of(answer.text)
        if answer.problem is not None and not answer.thoughts:
            return Declined(self._server.reason(answer.problem)) if answer.declined else self._failure(answer.problem)
        if said is None or (answer.thoughts and not answer.text):
            return self._failure("the model's thoughts took all the tokens that it was given")
        return said[:MAX_ANSWER]

    def _failure(self, error: Exception | str) -> LLMError:
        remedy = f"{self._server.remedy(error)}; captions made so far are kept"
        where = f"{self._model} at {self._server.address}"
        return LLMError(f"no caption could be had: {self._server.reason(error)}", where=where, remedy=remedy)


def data_url(path: Path) -> str:
    """An image file, scaled down to `IMAGE_SIDE`, as a JPEG in a data URL; its name and metadata stay behind."""
    image = load_image(path)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
