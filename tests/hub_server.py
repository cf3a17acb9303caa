"""A stand-in for the Hugging Face hub on loopback: files of folders, a count of what is asked, and faults on demand."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from huggingface_hub import close_session

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories `root/org/name`, and how to misbehave about them."""

    root: Path
    address: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of each request."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and X-Error-Code for whatever is asked about a repository."""
    gated: set[str] = field(default_factory=set)
    """Repositories that answer to a token only."""
    cuts: dict[str, int] = field(default_factory=dict)
    """Bytes of a file after which the connection breaks, once."""
    silent: str = ""
    """Part of the paths that are never answered."""
    dripping: str = ""
    """Part of the paths whose answers come a byte at a time."""
    closing: threading.Event = field(default_factory=threading.Event)

    def requests(self, part: str = "") -> list[str]:
        """The requests so far whose path has this part."""
        return [f"{method} {path}" for method, path, _ in self.asked if part in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(body=True)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append((self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        if self.hub.silent and self.hub.silent in path:
            self.hub.closing.wait()
            self.close_connection = True
            return
        parts = path.strip("/").removeprefix("datasets/").split("/")
        about = parts[0] == "api" and parts[1:2] in (["models"], ["datasets"])
        name = "/".join(parts[2:4] if about else parts[:2])
        gate = name in self.hub.gated and "Authorization" not in self.headers
        if gate or name in self.hub.refused:
            status, code = self.hub.refused.get(name, (401, "GatedRepo"))
            self.reply(status, b"", body, {"X-Error-Code": code} if code else {})
        elif not (self.hub.root / name).is_dir():
            self.reply(404, b"", body, {"X-Error-Code": "RepoNotFound"})
        elif about:
            self.describe(name, parts[4:5], body)
        else:
            self.file(name, "/".join(parts[4:]), body)

    def describe(self, name: str, what: list[str], body: bool) -> None:
        files = sorted(path for path in (self.hub.root / name).iterdir() if path.is_file())
        rows = [
            {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": tag_of(path.read_bytes())}
            for path in files
        ]
        if what == ["tree"] or what == ["paths-info"]:
            return self.reply(200, json.dumps(rows).encode(), body, {"Content-Type": "application/json"})
        siblings = [{"rfilename": path.name, "size": path.stat().st_size} for path in files]
        about = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": False, "tags": []}
        return self.reply(
            200, json.dumps({**about, "siblings": siblings}).encode(), body, {"Content-Type": "application/json"}
        )

    def file(self, name: str, member: str, body: bool) -> None:
        path = self.hub.root / name / member
        if not path.is_file():
            return self.reply(404, b"", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = path.read_bytes()
        headers = {"ETag": f'"{tag_of(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cuts.pop(member, None) if body else None
        return self.reply(206 if wanted else 200, content[start:], body, headers, cut)

    def reply(self, status: int, content: bytes, body: bool, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        drips = self.hub.dripping and self.hub.dripping in self.path
        if drips:
            for byte in content:
                if self.hub.closing.wait(0.1):
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        else:
            self.wfile.write(content if cut is None else content[:cut])
        self.close_connection = bool(drips) or cut is not None


def tag_of(content: bytes) -> str:
    """What tells one content of a file from another."""
    return hashlib.sha256(content).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


@contextlib.contextmanager
def serving_hub(root: Path) -> Iterator[Hub]:
    """The stand-in at a free port of loopback."""
    hub, before = Hub(root), set(threading.enumerate())
    gc.freeze()  # so that the collection at the end looks at what is made meanwhile, and not at all libraries
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        close_session()
        for started in set(threading.enumerate()) - before:  # a client that was given up ends now
            started.join(5)
        close_session()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # its connections
            gc.collect()
        gc.unfreeze()
