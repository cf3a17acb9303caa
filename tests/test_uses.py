"""What methods say that they saw, held against what they read: a task whose parts record it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.comparison.formats import FORMATS
from ipo.comparison.rows import compare
from ipo.comparison.tables import columns, notes
from ipo.comparison.trials import read_trials
from ipo.config import SearchOptions, SearchSettings, Section, StrategySettings
from ipo.data.benchmarks.catalogue import CATALOGUE
from ipo.data.types import Item, UnlabelledItem
from ipo.data.uses import USES, Use, in_order, in_words, letters
from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Means, Method, find_method
from ipo.registry import GROUPS, SEARCH, opens_llm
from ipo.scoring import ImageSet, evaluate_on
from ipo.search.method import METHOD
from ipo.search.strategy import NoOptions, available_strategies
from ipo.task import BaseToNew, FewShotTask, HeldOut
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, tiny_task
from tests.data.builders import toy_dataset
from tests.fakes import FakeClip, ScriptedLLM, image_set
from tests.llm.test_local import tiny_llm
from tests.test_compare import trial, write_run
from tests.test_fit import baseline, common, own_cache  # noqa: F401
from tests.test_strategies import history_of, search_of, view_of
from tests.test_task import RecordingStore

OURS = sorted(
    entry.name
    for group in GROUPS
    for entry in entry_points(group=group)
    if entry.value.startswith(("ipo.", "ipo_baselines.")) and entry.name != SEARCH
)
SHORT = {"epochs": 1, "steps": 2, "workers": 0, "samples": 2}
"""Options that make a fit short, for those methods that have them."""

DESCRIPTIONS = Path(__file__).parent / "baselines/descriptions.json"
"""Texts about the classes of the tiny task, for those methods that read some."""

FINISHED = Path(__file__).parent / "baselines/finished_search"
"""A search, for those methods that learn from some."""

PROMPTS = "a red <CLASS>.\nthe <CLASS>\n"
CASES: dict[str, list[Callable[[Path], dict[str, Any]]]] = {
    "zero-shot": [lambda folder: {"prompts": _file(folder, PROMPTS)}],
    "ensemble-7": [lambda _: {"hand_crafted": False}],
    "select-80": [lambda folder: {"prompts": _file(folder, PROMPTS)}],
    "linear-probe": [lambda folder: {"prompts": _file(folder, PROMPTS)}, lambda _: {"augment": "cached", "crops": 2}],
    "clap": [lambda folder: {"prompts": _file(folder, PROMPTS)}],
    "tip-adapter": [lambda _: {"tune": True}, lambda _: {"fine_tune": True, "epochs": 1}],
    "lasp": [lambda _: {"virtual": "dataset"}, lambda _: {"alpha": 0, "virtual": "dataset"}],
    "sap": [lambda _: {"fusion": True}],
    "qpo": [lambda _: {"policy": "generator"}],
    "rlprompt": [lambda _: {"validation": True}],
    "coop": [lambda _: {"augment": "cached", "crops": 2}, lambda _: {"class_specific": True}],
}
"""Options beside the defaults under which a method is looked at too; a method may have defaults of its own here."""


def _file(folder: Path, text: str) -> Path:
    path = folder / "given.txt"
    path.write_text(text)
    return path


READ: set[str] = set()
"""What was read since `recorded` began."""


class WatchedItem(Item):
    def __getattribute__(self, name):
        if name == "label":
            READ.add("labels")
        return super().__getattribute__(name)


class WatchedImages(ImageSet):
    use = ""

    def __getattribute__(self, name):
        if name in ("items", "features", "labels"):
            READ.add(super().__getattribute__("use"))
        return super().__getattribute__(name)


class TrainingImages(WatchedImages):
    use = "images"


class ValidationImages(WatchedImages):
    use = "val_labels"


class WatchedTask(FewShotTask):
    def __getattribute__(self, name):
        if name == "hand_crafted_prompt":
            READ.add("per_dataset_settings")
        if name == "new_classnames":
            READ.add("new_names")
        return super().__getattribute__(name)


def watched_task(task: FewShotTask) -> WatchedTask:
    items = tuple(WatchedItem(item.path, item.label) for item in task.train.items)
    train = TrainingImages(items, task.train.features)
    val = ValidationImages(task.val.items, task.val.features)
    return WatchedTask(**{**vars(task), "train": train, "val": val, "new_classnames": NEW_NAMES})


@contextmanager
def recorded() -> Iterator[set[str]]:
    READ.clear()
    yield READ
    if "images" in READ and "labels" not in READ:
        READ.add("unlabelled_images")
    READ.discard("images")


def looks_at(method: Method[Any], task: FewShotTask, options: Section, means: Means) -> list[Use]:
    """What a fit and its predictions read, and whether a prediction depends on other test images."""
    test = replace(task.val, items=task.train.unlabelled().items, features=task.train.features)
    watched = watched_task(task)
    with recorded() as read:
        fitted = method.fit(watched, options, FitRun(report=lambda _: None, means=means))
        names = [CLASSNAMES] if fitted.own_classes_only else [CLASSNAMES, NEW_NAMES]
        predictor = fitted.predictors[fitted.headline]
        for some in names:
            together = predictor.logits(test, some)
            alone = [
                predictor.logits(ImageSet(test.items[i : i + 1], test.features[i : i + 1]), some) for i in range(4)
            ]
            if not torch.allclose(together[:4], torch.cat(alone), atol=1e-4):
                read.add("unlabelled_test")
    assert read <= set(USES)
    return in_order(use for use in USES if use in read)


def configured(method: Method[Any], given: dict[str, Any]) -> Section:
    fields = method.options.model_fields
    shared = {**SHORT, "descriptions": DESCRIPTIONS, "runs": str(FINISHED)}
    short = {key: value for key, value in shared.items() if key in fields and key not in method.options.only_with}
    return method.configure("tiny", 4, short | given)


def means_of(name: str) -> Means:
    return Means(tiny_llm()) if opens_llm(name) else Means()


@pytest.mark.parametrize("name", OURS)
def test_a_method_sees_what_it_says_and_says_what_it_sees(name, tmp_path):
    method, means = find_method(name), means_of(name)
    assert method.uses is not None, "what it sees has to be declared"
    task = tiny_task(tmp_path)
    for case in [lambda _: {}, *CASES.get(name, [])]:
        options = configured(method, case(tmp_path))
        declared = method.uses_of(options, means, "tiny", 4) or []
        assert looks_at(method, task, options, means) == [use for use in declared if use != "llm_saw_class_names"]


@pytest.mark.parametrize("name", OURS)
def test_what_is_not_declared_is_withheld_and_not_missed(name, tmp_path):
    """The fit is the same where labels, validation images and new names that it does not declare are out of reach."""
    method, task = find_method(name), tiny_task(tmp_path)
    options = configured(method, {})
    uses = frozenset(method.uses_of(options, Means(), "tiny", 4) or [])
    held_out = HeldOut("tiny", NEW_NAMES, (), tmp_path, RecordingStore(task.clip))
    protocol = BaseToNew(task, replace(held_out, classnames=CLASSNAMES), held_out, toy_dataset([0]))
    quiet = FitRun(report=lambda _: None, means=means_of(name))
    logits = [
        (fitted := method.fit(some, options, quiet)).predictors[fitted.headline].logits(task.train, CLASSNAMES)
        for some in (task, protocol.shown(uses))
    ]
    assert torch.equal(logits[0], logits[1])


def test_who_reads_what_it_does_not_declare_is_stopped(tmp_path):
    task = tiny_task(tmp_path)
    held_out = HeldOut("tiny", NEW_NAMES, (), tmp_path, RecordingStore(task.clip))
    protocol = BaseToNew(task, replace(held_out, classnames=CLASSNAMES), held_out, toy_dataset([0]))
    bare = protocol.shown(frozenset())
    assert (len(bare.train), bare.new_classnames) == (len(task.train), ())
    assert bare.train.items[0].path == task.train.items[0].path
    for read in (
        lambda: bare.train.labels,
        lambda: bare.train.items[0].label,
        lambda: bare.val.features,
        lambda: bare.val.labels,
        lambda: len(bare.val),
        lambda: bare.val.unlabelled(),
    ):
        with pytest.raises(ConfigError, match="has to declare"):
            read()
    whole = protocol.shown(frozenset(USES))
    assert (whole.train, whole.val, whole.new_classnames) == (task.train, task.val, NEW_NAMES)
    assert protocol.shown(None) == task, "who declares nothing sees the task, but no new names"


def test_no_predictor_is_shown_the_labels_of_test_images():
    images = image_set(FakeClip(), ("dog", "cat"))

    class Peeking:
        def logits(self, images, classnames):
            return torch.nn.functional.one_hot(images.labels, len(classnames)).float()

    with pytest.raises(ConfigError, match="label"):
        evaluate_on(Peeking(), images, ("dog", "cat"))
    assert all(isinstance(item, UnlabelledItem) for item in images.unlabelled().items)


@pytest.mark.parametrize("name", [name for name in OURS if find_method(name).published("", 16)])
def test_published_settings_of_a_dataset_are_told_and_those_of_all_are_not(name):
    method = find_method(name)
    given = {"descriptions": DESCRIPTIONS} if "descriptions" in method.options.model_fields else {}
    common_options = method.configure("", 16, given)
    for dataset in CATALOGUE:
        options = method.configure(dataset, 16, given)
        own = [key for key in method.published(dataset, 16) if getattr(options, key) != getattr(common_options, key)]
        assert method.uses is not None
        told = set(method.uses_of(options, Means(), dataset, 16) or []) - method.uses(options, Means())
        assert told == ({"per_dataset_settings"} if own else set())
    imagenet = method.configure("imagenet", 16, given)
    uses = method.uses_of(imagenet, Means(), "imagenet", 16) or []
    assert "per_dataset_settings" in uses or imagenet == common_options


STRATEGY_CASES: dict[str, list[dict[str, Any]]] = {
    "opro": [{}, {"exemplars": 0}],
    "random": [{}, {"source": "llm"}],
}
UNHEARD_OF = ("zorb", "quax", "mefl", "brip", "wonk")
"""Names that nothing says but who was told them."""


@pytest.mark.parametrize("captioned", [False, True])
@pytest.mark.parametrize("name", available_strategies())
def test_a_search_says_when_the_llm_is_shown_class_names(name, captioned):
    """They are looked for in all that a strategy asks in some steps; captions name classes here."""
    clip = FakeClip()
    images = image_set(clip, UNHEARD_OF)
    captions = tuple(f"a {UNHEARD_OF[item.label]} on grass" for item in images.items) if captioned else ()
    for own in STRATEGY_CASES.get(name, [{}]):
        search = replace(
            search_of(name, ScriptedLLM([]), None, **own),
            clip=clip,
            images=images,
            classnames=UNHEARD_OF,
            captions=captions,
            image_captions=captions,
        )
        history = history_of([0.2, 0.9, 0.5, 0.4, 0.3, 0.1])
        asks = [ask for step in (1, 2, 3) for ask in search.chosen.ask(view_of(search, history, step))]
        said = " ".join(message.content for ask in asks for message in ask.messages)
        shown = any(word in said for word in UNHEARD_OF)
        options = SearchOptions(search=SearchSettings(), strategy=StrategySettings(name=name, **own))
        means = Means(captioned=captioned and METHOD.asks_llm(options))
        declared = METHOD.uses_of(options, means, "tiny", 4)
        assert declared == (["labels", "llm_saw_class_names"] if shown else ["labels"]), own


OTHERS = Method("mine", "of another package", NoOptions, lambda *_: Fitted({}))


def test_a_method_that_declares_nothing_is_unknown_and_not_one_that_saw_nothing():
    assert OTHERS.uses_of(NoOptions(), Means(), "tiny", 4) is None
    declared = replace(OTHERS, uses=lambda *_: {"new_names", "labels"})
    assert declared.uses_of(NoOptions(), Means(), "tiny", 4) == ["labels", "new_names"]
    assert [in_words(None), in_words([])] == ["not declared", "nothing beside the names of its classes"]
    assert [letters(None), letters([]), letters(["new_names", "labels"])] == ["?", "-", "LN"]


def test_the_letters_are_different():
    assert len({letter for letter, _ in USES.values()} | {"?", "-"}) == len(USES) + 2


def rows_of(**methods):
    return compare([replace(trial(name, seed=seed), uses=use) for name, told in methods.items() for seed, use in told])


def cells(rows):
    return next((column.cells for column in columns(rows) if column.head == "uses"), None)


def test_a_table_has_a_column_of_letters_and_says_what_those_in_it_mean():
    rows = rows_of(plain=[(1, ())], coop=[(1, ("labels",))], other=[(1, None)])
    assert cells(rows) == ("-", "L", "?")
    (line,) = [note for note in notes(rows, "plain") if note.startswith("uses:")]
    assert all(words in line for words in ("L labels of training images", "- nothing", "? not declared"))
    assert "validation" not in line
    assert ",labels," in FORMATS["csv"](rows, ())


def test_runs_of_one_method_that_saw_different_things_saw_all_of_them():
    assert cells(rows_of(a=[(1, ("labels",)), (2, ("new_names",))])) == ("LN",)
    assert cells(rows_of(a=[(1, ("labels",)), (2, None)], b=[(1, ())])) == ("?", "-")


def test_a_table_of_runs_that_do_not_tell_has_no_such_column():
    rows = rows_of(a=[(1, None)], b=[(1, None)])
    assert cells(rows) is None
    assert not any(note.startswith("uses:") for note in notes(rows, "a"))


def test_results_record_what_was_seen_and_older_ones_are_unknown(tmp_path):
    new = write_run(tmp_path / "new", "ipo", ["first", "ipo", "ipo-ensemble"], uses=["labels"], headline="ipo")
    old = write_run(tmp_path / "old", "ipo", ["first", "ipo", "ipo-ensemble"])
    content = json.loads((new / "result.json").read_text())
    content["predictors"]["first"] = content["predictors"]["first"] | {"uses": []}
    (new / "result.json").write_text(json.dumps(content))
    found = {one.predictor: one.uses for one in read_trials(new, every=True)}
    assert found == {"first": (), "ipo": ("labels",), "ipo-ensemble": ("labels",)}
    assert {one.uses for one in read_trials(old, every=True)} == {None}


def test_a_run_records_what_its_method_saw(common, tmp_path):  # noqa: F811
    coop = baseline("coop", *common, "--set", "epochs=1", "--out", tmp_path / "coop")
    assert coop["uses"] == ["labels"]
    assert "It saw: labels of training images." in (tmp_path / "coop" / "result.md").read_text()
    assert "<dd>labels of training images</dd>" in (tmp_path / "coop" / "report.html").read_text()
    search = ["--set", "strategy.name=random", "--set", "search.steps=1", "--set", "search.candidates=2"]
    found = baseline("ipo", *common, *search, "--out", tmp_path / "ipo")
    assert found["uses"] == ["labels"]
    assert "The search saw: labels of training images." in (tmp_path / "ipo" / "history.md").read_text()
    own = {name: predictor["uses"] for name, predictor in found["predictors"].items() if "uses" in predictor}
    assert own == {
        "first": [],
        "hand-crafted": ["per_dataset_settings"],
        "select-80": ["labels"],
        "ensemble-80": [],
        "waffle": [],
    }
    assert (tmp_path / "ipo" / "result.json").is_file()
    printed = CliRunner().invoke(app, ["compare", str(tmp_path), "--controls"], env={"COLUMNS": "300"}).output
    assert "labels of training images" in printed
