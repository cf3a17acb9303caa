from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.clip.specs import CONSE_WEIGHTS
from ipo.comparison.formats import FORMATS, as_csv, as_latex, as_markdown, as_text, with_words
from ipo.comparison.names import AVERAGE, name_methods
from ipo.comparison.paired import paired_differences
from ipo.comparison.rows import compare, published_rows
from ipo.comparison.tables import columns, notes, sentences
from ipo.comparison.trials import Trial, read_trials
from ipo.errors import RunError, UnknownName
from ipo.metrics import harmonic_mean

PUBLISHED = (
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "ucf101"),
)


def bits(share, count, seed):
    return "".join("01"[int(hit)] for hit in np.random.default_rng(seed).random(count) < share)


def trial(predictor="coop", dataset="dtd", seed=1, base=0.8, new=0.6, **options):
    correct = {"base": bits(base, 200, 10 * seed + 1), "new": bits(new, 100, 10 * seed + 2)}
    return Trial(
        predictor=predictor,
        dataset=dataset,
        seed=seed,
        facts={"shots": 16, "classes": "base", "model": "mini", **options},
        base=correct["base"].count("1") / 200,
        new=correct["new"].count("1") / 100,
        targets={},
        correct=correct,
        images={"base": tuple(map(str, range(200))), "new": tuple(map(str, range(100)))},
        seconds=10.0,
        cost=None,
        sentences=(),
    )


def names(trials):
    return [label.name for label in name_methods(trials)]


def test_a_row_has_mean_and_population_deviation_and_h_of_the_means():
    trials = [trial(seed=seed, base=base) for seed, base in ((1, 0.9), (2, 0.7), (3, 0.5))]
    (row,) = compare(trials)
    values = np.array([t.base for t in trials])
    assert row.base == pytest.approx((values.mean(), values.std()))
    assert row.harmonic_mean == pytest.approx(harmonic_mean(values.mean(), np.mean([t.new for t in trials])))
    assert row.seeds == (1, 2, 3)


def test_h_of_the_average_row_is_that_of_averaged_base_and_new_not_the_average_h():
    trials = [trial(dataset="dtd", base=0.9, new=0.2), trial(dataset="eurosat", base=0.2, new=0.9)]
    rows = compare(trials)
    assert [row.dataset for row in rows] == ["dtd", "eurosat", AVERAGE]
    mean_base, mean_new = (np.mean([getattr(t, half) for t in trials]) for half in ("base", "new"))
    assert rows[2].harmonic_mean == pytest.approx(harmonic_mean(mean_base, mean_new))
    average, *alone = (row.harmonic_mean or 0.0 for row in (rows[2], *rows[:2]))
    assert average > sum(alone) / 2 + 0.1


def test_a_method_that_lacks_a_dataset_has_no_average():
    rows = compare([trial(dataset="dtd"), trial(dataset="eurosat"), trial("ft", dataset="dtd")])
    assert [row.method for row in rows if row.dataset == AVERAGE] == ["coop"]


def test_paired_difference_is_exact_and_its_interval_that_of_a_plain_bootstrap():
    better, reference = trial("a", base=0.8), trial("b", base=0.75)
    found = paired_differences([better], [reference])
    assert found["base"].value == pytest.approx(better.base - reference.base)
    assert found["new"].value == pytest.approx(better.new - reference.new)
    expected_h = harmonic_mean(better.base, better.new) - harmonic_mean(reference.base, reference.new)
    assert found["H"].value == pytest.approx(expected_h)
    change = np.array([int(x) - int(y) for x, y in zip(better.correct["base"], reference.correct["base"], strict=True)])
    rng = np.random.default_rng(1)
    means = change[rng.integers(0, len(change), (4000, len(change)))].mean(axis=1)
    assert (found["base"].low, found["base"].high) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.012)


def test_pairing_makes_the_interval_of_equal_verdicts_a_point():
    found = paired_differences([trial("a")], [trial("b")])
    assert {(d.value, d.low, d.high) for d in found.values()} == {(0.0, 0.0, 0.0)}


def test_seeds_that_only_one_side_has_do_not_count():
    ours = [trial("a", seed=1, base=0.9), trial("a", seed=2, base=0.2)]
    theirs = [trial("b", seed=1, base=0.8)]
    assert paired_differences(ours, theirs)["base"].value == pytest.approx(ours[0].base - theirs[0].base)


