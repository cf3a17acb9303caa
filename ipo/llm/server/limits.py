"""An HTTP client that no server can hold up or flood: every exchange is bounded in seconds and in bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import httpx2
import openai

MAX_BYTES = 4_000_000
"""Longest answer that is read, unpacked; a proposal or a caption takes a thousandth of it."""
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
_TURNED_INTO_GET = (301, 302, 303)
_HEADERS = (b"retry-after", b"retry-after-ms", b"x-should-retry")
"""What the SDK wants to know. Others, such as a character set that is none, are no help in reading JSON."""
_SECONDS = 60.0

T = TypeVar("T")


class ServerFault(openai.OpenAIError):
    """An answer that asking again would not mend; its text says why."""


class BoundedClient(httpx2.Client):
    """A client whose answers are whole, unpacked and at most `MAX_BYTES` long, within the time-out of the request.

    httpx2 counts its time-out anew for every byte that comes; here it bounds the exchange as a whole.
    """

    def __init__(self) -> None:
        super().__init__(follow_redirects=True, limits=_LIMITS, event_hooks={"response": [_refuse_turned]})

    def __del__(self) -> None:
        with suppress(AttributeError):  # one that could not be made
            self.close()

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """The answer to a request. Raises `httpx2.HTTPError`, or `ServerFault` where asking again is of no use."""
        del stream  # an answer is always read to its end
        seconds = request.extensions.get("timeout", {}).get("read") or _SECONDS
        given_up = Event()
        try:
            return _within(seconds, lambda: self._exchange(request, options, given_up))
        except Empty:
            given_up.set()
            raise httpx2.ReadTimeout(f"no whole answer within {seconds:g} seconds", request=request) from None

    def _exchange(self, request: httpx2.Request, options: dict[str, Any], given_up: Event) -> httpx2.Response:
        response, body = super().send(request, stream=True, **options), bytearray()
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ServerFault(f"the server's answer is longer than {MAX_BYTES / 1e6:g} MB")
                if given_up.is_set():
                    break
        finally:
            response.close()
            if self.is_closed and "network_stream" in response.extensions:
                response.extensions["network_stream"].close()  # one that was opened while the client was closed
        headers = [(name, value) for name, value in response.headers.raw if name.lower() in _HEADERS]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def _within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, done by a thread that is left behind where it takes longer: `queue.Empty`."""
    outcome: Queue[tuple[T | None, Exception | None]] = Queue(1)

    def run() -> None:
        try:
            outcome.put((work(), None))
        except Exception as error:  # noqa: BLE001 (raised again by the thread that waits)
            outcome.put((None, error))

    Thread(target=run, daemon=True).start()
    result, error = outcome.get(timeout=seconds)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _refuse_turned(response: httpx2.Response) -> None:
    """Raise `ServerFault` for a redirect that would turn a question into a request for a page."""
    if response.status_code in _TURNED_INTO_GET and response.request.method == "POST":
        place = re.sub(r"//[^/]*@", "//", response.headers.get("location", "").partition("?")[0])
        what = f"HTTP {response.status_code}: the server redirects to '{place}', where a question cannot follow"
        raise ServerFault(what)
