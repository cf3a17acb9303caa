"""What a setting is in words: its type, its default and its meaning, all from its line in the settings class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ipo.config.section import Flag, Section
from ipo.config.settings import Settings
from ipo.store.toml import toml_value

UNSET, REQUIRED = "unset", "required"
_NOUNS: Mapping[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}


def setting_fields(settings: type[Section] = Settings) -> dict[str, FieldInfo]:
    """Every setting by its name, `section.key`, or `key` where it stands in no section."""
    found: dict[str, FieldInfo] = {}
    for name, field in settings.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        found |= {name: field} if keys is None else {f"{name}.{key}": inner for key, inner in keys.items()}
    return found


def flag_of(field: FieldInfo) -> Flag | None:
    """The option that gives a setting, if any."""
    return next((one for one in field.metadata if isinstance(one, Flag)), None)


def followers(settings: type[Section] = Settings) -> dict[str, str]:
    """Settings whose option is that of an earlier one, with that one: they follow it."""
    first: dict[str, str] = {}
    found = {}
    for key, field in setting_fields(settings).items():
        if (flag := flag_of(field)) and first.setdefault(flag.name, key) != key:
            found[key] = first[flag.name]
    return found


def kinds(field: FieldInfo) -> list[tuple[Any, tuple[Any, ...]]]:
    """The types that a value may be of, each with its constraints; that it may be unset is none of them."""
    return list(_kinds(field.annotation, tuple(field.metadata)))


def _kinds(annotation: Any, constraints: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        yield from _kinds(inner, (*constraints, *more))
    elif origin in (Union, UnionType):
        for one in get_args(annotation):
            yield from _kinds(one, constraints)
    elif annotation is not NoneType:
        yield annotation, constraints


def bounds(constraints: tuple[Any, ...]) -> dict[str, float]:
    """The bounds among the constraints of a number: `ge`, `gt`, `le` and `lt`."""
    names = ("ge", "gt", "le", "lt")
    return {name: getattr(one, name) for one in constraints for name in names if hasattr(one, name)}


def type_words(field: FieldInfo) -> str:
    """The type of a setting in plain words, with bounds and choices."""
    return " or ".join(_type_words(kind, bounds(constraints)) for kind, constraints in kinds(field))


def _type_words(kind: Any, limits: Mapping[str, float]) -> str:
    if choices := choices_of(kind):
        return choices
    if get_origin(kind) is tuple:
        return f"list of {_NOUNS.get(get_args(kind)[0], 'value')}s"
    if kind is int and "gt" in limits:
        limits = {**limits, "ge": limits["gt"] + 1}
        del limits["gt"]
    words = {"ge": "from", "gt": "above", "le": "up to", "lt": "below"}
    told = [f"{word} {limits[name]:g}" for name, word in words.items() if name in limits]
    return " ".join([_NOUNS.get(kind, getattr(kind, "__name__", str(kind))), *told])


def choices_of(kind: Any) -> str:
    """`auto, base or all`; empty where a type is no choice among some values."""
    if get_origin(kind) is not Literal:
        return ""
    *others, last = map(str, get_args(kind))
    return f"{', '.join(others)} or {last}" if others else last


def default_of(field: FieldInfo) -> Any:
    """The default of a setting as JSON and TOML know values; None where it is unset."""
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def default_words(field: FieldInfo) -> str:
    """The default in TOML's notation."""
    if field.is_required():
        return REQUIRED
    value = default_of(field)
    return UNSET if value is None else toml_value(value)


def meaning(field: FieldInfo) -> str:
    """What a setting does, on one line."""
    return " ".join((field.description or "").split())


def help_of(field: FieldInfo) -> str:
    """The first sentence of the meaning, choices and default behind it, for the help of an option."""
    sentence = re.split(r"(?<=\.) (?=[A-Z])", meaning(field))[0].replace("`", "")
    choices = ", ".join(filter(None, (choices_of(kind) for kind, _ in kinds(field))))
    default = default_of(field)
    told = [choices, f"default: {default}" if default not in (None, "", [], False) else ""]
    more = "; ".join(filter(None, told))
    return f"{sentence} ({more})" if more else sentence


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted names as nested ones: the inverse of `flat`, at most two deep."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        section, dot, key = name.partition(".")
        if dot:
            found.setdefault(section, {})[key] = value
        else:
            found[section] = value
    return found
