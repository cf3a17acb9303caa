import json

import pytest

from ipo.clip.specs import CONSE_WEIGHTS
from ipo.config import load_settings
from ipo.errors import RunError
from ipo.runs.folder import RunFolder, read_run, read_run_json, read_settings
from ipo.runs.path import new_run_path, require_free


def test_a_new_folder_tells_settings_versions_and_status(tmp_path):
    settings = load_settings(overrides={"seed": 5})
    with RunFolder.create(tmp_path / "run", settings, {"dataset": "stamps"}) as folder:
        assert read_settings(folder.path) == settings
        run = folder.read("run.json")
        assert run["dataset"] == "stamps"
        assert run["status"] == "running"
        assert "torch" in run["versions"]
        folder.update(status="done")
        assert folder.read("run.json")["status"] == "done"


def test_an_existing_run_is_never_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty.*\. Give another --out"):
        RunFolder.create(tmp_path, load_settings(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    RunFolder.create(tmp_path / "run", load_settings(), {}).close()
    with pytest.raises(RunError, match=r"not empty.*--resume .*run, or give another --out"):
        RunFolder.create(tmp_path / "run", load_settings(), {})


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/nope/run"])
def test_a_place_where_no_run_can_be_is_an_error(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    for attempt in (require_free, lambda path: RunFolder.create(path, load_settings(), {})):
        with pytest.raises(RunError, match="no run can be written here"):
            attempt(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_looking_whether_a_place_is_free_leaves_nothing_behind(tmp_path):
    require_free(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        require_free(tmp_path / "empty")


def test_a_start_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError), RunFolder.create(tmp_path / "run", load_settings(), {"a": {1}}, {"b.txt": "text"}):
        pass
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="no run here"):
        RunFolder.open(tmp_path / "run")


def test_two_processes_cannot_work_on_one_run(tmp_path):
    with (
        RunFolder.create(tmp_path / "run", load_settings(), {}),
        pytest.raises(RunError, match="another process"),
    ):
        RunFolder.open(tmp_path / "run")
    RunFolder.open(tmp_path / "run").close()


def test_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(RunError, match=r"no run here.*run\.json"):
        RunFolder.open(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read result\.json"):
        read_run_json(tmp_path, "result.json")
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(RunError, match=r"cannot read result\.json: not a JSON object"):
        read_run_json(tmp_path, "result.json")


def test_no_secret_reaches_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-123")
    with RunFolder.create(tmp_path / "run", load_settings(), {}) as folder:
        assert all("sk-secret-123" not in path.read_text() for path in folder.path.iterdir())


def test_run_paths_are_clean_and_free(tmp_path):
    first = new_run_path(tmp_path, "folder:my photos", "gpt-4o", "seed1")
    assert first.name == "folder-my-photos-gpt-4o-seed1"
    first.mkdir()
    assert new_run_path(tmp_path, "folder:my photos", "gpt-4o", "seed1").name == first.name + "-2"
    assert json.dumps(first.name).isascii()


def a_run(path, weights, model="mini"):
    settings = load_settings(overrides={"offline": True, "clip": {"model": model}})
    clip = {"name": model, "weights": weights, "preprocessing": "p", "precision": "float32"}
    RunFolder.create(path, settings, {"clip": clip}).close()
    return path


@pytest.mark.parametrize(
    ("weights", "model", "now"),
    [(CONSE_WEIGHTS, "mini", "mini-conse"), ("0", "mini", "mini"), (CONSE_WEIGHTS, "mini-conse", "mini-conse"),
     (CONSE_WEIGHTS, "ViT-B-32/openai", "ViT-B-32/openai")],
)  # fmt: skip
def test_a_run_is_read_with_the_name_that_its_model_has_now(tmp_path, weights, model, now):
    run = a_run(tmp_path / "run", weights, model)
    assert read_run(run)["clip"]["name"] == now
    assert read_settings(run).clip.model == now
    assert read_settings(run, {"clip": {"model": "other/tag"}}).clip.model == "other/tag"
    with RunFolder.open(run) as folder:
        folder.update(status="done")
    assert json.loads((run / "run.json").read_text())["clip"]["name"] == now


@pytest.mark.parametrize("record", [{"model": "mini"}, {"model": "mini", "clip": None}])
def test_a_result_without_a_fingerprint_is_older_than_the_new_mini(tmp_path, record):
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert read_run_json(tmp_path, "result.json")["model"] == "mini-conse"
