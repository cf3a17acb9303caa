import contextlib
import re
from pathlib import Path

import pytest

from ipo.api.paper import PAPER_SETTINGS
from ipo.api.settings import absolute_place, make_settings
from ipo.config import Settings, load_settings, parse_assignments
from ipo.errors import ConfigError
from ipo.llm.prices import cost
from ipo.runs.folder import settings_toml
from ipo.runs.readers import method_reader
from ipo.store.cache import cache_folder


def test_unknown_keys_are_errors_that_name_the_key(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[search]\nstepz = 3\n")
    with pytest.raises(ConfigError, match=r"unknown key 'search\.stepz'.*settings\.toml"):
        load_settings(file)


def test_a_value_in_the_place_of_a_section_is_an_error(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("search = 1\n")
    with pytest.raises(ConfigError, match="'search' = 1"):
        load_settings(file, {"search": {"steps": 3}})


def test_bad_values_name_key_and_value():
    with pytest.raises(ConfigError, match=r"'search\.steps' = 0"):
        load_settings(overrides={"search": {"steps": 0}})


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("seed = 7\n[search]\nsteps = 3\ncandidates = 2\n")
    settings = load_settings(file, {"search": {"steps": 5}})
    assert (settings.seed, settings.search.steps, settings.search.candidates, settings.search.history) == (7, 5, 2, 20)


def test_seed_zero_is_kept():
    assert load_settings(overrides={"seed": 0}).seed == 0


def test_assignments_read_toml_values_and_plain_strings():
    parsed = parse_assignments(["search.steps=10", "data.dataset=folder:x y", "search.patience = 3", "offline=true"])
    assert parsed == {"search": {"steps": 10, "patience": 3}, "data": {"dataset": "folder:x y"}, "offline": True}
    with pytest.raises(ConfigError, match="not key=value"):
        parse_assignments(["steps"])


NUMBERS = [
    (section, name)
    for section in ("data", "clip", "llm", "captions", "search")
    for name, field in getattr(load_settings(), section).__class__.model_fields.items()
    if re.search(r"\b(int|float)\b", str(field.annotation))
]


@pytest.mark.parametrize(("section", "name"), NUMBERS)
@pytest.mark.parametrize("value", ["true", "false"])
def test_true_and_false_are_no_numbers(section, name, value, tmp_path):
    (tmp_path / "settings.toml").write_text(f"[{section}]\n{name} = {value}\n")
    for file, given in ((tmp_path / "settings.toml", []), (None, [f"{section}.{name}={value}"])):
        with pytest.raises(ConfigError, match=rf"'{section}.{name}' = .*a number is wanted, not true or false"):
            load_settings(file, parse_assignments(given))


def test_a_number_is_neither_true_nor_false(tmp_path):
    for text in ("search.english_only=1", "data.skip_unreadable=0", "search.controls=1", "offline=1", "offline=0.0"):
        with pytest.raises(ConfigError, match="true or false is wanted, not a number"):
            load_settings(overrides=parse_assignments([text]))
    with pytest.raises(ConfigError, match="a number is wanted"):
        load_settings(overrides=parse_assignments(["seed=true"]))
    assert load_settings(overrides=parse_assignments(["search.controls=false"])).search.controls is False


def test_a_price_is_no_truth_value(tmp_path, monkeypatch):
    (tmp_path / "prices.toml").write_text("[m]\ninput = true\noutput = 1\n")
    monkeypatch.setenv("IPO_PRICES", str(tmp_path / "prices.toml"))
    with pytest.raises(ConfigError, match="the price of 'm'"):
        cost("m", 1, 1)


def test_settings_survive_the_run_folders_toml(tmp_path):
    settings = load_settings(
        overrides={
            "data": {"dataset": 'folder:/tmp/ä "quoted"\\ 😀', "root": Path("/data"), "domains": ["photo", "sketch"]},
            "search": {"patience": 4, "first_prompts": ["a <CLASS>.", "“odd” <CLASS>"]},
            "offline": True,
        }
    )
    file = tmp_path / "config.toml"
    file.write_text(settings_toml(settings), encoding="utf-8")
    assert load_settings(file) == settings


def test_auto_clip_is_resolved_openly(monkeypatch):
    monkeypatch.delenv("IPO_OFFLINE", raising=False)
    assert load_settings().clip.model == "ViT-B-16-quickgelu/openai"
    assert load_settings(overrides={"offline": True}).clip.model == "mini"
    assert load_settings(overrides={"offline": True, "clip": {"model": "RN50/openai"}}).clip.model == "RN50/openai"
    monkeypatch.setenv("IPO_OFFLINE", "1")
    assert load_settings().offline


def test_paper_setting_is_that_of_the_paper():
    settings = load_settings(overrides=PAPER_SETTINGS)
    search = settings.search
    assert (settings.data.shots, search.candidates, search.steps, search.history) == (1, 5, 100, 20)
    assert (search.first_prompts, search.keep_first, search.select) == (("a photo of a <CLASS>",), True, "accuracy")
    assert settings.llm.temperature == 1.0
    assert (settings.captions.token_budget or 0) >= 18_000, "its longest set of descriptions is shown whole"


@pytest.mark.parametrize(
    ("assigned", "captioner"),
    [
        ([], None),
        (["captions.token_budget=300"], None),
        (["captions.captioner=describe"], "describe"),
        (["captions.captioner=none"], "none"),
        (["data.shots=16"], "none"),
    ],
)
def test_paper_setting_needs_a_word_on_the_captioner_but_with_16_shots_where_it_had_none(assigned, captioner, tmp_path):
    if captioner is None:
        with pytest.raises(ConfigError, match=r"--captioner.*MiniCPM-V-2.*none"):
            make_settings(method_reader("ipo"), None, assigned, {}, paper=True)
    else:
        assert make_settings(method_reader("ipo"), None, assigned, {}, paper=True).captions.captioner == captioner
        (tmp_path / "own.toml").write_text(f'[captions]\ncaptioner = "{captioner}"\n')
        assert (
            make_settings(method_reader("ipo"), tmp_path / "own.toml", [], {}, paper=True).captions.captioner
            == captioner
        )
    assert make_settings(method_reader("ipo"), None, [], {}).search.keep_first is False


def test_every_setting_is_documented():
    for name, section in Settings.model_fields.items():
        for field in getattr(section.annotation, "model_fields", {}).values():
            assert field.description, f"a setting of {name} has no docstring"


def test_no_stored_setting_depends_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("captioner", "llm", "local-llama"):
        (tmp_path / name).mkdir()
    (tmp_path / "settings.toml").write_text(
        '[data]\nroot = "data"\nnames = "names.json"\ntargets = ["folder:b@c", "pacs"]\n'
    )
    assigned = [
        "data.dataset=csv:a.csv",
        "clip.model=local-dir:clip",
        "llm.spec=llm",
        "captions.captioner=hf:captioner",
    ]
    own = make_settings(method_reader("ipo"), Path("settings.toml"), [*assigned, "search.template=own.j2"], {})
    assert (own.data.root, own.data.names) == (tmp_path / "data", tmp_path / "names.json")
    assert (own.data.dataset, own.data.targets) == (f"csv:{tmp_path}/a.csv", (f"folder:{tmp_path}/b@c", "pacs"))
    assert (own.clip.model, own.llm.spec) == (f"local-dir:{tmp_path}/clip", f"{tmp_path}/llm")
    assert (own.captions.captioner, own.search.template) == (f"hf:{tmp_path}/captioner", f"{tmp_path}/own.j2")
    flags = {"data": {"dataset": "wds:shards/{0..3}.tar", "root": Path("data"), "targets": ["folder:d", "pacs@photo"]}}
    flags["llm"] = {"spec": "local-llama"}
    given = make_settings(
        method_reader("ipo"), None, ["search.template=ipo.j2", "captions.captioner=hf:org/model"], flags
    )
    assert (given.data.dataset, given.data.root) == (f"wds:{tmp_path}/shards/{{0..3}}.tar", tmp_path / "data")
    assert given.data.targets == (f"folder:{tmp_path}/d", "pacs@photo")
    assert (given.llm.spec, given.search.template) == ("local-llama", "ipo.j2")
    assert given.captions.captioner == "hf:org/model"
    assert make_settings(method_reader("ipo"), None, [], {}) == load_settings()


def test_places_in_settings_do_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_place("folder:photos/") == f"folder:{tmp_path}/photos"
    assert absolute_place("caltech101") == "caltech101"
    assert absolute_place("hf:org/name") == "hf:org/name"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_that_is_no_folder_is_an_error(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / place))
    with pytest.raises(ConfigError, match=r"not a folder.*file.*IPO_CACHE"):
        cache_folder()
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "new" / "cache"))
    assert cache_folder() == tmp_path / "new" / "cache"


def test_a_wrong_word_is_answered_with_all_that_there_are():
    with pytest.raises(ConfigError, match="'fold_loss', 'carprt' or 'zpe'"):
        load_settings(None, {"search": {"select": "crprt"}})
    answers = []
    for name, content in Settings().model_dump().items():
        for key in content if isinstance(content, dict) else ():
            with contextlib.suppress(ConfigError):
                load_settings(None, {name: {key: "nothing of the kind"}})
                continue
            with pytest.raises(ConfigError) as told:
                load_settings(None, {name: {key: "nothing of the kind"}})
            answers.append(str(told.value))
    assert len(answers) > 20
    assert not [answer for answer in answers if "literal[" in answer]
