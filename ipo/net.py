"""Whether a server answers, found out in seconds."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping

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
