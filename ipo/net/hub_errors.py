"""What went wrong with the hub, as one line that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Literal

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from ipo.errors import ModelError
from ipo.net.addresses import proxies
from ipo.screen import shown_address

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR, errno.EIO)


Kind = Literal["model", "dataset"]


def fetch_error(repo: str, error: BaseException, instead: str, kind: Kind = "model") -> ModelError:
    """The error about what could not be fetched; `instead` is what to use where the hub is out of reach."""
    where, hub = f"hf:{repo}", shown_address(constants.ENDPOINT)
    causes = list(_causes(error))
    http = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if http is not None:
        return _refusal(repo, http, instead, kind)
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _DISK and not isinstance(cause, ConnectionError):
            remedy = "Free some space, or set HF_HOME to a folder of yours on another disk"
            place = str(cause.filename or constants.HF_HUB_CACHE)
            return ModelError(f"cannot keep the {kind}: {cause.strerror}", where=place, remedy=remedy)
        if isinstance(cause, FileMetadataError):
            return ModelError(f"what answers at {hub} is no hub", where=where, remedy="Check HF_ENDPOINT")
    by = "".join(f" by {name}={address}" for name, address in proxies().items())
    reason = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
    remedy = f"{instead}. Where the hub can be reached, run the command again: files that came whole are kept"
    return ModelError(f"the {kind} cannot be fetched from {hub}{by}: {reason[:300]}", where=where, remedy=remedy)


def _refusal(repo: str, error: HfHubHTTPError, instead: str, kind: Kind) -> ModelError:
    """What a status of the hub means."""
    status, where = error.response.status_code, f"hf:{repo}"
    page = f"{shown_address(constants.ENDPOINT)}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    token = "the token that you gave has no access" if get_token() else "no token was given"
    if isinstance(error, GatedRepoError):
        remedy = f"Accept its licence at {page}, then set HF_TOKEN to a token of that account"
        return ModelError(f"the {kind} is gated, and {token} (HTTP {status})", where=where, remedy=remedy)
    if isinstance(error, RemoteEntryNotFoundError):
        return ModelError(f"the repository lacks a file: {error.response.url.path}", where=where, remedy=instead)
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403, 404):
        remedy = f"Check the name; for a private {kind} set HF_TOKEN to a token that may read it"
        return ModelError(
            f"the hub has no such {kind}, or hides it: {token} (HTTP {status})", where=where, remedy=remedy
        )
    remedy = f"Try again later. Or: {instead}"
    return ModelError(f"the hub answers HTTP {status} at {page}", where=where, remedy=remedy)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
