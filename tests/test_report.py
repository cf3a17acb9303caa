"""The pages of a run: what they say of runs of every kind, and that nothing in them is more than text."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from ipo.cli.console import print_json
from ipo.cli.main import app
from ipo.cli.running import print_result
from ipo.clip.specs import CONSE_WEIGHTS
from ipo.report.charts import make_chart
from ipo.report.curves import curve_charts
from ipo.report.pages import classes_of, legend, rejects_in_words, result_rows, write_reports
from ipo.runs.result import Result, read_result
from ipo.search.propose import REJECT_WORDS, RejectKind
from tests.processes import run_process
from tests.test_cli import write_history

EVIL = "</code></pre><script>alert(1)</script> | `x` \x1b[31mred\x1b[0m \x9b \u202e [a](http://evil) \x00"


def figures(accuracy=0.5):
    return {"accuracy": accuracy, "low": 0.1, "high": 0.9, "n": 10}


def predictor(prompts, **more):
    return {"base": figures(), "new": None, "H": None, "H_interval": None, "targets": {}, "prompts": prompts, **more}


def result(**more):
    score = {"accuracy": 0.5, "loss": 1.0, "low": 0.1, "high": 0.9}
    said = {
        "first": ["a <CLASS>."],
        "hand-crafted": ["a <CLASS>."],
        "ipo": ["b <CLASS>."],
        "ipo-ensemble": ["b <CLASS>."],
    }
    return {
        "method": "ipo", "headline": "ipo", "dataset": "photos", "seed": 1, "shots": 1, "classes": "all",
        "class_count": 4, "model": "mini", "seconds": 1.0, "cost": None, "targets": [], "stopped": "all 3 steps done",
        "best": {"id": 0, "step": 0, "text": "b <CLASS>.", "score": score},
        "ensemble": {"prompts": ["b <CLASS>."], "score": score},
        "predictors": {name: predictor(prompts) for name, prompts in said.items()},
        "usage": {"steps": 1, "proposals": 1, "prompt_tokens": 2, "completion_tokens": 3,
                  "captions": {"model": "", "prompt_tokens": 0, "completion_tokens": 0}},
        "per_class_gain": [],
    } | more  # fmt: skip


def write_run(folder, reason="no class slot: nothing", name="photos", **more):
    write_history(folder, reason)
    clip = {"name": "mini", "weights": "0", "preprocessing": "p", "precision": "float32"}
    run = {
        "method": "ipo",
        "dataset": name,
        "split_source": "seeded (1)",
        "classes": "all",
        "class_count": 4,
        "training_images": 4,
        "clip": clip,
        "llm": "llm",
        "seed": 1,
        "offline": False,
        "status": "done",
        "targets": [],
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "result.json").write_text(json.dumps(result(**more)))
    return folder


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_predictors_with_the_same_prompts_are_one_row():
    names = [row.name for row in result_rows(Result.model_validate(result()))]
    assert names == ["first prompt = hand-crafted prompt", "ipo, best prompt = ipo, ensemble"]
    others = {"coop": predictor(None), "ft": predictor(None), "select-80": predictor(["x <CLASS>"])}
    assert [row.name for row in result_rows(Result.model_validate(result(predictors=others)))] == [
        "coop",
        "ft",
        "best of 80 prompts",
    ]


def made(**more):
    return Result.model_validate(result(**more))


def test_no_two_rows_of_a_table_differ_only_in_a_final_stop_or_case():
    said = {"first": predictor(["a <CLASS>."]), "select-80": predictor(["A <CLASS>"])}
    assert [row.name for row in result_rows(made(predictors=said))] == ["first prompt = best of 80 prompts"]


def test_the_legend_explains_the_words_of_the_table_and_no_others():
    halves = " ".join(legend(made(classes="base")))
    assert all(word in halves for word in ("base:", "new:", "H:", "hand-crafted", "ensemble"))
    assert "80" not in halves
    assert "H:" not in " ".join(legend(made()))
    assert legend(made(predictors={"coop": predictor(None)})) == []


def test_every_kind_of_reject_is_explained():
    assert set(REJECT_WORDS) == set(get_args(RejectKind))
    lines = rejects_in_words({"duplicate": 1, "unlikely": 3, "of old": 2})
    assert [line.partition(":")[0] for line in lines] == ["unlikely", "of old", "duplicate"]
    assert lines[0].startswith("unlikely: 3 (the language model itself")
    assert lines[1] == "of old: 2"


def test_pages_and_the_screen_show_the_verdict_and_the_address_of_the_report(tmp_path, capsys):
    difference = {"value": 0.2, "low": 0.1, "high": 0.3}
    comparisons = [{"prompt": "a <CLASS>.", "differences": {"base": difference}}]
    folder = write_run(tmp_path / "my run", comparisons=comparisons, rejects={"unlikely": 2})
    sentence = "beyond chance: +20.0 points, 95% interval [+10.0, +30.0]."
    assert sentence in write_reports(folder).read_text()
    assert "beyond chance: +20.0 points" in (folder / "history.md").read_text()
    print_result(read_result(folder), folder)
    screen = " ".join(capsys.readouterr().out.split())
    assert sentence in screen
    assert "2 proposals not scored: unlikely: 2 (the language model itself" in screen
    assert f"Report: {(folder / 'report.html').as_uri()}" in screen


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"classes": "all", "class_count": 4}, "4 classes"),
        ({"classes": "base", "class_count": 50}, "50 base classes"),
        ({"classes": "base", "class_count": 1}, "1 base class"),
        ({"classes": "base"}, "base classes"),
        ({"classes": "all"}, "all classes"),
    ],
)
def test_classes_are_counted_in_words(facts, words):
    assert classes_of(facts) == words


def test_pages_of_a_run_with_all_classes_speak_of_no_halves(tmp_path):
    folder = write_run(tmp_path / "run")
    page = write_reports(folder).read_text()
    for text in (page, (folder / "history.md").read_text()):
        assert "4 classes" in text
        assert "all classes" not in text.replace('scope="col">all classes', "").replace("| all classes |", "")
        own = re.sub(r"<(pre|style|script)\b.*?</\1>|<meta[^>]*>", "", text, flags=re.DOTALL)
        assert not re.search(r"\bbase\b", own)
        assert "first prompt = hand-crafted prompt" in text
    assert "it stands alone" in page


def test_no_tag_link_or_control_character_of_a_reply_reaches_a_page(tmp_path):
    evil = [EVIL]
    more: dict[str, Any] = {
        "predictors": {EVIL: predictor(evil), "ipo": predictor(["b <CLASS>."])},
        "targets": [EVIL],
        "dataset": EVIL,
    }
    more |= {"per_class_gain": [{"class": EVIL, "first": 0.5, "best": 0.5, "gain": 0.0}], "stopped": EVIL}
    folder = write_run(tmp_path / f"run{EVIL[:5].replace('/', '')}\x1b", EVIL, EVIL, **more)
    page = write_reports(folder).read_text()
    markdown = (folder / "history.md").read_text()
    tags = Tags(page).tags
    assert {"img", "iframe", "link", "object", "embed", "form", "base"} & {tag for tag, _ in tags} == set()
    assert [tag for tag, _ in tags].count("script") == 2
    assert not any(name.startswith("on") or name == "src" for _, attributes in tags for name in attributes)
    assert all(attributes["href"].startswith("#") for tag, attributes in tags if tag == "a")
    for text in (page, markdown):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    outside = re.sub(r"(`+).*?\1(?!`)", "", markdown)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_a_report_of_old_runs_needs_no_entry_that_came_later(tmp_path):
    folder = write_run(tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    del run["class_count"]
    (folder / "run.json").write_text(json.dumps(run))
    assert "all classes, 4 training images" in write_reports(folder).read_text()


def test_a_curve_that_ends_in_no_number_is_drawn_as_far_as_it_goes():
    rows: list[dict[str, Any]] = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}, {"epoch": 3, "loss": None}]
    (chart,) = curve_charts(rows)
    assert len(chart.lines[0][1]) == 2
    assert curve_charts([{"epoch": 1, "loss": math.nan}]) == []
    assert make_chart(("t", "x", "y"), [(1, math.inf, "dot", False)], [("line", [])]) is None
    assert curve_charts([{"epoch": 1, "note": "text", "flag": True}]) == []


def test_what_the_search_prints_at_its_end_is_safe_and_fits_the_screen(tmp_path, capsys, monkeypatch):
    for columns in ("60", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        halves = {"first": predictor(["a <CLASS>."], new=figures(), H=0.5, H_interval=[0.1, 0.9])}
        print_result(Result.model_validate(result(stopped=EVIL, classes="base", predictors=halves)), tmp_path)
        printed = capsys.readouterr().out
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)
        table = [line for line in printed.splitlines() if "│" in line or "┃" in line]
        assert table
        assert max(map(len, table)) <= int(columns)
        assert printed.count("50.0 [10.0, 90.0]") == 3
        assert "Ensemble:" not in printed


def test_history_in_a_pipe_breaks_no_prompt_and_shows_no_control_character(tmp_path):
    write_history(tmp_path / "run", "no class slot: \x1b[31m" + "a very long reason " * 20)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "ipo", "history", str(tmp_path / "run"), "--rejects"]
    done = run_process(command, env=environment, check=True)
    assert "\x1b" not in done.stdout
    assert "a very long reason " * 19 in done.stdout


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_on_the_screen_is_json_and_steers_no_terminal(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    value = {"text": EVIL + " é Δ 山\n", EVIL: 0.5}
    print_json(value)
    stream.flush()
    printed = stream.buffer.getvalue().decode(encoding)
    assert json.loads(printed) == value
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)
    assert ("é" in printed) == (encoding != "ascii")


def test_an_old_run_of_mini_is_told_by_the_name_that_its_model_has_now(tmp_path):
    folder = write_run(tmp_path / "run")
    for name in ("run.json", "result.json"):
        content = json.loads((folder / name).read_text())
        content["clip"] = {"name": "mini", "weights": CONSE_WEIGHTS, "preprocessing": "p", "precision": "float32"}
        (folder / name).write_text(json.dumps(content))
    write_reports(folder)
    for name in ("history.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "mini-conse" in text
        assert not re.search(r"mini(?!-conse)[\s,;.]", text)
    shown = CliRunner().invoke(app, ["history", str(folder)]).output
    assert re.search(r"\d scored by mini-conse, \d rejected", shown)
