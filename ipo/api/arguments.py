"""The keyword arguments of the Python API: named like the options of the command, read like them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, get_origin

from ipo.config import Device, MetricName, SelectionRule
from ipo.config.fields import flag_of, followers, kinds, nested, setting_fields
from ipo.errors import UnknownName
from ipo.runs.readers import Reader

Place = str | os.PathLike[str]
"""A name, or where something lies."""


class DataArguments(TypedDict, total=False):
    """What every function takes that reads pictures; `ipo config` tells what each means."""

    dataset: Place
    data_root: Place
    domains: Sequence[str] | str
    metric: MetricName
    clip: Place
    device: Device
    seed: int
    offline: bool


class FitArguments(DataArguments, total=False):
    """What every method takes."""

    shots: int
    classes: Literal["auto", "base", "all"]
    target: Sequence[Place] | Place


class SearchArguments(FitArguments, total=False):
    """What the search takes."""

    llm: Place
    base_url: str
    temperature: float
    captioner: str
    steps: int
    candidates: int
    history: int
    select: SelectionRule
    template: Place
    controls: bool
    max_tokens: int
    strategy: str


def keyword_names(reader: Reader) -> dict[str, str]:
    """The keyword of each setting that has an option of the command: its long name with underscores."""
    found = {}
    for key, field in setting_fields().items():
        flag = flag_of(field)
        if flag and reader.reads(key) and key not in followers():
            found[flag.name.partition("/")[0].removeprefix("--").replace("-", "_")] = key
    return found


def given_settings(reader: Reader, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that keyword arguments give, nested by section. Raises `UnknownName`; None gives nothing."""
    names = keyword_names(reader)
    for name in arguments:
        if name not in names:
            remedy = 'Any setting can be given by its name: settings={"section.key": value}'
            raise UnknownName("argument", name, names, remedy)
    values = {names[name]: value for name, value in arguments.items() if value is not None}
    return nested({key: _as_setting(key, value) for key, value in values.items()})


def plain(value: Any) -> Any:
    """A value as settings hold it: a path is text, a sequence a tuple."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def _as_setting(key: str, value: Any) -> Any:
    """What a keyword gave as the setting takes it: one text may stand for a list of one, or of parts with commas."""
    field, value = setting_fields()[key], plain(value)
    flag = flag_of(field)
    if get_origin(kinds(field)[0][0]) is not tuple or not isinstance(value, str):
        return value
    parts = value.split(",") if flag and flag.commas else [value]
    return tuple(part.strip() for part in parts if part.strip())


def folder(place: Place) -> Path:
    """A place as a path, with the home folder for `~`."""
    return Path(place).expanduser()
