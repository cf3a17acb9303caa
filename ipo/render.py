"""The one Jinja environment: strict about names, sandboxed, and the only door to `templates/`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ipo.errors import ConfigError
from ipo.screen import counted, printable
from ipo.store.inputs import read_input

_FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What an expression in a template can raise besides Jinja's own errors; a file that is not UTF-8 is a ValueError."""


def templates_folder() -> Path:
    """Where the shipped templates lie: beside the package in a checkout, inside it in a wheel."""
    packaged = Path(__file__).parent / "templates"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "templates"


def is_shipped(template: str) -> bool:
    """Whether this is the name of a shipped template."""
    return Path(template).name == template and (templates_folder() / template).is_file()


def asset(name: str) -> str:
    """A file that pages are made with and that is no template: a style or a script."""
    return (templates_folder() / name).read_text(encoding="utf-8")


def code(text: str) -> str:
    """A text as a Markdown code span on one line, whatever backticks it holds."""
    line = " ".join(printable(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if "`" in (line[:1], line[-1:]) else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""


def cell(text: str) -> str:
    """A text as a code span in a cell of a Markdown table."""
    return code(text).replace("|", "\\|")


def markdown_text(text: str) -> str:
    """A text on one line that Markdown shows as it is, in a table too: no tag, link, emphasis or code comes of it."""
    line = " ".join(printable(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    line = re.sub(r"[\\`*|~]|\b_|_\b|\](?=[(\[:])", r"\\\g<0>", line)
    return re.sub(r"^(?=#|>|[-+] )|^(\d+)(?=[.)] )", r"\1\\", line)


@cache
def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(templates_folder()),
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: bool(name and name.endswith((".html", ".html.j2"))),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    environment.filters |= {
        "code": code,
        "cell": cell,
        "plain": markdown_text,
        "printable": printable,
        "counted": counted,
    }
    return environment


def render(template: str | Path, **values: Any) -> str:
    """Fill in a template: a shipped one by its name (`ipo.j2`), or one's own by its path.

    Raises `ConfigError` naming the file and the missing variable or the bad line.
    """
    try:
        if isinstance(template, Path):
            return _environment().from_string(read_input(template, "template", ConfigError)).render(values)
        return _environment().get_template(template).render(values)
    except jinja2.UndefinedError as error:
        raise ConfigError(
            f"template uses an unknown variable: {error.message}",
            where=str(template),
            remedy=f"It may use: {', '.join(sorted(values))}",
        ) from error
    except jinja2.TemplateNotFound as error:
        known = ", ".join(sorted(path.name for path in templates_folder().glob("*.j2")))
        raise ConfigError(f"no template '{error.name}'", remedy=f"Shipped: {known}; or give a path") from error
    except jinja2.TemplateError as error:
        raise ConfigError(f"template does not render: {error}", where=str(template)) from error
    except _FAILURES as error:
        raise ConfigError(f"template does not render: {error}", where=str(template)) from error
