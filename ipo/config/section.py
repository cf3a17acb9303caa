"""What a group of settings is, and the option of the command that a setting has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

_NO_TEXT = re.compile("[\ud800-\udfff]")


def _numbers_of(annotation: Any) -> set[type]:
    """Which of `int`, `float` and `bool` a type is made of, such as `PositiveInt | None`, or a list of them."""
    found = {kind for kind in (int, float, bool) if annotation is kind}
    return found.union(*map(_numbers_of, get_args(annotation)))


@dataclass(frozen=True)
class Flag:
    """The option of the commands that gives a setting; an option with `commas` takes several values in one."""

    name: str
    """The long name, or both of those that say yes and no: `--controls/--no-controls`."""
    short: str = ""
    commas: bool = False


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    changeable: ClassVar[frozenset[str]] = frozenset()
    """Of a method's options, those that change no result, so that a fit may go on with others."""

    only_with: ClassVar[Mapping[str, tuple[str, Any]]] = {}
    """Of a method's options, those that are read only where another one has some value: that option, and the value."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes `true` for 1, and 1 for `true`; who wrote the one did not mean the other."""
        wanted = _numbers_of(cls.model_fields[info.field_name or ""].annotation)
        given = value if isinstance(value, list | tuple) else [value]
        if bool not in wanted and wanted & {int, float} and any(isinstance(one, bool) for one in given):
            raise ValueError("a number is wanted, not true or false")
        if wanted == {bool} and any(isinstance(one, int | float) and not isinstance(one, bool) for one in given):
            raise ValueError("true or false is wanted, not a number")
        return value

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        """Half a character, as names in another encoding leave them, could stand in no file of a run."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and _NO_TEXT.search(str(text)):
                raise ValueError("not UTF-8")
        return value