def test_no_difference_is_claimed_on_other_images():
    other = replace(trial("b"), images={"base": tuple("x" * 200), "new": tuple("y" * 100)})
    assert paired_differences([trial("a")], [other]) == {}


def test_methods_are_told_apart_by_what_differs_on_one_dataset():
    trials = [
        trial("coop", init="random", epochs=50),
        trial("coop", init="a photo of a", epochs=50),
        trial("coop", dataset="eurosat", init="random", epochs=10),
        trial("ft", steps=5),
    ]
    assert names(trials) == ["coop (init=random)", "coop (init=a photo of a)", "coop (init=random)", "ft"]
    assert names([trial(shots=1), trial("ft")]) == ["coop (shots=1)", "ft (shots=16)"]
    assert names([trial(classes="all"), trial(dataset="pets"), trial("ft")]) == ["coop", "coop", "ft"]


def test_options_that_change_no_result_make_no_other_method():
    trials = [trial(seed=1, texts_at_once=256), trial(seed=2, texts_at_once=128)]
    assert [row.seeds for row in compare(trials)] == [(1, 2)]


def test_accuracy_over_all_classes_is_never_averaged_with_that_over_base_classes():
    rows = compare([trial(dataset="dtd"), trial(dataset="dtd", classes="all"), trial(dataset="pets", classes="all")])
    assert [row.dataset for row in rows] == ["dtd", "dtd, all classes", "pets, all classes"]


def test_targets_have_paired_differences_of_their_own():
    def on_target(name, share):
        made = trial(name)
        correct = {**made.correct, "pacs@sketch": bits(share, 50, 9)}
        return replace(made, correct=correct, images={**made.images, "pacs@sketch": tuple(map(str, range(50)))})

    ours, theirs = on_target("a", 0.9), on_target("b", 0.5)
    expected = (ours.correct["pacs@sketch"].count("1") - theirs.correct["pacs@sketch"].count("1")) / 50
    assert paired_differences([ours], [theirs])["pacs@sketch"].value == pytest.approx(expected)
    elsewhere = replace(theirs, images={**theirs.images, "pacs@sketch": tuple("x" * 50)})
    assert paired_differences([ours], [elsewhere]).keys() == {"base", "new", "H"}


def test_a_difference_over_fewer_seeds_than_the_row_says_so():
    trials = [trial("zero-shot"), trial("coop", seed=1), trial("coop", seed=2)]
    rows = compare(trials)
    assert [(row.seeds, row.paired) for row in rows] == [((1,), ()), ((1, 2), (1,))]
    assert "Δ of coop on dtd: only over the seeds that zero-shot has too (1)." in notes(rows, "zero-shot")


def test_the_text_table_shows_every_cell_whole_however_many_columns_there_are():
    targets = {f"pacs@domain{number}": 0.5 for number in range(6)}
    trials = [
        replace(trial(name, seed=seed), targets=targets, cost=12.3456, seconds=123456.0)
        for name in ("zero-shot", "coop")
        for seed in (1, 2)
    ]
    rows = compare(trials)
    text = as_text(rows, notes(rows, "zero-shot"))
    for column in columns(rows):
        for cell in (column.head, *column.cells):
            assert cell in text


def test_two_runs_with_one_seed_are_refused():
    with pytest.raises(RunError, match="seed 1"):
        compare([trial(), trial()])


def test_unknown_reference_lists_the_methods():
    with pytest.raises(UnknownName, match="coop"):
        compare([trial()], "zero-shot")


def test_differences_are_from_zero_shot_unless_another_method_is_named():
    trials = [trial("coop"), trial("zero-shot", base=0.7), trial("ft")]
    assert [row.method for row in compare(trials) if not row.differences] == ["zero-shot"]
    assert [row.method for row in compare(trials, "ft") if not row.differences] == ["ft"]
    assert [row.method for row in compare(trials[::2]) if not row.differences] == ["coop"]


def test_published_rows_average_to_the_printed_averages_but_for_the_one_that_does_not():
    rows = [row for row in published_rows([*PUBLISHED, AVERAGE], [1, 16]) if row.source]
    for method in {row.method for row in rows}:
        own = {row.dataset: row for row in rows if row.method == method}
        for half in ("base", "new"):
            mean = np.mean([getattr(own[name], half)[0] for name in PUBLISHED])
            matches = abs(mean - getattr(own[AVERAGE], half)[0]) < 0.00011
            assert matches == (method != "IPO (16-shot)"), (method, half, mean)


