"""The commands of `ipo datasets`, as a user meets them."""

import hashlib
import json

import pytest
from typer.testing import CliRunner

from ipo.cli.datasets import app
from ipo.data.benchmarks.catalogue import CATALOGUE
from ipo.data.fewshot import draw_shots
from ipo.data.load import load_dataset
from ipo.errors import ConfigError, DataError
from tests.data.builders import class_tree, split_file


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


@pytest.fixture
def root(tmp_path):
    rows = [(f"{name}/{index}.jpg", label, name) for label, name in enumerate("abc") for index in range(8)]
    split_file(tmp_path / "dtd" / CATALOGUE["dtd"].split_file, train=rows, val=rows, test=rows)
    return tmp_path


def test_the_table_lists_all_datasets_and_what_is_here(tmp_path):
    class_tree(tmp_path / "stamps", {"bird": 4, "coin": 4})
    rows = {row["name"]: row for row in json.loads(run("--data-root", tmp_path, "--json").output)}
    assert list(rows) == list(CATALOGUE)
    assert [name for name, row in rows.items() if row["present"]] == ["stamps"]
    assert rows["dtd"]["state"] == "no dtd/images"
    shown = run("--data-root", tmp_path).output
    assert all(name in shown for name in CATALOGUE)
    assert "4,128/1,649/2,465" in shown


def test_the_table_says_where_a_split_file_is_missing(tmp_path):
    class_tree(tmp_path / "dtd" / "images", {"banded": 4})
    [row] = [row for row in json.loads(run("--data-root", tmp_path, "--json").output) if row["name"] == "dtd"]
    assert row["state"] == "present, but no split_zhou_DescribableTextures.json: seeded split"


def test_draw_prints_paths_labels_and_names_in_order_without_any_image(root):
    done = run("draw", "dtd", "--shots", 2, "--seed", 3, "--data-root", root, "--json")
    shown = json.loads(done.output)
    split_only = root / "dtd" / CATALOGUE["dtd"].split_file
    (root / "dtd" / "images").mkdir()
    train, val = draw_shots(load_dataset("dtd", root), 2, 3)
    for part, items in (("train", train), ("val", val)):
        expected = [
            {"path": f"{i.path.parent.name}/{i.path.name}", "label": i.label, "class": "abc"[i.label]} for i in items
        ]
        assert shown[part] == expected
    assert shown["split_source"].startswith("own file")
    lines = run("draw", "dtd", "--shots", 2, "--seed", 3, "--split-file", split_only, "--data-root", "/none").output
    assert lines.splitlines()[0].split("\t") == ["train", *map(str, shown["train"][0].values())]
    assert len(lines.splitlines()) == len(train) + len(val)


def test_draw_of_a_half_filters_after_drawing_and_counts_labels_from_0(root):
    whole = json.loads(run("draw", "dtd", "--shots", 2, "--data-root", root, "--json").output)["train"]
    new = json.loads(run("draw", "dtd", "--shots", 2, "--classes", "new", "--data-root", root, "--json").output)[
        "train"
    ]
    assert new == [{**row, "label": 0} for row in whole if row["class"] == "c"]


def test_seed_0_draws_the_same_twice(root):
    first = run("draw", "dtd", "--seed", 0, "--shots", 1, "--data-root", root).output
    assert run("draw", "dtd", "--seed", 0, "--shots", 1, "--data-root", root).output == first
    assert run("draw", "dtd", "--seed", 1, "--shots", 1, "--data-root", root).output != first


@pytest.mark.real_data
def test_draw_prints_the_published_draw(real_data):
    shown = json.loads(run("draw", "caltech101", "--shots", 1, "--seed", 1, "--data-root", real_data, "--json").output)
    paths = "\n".join(row["path"] for row in shown["train"])
    assert hashlib.md5(paths.encode()).hexdigest() == "c006c01edc0945fe890ab780f631d522"


def test_check_lists_problems_and_exits_with_1(tmp_path):
    folder = class_tree(tmp_path / "photos", {"a": 4, "b": 4})
    sound = run("check", f"folder:{folder}")
    assert (sound.exit_code, sound.output.splitlines()[-1]) == (0, "no problems")
    (folder / "a" / "000.jpg").write_bytes(b"")
    broken = run("check", f"folder:{folder}")
    assert broken.exit_code == 1
    assert "the file is empty" in broken.output
    assert broken.output.splitlines()[-1] == "1 problem"


def test_show_writes_a_picture_and_prints_its_path(tmp_path):
    folder = class_tree(tmp_path / "photos", {"a": 4, "b": 4})
    done = run("show", f"folder:{folder}", "--out", tmp_path / "sheet.png")
    assert done.output.strip() == str(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_prepare_of_an_unreachable_dataset_is_an_error_with_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("IPO_OFFLINE", "1")
    error = run("prepare", "dtd", "--data-root", tmp_path).exception
    assert isinstance(error, DataError)
    assert "dtd-r1.0.1.tar.gz" in str(error)
    assert not (tmp_path / "dtd").exists()


@pytest.mark.parametrize("command", ["prepare", "check", "show", "draw"])
def test_every_command_has_help_with_examples(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Examples" in done.output


def test_the_data_root_may_stand_before_the_command(root, monkeypatch):
    monkeypatch.setenv("IPO_DATA", "/nowhere")
    before = run("--data-root", root, "draw", "dtd", "--shots", 1, "--json").output
    monkeypatch.setenv("IPO_DATA", "/nowhere")
    behind = run("draw", "dtd", "--shots", 1, "--json", "--data-root", root).output
    assert len(json.loads(before)["train"]) == 3
    assert before == behind


@pytest.mark.parametrize("name", ["folder:pictures", "imagenet", "pacs"])
def test_a_split_file_for_a_dataset_that_has_none_is_refused(name, root):
    done = run("draw", name, "--split-file", root / "dtd" / CATALOGUE["dtd"].split_file)
    assert isinstance(done.exception, ConfigError)
    assert "--split-file is for datasets with a split file" in str(done.exception)
