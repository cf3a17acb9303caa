"""`ipo config`: every setting is told, and the page of settings in the docs is what it tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.config import load_settings
from ipo.config.fields import setting_fields
from ipo.errors import UnknownName

PAGE = Path(__file__).parent.parent / "docs/settings.md"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.delenv("IPO_OFFLINE", raising=False)


def call(*arguments: str, columns: int = 100) -> str:
    done = CliRunner().invoke(app, ["config", *arguments], env={"COLUMNS": str(columns)})
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_every_setting_is_told_with_type_default_and_meaning():
    rows = {row["key"]: row for row in json.loads(call("--format", "json"))}
    assert rows.keys() >= setting_fields().keys()
    assert all(row["type"] and row["default"] and row["meaning"] for row in rows.values())
    steps = rows["search.steps"]
    assert (steps["flag"], steps["default"], steps["type"]) == ("--steps", "100", "whole number from 1")
    assert steps["read_by"] == "optimize"
    assert "strategy.threshold" in rows


def test_the_page_of_the_docs_is_what_the_command_prints():
    assert PAGE.read_text(encoding="utf-8") == call("--format", "markdown"), (
        "renew it: ipo config --format markdown > docs/settings.md"
    )


def test_the_toml_form_is_a_file_that_changes_nothing_and_says_the_defaults(tmp_path):
    text = call("--format", "toml")
    (tmp_path / "settings.toml").write_text(text)
    assert load_settings(tmp_path / "settings.toml") == load_settings()
    set_all = re.sub(r"^# (\w+ = .+)$", r"\1", text, flags=re.MULTILINE)
    assert "\nsteps = 100" in set_all
    (tmp_path / "all.toml").write_text(set_all)
    assert load_settings(tmp_path / "all.toml") == load_settings()


def test_a_section_a_setting_a_strategy_and_a_method_are_found_by_name():
    assert "search.steps" in call("search")
    assert "clip.model" not in call("search")
    assert "strategy.iterations" in call("strategy:blackbox")
    assert "n_ctx" in call("method:coop")
    assert "strategy:ipo has no options" in call("strategy:ipo")
    assert "search.steps" in call("method:ipo")
    (row,) = json.loads(call("llm.temperature", "--format", "json"))
    assert row["key"] == "llm.temperature"


@pytest.mark.parametrize("name", ["serch", "search.stepz", "strategy:oprow", "method:coopp"])
def test_a_name_that_is_none_is_told_what_is_near(name):
    with pytest.raises(UnknownName, match="Did you mean"):
        call(name)


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_is_wider_than_the_screen(columns):
    assert max(map(len, call(columns=columns).splitlines())) <= columns
