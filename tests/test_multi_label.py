"""Pictures with several labels each: how a table of them is read and drawn from, and mean average precision."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from ipo import metrics
from ipo import run as running
from ipo.cli.main import app
from ipo.clip.hashes import ContentHashes, dataset_hash
from ipo.comparison.rows import compare
from ipo.comparison.tables import columns, notes
from ipo.comparison.trials import read_trials
from ipo.config import load_settings
from ipo.data.fewshot import class_half, draw_shots
from ipo.data.load import load_dataset
from ipo.data.types import Dataset, Item
from ipo.errors import ConfigError, DataError, IpoError
from ipo.prompt import HistoryEntry, MapScore, Prompt
from ipo.runs.result import read_result
from ipo.scoring import ImageSet, PromptPredictor, evaluate_on, score_prompts
from tests.data.builders import picture, text
from tests.fakes import FakeClip
from tests.test_run import Shop


def table(folder: Path, *lines: str, head: str = "path,label") -> Path:
    """A table, and the pictures that it names, no two of the same content."""
    for line in lines:
        name = line.replace(";", ",", 1).split(",")[0]
        if name and not (folder / name).exists():
            path = picture(folder / name)
            path.write_bytes(path.read_bytes() + name.encode())
    return text(folder / "table.csv", *([head] if head else []), *lines)


def read(file: Path, **options) -> Dataset:
    return load_dataset(f"csv:{file}", multi_label=True, **options)


def labels_of(dataset: Dataset) -> dict[str, set[str]]:
    items = (*dataset.train, *dataset.val, *dataset.test)
    return {item.path.name: {dataset.classnames[label] for label in item.classes} for item in items}


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        ("path,label", ["a.png,cat;dog", "b.png,dog", "c.png,cat|bird |", "d.png,bird"]),
        ("path,label", ["a.png,cat", "b.png,dog", "a.png,dog", "c.png,bird;cat", "d.png,bird", "./c.png,cat"]),
        ("path;label", ["a.png;cat|dog", "b.png;dog", "c.png;cat|bird", "d.png;bird"]),
        ("", ["a.png,cat;dog", "b.png,dog", "c.png,cat;bird", "d.png,bird"]),
    ],
)
def test_labels_stand_in_one_line_or_in_several(head, lines, tmp_path):
    dataset = read(table(tmp_path, *lines, head=head))
    expected = {"a.png": {"cat", "dog"}, "b.png": {"dog"}, "c.png": {"cat", "bird"}, "d.png": {"bird"}}
    assert labels_of(dataset) == expected
    assert dataset.classnames == ("bird", "cat", "dog")


def test_a_table_of_one_label_a_picture_is_read_as_ever_and_a_label_may_hold_a_bar(tmp_path):
    file = table(tmp_path, "a.png,cat|dog", "b.png,cat;dog")
    dataset = load_dataset(f"csv:{file}")
    assert dataset.classnames == ("cat;dog", "cat|dog")
    assert not any(item.labels for item in (*dataset.train, *dataset.test))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a.png,cat", "b.png,;|"], r"a line needs a path and a label .*table.csv:3"),
        (["a.png,cat,train", "b.png,dog,train", "a.png,dog,test"], r"'a.png' has another split .*table.csv:4"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number(lines, words, tmp_path):
    with pytest.raises(DataError, match=words):
        read(table(tmp_path, *lines, head="path,label,split"))


def test_a_picture_goes_to_a_split_with_its_rarest_label(tmp_path):
    lines = [f"{number}.png,common" for number in range(10)]
    lines += [f"rare{number}.png,common;rare" for number in range(4)]
    dataset = read(table(tmp_path, *lines))
    rare = dataset.classnames.index("rare")
    for part in (dataset.train, dataset.val, dataset.test):
        assert sum(rare in item.labels for item in part) >= 1
        assert all(item.label == rare for item in part if rare in item.labels)


def test_another_second_label_is_another_dataset(tmp_path):
    one = read(table(tmp_path / "one", "a.png,cat;dog", "b.png,dog", "c.png,bird", "d.png,cat"))
    other = read(table(tmp_path / "other", "a.png,cat;bird", "b.png,dog", "c.png,bird", "d.png,cat"))
    assert one.split_hash != other.split_hash
    memory = ContentHashes(tmp_path / "memory.json")
    assert dataset_hash(one, memory) != dataset_hash(other, memory)


def items_with(*rows: tuple[int, ...]) -> tuple[Item, ...]:
    return tuple(Item(Path(f"{index}.png"), row[0], "", row) for index, row in enumerate(rows))


@given(
    st.lists(st.sets(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_every_class_has_its_shots_where_it_can_and_no_picture_twice(rows, shots, seed):
    train = items_with(*(tuple(sorted(row)) for row in rows))
    dataset = Dataset("d", Path(), tuple("abcde"), train, (), (), "", "", "")
    drawn, _ = draw_shots(dataset, shots, seed)
    assert len(set(drawn)) == len(drawn)
    assert (drawn, ()) == draw_shots(dataset, shots, seed)
    for label in range(5):
        there = sum(label in item.labels for item in train)
        got = sum(label in item.labels for item in drawn)
        assert got >= min(shots, there)
    needed = {label for item in drawn for label in item.labels}
    assert len(drawn) <= shots * len(needed)


def test_a_half_of_the_classes_keeps_its_labels_and_drops_the_others():
    train = items_with((0, 2), (3,), (1, 3))
    half = class_half(Dataset("d", Path(), tuple("abcd"), train, (), (), "", "", ""), "new")
    assert [(item.path.name, item.label, item.labels) for item in half.take(train)] == [
        ("0.png", 0, (0,)),
        ("1.png", 1, (1,)),
        ("2.png", 1, (1,)),
    ]


def brute_force(scores: list[float], targets: list[bool]) -> float | None:
    """scikit-learn's definition, threshold by threshold: the sum of (R_n - R_n-1) P_n."""
    if not any(targets):
        return None
    total, area, recall = sum(targets), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [target for score, target in zip(scores, targets, strict=True) if score >= threshold]
        gained = sum(taken) / total
        area += (gained - recall) * sum(taken) / len(taken)
        recall = gained
    return area


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), st.booleans()), min_size=1, max_size=25))
def test_average_precision_is_that_over_all_thresholds_with_ties_taken_together(rows):
    scores, targets = ([row[place] for row in rows] for place in (0, 1))
    found = metrics.average_precisions(np.array([scores]).T, np.array([targets]).T)[0]
    assert found == pytest.approx(brute_force(scores, targets))


