"""A setting that a command does not read is refused where it was asked for, and recorded nowhere."""

from pathlib import Path
from typing import Any

import pytest

from ipo.api.settings import make_settings
from ipo.api.start import search_label
from ipo.config import Settings, load_settings
from ipo.config.fields import flat, nested, setting_fields
from ipo.errors import ConfigError
from ipo.runs.folder import settings_toml
from ipo.runs.readers import EVALUATE, VERIFY, method_reader
from ipo.runs.scope import CONDITIONS, unread
from ipo.search.strategy import choose
from ipo.store.toml import parse_toml

DEFAULTS = flat(Settings().model_dump(mode="json"))
GIVEN: dict[str, Any] = {
    "base_url": "http://h/v1",
    "template": "own.j2",
    "dataset": "photos",
    "names": "n.json",
    "root": "data",
}
GIVEN |= {"targets": ["pacs"], "domains": ["photo"], "controls": True}
"""Values for settings that have none by default; a 1 does for the others."""


READERS = {reader.name: reader for reader in (method_reader("ipo"), method_reader("coop"), EVALUATE, VERIFY)}


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_what_is_not_read_is_refused_whoever_sets_it(reader):
    names = setting_fields()
    assert len(names) > 40
    for name in names:
        if not reader.reads(name):
            value = GIVEN.get(name.rpartition(".")[2], 1 if DEFAULTS[name] is None else DEFAULTS[name] or True)
            with pytest.raises(ConfigError, match=f"`{reader.name}` does not read the setting '{name}'"):
                make_settings(reader, None, [], nested({name: value}))


def test_what_each_command_reads():
    expected = {
        "ipo": {"search.steps", "llm.spec", "captions.captioner", "tracker", "data.targets", "seed"},
        "coop": {"data.targets", "data.shots", "clip.model", "seed", "tracker"},
        "ipo evaluate": {"data.dataset", "data.names", "clip.model", "seed"},
        "ipo verify": {"data.root", "clip.model"},
    }
    everything = set().union(*expected.values()) | {"search.max_cost", "llm.timeout"}
    for name, keys in expected.items():
        assert {key for key in everything if READERS[name].reads(key)} >= keys
    for key in ("data.shots", "data.targets", "search.steps", "llm.spec"):
        assert not EVALUATE.reads(key)
        assert not VERIFY.reads(key)
    assert not VERIFY.reads("data.dataset")
    assert not any(READERS["coop"].reads(key) for key in ("search.steps", "llm.spec", "captions.captioner"))


ONE_SERVER, OWN = ["llm.spec=openai:m", "llm.base_url=http://h/v1"], ["data.dataset=folder:x"]


@pytest.mark.parametrize(
    ("assigned", "key"),
    [
        (["llm.base_url=http://h/v1"], "llm.base_url"),
        (["llm.timeout=3"], "llm.timeout"),
        (["llm.retries=3"], "llm.retries"),
        (["llm.concurrency=3"], "llm.concurrency"),
        (["llm.response_format=none"], "llm.response_format"),
        ([*ONE_SERVER, "llm.device=cpu"], "llm.device"),
        ([*ONE_SERVER, "llm.dtype=float32"], "llm.dtype"),
        ([*ONE_SERVER, "search.min_likelihood=-2"], "search.min_likelihood"),
        (["captions.base_url=http://h/v1"], "captions.base_url"),
        (["captions.captioner=describe", "captions.base_url=http://h/v1"], "captions.base_url"),
        (["captions.token_budget=30"], "captions.token_budget"),
        (["data.dataset=pacs", "data.names=n.json"], "data.names"),
        ([*OWN, "data.root=/data"], "data.root"),
        ([*OWN, 'data.targets=["csv:t.csv"]', "data.root=/data"], "data.root"),
    ],
)
def test_what_another_setting_rules_out_is_refused(assigned, key, tmp_path):
    with pytest.raises(ConfigError, match=f"'{key}' is set, but"):
        make_settings(READERS["ipo"], None, assigned, {})
    file = tmp_path / "settings.toml"  # a file that contradicts itself
    values = flat({})
    for text in assigned:
        name, _, value = text.partition("=")
        values[name] = parse_toml(f"v = {value}")["v"] if value[0] in "[-0123456789" else value
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        sections.setdefault(name.split(".")[0], {})[name.split(".")[1]] = value
    from ipo.store.toml import to_toml

    file.write_text(to_toml(sections))
    with pytest.raises(ConfigError, match=f"'{key}' is set, but"):
        make_settings(READERS["ipo"], file, [], {})


@pytest.mark.parametrize(
    "assigned",
    [
        [*ONE_SERVER, "llm.timeout=3"],
        ["llm.device=cpu", "search.min_likelihood=-2"],
        ["captions.captioner=openai:m", "captions.base_url=http://h/v1", "captions.token_budget=3"],
        [*OWN, 'data.targets=["pacs@photo"]', "data.root=/data"],
        [*OWN, "data.names=n.json"],
    ],
)
def test_what_is_read_is_taken(assigned):
    settings = make_settings(READERS["ipo"], None, assigned, {})
    for text in assigned:
        key = text.partition("=")[0]
        assert flat(settings.model_dump())[key] != flat(Settings().model_dump())[key]


