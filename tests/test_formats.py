"""What a comparison looks like: on narrow screens, in poor encodings, in a pipe, with odd names in it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from ipo.comparison.formats import FORMATS, as_csv, as_markdown, as_text, with_words
from ipo.comparison.rows import compare
from ipo.comparison.tables import columns, notes, sentences
from tests.processes import run_process
from tests.test_compare import trial, write_run

TARGETS = {"folder:/a/long/path/to/photos": 0.5, "folder:/another/long/path/to/photos": 0.5, "pacs@sketch": 0.5}


@pytest.fixture
def rows():
    """Two datasets, three methods with much to tell, two seeds, targets and costs."""
    trials = [
        replace(trial(name, dataset, seed=seed, **options), targets=TARGETS, cost=0.5)
        for dataset in ("caltech101", "photos of the garden")
        for name, options in (
            ("zero-shot", {}),
            ("coop", {"init": "a photo of a", "n_ctx": 4}),
            ("coop", {"init": "random", "n_ctx": 16}),
        )
        for seed in (1, 2)
    ]
    return compare(trials)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_screen_and_no_figure_is_lost(rows, width):
    text = as_text(rows, notes(rows, "zero-shot"), width)
    assert max(map(len, text.splitlines())) <= width
    squeezed = "".join("".join(line.split()) for line in text.splitlines() if not line.startswith("Δ:"))
    for column in columns(rows):
        if not column.is_label:
            for cell in column.cells:
                assert all("".join(part.split()) in squeezed for part in cell.split(" [")), cell


def test_without_a_width_each_row_and_each_note_is_one_line(rows):
    lines = notes(rows, "zero-shot")
    text = as_text(rows, lines).splitlines()
    assert text[-len(lines) :] == lines
    assert sum(" │ " in line for line in text) == len(rows)


def test_targets_have_short_names_that_tell_them_apart(rows):
    heads = [column.head for column in columns(rows)]
    assert {"path/to/photos", "Δ path/to/photos"} & set(heads) == set()
    assert {"long/path/to/photos"} & set(heads) == set()
    assert {"a/long/path/to/photos", "another/long/path/to/photos", "pacs@sketch"} <= set(heads)
    one = compare([replace(trial(), targets={"folder:/a/long/path/to/photos": 0.5})])
    assert "photos" in [column.head for column in columns(one)]


@pytest.mark.parametrize(
    ("classes", "heads"),
    [
        (("base",), ["base", "new", "H", "Δ base", "Δ new", "Δ H"]),
        (("all",), ["accuracy", "Δ"]),
        (("base", "all"), ["base or all", "new", "H", "Δ base or all", "Δ new", "Δ H"]),
    ],
)
def test_headings_speak_of_base_classes_only_where_there_are_any(classes, heads):
    trials = [trial(name, dataset=kind, classes=kind) for kind in classes for name in ("zero-shot", "coop")]
    trials = [replace(t, new=None, correct={"base": t.correct["base"]}) if t.dataset == "all" else t for t in trials]
    rows = compare(trials)
    assert [column.head for column in columns(rows)] == ["dataset", "method", "seeds", *heads, "time, s"]
    assert ("H is" in notes(rows, "zero-shot")[0]) == ("H" in heads)


def test_notes_say_what_the_interval_is_over_and_what_the_spread_is():
    one = notes(compare([trial("zero-shot"), trial("coop")]), "zero-shot")
    assert "±" not in "".join(one)
    assert "over test images with the fits as they are" in one[1]
    two = notes(compare([trial(name, seed=seed) for name in ("zero-shot", "coop") for seed in (1, 2)]), "zero-shot")
    assert "± its standard deviation over seeds" in two[1]


def test_a_single_seed_has_no_spread_and_two_have_one_beside_every_difference():
    (one,) = [row for row in compare([trial("zero-shot"), trial("coop")]) if row.differences]
    assert not any("±" in cell for column in columns([one]) for cell in column.cells)
    (two,) = [r for r in compare([trial(n, seed=s) for n in ("zero-shot", "coop") for s in (1, 2)]) if r.differences]
    assert all("±" in column.cells[0] for column in columns([two]) if column.head.startswith("Δ"))


def test_nothing_is_minus_zero():
    rows = compare([trial("zero-shot"), trial("coop")])
    assert "-0.0 [" not in as_text(rows, [])


ODD = "x|y`z <script>alert(1)</script> *b* [a](http://evil) \x1b[31m\n# head"


def test_odd_names_do_no_harm_in_any_form():
    made = replace(trial(init=ODD), sentences=(f"{ODD} <CLASS>",), dataset=ODD)
    rows = compare([made, replace(trial(init="other"), dataset=ODD)])
    said = sentences(rows)
    for form, write in FORMATS.items():
        text = write(rows, notes(rows, "coop"))
        text = text if form == "csv" else with_words(text, said, form)
        assert "\x1b" not in text, form
        assert "\n#" not in text, form
    markdown = with_words(as_markdown(rows, []), said, "markdown")
    assert "<script" not in markdown
    assert "](http" not in markdown.replace("\\](http", "")
    table = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert len(as_csv(rows).splitlines()) == 3


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437", "utf-8"])
def test_a_table_keeps_its_shape_in_any_encoding(rows, encoding):
    rows = [*rows, *compare([trial(dataset="schöner Süden 山")])]
    text = as_text(rows, notes(rows, "zero-shot"), 80, encoding)
    assert text.encode(encoding).decode(encoding) == text
    head, *lines = text.partition("\n\n")[0].splitlines()
    bars = [at for at, letter in enumerate(head) if letter in "┃║|"]
    assert len(bars) > 2
    assert all(line[at] in "│║┃|+╇╪┼" for line in lines for at in bars if "山" not in line)
    assert ("Δ" in text) == (encoding == "utf-8")
    assert ("?" in text) == (encoding != "utf-8")


def test_the_command_writes_what_the_encoding_of_its_output_can_show(tmp_path):
    write_run(tmp_path / "a", "zero-shot", ["zero-shot"], options={})
    write_run(tmp_path / "b", "coop", ["coop"], options={"init": "ein schöner Süden 山"})
    write_run(tmp_path / "c", "coop", ["coop"], seed=2, options={"init": "ein schöner Süden 山"})
    command = [sys.executable, "-m", "ipo", "compare", str(tmp_path), "--words"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = run_process(command, env=environment, text=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "+0.0 [+0.0, +0.0]" in text
    assert "50.0 +- 0.0" in text
