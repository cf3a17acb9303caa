"""Captions by a server that speaks OpenAI's chat completions and reads images."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from ipo.captions.base import short_hash
from ipo.data.images import load_image
from ipo.errors import LLMError, ModelError
from ipo.render import render

OPENAI_URL = "https://api.openai.com/v1"
TEMPLATE = "caption.j2"
IMAGE_SIDE = 512
"""Longest side of the image that is sent, in pixels; servers bill larger ones by the tile."""

_JPEG_QUALITY = 90
_TIMEOUT = 60.0
_RETRIES = 2
_CONCURRENCY = 8


class ApiDescriber:
    """Asks a server about each image. Transport errors are repeated by the SDK, a bounded number of times."""

    def __init__(self, model: str, base_url: str | None) -> None:
        self._url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        self._key = os.environ.get("OPENAI_API_KEY", "")
        if not self._key and self._url == OPENAI_URL:
            remedy = "Set OPENAI_API_KEY, or give captions.base_url of your own server"
            raise ModelError(f"captioner openai:{model} needs an API key", remedy=remedy)
        self._model, self._question = model, render(TEMPLATE)
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=self._url, timeout=_TIMEOUT, max_retries=_RETRIES
        )
        self.name = f"openai:{model} at {self._url}, question {short_hash(self._question)}"

    def describe(self, images: Sequence[Path]) -> Iterator[str]:
        """An answer an image, several asked for at once. Raises `LLMError` where the server fails."""
        # The first question goes out alone: a wrong address or model is then found out once, not a thousand times.
        yield from map(self._ask, images[:1])
        pool = ThreadPoolExecutor(_CONCURRENCY)
        try:
            yield from pool.map(self._ask, images[1:])
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, image: Path) -> str:
        """The answer about one image; empty if the model declines."""
        content = [
            {"type": "text", "text": self._question},
            {"type": "image_url", "image_url": {"url": data_url(image)}},
        ]
        chat: Any = [{"role": "user", "content": content}]
        try:
            answer = self._client.chat.completions.create(model=self._model, messages=chat)
        except (openai.OpenAIError, ValueError) as error:
            raise self._failure(str(error)) from error
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            raise self._failure("the server's answer is no chat completion")
        text = getattr(answer.choices[0].message, "content", None)
        return text if isinstance(text, str) else ""

    def _failure(self, reason: str) -> LLMError:
        text = " ".join(reason.replace(self._key, "***").split() if self._key else reason.split())[:300]
        remedy = "Check captions.base_url, the model's name and OPENAI_API_KEY; captions made so far are kept"
        return LLMError(f"no caption could be had: {text}", where=f"{self._model} at {self._url}", remedy=remedy)


def data_url(path: Path) -> str:
    """An image file, scaled down to `IMAGE_SIDE`, as a JPEG in a data URL; its name and metadata stay behind."""
    image = load_image(path)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
