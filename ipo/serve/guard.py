"""Who may ask what: requests of other sites, for other names, with large bodies or without the token are refused.

A page of any site can have a browser send requests to this machine. So the `Host` has to be a name of this server
(against names that are made to point here), the `Origin` has to be its own, and what changes something has to be JSON
by its header, which no form of another site can send.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 64 * 1024
"""Largest body of a request: a sentence is small."""
TOO_LARGE = "The request is too large."
COOKIE = "ipo-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Access:
    """What the server lets in: names that it is called by, and the token that is asked for, if any."""

    hosts: frozenset[str]
    token: str = ""
    write: bool = False
    """Whether runs may be stopped and sentences added."""


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is this machine's own."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def access_for(host: str, names: tuple[str, ...] = (), write: bool = False) -> Access:
    """Access to a server that is bound to `host` and called by further `names`; with a token where others reach it."""
    if is_loopback(host):
        return Access(frozenset((*_LOOPBACK, host, *names)), "", write)
    own = () if host in ("0.0.0.0", "::") else (host,)
    return Access(frozenset((*own, *_LOOPBACK, *names)), secrets.token_urlsafe(24), write)


class Guard:
    """The ASGI application in front of the other one."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers) or self._without_token(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self._app(scope, _bounded(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if _name(host) not in self._access.hosts:
            return PlainTextResponse("This server has another name. Start it with --allow-host NAME.", 421)
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return PlainTextResponse("Requests of other sites are refused.", 403)
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if site in ("cross-site", "same-site") and (mode != "navigate" or scope["method"] != "GET"):
            return PlainTextResponse("Requests of other sites are refused.", 403)
        if scope["method"] not in ("GET", "HEAD"):
            kind = headers.get("content-type", "").partition(";")[0].strip()
            if scope["method"] != "POST" or kind != "application/json":
                return PlainTextResponse("Only POST with a body of application/json changes something.", 415)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
            return PlainTextResponse(TOO_LARGE, 413)
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """None where the token is there; from the address it moves to a cookie, so that it stays in no history."""
        if not self._access.token:
            return None
        if self._is_token(_cookie(headers.get("cookie", ""))):
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "GET" and self._is_token(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return answer
        return PlainTextResponse("Open the address that ipo serve has printed: it holds a token.", 401)

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._access.token.encode())


def _name(host: str) -> str:
    """The name in a `Host` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _bounded(receive: Receive) -> Receive:
    """Reads a body, be it of unknown length, as far as it is not too large."""
    total = 0

    async def read() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BYTES:
            raise HTTPException(413, TOO_LARGE)
        return message

    return read


def _with_headers(send: Send) -> Send:
    async def write(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            more = {"content-security-policy": POLICY, **_HEADERS}
            added = [(name.encode(), value.encode()) for name, value in more.items() if name.encode() not in given]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return write
