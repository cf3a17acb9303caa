"""Captions by a server that speaks OpenAI's chat completions and reads images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from ipo.captions.base import short_hash
from ipo.data.images import load_image
from ipo.errors import LLMError
from ipo.llm.base import Spent
from ipo.llm.server import Server, estimated_tokens, side_by_side
from ipo.render import render

TEMPLATE = "caption.j2"
IMAGE_SIDE = 512
"""Longest side of the image that is sent, in pixels; servers bill larger ones by the tile."""

IMAGE_TOKENS = 255
"""What such an image takes where the server does not count (OpenAI: 85, and 170 for its one tile)."""

_JPEG_QUALITY = 90
_TIMEOUT = 60.0
_RETRIES = 2
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
            f"captioner openai:{model}", base_url, "captions.base_url", timeout=_TIMEOUT, retries=_RETRIES
        )
        self._model, self._question = model, render(TEMPLATE)
        self.name = f"openai:{model} at {self._server.url}, question {short_hash(self._question)}"
        self.spent = Spent(self._server.name_of(model))

    def describe(self, images: Sequence[Path]) -> Iterator[str | LLMError]:
        """An answer an image, several asked for at once. Raises `LLMError` where the server fails."""
        # The first question goes out alone: a wrong address or model is then found out once, not a thousand times.
        for image in images[:1]:
            yield self._count(self._ask(image))
        for answer in side_by_side(self._ask, images[1:], _CONCURRENCY):
            yield self._count(answer)

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
            answer = self._server.client.chat.completions.create(model=self._model, messages=chat)
        except openai.BadRequestError as error:
            return _Answer(self._failure(error))
        except (openai.OpenAIError, ValueError) as error:
            raise self._failure(error) from error
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            raise self._failure("the server's answer is no chat completion")
        said = getattr(answer.choices[0].message, "content", None)
        text = said if isinstance(said, str) else ""
        asked = estimated_tokens(self._question) + IMAGE_TOKENS
        return _Answer(text, *self._server.tokens(answer, asked, estimated_tokens(text)))

    def _failure(self, error: Exception | str) -> LLMError:
        remedy = "Check captions.base_url, the model's name and OPENAI_API_KEY; captions made so far are kept"
        where = f"{self._model} at {self._server.url}"
        return LLMError(f"no caption could be had: {self._server.reason(error)}", where=where, remedy=remedy)


def data_url(path: Path) -> str:
    """An image file, scaled down to `IMAGE_SIDE`, as a JPEG in a data URL; its name and metadata stay behind."""
    image = load_image(path)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
