"""Who reads which settings: the commands and the methods."""

from __future__ import annotations

from dataclasses import dataclass

from ipo.registry import SEARCH, asks_llm, opens_llm


@dataclass(frozen=True)
class Reader:
    """Who reads settings, a command or a method: its name, and the sections and single settings that it reads."""

    name: str
    keys: tuple[str, ...]

    def reads(self, key: str) -> bool:
        """Whether it reads a setting, under some other settings at least."""
        return key in self.keys or key.partition(".")[0] in self.keys


_ANY_METHOD = ("data", "clip", "report", "seed", "tracker", "offline")
_ASKING = ("llm", "captions")
_OPENING = ("llm.spec", "llm.device", "llm.dtype")

OPTIMIZE = Reader(SEARCH, (*_ANY_METHOD, *_ASKING, "search", "strategy"))
BASELINE = Reader("ipo baseline", _ANY_METHOD)
"""What every method reads; `method_reader` knows what one of them reads beside it."""
EVALUATE = Reader(
    "ipo evaluate",
    (
        *(f"data.{key}" for key in ("dataset", "root", "domains", "names", "metric", "skip_unreadable")),
        *("clip", "seed", "offline"),
    ),
)
DESCRIBE = Reader(
    "ipo describe",
    (
        *(f"data.{key}" for key in ("dataset", "root", "domains", "targets", "names", "metric")),
        *(f"llm.{key}" for key in ("spec", "base_url", "temperature", "top_p", "max_tokens", "device", "dtype")),
        *(f"llm.{key}" for key in ("timeout", "retries", "concurrency")),
        *("seed", "offline"),
    ),
)
VERIFY = Reader("ipo verify", ("data.root", "data.skip_unreadable", "clip", "seed", "offline"))

COMMANDS = {"optimize": OPTIMIZE, "baseline": BASELINE, "evaluate": EVALUATE, "describe": DESCRIBE, "verify": VERIFY}
"""The commands that read settings."""


def method_reader(method: str) -> Reader:
    """What a method reads of the settings beside its own options. Raises `UnknownName` where there is none such."""
    if method == SEARCH:
        return OPTIMIZE
    own = _ASKING if asks_llm(method) else _OPENING if opens_llm(method) else ()
    return Reader(method, (*_ANY_METHOD, *own))
