"""Addresses of servers, whether one answers, the proxies on the way, and an end to all waiting."""

from __future__ import annotations

import os
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextvars import copy_context
from multiprocessing.pool import ThreadPool
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator

from ipo.errors import ConfigError
from ipo.screen import PROXY_VARIABLES, looks_like_a_key, shown_address

SECONDS = 4.0

T = TypeVar("T")


def in_time(function: Callable[[], T], seconds: Callable[[], float], came: Callable[[], float] = lambda: 0.0) -> T:
    """The result of `function`. Raises TimeoutError where `came`, a count of what came, stands still for `seconds`.

    No client has a limit on the whole of an answer, only on the wait for its next byte, so that a server which drips
    would hold it for ever. `function` runs in a daemon thread, which nobody waits for where time is up.
    """
    pool = ThreadPool(1)
    try:
        result = pool.apply_async(copy_context().run, (function,))  # silence holds in the thread, too
        count, moved = came(), time.monotonic()
        while not result.ready():
            result.wait(0.1)
            now = came()
            if now != count:
                count, moved = now, time.monotonic()
            elif time.monotonic() - moved > seconds() and not result.ready():
                raise TimeoutError(f"nothing came for {seconds():g} seconds")
        answer: T = result.get()
        return answer
    finally:
        pool.terminate()


def probe(url: str) -> int | str:
    """The HTTP status of a HEAD request, by the proxy of the environment if it names one; or why none came in time.

    What is no address of a server is a reason too.
    """
    import httpx2

    if not url.startswith(("http://", "https://")):
        return "it does not begin with http:// or https://"
    try:
        require_usable_proxies()
        return int(in_time(lambda: httpx2.head(url, timeout=SECONDS), lambda: SECONDS).status_code)
    except (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL, ConfigError) as error:
        return str(error) or type(error).__name__


def proxies() -> dict[str, str]:
    """The proxies that the environment names, by variable, as they may be shown."""
    return {name: shown_address(os.environ[name]) for name in PROXY_VARIABLES if os.environ.get(name)}


def open_url(request: urllib.request.Request, timeout: float) -> Any:
    """`urlopen` by the proxy of the environment, ALL_PROXY included. Raises `ConfigError` for one of SOCKS."""
    named = urllib.request.getproxies()
    chosen = {scheme: named.get(scheme) or named.get("all", "") for scheme in ("http", "https")}
    chosen = {scheme: proxy for scheme, proxy in chosen.items() if proxy}
    proxy = chosen.get(request.type, "")
    if proxy.startswith("socks") and not urllib.request.proxy_bypass(request.host):
        what = "files of datasets are not fetched by a SOCKS proxy"
        remedy = "Name an HTTP proxy in HTTPS_PROXY, or the site in NO_PROXY; or get the file by hand"
        raise ConfigError(what, where=shown_address(proxy), remedy=remedy)
    return urllib.request.build_opener(urllib.request.ProxyHandler(chosen)).open(request, timeout=timeout)


def require_usable_proxies() -> None:
    """Raise `ConfigError` for a proxy of the environment that no client could use."""
    import httpx2

    named = ", ".join(f"{name}={address}" for name, address in proxies().items())
    try:
        httpx2.Client().close()
    except ImportError as error:
        what = "a SOCKS proxy needs the package socksio"
        raise ConfigError(what, where=named, remedy="Run: pip install socksio. Or unset the variable") from error
    except (ValueError, httpx2.InvalidURL) as error:
        remedy = "Write it like http://host:3128, or unset the variable"
        raise ConfigError("the address of a proxy cannot be read", where=named, remedy=remedy) from error


def server_address(url: str) -> str:
    """The base URL of a server, as it is used and recorded. Raises `ConfigError` where it is none or holds a secret."""
    address = url.strip()
    shown = shown_address(address)
    try:
        parts = urllib.parse.urlsplit(address)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket without its other
        whole = False
    if not whole or re.search(r"\s", address):
        remedy = "Write it like http://localhost:8000/v1"
        raise ConfigError(
            "the address of a server begins with http:// or https:// and a host", where=shown, remedy=remedy
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        what = "the address of a server is recorded with the run, so it holds no user, password or key"
        raise ConfigError(what, where=shown, remedy="Put the key into the variable OPENAI_API_KEY")
    return address


def recorded_address(url: str) -> str:
    """A `server_address` among the settings, which a run keeps. Raises `ConfigError` for what may be a key, too."""
    address = server_address(url)
    if any(map(looks_like_a_key, address.split("/"))):
        what = "a part of the address looks like a key, and settings are recorded with the run"
        raise ConfigError(what, where=shown_address(address), remedy="Set it as OPENAI_BASE_URL, which is not recorded")
    return address


Address = Annotated[str, AfterValidator(recorded_address)]
"""A setting that holds the address of a server."""
