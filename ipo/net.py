"""Addresses of servers, and whether one answers, found out in seconds."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from ipo.errors import ConfigError

SECONDS = 4.0


def probe(url: str, headers: Mapping[str, str] | None = None) -> int | str:
    """The HTTP status of a HEAD request, by the proxy of the environment if it names one; or why none came.

    What is no address of a server is a reason too.
    """
    if not url.startswith(("http://", "https://")):
        return f"'{url}' does not begin with http:// or https://"
    try:
        request = urllib.request.Request(url, method="HEAD", headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error))


def server_address(url: str) -> str:
    """The base URL of a server, as it is used and recorded. Raises `ConfigError` where it is none or holds a secret."""
    address = url.strip()
    shown = re.sub(r"[^/]*@", "", address.partition("?")[0])
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


Address = Annotated[str, AfterValidator(server_address)]
"""A setting that holds the address of a server."""
