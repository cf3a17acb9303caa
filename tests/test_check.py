"""What can be refused by names, places and settings is refused before data are read, and before torch is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.config import STAND_INS, load_settings
from ipo.data.load import target_parts, with_kind
from ipo.errors import ConfigError, IpoError
from ipo.runs.check import CHECKS, check, require_run_place
from ipo.runs.readers import EVALUATE, VERIFY, method_reader
from tests.processes import run_process

pytestmark = pytest.mark.offline_models
HEAVY = ("torch", "transformers", "open_clip", "timm")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder with things in it that are not what a run needs. No picture can be read here."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("photos/cat/1.png", "photos/dog/1.png", "full/notes.txt", "notes.txt", "empty/.keep", "llm/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no picture")
    (folder / "bad.toml").write_text("[search]\nsteps = ")
    (folder / "wide.toml").write_text("seed = 3", encoding="utf-16")
    (folder / "bad.j2").write_text("{{ histroy }}")
    (folder / "names.json").write_text("[]")
    return folder


DATA, SEARCH = ["--dataset", "photos"], ["optimize", "--dataset", "photos", "--offline"]
SERVER = ["--llm", "openai:m", "--base-url", "http://h/v1"]
REFUSED = [
    (["optimize", "--offline"], "no dataset is named"),
    (["baseline", "zero-shot"], "no dataset is named"),
    (["evaluate", "-p", "a <CLASS>"], "no dataset is named"),
    (["optimize", "--dataset", "folder:/nope"], "no such folder (/nope)"),
    (["baseline", "coop", "--dataset", "folder:/nope"], "no such folder (/nope)"),
    (["evaluate", "-p", "a <CLASS>", "--dataset", "folder:/nope"], "no such folder (/nope)"),
    (["optimize", "--dataset", "nope"], "unknown dataset 'nope'"),
    (["optimize", "--dataset", "notes.txt"], "this file is no dataset"),
    (["optimize", "--dataset", "zip:photos"], "unknown kind of dataset 'zip'"),
    (["optimize", "--dataset", "csv:nope.csv"], "no such file"),
    (["optimize", "--dataset", "wds:nope-{00..03}.tar"], "no shards found"),
    (["optimize", "--dataset", "hf:org/name?colour=1"], "unknown option 'colour'"),
    (["optimize", "--dataset", "pacs", "--data-root", "empty"], "dataset 'pacs' is not there"),
    ([*SEARCH, "--domains", "sketch"], "has no domains"),
    ([*SEARCH, "--target", "folder:/nope"], "no such folder (/nope)"),
    ([*SEARCH, "--target", "nope@photo"], "unknown dataset 'nope'"),
    ([*SEARCH, "--target", ""], "the target '' names no dataset"),
    ([*SEARCH, "--target", "photos@sketch"], "@DOMAIN of a --target"),
    ([*SEARCH, "--set", "data.targets=photos"], "should be a list"),
    ([*SEARCH, "--set", "search=3"], "a section of settings, not a value"),
    ([*SEARCH, "--config", "wide.toml"], "not UTF-8"),
    (["datasets", "prepare", "folder:photos"], "there is nothing to prepare"),
    (["datasets", "prepare", "photos"], "there is nothing to prepare"),
    ([*SEARCH, "--set", "data.names=names.json"], "class names are not a map"),
    ([*SEARCH, "--set", "data.names=gone.json"], "cannot read class names"),
    ([*SEARCH, "--set", "data.shots=-1"], "'data.shots' = -1"),
    ([*SEARCH, "--classes", "half"], "'data.classes' = 'half'"),
    ([*SEARCH, "--captioner", "blip"], "unknown captioner 'blip'"),
    ([*SEARCH, "--captioner", "openai:m"], "is not on this machine"),
    ([*SEARCH, "--captioner", "hf:llm"], "no config.json"),
    (
        [*SEARCH, "--captioner", "hf:nobody/nothing"],
        "not on this machine, and --offline forbids to fetch it (hf:nobody/nothing)",
    ),
    ([*SEARCH, "--llm", "nonsense"], "unknown language model 'nonsense'"),
    ([*SEARCH, "--llm", "gone.gguf"], "no such GGUF file"),
    ([*SEARCH, "--llm", "llm"], "no config.json"),
    (
        [*SEARCH, "--llm", "hf:nobody/nothing"],
        "not on this machine, and --offline forbids to fetch it (hf:nobody/nothing)",
    ),
    ([*SEARCH, "--llm", "hf:a/b/c"], "no name of a hub model"),
    ([*SEARCH, "--llm", "openai:m"], "is not on this machine"),
    (["optimize", *DATA, "--llm", "openai:m"], "needs an API key"),
    (["optimize", *DATA, "--captioner", "openai:m"], "needs an API key"),
    ([*SEARCH, "--base-url", "localhost:8000"], "the address of a server begins with http"),
    ([*SEARCH, "--clip", "nonsense"], "unknown CLIP model 'nonsense'"),
    ([*SEARCH, "--clip", "local-dir:llm"], "no open_clip_config.json"),
    ([*SEARCH, "--clip", "hf-hub:alone"], "names no repository"),
    (["baseline", "coop", *DATA, "--clip", "nonsense"], "unknown CLIP model 'nonsense'"),
    (["evaluate", "-p", "a <CLASS>", *DATA, "--clip", "nonsense"], "unknown CLIP model 'nonsense'"),
    (["verify", "--clip", "nonsense"], "unknown CLIP model 'nonsense'"),
    (["evaluate", "-p", "a photo", *DATA], "a prompt needs <CLASS>"),
    ([*SEARCH, "--set", 'search.first_prompts=["a photo"]'], "a prompt needs <CLASS>"),
    ([*SEARCH, "--set", "search.first_prompts=[]"], "search.first_prompts is empty"),
    ([*SEARCH, "--template", "gone.j2"], "gone.j2"),
    ([*SEARCH, "--template", "bad.j2"], "unknown variable"),
    ([*SEARCH, "--config", "gone.toml"], "cannot read settings"),
    ([*SEARCH, "--config", "bad.toml"], "cannot read settings"),
    ([*SEARCH, "--set", "search.max_cost=1"], "runs on this machine and has no price"),
    ([*SEARCH, *SERVER, "--set", "search.max_cost=1"], "no price for openai:m at http://h/v1"),
    ([*SEARCH, "--set", "tracker=wandb"], "tracker 'wandb' is not installed"),
    ([*SEARCH, "--out", "full"], "not empty"),
    ([*SEARCH, "--out", "photos/runs/1"], "among the pictures"),
    (["optimize", "--dataset", ".", "--offline"], "among the pictures"),
    (["baseline", "zero-shot", *DATA, "--out", "photos/1"], "among the pictures"),
    ([*SEARCH, "--target", "folder:full", "--out", "full/1"], "among the pictures"),
    ([*SEARCH, "--out", "notes.txt"], "no run can be written here"),
    (["baseline", "zero-shot", *DATA, "--out", "full"], "not empty"),
    (["baseline", "coopp", *DATA], "unknown method 'coopp'"),
    (["baseline", "coop", *DATA, "--set", "search.steps=3"], "does not read the setting 'search.steps'"),
    ([*SEARCH, "--config", "full"], "it is a folder, not a file"),
    ([*SEARCH, "--set", "data.names=full"], "it is a folder, not a file"),
    ([*SEARCH, "--template", "full"], "it is a folder, not a file"),
    (["optimize", "--dataset", "csv:full"], "it is a folder, not a file"),
    (["datasets", "draw", "dtd", "--split-file", "full"], "it is a folder, not a file"),
    (["datasets", "draw", "photos", "--split-file", "gone.json"], "--split-file is for datasets"),
    ([*SEARCH, "--set", "search.steps=true"], "a number is wanted"),
    (["history", "full"], "no history.jsonl here"),
    (["optimize", "--resume", "full"], "no run here"),
    (["baseline", "--resume", "full"], "no run here"),
]


@pytest.fixture
def bare(monkeypatch, tmp_path, place):
    """No key, no models of a hub, no tracker, a cache of its own."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "IPO_OFFLINE", "IPO_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(place)


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_it_is_refused_before_data_are_read_and_models_are_loaded(arguments, words, bare, place, monkeypatch):
    for late in ("load_clip", "load_llm", "read_listing", "named_dataset"):
        for module in ("run", "fixed_prompts"):
            monkeypatch.setattr(f"ipo.{module}.{late}", lambda *_, **__: pytest.fail("too late"), raising=False)
    before = sorted(place.rglob("*"))
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, IpoError), done.output
    assert words in str(done.exception)
    assert sorted(place.rglob("*")) == before, "something was left behind"


