"""Options of the commands: those of the settings, made from their classes, and those that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from ipo.config import Section, Settings
from ipo.config.fields import bounds, flag_of, followers, help_of, kinds, nested, setting_fields
from ipo.errors import ConfigError
from ipo.runs.readers import Reader

Given = dict[str, Any]
"""The settings that the options of a command gave, nested by section; `for_settings` makes the options."""
Command = Callable[..., None]

_READ_AS: dict[Any, Any] = {
    bool: bool | None,
    int: int | None,
    float: float | None,
    str: str | None,
    Path: Path | None,
    list: list[str] | None,
}
_PLACEHOLDERS = {int: "<int>", float: "<float>", Path: "<path>"}


def option(field: FieldInfo) -> Any:
    """The `typer.Option` of a setting that has a flag: its names, its lower bound and its help."""
    flag, (kind, constraints) = flag_of(field), kinds(field)[0]
    assert flag is not None
    lowest, several = None, get_origin(kind) is tuple
    limits = bounds(constraints)
    if kind is int and "gt" in limits:
        lowest = limits["gt"] + 1
    elif kind in (int, float):
        lowest = limits.get("ge")  # a bound that is not met itself is for the settings to check
    return typer.Option(
        *filter(None, (flag.name, flag.short)),
        min=lowest,
        metavar="<name>" if get_origin(kind) is Literal else None if kind is bool else _PLACEHOLDERS.get(kind, "<str>"),
        help=help_of(field) + (" Repeatable." if several and not flag.commas else ""),
    )


def option_type(field: FieldInfo) -> Any:
    """The type by which the command line reads a setting; it may be left out."""
    flag, (kind, _) = flag_of(field), kinds(field)[0]
    if get_origin(kind) is tuple:
        return _READ_AS[str] if flag and flag.commas else _READ_AS[list]
    return _READ_AS.get(kind, _READ_AS[str])


def for_settings(reader: Reader, settings: type[Section] = Settings) -> Callable[[Command], Command]:
    """Give a command, in the place of its parameter `given`, the options of all settings that `reader` reads."""
    following = followers(settings)
    fields = {
        key: field
        for key, field in setting_fields(settings).items()
        if flag_of(field) and reader.reads(key) and key not in following
    }
    names = {key.replace(".", "_"): key for key in fields}

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {key: _as_setting(fields[key], values.pop(name)) for name, key in names.items()}
            command(given=nested({key: value for key, value in given.items() if value is not None}), **values)

        hints = get_type_hints(command, include_extras=True)
        parameters = []
        for name, parameter in inspect.signature(command).parameters.items():
            if name == "given":
                parameters += [_parameter(short, fields[key]) for short, key in names.items()]
            else:
                parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        vars(run)["__signature__"] = inspect.Signature(parameters)
        return run

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    annotated: Any = Annotated  # a type that is made at run time is none to mypy
    annotation = annotated[option_type(field), option(field)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _as_setting(field: FieldInfo, value: Any) -> Any:
    """What the command line gave as the settings take it; None where it gave nothing."""
    flag = flag_of(field)
    if flag and flag.commas:
        return split_commas(value)
    return None if value == [] or (value is False and flag and "/" not in flag.name) else value


def _shared(key: str) -> Any:
    return option(setting_fields()[key])


DataRoot = Annotated[Path | None, _shared("data.root")]
Metric = Annotated[str | None, _shared("data.metric")]
Domains = Annotated[str | None, _shared("data.domains")]
Offline = Annotated[bool, _shared("offline")]
Strategies = Annotated[bool, typer.Option("--strategies", help="Show the strategies with their options.")]
Paper = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="The paper's setting: 1 shot, 100 steps of 5 candidates, the first prompt always shown, a description of "
        "every image; needs --captioner.",
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Go on with this run folder. Beside it: what changes no result, such as a new place of the --dataset.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="With --resume: go on although a library has another patch release now.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML); options given here win over it.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, as key=value, such as search.patience=10. Repeatable.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. Default: a new one under runs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def check_resumption(resume: Path | None, force: bool, others: dict[str, Any]) -> None:
    """Raise `ConfigError` for `--force` without a run to go on with, and for `others` beside one."""
    if force and resume is None:
        raise ConfigError("--force is for --resume RUN", remedy="Leave it out")
    given = [name for name, value in others.items() if value]
    if resume is not None and given:
        raise ConfigError(f"--resume goes on with a run, and takes no {' and no '.join(given)}", remedy="Leave it out")


def split_commas(text: str | None) -> tuple[str, ...] | None:
    """`"photo,sketch"` as a tuple; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
