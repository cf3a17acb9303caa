"""Text from anywhere (servers, file names, refusals), made fit for a terminal: no control characters, no secrets."""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import unquote

_BREAKS = re.compile(r"[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
"""Tabs and line breaks: what is shown on one line has a space in their place."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What moves a cursor, colours, renames a window or turns the direction of writing; and halves of characters."""

_PLAIN_ERRORS = "ipo-plain"
"""Name of the codec error handler that puts plain characters in the place of others."""
_STAND_INS = {"Δ": "diff", "±": "+-", "†": "*", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x"}
_LINES = dict.fromkeys("─━═╌┄╴╶╸╺╼╾", "-") | dict.fromkeys("│┃║╎┆╵╷╹╻╽╿", "|")

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s'\"<>`]+")
"""An address, or the end of one whose scheme is longer: one without bound would be looked for in quadratic time."""
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:@]*)(?::\d*)?")
_KEY = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,})")
"""How keys of the hub and of OpenAI look, wherever they come from."""
_SECRET_NAMES = re.compile(r"key|token|secret|pass|pwd|sig|auth|cred|policy|session", re.IGNORECASE)
_KEY_VARIABLES = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
ADDRESS_VARIABLES = (*PROXY_VARIABLES, "HF_ENDPOINT", "OPENAI_BASE_URL")
"""Variables of the environment that hold addresses of servers, and maybe passwords in them."""
_LEAST = 6
"""Characters of the shortest secret that is looked for in any text; a shorter one would be found in common words."""

_silent: ContextVar[bool] = ContextVar("silent", default=False)
"""Whether nothing is shown that nobody asked for."""

_ENDS_IN_Y = re.compile("[^aeiou]y$")


def counted(count: int, noun: str) -> str:
    """`1 step`, `2,000 steps`, `2 classes`, `3 replies`."""
    several = f"{noun[:-1]}ies" if _ENDS_IN_Y.search(noun) else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else several}"


def printable(text: str) -> str:
    """The text on one line and without raw control characters: `\\x1b` stands written out where it was.

    Tabs and line breaks become spaces. Changes of direction and lone surrogates are written out too, so that the result
    can be encoded and reads in the order in which it is stored. All other characters stay.
    """
    return _CONTROLS.sub(lambda found: _written_out(found[0]), _BREAKS.sub(" ", text))


def _written_out(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def encodable(text: str, encoding: str) -> str:
    """The text with near-alike plain characters for those that `encoding` cannot write."""
    return text.encode(encoding, _PLAIN_ERRORS).decode(encoding)


def write_plainly() -> None:
    """Have standard output and error write near-alike characters for what their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN_ERRORS)


def _plain_characters(error: UnicodeError) -> tuple[str, int]:
    """The codec error handler: a stand-in for each character that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    if character in _STAND_INS:
        return _STAND_INS[character]
    if "\u2500" <= character <= "\u257f":
        return _LINES.get(character, "+")
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return bare or "?"


codecs.register_error(_PLAIN_ERRORS, _plain_characters)


def without_secrets(text: str) -> str:
    """The text with `***` for passwords and keys: those inside addresses, and those that the environment holds."""
    for secret in sorted(_known_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL.sub(lambda found: _without_user(_without_query_keys(found[0])), _KEY.sub("***", text))


def safe_line(text: str) -> str:
    """The text `printable` and `without_secrets`: fit for a terminal, a log and a report."""
    return printable(without_secrets(text))


def shown_address(address: str) -> str:
    """An address as it may be shown: no user, no password, no query, and `***` for a part that looks like a key."""
    plain = _without_user(re.split(r"[?#]", _trimmed(address))[0])
    return safe_line("/".join("***" if looks_like_a_key(part) else part for part in plain.split("/")))


def looks_like_a_key(part: str) -> bool:
    """Whether a part of an address is long and mixed enough to be a key and no name."""
    return len(part) >= 20 and bool(re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_~%=-]+", part))


@contextmanager
def silence(wanted: bool = True) -> Iterator[None]:
    """Inside, where it is `wanted`, `say` and progress bars show nothing."""
    before = _silent.set(wanted)
    try:
        yield
    finally:
        _silent.reset(before)


def is_silent() -> bool:
    """Whether this is inside of `silence`."""
    return _silent.get()


def say(text: str) -> None:
    """Show a text on standard error, line by line as `safe_line`, unless there is `silence`."""
    if is_silent():
        return
    for line in text.split("\n"):
        print(safe_line(line), file=sys.stderr, flush=True)


class SafeFormatter(logging.Formatter):
    """Log records as one safe line each; a traceback follows as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return safe_line(super().formatMessage(record))


class _StderrHandler(logging.Handler):
    """Writes to what standard error is at that moment: above a progress bar while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        print(self.format(record), file=sys.stderr, flush=True)


class _QuietLogger(logging.Logger):
    """A logger that is silent unless it is one of this project's, whatever handlers a library gives it."""

    def isEnabledFor(self, level: int) -> bool:
        """Whether a record of this level goes anywhere."""
        return _is_ours(self.name) and super().isEnabledFor(level)


def show_only_our_warnings() -> None:
    """Have this project's warnings reach standard error as safe lines, and those of libraries nothing.

    For the start of a program, before libraries are imported. Where IPO_LIBRARY_LOGS is set, libraries speak too.
    """
    handler = _StderrHandler()
    handler.setFormatter(SafeFormatter("ipo: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if os.environ.get("IPO_LIBRARY_LOGS"):
        return
    handler.addFilter(lambda record: _is_ours(record.name))
    logging.setLoggerClass(_QuietLogger)
    logging.captureWarnings(True)  # Python's warnings become records, which are none of ours
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what C++ writes passes all of the above by
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # it warns at a fork; our forks decode pictures only


def _is_ours(logger: str) -> bool:
    return logger.partition(".")[0] in ("ipo", "ipo_baselines")


def _trimmed(address: str) -> str:
    return address.strip().strip("'\"")


def _without_user(url: str) -> str:
    """An address with `***@` for user and password, be it that a password holds a slash; no scheme is needed."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    host = re.split(r"[/?#]", rest)[0]
    if "@" in rest and ("@" in host or not _HOST.fullmatch(host)):
        rest = f"***@{rest.rpartition('@')[2]}"
    return f"{scheme}{mark}{rest}"


def _without_query_keys(url: str) -> str:
    head, mark, query = url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    hidden = [f"{name}{sign}***" if sign and _SECRET_NAMES.search(name) else name + sign + v for name, sign, v in pairs]
    return f"{head}{mark}{'&'.join(hidden)}"


def _known_secrets() -> set[str]:
    """The keys of the environment, and the passwords and keys inside its addresses."""
    found = {os.environ.get(name, "").strip() for name in _KEY_VARIABLES}
    for name in ADDRESS_VARIABLES:
        found |= set(_secrets_of(_trimmed(os.environ.get(name, ""))))
    return {secret for secret in found | {unquote(secret) for secret in found} if len(secret) >= _LEAST}


def _secrets_of(address: str) -> Iterator[str]:
    rest = address.partition("://")[2] or address
    place, _, query = rest.partition("?")
    if _without_user(rest) != rest:
        user = place.rpartition("@")[0]
        yield from (user, user.partition(":")[2])
        place = place.rpartition("@")[2]
    yield from (part for part in place.split("/")[1:] if looks_like_a_key(part))
    pairs = (pair.partition("=") for pair in query.split("&"))
    yield from (value for name, _, value in pairs if _SECRET_NAMES.search(name) or looks_like_a_key(value))