def test_none_of_it_needs_a_heavy_package(bare, place):
    """All in one process, since each start takes a moment."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom ipo.cli.main import app\nsys.modules['wandb'] = None\n"
        f"for arguments in {[arguments for arguments, _ in REFUSED]!r}:\n"
        "    CliRunner().invoke(app, arguments)\n"
        f"    found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert not found, (arguments, found)\n"
    )
    done = run_process([sys.executable, "-c", code], cwd=place)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"clip": {"model": "ViT-B-16/nonsense"}}, "unknown pretrained tag of ViT-B-16 'nonsense'"),
        ({"clip": {"model": "ViT-B-16/openai"}}, "QuickGELU"),
        ({"clip": {"model": "hf-hub:nobody/nothing"}, "offline": True}, "not on this machine"),
        ({"clip": {"model": "ViT-B-32-quickgelu/openai"}, "offline": True}, "not on this machine"),
        ({"clip": {"model": "mini", "device": "mps"}}, "device 'mps' is not there"),
        ({"clip": {"model": "mini"}, "llm": {"device": "mps"}}, "device 'mps' is not there"),
    ],
)
def test_what_only_torch_and_open_clip_know_is_refused_before_data_are_read(bare, values, words, monkeypatch):
    if "mps" in words:
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(IpoError, match=words):
        check(method_reader("ipo"), load_settings(None, {"data": {"dataset": "photos"}, **values}))


def test_every_check_is_about_a_setting_that_some_command_reads():
    for key, _ in CHECKS:
        assert any(reader.reads(key) for reader in (method_reader("ipo"), EVALUATE, VERIFY)), key


def test_a_dataset_may_be_a_bare_path(bare, tmp_path):
    for name in ("table.csv", "table.TSV", "shard.tar", "stamps/x", "a@b/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    kinds = {"table.csv": "csv", "table.TSV": "csv", "shard.tar": "wds", "a@b": "folder"}
    assert {name: with_kind(str(tmp_path / name)).partition(":")[0] for name in kinds} == kinds
    assert with_kind("photos") == "folder:photos"
    assert with_kind("folder:photos") == "folder:photos"
    assert (with_kind("stamps"), with_kind(""), with_kind("gone")) == ("stamps", "", "gone")
    for path in ("gone/", "./gone", "pictures/gone.csv", str(tmp_path / "gone")):
        with pytest.raises(ConfigError, match="this folder or file is not there"):
            with_kind(path)
    assert target_parts(f"folder:{tmp_path}/a@b") == (f"folder:{tmp_path}/a@b", "")
    assert target_parts("photos@sketch") == ("photos", "sketch")
    assert target_parts("csv:t.csv@photo") == ("csv:t.csv", "photo")


def test_a_run_may_lie_in_a_hidden_folder_of_the_pictures(bare, place):
    settings = load_settings(overrides={"data": {"dataset": f"folder:{place}/photos"}})
    require_run_place(place / "photos" / ".runs" / "1", settings.data)


@pytest.mark.parametrize("model", STAND_INS)
def test_both_stand_ins_are_known_with_and_without_offline(model, bare):
    for offline in (False, True):
        values = {"data": {"dataset": "photos"}, "clip": {"model": model}, "offline": offline}
        for key, make in CHECKS:
            if key == "clip.model":
                make(load_settings(None, values))
