"""`ipo config`: every setting with its default and meaning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from ipo.cli.console import output, print_json
from ipo.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic.fields import FieldInfo

    from ipo.config import Section

Form = Literal["text", "json", "toml", "markdown"]


@dataclass(frozen=True)
class Row:
    """One setting in words."""

    key: str
    type: str
    default: str
    """In TOML's notation, or `unset`."""
    meaning: str
    flag: str = ""
    read_by: str = ""
    """The commands that read it."""


def config(
    names: Annotated[
        list[str] | None, typer.Argument(help="Sections or settings, such as search or clip.model; all by default.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="text, json, toml or markdown.")] = "text",
) -> None:
    """Show the settings: what each may be, its default, what it does, and the option that gives it.

    Options of strategies and methods are there as strategy:NAME and method:NAME; listing methods takes some seconds.

    Examples:

      ipo config search

      ipo config llm.temperature strategy:opro method:coop

      ipo config --format toml > settings.toml    # every setting as a comment; for --config
    """
    groups = choose(names or [])
    if form == "json":
        print_json([asdict(row) for rows in groups.values() for row in rows])
    elif form == "toml":
        print(as_toml(groups))
    elif form == "markdown":
        print(as_markdown(groups))
    else:
        print_tables(groups)


def choose(names: Sequence[str]) -> dict[str, list[Row]]:
    """The rows that are wanted, by section. Raises `UnknownName` for a name that is neither section nor setting."""
    settings = setting_groups()
    if not names:
        return settings | {name: rows for name, rows in strategy_groups().items() if rows}
    found: dict[str, list[Row]] = {}
    for name in names:
        groups = {**settings}
        if name.startswith("strategy:"):
            groups = strategy_groups()
        elif name.startswith("method:"):
            groups = method_groups([name.partition(":")[2]])
        rows = {row.key: row for group in groups.values() for row in group}
        if name not in groups and name not in rows:
            raise UnknownName("section or setting", name, [*groups, *rows])
        found.setdefault(name.partition(".")[0], []).extend(groups[name] if name in groups else [rows[name]])
    return found


def setting_groups() -> dict[str, list[Row]]:
    """The settings of a run by their sections."""
    from ipo.config.fields import flag_of, setting_fields
    from ipo.runs.readers import COMMANDS

    groups: dict[str, list[Row]] = {}
    for key, field in setting_fields().items():
        section = key.partition(".")[0] if "." in key else "others"
        option = flag_of(field)
        readers = ", ".join(name for name, reader in COMMANDS.items() if reader.reads(key))
        groups.setdefault(section, []).append(_row(key, field, option.name if option else "", readers))
    others = groups.pop("others")
    return groups | {"others": others}


def strategy_groups() -> dict[str, list[Row]]:
    """The options of each strategy; some have none."""
    from ipo.search.strategy import available_strategies, find_strategy

    names = available_strategies()
    return {f"strategy:{name}": list(_own_rows("strategy.", find_strategy(name).options)) for name in names}


def method_groups(names: Sequence[str]) -> dict[str, list[Row]]:
    """The options of these methods, without a section: `--set epochs=10`; of a search, what stands in the settings."""
    from ipo.methods import find_method

    groups: dict[str, list[Row]] = {}
    for name in names:
        method = find_method(name)
        if method.of_settings is None:
            groups[f"method:{name}"] = list(_own_rows("", method.options))
        else:
            sections = setting_groups()
            groups[f"method:{name}"] = [row for section in method.options.model_fields for row in sections[section]]
    return groups


def _own_rows(prefix: str, options: type[Section]) -> Iterable[Row]:
    return (_row(f"{prefix}{key}", field) for key, field in options.model_fields.items())


def _row(key: str, field: FieldInfo, flag: str = "", read_by: str = "") -> Row:
    from ipo.config.fields import default_words, meaning, type_words

    return Row(key, type_words(field), default_words(field), meaning(field), flag, read_by)


def print_tables(groups: dict[str, list[Row]]) -> None:
    """A table for each section."""
    console = output()
    for name, rows in groups.items():
        if not rows:
            console.print(f"{name} has no options.")
            continue
        table = Table(title=name, title_justify="left", title_style="bold")
        for heading in ("setting", "default", "what it is"):
            table.add_column(heading, no_wrap=heading == "setting", overflow="fold")
        for row in rows:
            told = "; ".join(filter(None, (row.type, row.flag)))
            table.add_row(row.key, Text(row.default), Text(f"{row.meaning} ({told})"))
        console.print(table)


def as_toml(groups: dict[str, list[Row]]) -> str:
    """The settings as a file for `--config` in which every line is a comment; unset ones have no value."""
    lines = ["# Settings of ipo. Take away the # in front of a line to set it; --set and flags win over this file."]
    for name, rows in sorted(groups.items(), key=lambda item: item[0] != "others"):
        if ":" in name:
            continue
        lines += ["", *([] if name == "others" else [f"[{name}]"])]
        for row in rows:
            value = row.default if row.default != "unset" else ""
            lines += [f"# {row.meaning} ({row.type})", f"# {row.key.rpartition('.')[2]} = {value}".rstrip()]
    return "\n".join(lines)


def as_markdown(groups: dict[str, list[Row]]) -> str:
    """The page `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Made by `ipo config --format markdown`. A setting is called `section.key`: it stands as `key` in the table",
        "`[section]` of a file that `--config` names, and `--set section.key=value` gives it on the command line.",
    ]
    for name, rows in groups.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| setting | default | what it is | option | read by |",
            "|---|---|---|---|---|",
        ]
        for row in rows:
            cells = (f"`{row.key}`", f"`{row.default}`", f"{row.meaning} *{row.type}*", row.flag, row.read_by)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
