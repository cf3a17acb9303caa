"""Whatever a setting may hold can be written to TOML and read back; what could not be read back is refused."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.training import SgdOptions
from ipo.config import Section, Settings, load_settings, parse_assignments
from ipo.data.own.classnames import read_map
from ipo.errors import ConfigError, DataError
from ipo.llm.presets import presets
from ipo.llm.prices import cost
from ipo.prompt import CLASS_PLACEHOLDER
from ipo.render import render
from ipo.runs.folder import settings_toml
from ipo.store.toml import parse_toml, read_toml, to_toml

BOM = "\ufeff"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT, st.lists(TEXT))


@given(st.dictionaries(st.sampled_from("abc"), VALUES), st.dictionaries(st.sampled_from("abc"), VALUES))
def test_every_value_survives(values, table):
    written = to_toml({**values, "table": table})
    assert parse_toml(written) == {**values, "table": table}


@given(TEXT, st.lists(TEXT, max_size=3), st.floats(min_value=1e-300, allow_infinity=False), TEXT)
def test_every_settings_survive_the_run_folder(dataset, domains, minutes, place):
    values = {
        "data": {"dataset": dataset, "domains": domains, "root": place.replace("\0", "")},
        "search": {"max_minutes": minutes, "first_prompts": [f"{dataset}{CLASS_PLACEHOLDER}"]},
    }
    settings = load_settings(overrides=values)
    assert load_settings(overrides=parse_toml(settings_toml(settings))) == settings


def numbers(section: type[Section]) -> list[str]:
    return [name for name, field in section.model_fields.items() if "float" in str(field.annotation).lower()]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_no_setting_is_infinite_or_no_number(value):
    sections = {name: kind for name, kind in Settings() if isinstance(kind, Section)}
    found = [f"{name}.{key}" for name, kind in sections.items() for key in numbers(type(kind))]
    assert "search.max_minutes" in found
    assert len(found) > 5
    for key in found:
        with pytest.raises(ConfigError, match=f"'{key}'"):
            load_settings(overrides=parse_assignments([f"{key}={value}"]))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_option_of_a_method_is_infinite_or_no_number(value):
    assert len(numbers(SgdOptions)) > 2
    for name in numbers(SgdOptions):
        with pytest.raises(ValueError, match="finite"):
            SgdOptions.model_validate({name: value})


@pytest.mark.parametrize("text", ["folder:\ud800", "a\udcff"])
def test_a_text_that_no_file_can_hold_is_refused(text):
    for section, key in (("data", "dataset"), ("data", "root"), ("data", "domains"), ("search", "template")):
        value = [text] if key == "domains" else Path(text) if key == "root" else text
        with pytest.raises(ConfigError, match=rf"'{section}\.{key}"):
            load_settings(overrides={section: {key: value}})


@pytest.mark.parametrize("text", ["value", "1\nseed = 2", "1" * 5000, "[" * 5000, "{}\n[x]"])
def test_an_assignment_in_no_notation_is_a_text(text):
    assert parse_assignments([f"data.dataset={text}"]) == {"data": {"dataset": text}}


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"a = " + b"[" * 5000, b"a = " + b"1" * 5000])
def test_a_file_that_cannot_be_read_is_one_error(tmp_path, content):
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read settings: .*settings\.toml"):
        read_toml(file)
    with pytest.raises(DataError, match=r"cannot read class names: .*settings\.toml"):
        read_map(file)
    with pytest.raises(ConfigError, match=r"cannot read settings: no such file"):
        load_settings(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r"cannot read settings: it is a folder, not a file .*Check the path"):
        load_settings(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path, monkeypatch):
    files = {
        "settings.toml": "seed = 7\n",
        "presets.toml": '[mine]\nspec = "hf:a/b"\n',
        "prices.toml": "[mine]\ninput = 1\noutput = 2\n",
        "names.toml": 'n01 = "cat"\n',
        "names.json": '{"n01": "cat"}',
        "own.j2": "{{ word }}",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(BOM + text, encoding="utf-8")
        monkeypatch.setenv(f"IPO_{Path(name).stem.upper()}", str(tmp_path / name))
    assert load_settings(tmp_path / "settings.toml").seed == 7
    assert presets()["mine"].spec == "hf:a/b"
    assert cost("mine", 1_000_000, 0) == 1
    assert read_map(tmp_path / "names.toml") == read_map(tmp_path / "names.json") == {"n01": "cat"}
    assert render(tmp_path / "own.j2", word="cat") == "cat"
