"""Names for language models, from the shipped table and the user's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ipo.config import Section
from ipo.errors import ConfigError
from ipo.llm.base import ReplyForm
from ipo.net.addresses import Address
from ipo.store.toml import read_toml

SHIPPED = Path(__file__).parent / "presets.toml"


class Preset(Section):
    """One row of the table; `presets.toml` explains the fields."""

    spec: str
    offline: str | None = None
    gpu: str | None = None
    chat: bool | None = None
    template: str | None = None
    form: ReplyForm = "sides"
    base_url: Address | None = None
    top_p: float | None = None
    min_likelihood: float | None = None
    caption_tokens: int | None = None
    grammar: Literal["free", "phrase"] = "free"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


def user_file(name: str) -> Path:
    """A user's own table: the file that IPO_PRESETS or IPO_PRICES names, or one in the user's settings folder."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(os.environ.get(f"IPO_{name.upper()}") or base / "ipo" / f"{name}.toml").expanduser()


def read_tables(shipped: Path, own: Path) -> dict[str, dict[str, object]]:
    """The rows of both files; a user's row replaces the shipped one of its name. Raises `ConfigError`."""
    rows: dict[str, dict[str, object]] = {}
    for path in (shipped, own):
        if path is shipped or os.path.lexists(path) or f"IPO_{shipped.stem.upper()}" in os.environ:
            rows |= read_toml(path, shipped.stem)
    return rows


def presets() -> dict[str, Preset]:
    """All presets by name. Raises `ConfigError` naming the row and the field that is wrong."""
    own = user_file("presets")
    return {name: _preset(name, row, own) for name, row in read_tables(SHIPPED, own).items()}


def _preset(name: str, row: object, own: Path) -> Preset:
    try:
        return Preset.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([name, *(str(part) for part in first["loc"])])
        raise ConfigError(f"a preset is wrong: {place}: {first['msg']}", where=f"{SHIPPED.name} or {own}") from error
