"""Sets of prompts as candidates, and the search for the best set of a pool without an LLM."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ipo.config import SelectionRule
from ipo.errors import RunError
from ipo.llm.base import Reply
from ipo.prompt import HistoryEntry, Prompt
from ipo.scoring import PromptPredictor, ensemble_classifier, score_classifier, text_features
from ipo.search.ensemble import greedy_ensemble
from ipo.search.history import History
from ipo.search.loop import Search, estimate, optimize
from ipo.search.record import Record
from ipo.search.replies import Answers
from ipo.search.sets import read_sets
from ipo.search.strategies.subset import best_sets, members_of
from tests.fakes import FakeClip, chosen, image_set
from tests.test_optimize import score_of
from tests.test_strategy import search_with

CLASSNAMES = ("ant", "bee", "elk", "fox", "owl")
WORDS = ["big", "small", "old", "red", "new", "dark", "wide", "thin", "long"]
POOL = tuple(f"a {word} {word}ish <CLASS> here." for word in WORDS)


def subset(texts: tuple[str, ...] = POOL, steps: int = 8, **options: object) -> Search:
    search = search_with(None, "subset", steps, **{"start": "first", **options})
    limits = {"first_prompts": texts, "select": "loss", "class_names_allowed": True}
    images = image_set(FakeClip(), CLASSNAMES, noise=0.2)
    settings = search.settings.model_copy(update=limits)
    return replace(search, settings=settings, images=images, classnames=CLASSNAMES)


def run(search: Search, rule: SelectionRule = "loss") -> History:
    record = Record(rule)
    optimize(search, record)
    return record.history


def loss(entry: HistoryEntry) -> float:
    assert entry.score is not None
    return entry.score.loss


def test_no_llm_is_loaded_and_the_eighty_are_the_pool_by_default():
    subsets = chosen("subset")
    assert not subsets.asks_llm
    assert len(subsets.first(search_with(None, "subset").settings)) == 80


def test_the_score_of_a_set_is_that_of_the_mean_of_its_prompts_and_its_text_names_them():
    search = subset(steps=2)
    history = run(search)
    sets = [entry for entry in history if entry.members]
    assert len(sets) > 50
    for entry in sets:
        prompts = tuple(map(Prompt, history.texts(entry)))
        assert entry.text == " + ".join(prompt.text for prompt in prompts)
        features = text_features(search.clip, prompts, CLASSNAMES)
        assert entry.score == score_classifier(search.clip, ensemble_classifier(features), search.images)
        predicted = PromptPredictor(search.clip, prompts).logits(search.images, CLASSNAMES).argmax(dim=-1)
        assert score_of(entry).accuracy == pytest.approx(
            float((predicted == search.images.labels).float().mean()), abs=1e-6
        )


@pytest.mark.parametrize("rule", ["loss", "accuracy", "margin"])
def test_adding_to_the_best_set_alone_is_greedy_forward_selection(rule):
    search = subset(operators=["add"], top=1, tries=len(POOL), fitness=rule, epochs=20, steps=20)
    history = run(search, rule)
    singles = History(rule)
    singles.append([entry for entry in history if entry.members is None])
    chosen, score = greedy_ensemble(singles, search.clip, search.images, CLASSNAMES, len(POOL))
    best = history.best()
    assert best.score == score
    assert set(members_of(best)) == {entry.id for entry in chosen}
    assert rule == "accuracy" or len(chosen) > 1, "or nothing was tested"


def test_the_best_never_worsens_and_no_set_is_scored_twice():
    history = run(subset())
    last = max(entry.step for entry in history)
    best = [min(loss(entry) for entry in history if entry.step <= step) for step in range(last + 1)]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0]
    found = [members_of(entry) for entry in history]
    assert len(set(found)) == len(found)
    assert not history.rejects()


def test_each_operator_makes_what_it_says():
    singles = {members_of(entry) for entry in run(subset(steps=1)) if entry.step == 0}
    assert len(singles) == len(POOL)
    for operator in ("add", "remove", "replace", "cross"):
        start = run(subset(steps=2, operators=["add", "mutate"]))
        search = subset(operators=[operator], epochs=9)
        for ask in search.chosen.ask(search.view(start, 3)):
            parents = [set(members_of(start.entries[parent])) for parent in ask.parents]
            for made in map(set, ask.sets):
                if operator == "cross":
                    one, other = parents
                    assert one & other <= made <= one | other
                else:
                    (parent,) = parents
                    sizes = {"add": (1, 0), "remove": (0, 1), "replace": (1, 1)}[operator]
                    assert (len(made - parent), len(parent - made)) == sizes
    search = subset(operators=["mutate"], steps=3)
    grown = {(entry.step, len(members_of(entry))) for entry in run(search) if entry.step}
    assert grown == {(1, 3), (2, 4), (3, 5)}


def test_the_default_epoch_makes_a_hundred_and_twenty_sets_at_most():
    search = subset()
    assert all(0 < len([e for e in run(search) if e.step == step]) <= 4 * 24 + 8 + 16 for step in (1, 2))
    assert estimate(subset(steps=100)) == "at most 960 proposals in 8 steps"


def test_a_pool_of_one_is_that_prompt():
    search = subset(POOL[:1])
    record = Record("loss")
    assert optimize(search, record) == "subset has nothing more to ask"
    assert [entry.text for entry in record.history] == [POOL[0]]


def test_what_is_asked_does_not_depend_on_the_order_in_which_sets_were_scored():
    search = subset()
    history = run(subset(steps=2))
    first = [entry for entry in history if entry.step == 0]
    rest = [entry for entry in history if entry.step]
    random.Random(5).shuffle(rest)
    other = history.empty()
    other.append([*first, *(replace(entry, id=place) for place, entry in enumerate(rest, len(first)))])
    sets = [[ask.sets for ask in search.chosen.ask(search.view(one, 3))] for one in (history, other)]
    assert sets[0] == sets[1]
    named = [[members_of(entry) for entry in best_sets(one, "loss", 9)] for one in (history, other)]
    assert named[0] == named[1]


def test_a_history_with_sets_is_read_again_and_a_member_that_is_none_is_refused(tmp_path: Path):
    record = Record("loss", tmp_path)
    optimize(subset(steps=1), record)
    path = tmp_path / "history.jsonl"
    assert History.read("loss", path).entries == record.history.entries
    assert '"members"' not in path.read_text().splitlines()[0]
    last = next(entry for entry in reversed(record.history.entries) if entry.members)
    for bad in ((last.id - 1, last.id), (1, 1), (2, 1), (3,)):
        record.history.entries[last.id] = replace(last, members=bad)
        broken = History("loss", tmp_path / "broken.jsonl")
        broken.append(record.history.entries[: last.id + 1])
        with pytest.raises(RunError, match="member"):
            History.read("loss", tmp_path / "broken.jsonl")
        (tmp_path / "broken.jsonl").unlink()


@pytest.mark.parametrize("named", ["9 1", "0 99999"])
def test_a_logged_set_of_entries_that_are_no_prompts_is_one_line(named):
    history = run(subset(steps=1))
    with pytest.raises(RunError, match="another entry than a scored prompt"):
        read_sets([Reply(named, "set", "stop")], history.empty() if named == "9 1" else history)


@pytest.mark.parametrize("text", ["", "1 x", "-1 2", "1  2", "1" * 5000])
def test_a_logged_set_that_is_no_list_of_ids_is_damage(text):
    row = {"step": 1, "ask": 0, "seconds": 0.1, "replies": [asdict(Reply(text, "set", "stop"))]}
    with pytest.raises(ValueError, match="other than ids"):
        Answers.from_json(json.loads(json.dumps(row)))