def test_a_known_average_precision():
    # the example of scikit-learn's documentation, and one where all scores are equal: the share of the class
    scores, targets = np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[False], [False], [True], [True]])
    assert metrics.average_precisions(scores, targets) == [pytest.approx(0.8333333333)]
    assert metrics.average_precisions(np.ones((4, 1)), targets) == [pytest.approx(0.5)]


def test_classes_without_images_are_left_out_of_the_mean_and_named():
    clip = FakeClip()
    images = ImageSet(items_with((0,), (0, 1), (1,)), clip.encode_texts(["a", "a b", "b"]))
    found = evaluate_on(PromptPredictor(clip, (Prompt("<CLASS>"),)), images, ["a", "b", "c"])
    assert found.per_class[2] is None
    assert found.absent == ("c",)
    assert found.value == pytest.approx(sum(value or 0.0 for value in found.per_class[:2]) / 2)
    assert found.figures() == {"map": found.value, "low": found.low, "high": found.high, "n": 3, "absent": ["c"]}
    assert found.low <= found.value <= found.high


def test_a_score_is_the_mean_average_precision_and_of_single_labels_the_loss_is_cross_entropy():
    clip, names = FakeClip(), ["cat", "dog", "bird"]
    features = clip.encode_texts(["cat thing", "dog", "bird x", "dog y", "cat", "bird dog"])
    rows = ((0,), (1,), (2,), (1,), (0,), (2,))
    score = score_prompts(clip, [Prompt("a <CLASS>")], ImageSet(items_with(*rows), features), names)[0]
    single = ImageSet(tuple(Item(Path(f"{n}.png"), row[0]) for n, row in enumerate(rows)), features)
    other = score_prompts(clip, [Prompt("a <CLASS>")], single, names)[0]
    assert isinstance(score, MapScore)
    assert (score.metric, other.metric) == ("map", "accuracy")
    assert score.loss == pytest.approx(other.loss, abs=2e-6)
    logits = PromptPredictor(clip, (Prompt("a <CLASS>"),)).logits(single, names)
    each = [brute_force(logits[:, c].tolist(), [row == (c,) for row in rows]) or 0.0 for c in range(3)]
    assert score.map == pytest.approx(sum(each) / 3, abs=1e-6)


