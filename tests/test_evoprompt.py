"""EvoPrompt: parents and survivors are those of the algorithm, and follow from the history and the seed alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipo.config import SearchOptions, SearchSettings
from ipo.errors import ConfigError, PromptError
from ipo.llm.base import ReplyForm
from ipo.prompt import HistoryEntry, Score
from ipo.search.history import History
from ipo.search.loop import Search, estimate, optimize
from ipo.search.record import Record
from ipo.search.strategies.evoprompt_de import population
from ipo.search.strategies.evoprompt_ga import draw_parents
from ipo.search.strategy import try_out
from tests.fakes import ScriptedLLM, chosen
from tests.test_strategy import search_with

SINGLES = [[f"a {a} {b} <CLASS>."] for a in ("big", "small") for b in "abcdefgh"]
FIRST = ("a photo of a <CLASS>.", *(f"a {word} of a <CLASS>." for word in ("drawing", "painting", "sketch", "print")))


def prompt_file(folder: Path) -> Path:
    """A file with some prompts, of which the settings' first prompt is one."""
    path = folder / "prompts.txt"
    path.write_text("\n".join(FIRST))
    return path


STRATEGIES = ("evoprompt-ga", "evoprompt-de")


def entry(number: int, accuracy: float, step: int = 0, parent: int | None = None) -> HistoryEntry:
    score = Score(accuracy, 1.0, 0.0, 1.0, 0.0, accuracy, 1.0)
    return HistoryEntry(number, step, f"a {number} <CLASS>.", parent, score)


def evolution(name: str, folder: Path, texts: Sequence[Sequence[str]] = SINGLES, **options: Any) -> Search:
    return search_with(ScriptedLLM(texts), name, start=str(prompt_file(folder)), **options)


def run(search: Search) -> History:
    record = Record("accuracy")
    optimize(search, record)
    return record.history


def asked(search: Search) -> list[str]:
    assert isinstance(search.llm, ScriptedLLM)
    return [messages[0].content for messages, _ in search.llm.asked]