def test_published_figures_are_those_of_the_papers_and_have_no_average_of_some_datasets():
    rows = {(row.method, row.dataset): row for row in published_rows(["caltech101", "dtd"], [1])}
    row = rows["IPO (1-shot)", "dtd"]
    assert (row.base, row.new) == ((0.5545, None), (0.6247, None))
    assert rows["CLIP", "caltech101"].base[0] == 0.9684
    assert not any("16" in method for method, _ in rows)
    assert not any(dataset == AVERAGE for _, dataset in rows)


@pytest.fixture
def rows():
    measured = [
        trial(m, d, seed, base)
        for d in ("dtd", "eurosat")
        for seed in (1, 2)
        for m, base in (("zero-shot", 0.7), ("coop", 0.8))
    ]
    return [*compare(measured, "zero-shot"), *published_rows(["dtd"], [16])]


def test_published_rows_are_marked_sourced_and_never_averaged_in(rows):
    text = as_text(rows, notes(rows, "zero-shot"))
    published = [line for line in text.splitlines() if "†" in line and "published, not" not in line]
    assert len(published) == sum(bool(row.source) for row in rows)
    assert "published, not measured here: CoOp (16-shot), CoCoOp (16-shot): " in text
    average = next(row for row in rows if row.dataset == AVERAGE and row.method == "coop")
    own = [row.base[0] for row in rows if row.method == "coop" and row.dataset != AVERAGE]
    assert average.base[0] == pytest.approx(np.mean(own))


def test_every_form_shows_the_same_percent(rows):
    coop = next(row for row in rows if row.method == "coop")
    shown = f"{100 * coop.base[0]:.1f}"
    for form in ("text", "markdown", "latex"):
        line = next(line for line in FORMATS[form](rows, notes(rows, "zero-shot")).splitlines() if "coop" in line)
        assert shown in line, form
    table = list(csv.DictReader(io.StringIO(as_csv(rows))))
    own = next(line for line in table if line["method"] == "coop")
    assert float(own["base"]) == coop.base[0]
    assert float(own["difference_H_low"]) == coop.differences["H"].low
    assert {line["source"] == "measured" for line in table} == {True, False}


def test_markdown_is_a_table_of_equal_lines(rows):
    lines = [line for line in as_markdown(rows, notes(rows, "zero-shot")).splitlines() if line.startswith("|")]
    assert len(lines) == len(rows) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_latex_escapes_what_it_must():
    latex = as_latex(compare([trial("a_b"), trial("a_b", init="50% <CLASS> & {x}")]), [])
    assert r"a\_b" in latex
    assert r"init=50\% $<$CLASS$>$ \& \{x\}" in latex
    assert latex.count("\\\\\n") == 3


def test_sentences_carry_perplexities_of_the_texts_without_the_slot():
    asked = []

    def perplexity(texts):
        asked.extend(texts)
        return [42.0 for _ in texts]

    said = {"one": ("a <CLASS> seen.",), "many": ("a <CLASS>.", "the <CLASS>.")}
    rows = compare([*(replace(trial(name), sentences=texts) for name, texts in said.items()), trial("ft")])
    lines = sentences(rows, perplexity)
    assert asked == ["a thing seen.", "a thing.", "the thing."]
    assert lines == [
        "dtd, one: a <CLASS> seen.; perplexity 42",
        "dtd, many: a <CLASS>. and 1 more; perplexity 42",
    ]
    assert "&lt;CLASS>" in with_words("table", lines, "markdown")
    assert all(line.startswith("%") for line in with_words("table", lines, "latex").splitlines()[1:])


def write_run(folder, method, predictors, seed=1, **extra):
    folder.mkdir(parents=True)
    entry = {"base": {"accuracy": 0.5, "low": 0, "high": 1, "n": 2}, "new": None, "H": None, "prompts": ["a <CLASS>."]}
    result = {"method": method, "dataset": "own", "seed": seed, "shots": 1, "classes": "all", "model": "mini"}
    result |= {"seconds": 1.0, "cost": None, "predictors": dict.fromkeys(predictors, entry), **extra}
    verdicts = {name: {"base": "10", "new": None} for name in predictors}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "correct.json").write_text(json.dumps({"images": {"base": ["x", "y"], "new": None}, **verdicts}))
    (folder / "config.toml").write_text("[search]\nhistory = 0\n")
    return folder


