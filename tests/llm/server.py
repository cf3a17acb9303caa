"""A small OpenAI-compatible server around anything that writes text, for tests and for trying the HTTP path by hand.

By hand, around the offline model:  python -m tests.llm.server --mode honours --port 8000
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Mode = Literal["honours", "ignores", "rejects"]
"""What becomes of a `response_format`: kept to, passed over, or refused with HTTP 400."""
Writer = Callable[[dict[str, Any]], str]
"""From the whole request to the text of the reply. In mode `honours` it finds the schema in `response_format`."""


class FakeServer(ThreadingHTTPServer):
    """Answers `/v1/chat/completions` and `/v1/models`, and keeps what it was sent in `requests`."""

    daemon_threads = True

    def __init__(self, write: Writer, mode: Mode = "honours", port: int = 0, model: str = "loopback") -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.write, self.mode, self.model = write, mode, model
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        if self.server.mode == "rejects" and "response_format" in request:
            self._send(400, {"error": {"message": "unknown field", "param": "response_format"}})
            return
        if self.server.mode == "ignores":
            request.pop("response_format", None)
        text = self.server.write(request)
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"]}
        self._send(200, answer | {"choices": [choice], "usage": usage})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that was interrupted is gone
            super().handle()

    def log_message(self, *arguments: Any) -> None:
        """Stay silent."""


class Interrupting:
    """A writer that answers the first request, interrupts the tests at the third, and holds all but the first back."""

    def __init__(self, reply: str) -> None:
        self.reply, self.asked, self.answered = reply, 0, 0
        self.release = threading.Event()

    def __call__(self, request: dict[str, Any]) -> str:
        self.asked += 1
        if self.asked == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if self.asked > 1:
            self.release.wait(10)
            self.answered += 1
        return self.reply


@contextmanager
def serving(write: Writer, mode: Mode = "honours") -> Iterator[FakeServer]:
    """A server on a free port of this machine, stopped in the end."""
    with FakeServer(write, mode) as server:
        thread = threading.Thread(target=server.serve_forever, name="server", kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


def local_writer() -> Writer:
    """The offline model behind the server: JSON by the schema where one is asked for, free text otherwise."""
    from llguidance import LLMatcher

    from ipo.config import LLMSettings
    from ipo.llm.base import Message, Style
    from ipo.llm.load import load_llm
    from ipo.llm.local.base import LocalLLM
    from ipo.llm.local.sampling import Sampler

    llm = load_llm(LLMSettings(), offline=True)
    assert isinstance(llm, LocalLLM)
    llm.style = Style(chat=True, template="ipo.j2")
    one_at_a_time = threading.Lock()

    def write(request: dict[str, Any]) -> str:
        schema = request.get("response_format", {}).get("json_schema", {}).get("schema")
        grammar = (
            LLMatcher.grammar_from_json_schema(_bounded(schema), defaults={"whitespace_flexible": False})
            if schema
            else LLMatcher.grammar_from_regex(r"(.|\n){1,300}")
        )
        sampler = Sampler(request.get("temperature", 1.0), request.get("top_p", 0.9), request.get("seed", 0))
        messages = [Message(message["role"], message["content"]) for message in request["messages"]]
        with one_at_a_time:
            return llm.write(messages, [grammar], request.get("max_tokens", 96), sampler)[0].text

    return write


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with short texts, so that a small model closes them before its token limit."""
    properties = {name: {**rule, "maxLength": 35} for name, rule in schema["properties"].items()}
    return {**schema, "properties": properties}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["honours", "ignores", "rejects"], default="honours")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    with FakeServer(local_writer(), options.mode, options.port, "smollm2-135m") as running:
        print(f"{running.url} ({options.mode}); Ctrl-C stops it")
        running.serve_forever()
