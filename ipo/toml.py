"""TOML files read and written: settings, presets, prices, names of classes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipo.errors import ConfigError


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises `ValueError` where it is none, whatever the parser fails at."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_toml(path: Path, what: str = "settings") -> dict[str, Any]:
    """The tables of a TOML file, with or without a byte order mark. Raises `ConfigError` that names `what` it is."""
    try:
        return parse_toml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        if isinstance(error, UnicodeDecodeError):
            reason = "not UTF-8, as TOML has to be"
        raise ConfigError(f"cannot read {what}: {reason}", where=str(path)) from error


def to_toml(values: Mapping[str, Any]) -> str:
    """Values and, one level deep, tables of values as TOML: numbers, truth values, texts, and lists of these."""
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """JSON's notation is TOML's for these, but for one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