def test_runs_of_ipo_and_of_baselines_are_read_alike(tmp_path):
    ipo = write_run(tmp_path / "ipo", "ipo", ["first", "ipo", "ipo-ensemble"])
    coop = write_run(tmp_path / "coop", "coop", ["coop"], options={"epochs": 3})
    assert [t.predictor for t in read_trials(ipo)] == ["ipo", "ipo-ensemble"]
    assert [t.predictor for t in read_trials(ipo, every=True)] == ["first", "ipo", "ipo-ensemble"]
    assert read_trials(ipo)[0].facts["search.history"] == 0
    (found,) = read_trials(coop)
    assert (found.base, found.new, found.facts["epochs"], found.sentences) == (0.5, None, 3, ("a <CLASS>.",))


def test_old_runs_of_mini_stand_beside_new_ones_of_mini_conse(tmp_path):
    marks = {"preprocessing": "p", "precision": "float32"}
    for name, weights, folder in (
        ("mini", CONSE_WEIGHTS, "old"),
        ("mini-conse", CONSE_WEIGHTS, "same"),
        ("mini", "0", "new"),
    ):
        clip = {"name": name, "weights": weights, **marks}
        write_run(tmp_path / folder, "coop", ["coop"], seed=len(folder), options={}, model=name, clip=clip)
    old, same, new = (read_trials(tmp_path / folder)[0] for folder in ("old", "same", "new"))
    assert names([old, same]) == ["coop", "coop"]
    assert names([old, new]) == ["coop (model=mini-conse)", "coop (model=mini)"]
    assert [row.seeds for row in compare([old, same])] == [(3, 4)]
    assert "mini-conse" in CliRunner().invoke(app, ["compare", str(tmp_path)]).output


def test_fits_on_two_domains_are_two_datasets(tmp_path):
    for domain in ("photo", "sketch"):
        folder = write_run(tmp_path / domain, "coop", ["coop"], options={})
        (folder / "config.toml").write_text(f'[data]\ndomains = ["{domain}"]\n')
    trials = [read_trials(tmp_path / domain)[0] for domain in ("photo", "sketch")]
    assert [row.dataset for row in compare(trials)] == ["own@photo", "own@sketch", AVERAGE]


def test_command_compares_the_runs_of_a_folder(tmp_path):
    write_run(tmp_path / "runs" / "a", "zero-shot", ["zero-shot"], options={})
    write_run(tmp_path / "runs" / "b", "coop", ["coop"], options={})
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "runs"), "--reference", "zero-shot", "--words"])
    assert result.exit_code == 0, result.output
    assert "coop" in result.output
    assert "+0.0 [+0.0, +0.0]" in result.output
    target = tmp_path / "table.csv"
    CliRunner().invoke(app, ["compare", str(tmp_path / "runs"), "--format", "csv", "--out", str(target)])
    assert len(target.read_text().splitlines()) == 3


def test_command_says_where_there_is_no_run(tmp_path):
    result = CliRunner().invoke(app, ["compare", str(tmp_path)])
    assert result.exit_code != 0
    assert str(tmp_path) in str(result.exception)


def test_command_leaves_out_what_is_not_finished_and_says_so(tmp_path):
    write_run(tmp_path / "a", "zero-shot", ["zero-shot"], options={})
    (tmp_path / "b").mkdir()
    (tmp_path / "notes.txt").write_text("")
    result = CliRunner().invoke(app, ["compare", *map(str, sorted(tmp_path.iterdir()))])
    assert result.exit_code == 1, result.output
    assert "zero-shot" in result.stdout
    assert ["/b)" in line or "/notes.txt)" in line for line in result.stderr.splitlines()] == [True] * 2


def test_a_cost_of_nothing_makes_no_column():
    free = [replace(trial(name), cost=0.0) for name in ("coop", "cocoop")]
    assert "cost, $" not in [column.head for column in columns(compare(free))]
    paid = columns(compare([*free, replace(trial("ipo"), cost=0.5)]))
    (cells,) = (column.cells for column in paid if column.head == "cost, $")
    assert sorted(cells) == ["", "", "0.5000"]
