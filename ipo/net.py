"""Whether a server answers, found out in seconds."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

SECONDS = 4.0


def probe(url: str, headers: Mapping[str, str] | None = None) -> int | str:
    """The HTTP status of a HEAD request, by the proxy of the environment if it names one; or why none came."""
    request = urllib.request.Request(url, method="HEAD", headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(getattr(error, "reason", error))
