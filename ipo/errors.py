"""Every error a user can meet, as one tree. A message says what is wrong, where, and what to do.

IpoError                 anything below; the command prints one line and exits with `exit_code`
|- ConfigError           a setting, option or settings file is wrong
|- UnknownName           a name that is in no list; the message shows the list
|- PromptError           a text that cannot be a prompt
|- DataError             a dataset, split, image or archive is missing or broken
|- ModelError            CLIP or LLM weights are missing, mismatched or unreachable
|- LLMError              a language model answered with an error, or not at all
`- RunError              a run cannot be started, read, resumed or brought to its end
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from ipo.screen import safe_line


class IpoError(Exception):
    """Base of all errors with a remedy: `what` is wrong, `where` it is, and `remedy`, what to do.

    Whatever a server, a file name or a library puts into them, the three hold no control character and no secret.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        what, where, remedy = safe_line(what), safe_line(where), safe_line(remedy)
        place = f" ({where})" if where else ""
        advice = f". {remedy}" if remedy else ""
        super().__init__(f"{what.rstrip('.')}{place}{advice}")
        self.what, self.where, self.remedy = what, where, remedy


class ConfigError(IpoError):
    """A setting, an option or a settings file is wrong."""


class UnknownName(ConfigError):
    """A `name` of some `kind` that is not among `known`; the nearest known names come first in the message."""

    def __init__(self, kind: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        super().__init__(f"unknown {kind} '{name}'", remedy=f"{hint}Known: {', '.join(names)}. {remedy}".rstrip())
        self.name = name


class PromptError(IpoError):
    """A text that cannot be used as a prompt, such as one without its class slot."""


class DataError(IpoError):
    """A dataset, split file, image or archive is missing, broken or unsafe."""


class ModelError(IpoError):
    """Model weights are missing, unreachable, or do not fit the architecture asked for."""


class LLMError(IpoError):
    """A language model answered with an error, or not at all."""

    exit_code = 1


class RunError(IpoError):
    """A run cannot be started, read, resumed or brought to its end."""


class DivergedError(RunError):
    """A fit whose figures are no numbers any more: going on with it would do the same again."""
