"""TOML files read and written: settings, presets, prices, names of classes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipo.errors import ConfigError, IpoError
from ipo.store.inputs import input_fault, read_input


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises `ValueError` where it is none, whatever the parser fails at."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(input_fault(error)) from error


def read_toml(path: Path, what: str = "settings", kind: type[IpoError] = ConfigError) -> dict[str, Any]:
    """The tables of a TOML file, with or without a byte order mark. Raises a `kind` that names `what` it is."""
    text = read_input(path, what, kind)
    try:
        return parse_toml(text)
    except ValueError as error:
        raise kind(f"cannot read {what}: {error}", where=str(path)) from error


def to_toml(values: Mapping[str, Any]) -> str:
    """Values and, one level deep, tables of values as TOML: numbers, truth values, texts, and lists of these."""
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    lines = [f"{key} = {toml_value(value)}" for key, value in values.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """JSON's notation is TOML's for these, but for one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