def test_the_device_option_is_for_clip_and_for_the_llm_where_that_runs_here():
    local = make_settings(READERS["ipo"], None, [], {"clip": {"device": "cpu"}})
    assert (local.clip.device, local.llm.device) == ("cpu", "cpu")
    remote = make_settings(READERS["ipo"], None, ONE_SERVER, {"clip": {"device": "cpu"}})
    assert (remote.clip.device, remote.llm.device) == ("cpu", "auto")


def test_sections_of_a_file_for_other_commands_are_passed_over_and_not_recorded(tmp_path):
    file = tmp_path / "shared.toml"
    file.write_text(
        'tracker = "wandb"\n[data]\ndataset = "pacs"\nshots = 4\n[search]\nsteps = 7\n'
        '[llm]\nspec = "openai:m"\nbase_url = "http://h/v1"\n'
    )
    settings = make_settings(READERS["coop"], file, [], {})
    assert (settings.data.shots, settings.search.steps, settings.tracker) == (4, 100, "wandb")
    recorded = settings_toml(settings, unread(READERS["coop"], settings))
    assert parse_toml(recorded).keys() == {"data", "clip", "report", "seed", "tracker", "offline"}
    assert load_settings(overrides=parse_toml(recorded)) == settings
    assert make_settings(READERS["ipo"], file, [], {}).llm.base_url == "http://h/v1"
    other = make_settings(READERS["ipo"], file, [], {"llm": {"spec": "local-llama"}})
    assert other.llm.base_url is None, "the address was for the model of the file"
    assert "base_url" not in settings_toml(other, unread(READERS["ipo"], other))


def test_what_is_passed_over_in_a_file_has_to_be_right_all_the_same(tmp_path):
    file = tmp_path / "shared.toml"
    file.write_text("[search]\nstepz = 7\n")
    with pytest.raises(ConfigError, match=r"unknown key 'search\.stepz'.*shared\.toml"):
        make_settings(READERS["coop"], file, [], {})


def test_every_condition_is_about_settings_that_are_there():
    names = setting_fields()
    for key, (decider, _) in CONDITIONS.items():
        assert key in names
        assert decider in names


def test_a_path_is_made_whole_with_its_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "other"):
        (tmp_path / name).mkdir()
    flags = {"data": {"dataset": "photos", "targets": ["other", "other@x", "pacs@photo"]}}
    settings = make_settings(READERS["coop"], None, [], flags)
    assert settings.data.dataset == f"folder:{tmp_path}/photos"
    assert settings.data.targets == (f"folder:{tmp_path}/other", f"folder:{tmp_path}/other@x", "pacs@photo")
    assert Path(settings.data.dataset.partition(":")[2]).is_dir()


@pytest.mark.parametrize(
    ("strategy", "assigned"),
    [
        ("blackbox", "search.history=3"),
        ("blackbox", "captions.captioner=describe"),
        ("evoprompt-ga", "search.keep_first=true"),
        ("opro", "captions.captioner=describe"),
        ("random", "search.history=3"),
        ("random", "llm.spec=local-llama"),
        ("random", "search.template=own.j2"),
        ("subset", "search.candidates=3"),
        ("subset", "llm.temperature=0.5"),
    ],
)
def test_what_a_strategy_does_not_read_is_refused_and_not_recorded(strategy, assigned):
    key = assigned.partition("=")[0]
    chosen = [f"strategy.name={strategy}", "data.dataset=looks"]
    with pytest.raises(ConfigError, match=f"'{key}' is set, but the strategy {strategy} does not read it"):
        make_settings(READERS["ipo"], None, [*chosen, assigned], {})
    settings = make_settings(READERS["ipo"], None, chosen, {})
    section, name = key.split(".")
    assert name not in parse_toml(settings_toml(settings, unread(READERS["ipo"], settings))).get(section, {})


def test_a_strategy_that_asks_an_llm_by_an_option_reads_what_is_about_one():
    chosen = ["strategy.name=random", "strategy.source=llm", "llm.spec=openai:m", "captions.captioner=describe"]
    assert make_settings(READERS["ipo"], None, chosen, {}).llm.spec == "openai:m"


def test_the_name_of_a_run_tells_the_strategy_where_it_is_another():
    def label(*assigned):
        settings = make_settings(READERS["ipo"], None, list(assigned), {})
        return search_label(settings.strategy, settings.llm)

    assert label() == "local-llama"
    assert label("strategy.name=opro", "llm.spec=openai:gpt-4o") == "opro-openai:gpt-4o"
    assert label("strategy.name=random") == "random"


def test_a_file_of_start_templates_is_found_from_any_folder_and_missing_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("an etching of a <CLASS>.\n")
    chosen = ["strategy.name=evoprompt-ga", "strategy.start=own.txt"]
    settings = make_settings(READERS["ipo"], None, chosen, {})
    assert settings.strategy.options == {"start": str(tmp_path / "own.txt")}
    monkeypatch.chdir("/")
    assert choose(settings.strategy).first(settings.search)[1:] == ("an etching of a <CLASS>.",)
    with pytest.raises(ConfigError, match=r"own\.txt"):
        make_settings(READERS["ipo"], None, chosen, {})


def test_a_method_with_the_weights_of_an_llm_reads_where_it_is_and_not_how_it_is_asked():
    reader = method_reader("rlprompt")
    assert all(reader.reads(key) for key in ("llm.spec", "llm.device", "llm.dtype"))
    assert not any(reader.reads(key) for key in ("llm.temperature", "llm.base_url", "captions.captioner", "strategy"))
