"""Downloads that resume, are verified before anyone sees them, and land under their name in one step."""

from __future__ import annotations

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ipo.config import offline_by_environment
from ipo.errors import DataError
from ipo.net.addresses import open_url, proxies
from ipo.progress import progress_bar
from ipo.store.disk import writing

ATTEMPTS = 3
"""How often a broken connection is taken up again before the command gives up (the next one resumes)."""
TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)

Accept = Callable[[Path], None]
"""Raises `DataError` if a downloaded file is not what it should be."""


class _Response(Protocol):
    """The part of an HTTP response that is used here."""

    status: int
    headers: http.client.HTTPMessage

    def read(self, size: int) -> bytes:
        """At most `size` more bytes of the body."""


def download(url: str, target: Path, accept: Accept) -> Path:
    """Fetch `url` to `target`. What is there so far lies at `target` + `.part`, from where another call goes on.

    `accept` checks the whole file before it gets its name; a file that it refuses is removed. Raises `DataError` if
    the site cannot be reached, ends the transfer early, or the disk is full; a file at `target` then stays as it was.
    """
    if offline_by_environment():
        raise DataError(f"{url} is not fetched: IPO_OFFLINE is set", remedy="Unset it, or get the file by hand")
    part = target.with_name(f"{target.name}.part")
    with writing(part, DataError):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch(url, part)
        except (*_NETWORK_ERRORS, ValueError) as error:  # the last for an address that is none
            reason = getattr(error, "reason", None) or error
            by = "".join(f" by {name}={address}" for name, address in proxies().items())
            raise DataError(f"cannot download {url}{by}: {reason}", remedy="Run the command again to go on") from error
        try:
            accept(part)
        except DataError as error:
            part.unlink(missing_ok=True)
            raise DataError(error.what, where=url, remedy=error.remedy) from error
        part.replace(target)
    return target


def _fetch(url: str, part: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fetch_rest(url, part)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            part.unlink()  # longer than the file is now: it has changed, so start afresh
        except _NETWORK_ERRORS:
            if attempt == ATTEMPTS or not part.exists():
                raise
        time.sleep(attempt * 0.1)
    raise http.client.IncompleteRead(b"")


def _fetch_rest(url: str, part: Path) -> None:
    """Append to `part` what it lacks; from the start where the server does not resume."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "ipo", **({"Range": f"bytes={have}-"} if have else {})}
    with open_url(urllib.request.Request(url, headers=headers), TIMEOUT_SECONDS) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        total = _total_bytes(response, have)
        _require_room(part, (total or 0) - have)
        with part.open("ab" if have else "wb") as output, progress_bar() as bar:
            task = bar.add_task(f"{part.stem} (MiB)", total=total and total / _CHUNK)
            while chunk := response.read(_CHUNK):
                output.write(chunk)
                have += len(chunk)
                bar.update(task, completed=have / _CHUNK)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _total_bytes(response: _Response, have: int) -> int | None:
    """Size of the whole file as the server announces it; None if it does not."""
    spanned = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if spanned:
        return int(spanned[1])
    length = response.headers.get("Content-Length")
    return have + int(length) if length and length.isdigit() else None


def _require_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise DataError(
            f"the disk is full: {needed:,} bytes are needed, {free:,} are free",
            where=str(part.parent),
            remedy="Free some space, or give another folder with --data-root",
        )