def test_labels_of_an_image_share_its_weight_in_the_loss():
    logits, targets = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[True, False, True]])
    log = torch.log_softmax(logits.double(), dim=-1)[0]
    assert metrics.shared_cross_entropy(logits, targets) == pytest.approx(float(-(log[0] + log[2]) / 2))


def test_a_score_is_read_back_as_it_was_written_and_another_one_is_damage():
    score = {"map": 0.5, "loss": 1.0, "low": 0.4, "high": 0.6, "classes": 3}
    row = {"id": 0, "step": 0, "text": "a <CLASS>", "score": score}
    assert HistoryEntry.from_json(row).to_json() == row
    for broken in ({"map": 0.7}, {"classes": 0}, {"loss": -1.0}, {"accuracy": 0.5}):
        with pytest.raises(ValueError, match=r"map|loss|score|mean"):
            HistoryEntry.from_json(row | {"score": score | broken})


@pytest.fixture
def shop(monkeypatch, tmp_path) -> Shop:
    shop = Shop()
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ipo.run.load_llm", lambda *_, **__: shop)
    for place in ("ipo.run", "ipo.fixed_prompts"):
        monkeypatch.setattr(f"{place}.load_clip", lambda settings, offline: FakeClip())
    return shop


@pytest.fixture
def photos(tmp_path) -> Path:
    """Sixteen pictures of three things, some of two of them."""
    random = np.random.default_rng(0)
    rows = ["path,label,split"]
    for index, labels in enumerate(["red", "green;red", "blue", "blue|green"] * 4):
        Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{labels},{'train' if index < 8 else 'test'}")
    return text(tmp_path / "photos.csv", *rows)


def searched(photos: Path, out: Path, **data) -> Path:
    values = {
        "data": {"dataset": f"csv:{photos}", "shots": 2, "metric": "map", **data},
        "clip": {"workers": 0},
        "search": {"steps": 2, "candidates": 2, "english_only": False, "class_names_allowed": True},
    }
    job = running.prepare("ipo", load_settings(None, values))
    with running.start(job, out) as folder:
        running.run(job, folder)
    return out


