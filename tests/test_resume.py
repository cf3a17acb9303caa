"""Going on with a run: what may be another, what must not be, and what is written of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from ipo.api import start as command
from ipo.api.settings import resumed_settings
from ipo.cli.main import app
from ipo.config import load_settings
from ipo.config.fields import setting_fields
from ipo.errors import ConfigError, IpoError, RunError
from ipo.llm.base import UNPAID
from ipo.packages import installed_versions
from ipo.runs import resume
from ipo.runs.folder import read_settings
from ipo.runs.readers import method_reader
from ipo.runs.result import to_json
from ipo.runs.resume import CHANGEABLE, plan_resumption
from tests.test_run import pictures, search, settings, shop

__all__ = ["pictures", "shop"]

MORE = [["one more <CLASS>.", "and another <CLASS>."], ["the last <CLASS>.", "the very last <CLASS>."]]


def go_on(run: Path, *assigned: str, force: bool = False, flags: dict[str, Any] | None = None) -> dict[str, Any]:
    chosen = resumed_settings(method_reader("ipo"), run, list(assigned), flags or {})
    _, result = command.resume_run(run, chosen, {}, force)
    assert result is not None
    return to_json(result)


@pytest.fixture
def run(shop, pictures, tmp_path) -> Path:
    """A search of two steps that was interrupted after the first."""
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=1)
    return tmp_path / "run"


def state(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".json", ".jsonl", ".toml")}


def facts(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def test_more_steps_go_on_to_what_an_unbroken_run_finds(shop, pictures, run, tmp_path):
    shop.steps += [list(step) for step in MORE]
    go_on(run, "search.steps=4")
    shop.asked.clear()
    search(settings(pictures, steps=4), tmp_path / "whole")
    assert (run / "history.jsonl").read_bytes() == (tmp_path / "whole" / "history.jsonl").read_bytes()
    assert read_settings(run).search.steps == 4
    (change,) = facts(run)["changes"]
    assert (change["setting"], change["was"], change["is"]) == ("search.steps", 2, 4)
    assert "extended" not in facts(run), "no test image had been read"


def test_a_finished_run_may_be_extended_and_says_so(shop, run):
    go_on(run)
    assert "changes" not in facts(run)
    shop.steps += [list(step) for step in MORE]
    result = go_on(run, "search.steps=3")
    assert result["stopped"] == "all 3 steps done"
    assert "results on test images were known" in facts(run)["extended"][0]["note"]
    go_on(run, "search.steps=4", "tracker=none")
    assert [row["is"] for row in facts(run)["changes"]] == [3, 4]
    assert len(facts(run)["extended"]) == 2


def test_fewer_steps_than_were_done_are_refused(shop, run):
    go_on(run)
    before = state(run)
    with pytest.raises(ConfigError, match=r"search\.steps is 1, but the run has done 2"):
        go_on(run, "search.steps=1")
    assert state(run) == before


@pytest.mark.parametrize(
    ("assigned", "key"),
    [
        ("search.candidates=4", "search.candidates"),
        ("search.history=3", "search.history"),
        ("search.select=loss", "search.select"),
        ('search.first_prompts=["one <CLASS>"]', "search.first_prompts"),
        ("search.ensemble=2", "search.ensemble"),
        ("search.english_only=true", "search.english_only"),
        ("llm.temperature=0.5", "llm.temperature"),
        ("llm.max_tokens=7", "llm.max_tokens"),
        ("llm.spec=gpt-4o", "llm.spec"),
        ("captions.token_budget=7", "captions.token_budget"),
        ("captions.captioner=none", "captions.captioner"),
        ("data.shots=1", "data.shots"),
        ("data.classes=base", "data.classes"),
        ("clip.model=RN50/openai", "clip.model"),
        ("clip.device=cpu", "clip.device"),
        ("clip.precision=bfloat16", "clip.precision"),
        ("seed=2", "seed"),
    ],
)
def test_what_would_change_the_result_is_refused_by_its_name(run, assigned, key):
    before = state(run)
    with pytest.raises(ConfigError, match=rf"the result of the run depends on it: .*{key} was"):
        go_on(run, assigned)
    assert state(run) == before


def test_the_value_that_the_run_has_is_no_change(shop, run):
    go_on(run, "search.candidates=2", "seed=1", "data.shots=2")
    assert "changes" not in facts(run)


def test_settings_that_may_change_are_settings():
    assert set(setting_fields()) >= CHANGEABLE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 9000),
        ("patience", 9),
        ("max_proposals", 90),
        ("max_minutes", 99.5),
        ("give_up", 0),
        ("controls", False),
    ],
)
def test_limits_and_controls_may_change(shop, run, name, value):
    go_on(run, f"search.{name}={json.dumps(value)}")
    assert getattr(read_settings(run).search, name) == value
    assert [row["setting"] for row in facts(run)["changes"]] == [f"search.{name}"]


def test_a_moved_folder_is_taken_where_its_split_is_the_same(shop, run, pictures, tmp_path):
    moved = shutil.move(pictures, tmp_path / "moved elsewhere")
    with pytest.raises(IpoError, match=r"no such folder.*--dataset"):
        go_on(run)
    go_on(run, flags={"data": {"dataset": str(moved)}})
    assert facts(run)["dataset"] == "moved elsewhere"
    assert read_settings(run).data.dataset == f"folder:{moved}"
    assert facts(run)["status"] == "done"


def test_another_folder_is_refused(run, pictures, tmp_path):
    other = shutil.copytree(pictures, tmp_path / "other")
    (other / "train" / "red" / "0.png").rename(other / "train" / "red" / "first.png")
    before = state(run)
    with pytest.raises(RunError, match=r"split_hash \(the files or labels"):
        go_on(run, f"data.dataset=folder:{other}")
    assert state(run) == before


def test_training_pictures_that_were_replaced_are_noticed(run, pictures):
    for path in (pictures / "train").rglob("*.png"):
        Image.new("RGB", (6, 6), "white").save(path)
    before = state(run)
    with pytest.raises(RunError, match="training images were replaced or changed"):
        go_on(run)
    assert state(run) == before


def test_other_names_of_classes_are_noticed(run, pictures):
    (pictures / "classnames.json").write_text('{"red": "crimson"}')
    with pytest.raises(RunError, match="the names of the classes are others"):
        go_on(run)


def test_targets_may_move_and_must_be_the_same(shop, pictures, tmp_path):
    target = shutil.copytree(pictures, tmp_path / "target")
    chosen = settings(pictures)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"targets": (f"folder:{target}",)})})
    with pytest.raises(KeyboardInterrupt):
        search(chosen, tmp_path / "run", stop_after=1)
    target = Path(shutil.move(target, tmp_path / "moved"))
    (target / "test" / "red" / "0.png").rename(target / "test" / "red" / "9.png")
    flags = {"data": {"targets": [f"folder:{target}"]}}
    with pytest.raises(RunError, match="class names of a target are others"):
        go_on(tmp_path / "run", flags=flags)
    (target / "test" / "red" / "9.png").rename(target / "test" / "red" / "0.png")
    assert go_on(tmp_path / "run", flags=flags)["targets"] == [f"folder:{target}"]


def server_settings(pictures: Path, address: str) -> dict[str, Any]:
    values = settings(pictures).model_dump()
    return {**values, "llm": {"spec": "openai:m", "base_url": address}}


def test_a_server_may_have_another_address_but_not_another_model(shop, pictures, tmp_path):
    shop.name = "openai:m at http://old/v1"
    with pytest.raises(KeyboardInterrupt):
        search(load_settings(None, server_settings(pictures, "http://old/v1")), tmp_path / "run", stop_after=1)
    shop.name = "openai:m at http://new/v1"
    with pytest.raises(RunError, match=r"llm was 'openai:m at http://old/v1', is 'openai:m at http://new/v1'"):
        go_on(tmp_path / "run")
    shop.name = "openai:another at http://new/v1"
    flags = {"llm": {"base_url": "http://new/v1"}}
    with pytest.raises(RunError, match="llm was"):
        go_on(tmp_path / "run", flags=flags)
    shop.name = "openai:m at http://new/v1"
    result = go_on(tmp_path / "run", "llm.timeout=5", "llm.concurrency=2", "llm.retries=0", flags=flags)
    assert result["llm"] == facts(tmp_path / "run")["llm"] == "openai:m at http://new/v1"
    changed = {row["setting"] for row in facts(tmp_path / "run")["changes"]}
    assert changed == {"llm.base_url", "llm.timeout", "llm.concurrency", "llm.retries"}


@pytest.fixture
def versions(monkeypatch):
    """The versions that are installed, to be changed by a test."""
    found = {**installed_versions(), "torch": "2.14.1+cpu", "transformers": "5.24.0", "openai": "3.0.0"}
    monkeypatch.setattr(resume, "installed_versions", lambda: found)
    monkeypatch.setattr("ipo.runs.folder.installed_versions", lambda: found)
    return found


def test_a_patch_release_of_a_library_needs_force_and_is_recorded(versions, shop, run):
    versions |= {"torch": "2.14.2+cpu", "openai": "4.0.0"}
    before = state(run)
    with pytest.raises(RunError, match=r"torch was '2\.14\.1\+cpu', is '2\.14\.2\+cpu'.*--force"):
        go_on(run)
    assert state(run) == before
    go_on(run, force=True)
    (row,) = facts(run)["forced"]
    assert (row["what"], row["was"], row["is"]) == ("torch", "2.14.1+cpu", "2.14.2+cpu")
    assert facts(run)["versions"]["torch"] == "2.14.2+cpu"
    go_on(run)
    assert len(facts(run)["forced"]) == 1, "what was forced is what the run has now"


def test_the_name_of_a_local_model_may_hold_the_version_that_was_forced(versions, shop, pictures, tmp_path):
    shop.name = "tiny, transformers 5.24.0, float32 on cpu"
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=1)
    versions["transformers"] = "5.24.3"
    shop.name = "tiny, transformers 5.24.3, bfloat16 on cpu"
    with pytest.raises(RunError, match="llm was"):
        go_on(tmp_path / "run", force=True)
    shop.name = "tiny, transformers 5.24.3, float32 on cpu"
    assert go_on(tmp_path / "run", force=True)["llm"] == shop.name


@pytest.mark.parametrize("version", ["2.15.0", "3.0.0"])
def test_a_larger_step_of_a_library_is_refused_with_force_too(versions, run, version):
    versions["torch"] = version
    with pytest.raises(RunError, match=r"torch was .*Install torch==2\.14\.1\+cpu, or start a new run"):
        go_on(run, force=True)


def test_another_ipo_is_another_library(run, monkeypatch):
    was = facts(run)["ipo"]
    major, minor, _ = was.split(".")[:3]
    monkeypatch.setattr(resume, "__version__", f"{major}.{minor}.99")
    with pytest.raises(RunError, match=r"ipo was .*--force"):
        plan_resumption(run)
    assert plan_resumption(run, force=True).forced[0].what == "ipo"


def test_a_run_of_another_command_is_refused_before_anything_is_loaded(run, monkeypatch):
    monkeypatch.setattr("ipo.run.load_clip", lambda *_, **__: pytest.fail("too late"))
    rename(run, "coop")
    done = CliRunner().invoke(app, ["optimize", "--resume", str(run)])
    assert "not a run of `ipo optimize`" in str(done.exception)
    assert "ipo baseline --resume" in str(done.exception)
    rename(run, "gone")
    for name in ("optimize", "baseline"):
        done = CliRunner().invoke(app, [name, "--resume", str(run)])
        assert "unknown method 'gone'" in str(done.exception)


def rename(run: Path, method: str) -> None:
    """Have a run say that it is one of another method."""
    (run / "run.json").write_text(json.dumps(facts(run) | {"method": method}))


def test_captions_are_kept_although_their_captioner_is_gone(shop, run, monkeypatch):
    monkeypatch.setattr("ipo.runs.check.require_captioner", lambda *_, **__: pytest.fail("nobody needs it"))
    assert shop.spent == UNPAID
    go_on(run)
