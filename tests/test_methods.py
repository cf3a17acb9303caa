from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ipo.errors import ConfigError, RunError, UnknownName
from ipo.methods import CHECKPOINT, FitRun, Method, find_method
from ipo.registry import available_methods
from ipo.store.tensors import load_tensors, save_tensors

NAMES = {"zero-shot", "ensemble-7", "ensemble-80", "select-80", "coop", "cocoop", "bayesian"}
NAMES |= {"dclip", "cupl", "waffle", "random-k", "rlprompt", "qpo"}
NAMES |= {"ft", "l2-sp", "kd", "car-ft", "wise-ft", "lipsum-ft"}


def test_every_method_is_found_under_its_own_name():
    assert set(available_methods()) >= NAMES
    for name in NAMES:
        assert find_method(name).name == name


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(UnknownName, match=r"Did you mean 'coop'.*lipsum-ft"):
        find_method("coopp")


def install(folder: Path, name: str, target: str, code: str) -> None:
    """A third party's package, as far as entry points are concerned."""
    metadata = folder / "other-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[ipo.methods]\n{name} = {target}\n")
    (folder / "other.py").write_text(code)


OTHER = """
from ipo.config import Section
from ipo.scoring import PromptPredictor
from ipo.methods import Fitted, Method
from ipo.prompt import Prompt


class Options(Section):
    words: str = "a <CLASS>."


def fit(task, options, run):
    return Fitted({"mine": PromptPredictor(task.clip, (Prompt(options.words),))})


MINE = Method("mine", "somebody else's", Options, fit)
"""


def test_another_package_can_add_a_method(tmp_path, monkeypatch):
    install(tmp_path, "mine", "other:MINE", OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" in available_methods()
    method = find_method("mine")
    assert method.configure("dtd", 1, {"words": "the <CLASS>."}).words == "the <CLASS>."
    with pytest.raises(ConfigError, match=r"unknown key 'epochs'.*words"):
        method.configure("dtd", 1, {"epochs": 3})


@pytest.mark.parametrize(
    ("target", "message"), [("other:NOTHING", "cannot be loaded"), ("other:Options", "not an ipo.methods.Method")]
)
def test_a_broken_entry_point_is_named(tmp_path, monkeypatch, target, message):
    install(tmp_path, "mine", target, OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=message):
        find_method("mine")


def test_a_name_that_two_packages_claim_is_an_error(tmp_path, monkeypatch):
    install(tmp_path, "coop", "other:MINE", OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="more than once"):
        find_method("coop")


def test_a_path_among_the_options_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("a <CLASS>.")
    assert find_method("zero-shot").configure("dtd", 1, {"prompts": "own.txt"}).prompts == tmp_path / "own.txt"


def test_published_options_lie_under_ones_own():
    method = find_method("coop")
    assert isinstance(method, Method)
    assert method.configure("dtd", 1).epochs == 50
    assert method.configure("dtd", 16).epochs == 200
    assert method.configure("dtd", 16, {"epochs": 3}).epochs == 3
    with pytest.raises(ConfigError, match="epochs"):
        method.configure("dtd", 16, {"epochs": 0})


def test_checkpoint_survives_and_drops_the_curve_written_after_it(tmp_path):
    run = FitRun(tmp_path)
    run.restore()
    run.log({"epoch": 1})
    run.save({"w": torch.ones(2)}, 1)
    run.log({"epoch": 2})
    again = FitRun(tmp_path)
    tensors, done = again.restore()
    assert (tensors["w"].tolist(), done) == ([1.0, 1.0], 1)
    assert (tmp_path / "curves.jsonl").read_text() == '{"epoch": 1}\n'
    assert again.seconds >= run.seconds - 60


def test_a_process_that_does_not_write_leaves_the_folder_alone(tmp_path):
    run = FitRun(tmp_path, writes=False)
    run.restore()
    run.log({"epoch": 1})
    run.save({"w": torch.ones(1)}, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"no tensors")
    with pytest.raises(RunError, match=CHECKPOINT):
        FitRun(tmp_path).restore()


def test_tensors_come_back_with_their_metadata(tmp_path):
    views = torch.arange(6.0).reshape(2, 3).T
    save_tensors(tmp_path / "t.safetensors", {"a": views, "b": views}, {"x": "1"})
    tensors, metadata = load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(tensors["a"], views)
    assert metadata == {"x": "1"}


def test_a_figure_of_an_epoch_that_is_no_number_is_left_out_of_the_curve(tmp_path):
    FitRun(tmp_path).log({"epoch": 1, "loss": float("nan"), "gap": float("inf"), "accuracy": 0.5})
    row = json.loads((tmp_path / "curves.jsonl").read_text(), parse_constant=pytest.fail)
    assert row == {"epoch": 1, "accuracy": 0.5}