def printed(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_search_by_mean_average_precision_is_a_whole_run_and_names_its_metric_everywhere(shop, photos, tmp_path):
    run = searched(photos, tmp_path / "run")
    result = read_result(run)
    assert result.metric == "map"
    assert result.predictors["ipo"].base.map == result.predictors["ipo"].base.value
    assert result.comparisons is not None
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert {*rows[0]["score"]} == {"map", "loss", "low", "high", "classes"}
    question = shop.asked[0][0][0].content
    assert "mean average precision: " in question
    assert "accuracy" not in question
    for page in ("history.md", "report.html"):
        assert "mAP" in (run / page).read_text(encoding="utf-8")
    assert "mAP, %" in printed("history", run)
    assert "%" in printed("show", run, 1)
    table = printed("compare", run)
    assert "mAP" in table
    assert "accuracy" not in table


def test_the_controls_beside_a_search_are_by_mean_average_precision_too(shop, photos, tmp_path):
    values = {
        "data": {"dataset": f"csv:{photos}", "shots": 2, "metric": "map"},
        "clip": {"workers": 0},
        "search": {"steps": 2, "candidates": 2, "english_only": False, "class_names_allowed": True, "controls": True},
    }
    job = running.prepare("ipo", load_settings(None, values))
    with running.start(job, tmp_path / "run") as folder:
        result = running.run(job, folder)
    assert {"select-80", "ensemble-80"} < {*result.predictors}
    assert all(figures.base.map is not None for figures in result.predictors.values())
    assert "accuracy" not in (tmp_path / "run" / "history.md").read_text(encoding="utf-8").casefold()


def test_a_run_by_mean_average_precision_goes_on_to_the_same_history(shop, photos, tmp_path):
    whole = searched(photos, tmp_path / "whole")
    shop.asked.clear()
    again = searched(photos, tmp_path / "again")
    assert (whole / "history.jsonl").read_bytes() == (again / "history.jsonl").read_bytes()


def test_runs_by_another_metric_are_other_rows(shop, photos, tmp_path):
    runs = [searched(photos, tmp_path / "map")]
    shop.asked.clear()
    one = text(
        tmp_path / "one.csv", *(line.replace(";red", "").replace("|green", "") for line in photos.read_text().split())
    )
    runs.append(searched(one, tmp_path / "accuracy", metric="accuracy"))
    rows = compare([trial for run in runs for trial in read_trials(run)])
    assert {row.metric for row in rows} == {"accuracy", "map"}
    heads = {column.head: column.cells for column in columns(rows)}
    assert "accuracy or mAP" in heads
    assert any(cell.endswith("(mAP)") for cell in heads["dataset"])
    assert "average" not in heads["dataset"]
    assert "mAP is the mean average precision" in notes(rows, "x")[0]


def test_an_evaluation_and_the_fixed_prompts_are_by_mean_average_precision(shop, photos, tmp_path):
    arguments = ("--dataset", f"csv:{photos}", "--metric", "map", "--set", "clip.workers=0")
    rows = json.loads(printed("evaluate", "-p", "a <CLASS>", *arguments, "--json"))
    assert {*rows[0]} == {"prompt", "split_source", "map", "low", "high", "n"}
    assert "mAP, %" in printed("evaluate", "-p", "a <CLASS>", *arguments)
    assert "Test mAP" in printed("baseline", "select-80", *arguments, "--out", tmp_path / "select")
    figures = read_result(tmp_path / "select").figures
    assert {*figures["training"]} == {"map", "loss"}


def test_a_class_that_no_test_image_has_is_named_under_the_table(shop, photos, tmp_path):
    lines = [line for line in photos.read_text().split() if "test" not in line or "green" not in line]
    out = printed(
        *("evaluate", "-p", "a <CLASS>", "--metric", "map", "--set", "clip.workers=0"),
        *("--dataset", f"csv:{text(tmp_path / 'less.csv', *lines)}"),
    )
    assert "Left out, since no image has them: green" in " ".join(out.split())


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("coop", {}, "method 'coop' is for one label an image"),
        ("ipo", {"data.dataset": "caltech101"}, "'caltech101' has one"),
        ("ipo", {"data.targets": ("pacs@photo",)}, "pacs"),
        ("ipo", {"search.select": "margin"}, "search.select=margin needs one label"),
        ("ipo", {"strategy.name": "opro"}, "strategy 'opro'"),
        ("ipo", {"strategy.name": "reflect"}, "strategy 'reflect'"),
        ("ipo", {"strategy.name": "subset", "strategy.fitness": "fold_loss"}, "strategy 'subset'"),
    ],
)
def test_what_cannot_do_with_several_labels_refuses_before_data_are_read(method, changes, words, photos, monkeypatch):
    monkeypatch.setattr("ipo.run.read_listing", lambda *_: pytest.fail("data are read"))
    monkeypatch.setattr("ipo.runs.check.require_there", lambda *_: None)
    values: dict[str, Any] = {"data": {"dataset": f"csv:{photos}", "metric": "map"}}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    with pytest.raises(IpoError, match=words) as caught:
        running.prepare(method, load_settings(None, values))
    assert "\n" not in str(caught.value)


def test_a_strategy_of_somebody_else_that_asks_for_mistakes_is_told(shop, photos, tmp_path):
    from tests.test_optimize import make_search

    search = make_search(shop)
    object.__setattr__(search, "images", ImageSet(items_with((0, 1)), torch.ones(1, 16)))
    with pytest.raises(ConfigError, match="looks at mistakes"):
        search.mistakes("a <CLASS>")


def test_a_table_of_several_labels_can_be_checked_as_such(photos):
    lines = printed("datasets", "check", f"csv:{photos}", "--metric", "map")
    assert "3 classes" in lines
    assert "no problems" in lines
    command = ["datasets", "check", f"folder:{photos.parent}", "--metric", "map"]
    with pytest.raises(ConfigError, match="several labels a picture"):
        CliRunner().invoke(app, command, catch_exceptions=False)
