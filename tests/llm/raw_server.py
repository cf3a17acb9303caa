"""A server that sends bytes exactly as a test wants them: slowly, without end, packed, or as no HTTP at all."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Bytes = Callable[[int], Iterable[bytes]]
"""From the number of the request to the pieces of its answer, headers and all."""


class RawServer:
    """Listens on a free port of this machine; `requests` holds the bodies that came, as JSON."""

    def __init__(self, answer: Bytes) -> None:
        self.answer = answer
        self.requests: list[Any] = []
        self.ended = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            length = 0
            while (line := lines.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self.requests.append(json.loads(lines.read(length) or b"null"))
            for piece in self.answer(len(self.requests) - 1):
                if self.ended.is_set():
                    return
                connection.sendall(piece)


@contextmanager
def raw_serving(answer: Bytes) -> Iterator[RawServer]:
    """A raw server, stopped in the end."""
    server = RawServer(answer)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()
        thread.join(10)


def head(status: str = "200 OK", *headers: str, kind: str = "application/json") -> bytes:
    """The head of an answer after which the connection is closed."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()
