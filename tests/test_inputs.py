"""Files that a user names: what is none, a folder, too long, too deep or in another encoding is one plain error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ipo.data.own.classnames import read_map
from ipo.data.own.shards import sample_label
from ipo.data.own.tables import in_label_order, read_csv
from ipo.data.splits import read_split_file
from ipo.errors import ConfigError, DataError, IpoError
from ipo.llm.presets import presets
from ipo.llm.prices import cost
from ipo.render import render
from ipo.store import inputs
from ipo.store.toml import read_toml
from ipo_baselines.zero_shot import SelectOptions, ZeroShotOptions

READERS: dict[str, Callable[[Path], object]] = {
    "toml": read_toml,
    "class names": read_map,
    "split file": lambda path: read_split_file(path, path.parent),
    "table": lambda path: read_csv(str(path), 1),
    "template": render,
    "prompts": lambda path: ZeroShotOptions(prompts=path),
    "prompts to select from": lambda path: SelectOptions(prompts=path),
}
BOMBS = {
    "deep": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "digits": b'{"a": ' + b"9" * 1_000_000 + b"}",
    "toml digits": b"a = " + b"9" * 1_000_000,
    "one long line": b"x" * 3_000_000,
    "quotes": b'"' * 300_001,
    "commas": b"," * 300_000,
    "nulls": b"\0" * 300_000,
    "not UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", READERS)
def test_a_folder_where_a_file_is_meant_is_called_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(IpoError) as caught:
        READERS[name](tmp_path)
    assert "it is a folder, not a file" in caught.value.what
    assert caught.value.where == str(tmp_path)
    assert caught.value.remedy
    assert "Errno" not in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(IpoError) as caught:
        READERS[name](tmp_path / "gone")
    assert "no such file" in caught.value.what
    assert caught.value.remedy
    assert "Errno" not in str(caught.value)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", [name for name in READERS if name not in ("template", "prompts to select from")])
def test_a_bomb_is_one_short_error(name: str, bomb: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(BOMBS[bomb])
    with pytest.raises(IpoError) as caught:
        READERS[name](file)
    assert len(str(caught.value)) < 1000
    assert "int_max_str_digits" not in str(caught.value)


def test_no_more_is_read_than_a_file_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_BYTES", 10)
    (tmp_path / "short").write_text("0123456789")
    assert inputs.read_input(tmp_path / "short", "text") == "0123456789"
    with pytest.raises(DataError, match="it is longer than 10 bytes"):
        inputs.read_input(Path("/dev/zero"), "text")


@pytest.mark.parametrize("label", ["true", "1.5", '"1"', "null", "1e999", "[1]"])
def test_a_label_of_a_split_file_is_a_whole_number_and_nothing_else(label: str, tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    file.write_text(f'{{"train": [["a.jpg", {label}, "a"]], "val": [], "test": []}}')
    with pytest.raises(DataError, match="not a split file"):
        read_split_file(file, tmp_path)


def test_a_label_of_thousands_of_digits_is_a_text() -> None:
    long = "1" * 5000
    assert in_label_order(["10", "9", long]) == ["10", long, "9"]
    assert in_label_order(["10", "9"]) == ["9", "10"]


@pytest.mark.parametrize("content", [b"9" * 5000, b'{"label": ' + b"[" * 5000])
def test_the_label_of_a_sample_in_a_shard_that_cannot_be_read_is_none(content: bytes) -> None:
    import io

    assert sample_label(lambda: io.BytesIO(content), ".json") == ""


@pytest.mark.parametrize("place", ["gone.toml", "."])
def test_a_table_of_ones_own_that_is_named_has_to_be_a_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPO_PRESETS", str(tmp_path / place))
    monkeypatch.setenv("IPO_PRICES", str(tmp_path / place))
    with pytest.raises(ConfigError, match="cannot read presets: "):
        presets()
    with pytest.raises(ConfigError, match="cannot read prices: "):
        cost("m", 1, 1)