def steps_of(history: History) -> list[list[HistoryEntry]]:
    last = max(entry.step for entry in history)
    return [[entry for entry in history if entry.step == step] for step in range(1, last + 1)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_asks_for_one_child_a_question_and_names_all_its_parents(name, tmp_path):
    search = evolution(name, tmp_path, population=4)
    history = run(search)
    assert [entry.text for entry in history if entry.step == 0] == list(FIRST)
    assert [len(step) for step in steps_of(history)] == [3, 3, 3]
    for text, child in zip(asked(search), (entry for entry in history if entry.step), strict=True):
        shown = {entry.text for entry in history if entry.id < child.id and f": {entry.text}\n" in text}
        assert shown == {history.entries[parent].text for parent in child.parents or ()}


@pytest.mark.parametrize("parents", ["wheel", "random", "tournament"])
def test_the_population_of_the_genetic_algorithm_is_the_best_of_parents_and_children_at_each_step(parents, tmp_path):
    size = 3
    history = run(evolution("evoprompt-ga", tmp_path, population=size, parents=parents))
    survivors = history.empty()
    survivors.append([entry for entry in history if entry.step == 0])
    for children in steps_of(history):
        members = survivors.ranked()[:size]
        drawn = {parent for child in children for parent in child.parents or (child.parent,)}
        assert drawn <= {member.id for member in members}
        survivors = history.empty()
        survivors.append(sorted([*members, *children], key=lambda one: one.id))
    ranked = [entry.id for entry in history.ranked()[:size]]
    assert [entry.id for entry in survivors.ranked()[:size]] == ranked


def test_the_wheel_draws_in_proportion_to_accuracy_and_never_the_same_twice():
    members = [entry(0, 0.8), entry(1, 0.4), entry(2, 0.0)]
    draws = random.Random(1)
    pairs = [tuple(one.id for one in draw_parents(members, "wheel", draws)) for _ in range(200)]
    assert set(pairs) == {(0, 1)}, "a prompt that finds nothing has no children where others are"
    weak = [entry(0, 0.9), entry(1, 0.3), entry(2, 0.3)]
    counts = Counter(one.id for _ in range(3000) for one in draw_parents(weak, "wheel", draws))
    # P(0 is drawn) = 0.6 + 0.4 * 0.75 = 0.9
    assert counts[0] / 3000 == pytest.approx(0.9, abs=0.03)
    nought = [entry(number, 0.0) for number in range(3)]
    assert {one.id for _ in range(50) for one in draw_parents(nought, "wheel", draws)} == {0, 1, 2}


def test_a_tournament_prefers_the_better_and_never_draws_the_worst():
    members = [entry(number, 1 - number / 10) for number in range(4)]
    draws = random.Random(1)
    drawn = [one.id for _ in range(500) for one in draw_parents(members, "tournament", draws)]
    assert 3 not in drawn
    assert Counter(drawn)[0] > Counter(drawn)[1] > Counter(drawn)[2] > 0


def test_a_population_of_one_is_crossed_with_itself_until_there_are_more(tmp_path):
    search = search_with(ScriptedLLM(SINGLES), "evoprompt-ga", start="first", steps=2)
    history = run(search)
    assert all(child.parent == 0 and child.parents is None for child in steps_of(history)[0])
    assert any(child.parents for child in steps_of(history)[1])


def test_a_child_of_differential_evolution_takes_the_place_of_its_target_alone_and_only_where_it_is_better():
    history = History("accuracy")
    history.append([entry(0, 0.5), entry(1, 0.4), entry(2, 0.3), entry(3, 0.2), entry(4, 0.1)])
    assert [one.id for one in population(history, 4)] == [0, 1, 2, 3]
    history.append([entry(5, 0.5, 1, 0), entry(6, 0.45, 1, 1), HistoryEntry(7, 1, "no slot", 2, reason="no prompt")])
    assert [one.id for one in population(history, 4)] == [0, 6, 2, 3], "of equals the earlier one stays"
    history.append([entry(8, 0.9, 2, 3), entry(9, 0.8, 2, 3), entry(10, 0.2, 2, 6)])
    assert [one.id for one in population(history, 4)] == [0, 6, 2, 8], "of two children of a step the better one"


@pytest.mark.parametrize("donor", ["best", "random"])
def test_differential_evolution_goes_around_its_members_with_two_others_and_the_donor(donor, tmp_path):
    history = run(evolution("evoprompt-de", tmp_path, population=4, donor=donor))
    past, turn = history.empty(), 0
    past.append([entry for entry in history if entry.step == 0])
    for children in steps_of(history):
        members = population(past, 4)
        for child in children:
            assert child.parents is not None
            target, one, other = child.parents[:3]
            assert target == members[turn % 4].id, "the nearest is the one that may be replaced"
            assert {target, one, other} <= {member.id for member in members}
            if donor == "best":
                assert past.best().id in child.parents
                assert past.best() in members
            else:
                assert len(child.parents) == 4
            turn += 1
        past.append(children)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("form", ["line", "phrase", "phrase object", "sides", "free"])
def test_what_is_asked_shows_no_scores_and_fits_the_model_and_the_form(name, continues, form: ReplyForm, tmp_path):
    llm = ScriptedLLM(SINGLES, form)
    llm.template = "continue.j2" if continues else "ipo.j2"
    search = replace(search_with(llm, name, start=str(prompt_file(tmp_path))), captions=("a brown dog",))
    record = Record("accuracy")
    record.history.append([replace(entry(index, 0.4321 + index / 10), text=text) for index, text in enumerate(FIRST)])
    text = search.chosen.ask(search.view(record.history, 1))[0].messages[0].content
    assert "a brown dog" in text
    assert not {"accuracy", "loss:", "43.2", "score"} & set(text.split())
    assert ("Answer" in text or "<INS>" in text) != continues
    assert text[-1] in ("=-" if continues else ".}>")
    assert "\n\n\n" not in text
    assert ("JSON" in text) == (not continues and form in ("sides", "phrase object"))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_template_of_ones_own_replaces_the_strategys(name, tmp_path):
    own = tmp_path / "own.j2"
    own.write_text("{{ history | length }} of {{ form }}: {{ history[-1].accuracy }}")
    search = evolution(name, tmp_path)
    settings = search.settings.model_copy(update={"template": str(own)})
    run(replace(search, settings=settings))
    assert all(text.partition(":")[0] in ("2 of line", "3 of line", "4 of line") for text in asked(search))
    own.write_text("{{ parents }}")
    strategy = {"name": name, "start": str(prompt_file(tmp_path))}
    options = SearchOptions.model_validate({"search": {"template": str(own)}, "strategy": strategy})
    with pytest.raises(ConfigError, match="unknown variable"):
        try_out(options, False, "ipo.j2", "line")


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_eighty_come_after_the_first_prompts_each_once(name):
    settings = SearchSettings(first_prompts=("a blob of a <CLASS>", "A photo of a <CLASS>"))
    first = chosen(name).first(settings)
    assert first[:2] == settings.first_prompts
    assert len(first) == 81, "`a photo of a` is one of the 80"
    assert chosen(name, start=80).first(settings) == first


def test_prompts_to_start_from_that_cannot_be_used_are_refused_by_their_place(tmp_path):
    path = tmp_path / "own.txt"
    with pytest.raises(ConfigError, match="no such file"):
        chosen("evoprompt-ga", start=str(path))
    path.write_text("a <CLASS>.\na dog.\n")
    with pytest.raises(PromptError, match=r"own\.txt:2"):
        chosen("evoprompt-ga", start=str(path))
    path.write_text("a <CLASS>.\nA <CLASS>\na photo of a <CLASS>.\n")
    with pytest.raises(ConfigError, match="4 prompts at least, and 2 can be used"):
        chosen("evoprompt-de", start=str(path)).first(SearchSettings())
    with pytest.raises(ConfigError, match="population"):
        chosen("evoprompt-de", population=3)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_estimate_counts_one_reply_a_question(name, tmp_path):
    assert estimate(evolution(name, tmp_path)).startswith("at most 9 proposals in 3 steps")
