"""What a strategy may look at and ask, how it is found, and that going on with a run of any is a replay."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from ipo.config import Section
from ipo.errors import ConfigError, UnknownName
from ipo.llm.base import Message
from ipo.search import strategy as strategies
from ipo.search.loop import optimize
from ipo.search.record import Record
from ipo.search.strategy import Ask, Chosen, Strategy, View, available_strategies, find_strategy
from ipo.seeds import step_seed
from tests.fakes import ScriptedLLM, chosen
from tests.test_optimize import make_search, score_of

SHIPPED = ("blackbox", "evoprompt-de", "evoprompt-ga", "ipo", "opro", "random", "reflect", "subset")
FILES = ("history.jsonl", "replies.jsonl")
FIRST = ("a photo of a <CLASS>.", "a drawing of a <CLASS>.", "the <CLASS>.", "one <CLASS>.", "a photo of a <CLASS>")
PAIRS = [[f"a {a} {b} <CLASS>." for a in ("big", "small")] for b in "abcdefgh"]


class TwoOptions(Section):
    """Of a strategy of somebody else."""

    questions: int = 2
    """Questions a step."""


def two_questions(view: View, options: TwoOptions) -> Sequence[Ask]:
    """One question about the best and one about the worst prompt."""
    ranked = view.history.ranked()
    ends = (ranked[0], ranked[-1], ranked[len(ranked) // 2])[: options.questions]
    return [Ask((Message("user", entry.text),), 2, tuple({entry.id: 0, ranked[0].id: 0})) for entry in ends]


TWO = Strategy("two", "two questions a step", two_questions, TwoOptions)


@pytest.fixture
def two(monkeypatch) -> None:
    """The strategy of another package."""
    entry = EntryPoint("two", f"{__name__}:TWO", strategies.GROUP)
    real = entry_points

    def with_two(group: str, name: str | None = None) -> list[EntryPoint]:
        found = list(real(group=group, name=name) if name else real(group=group))
        return [*found, entry] if name in (None, "two") else found

    monkeypatch.setattr(strategies, "entry_points", with_two)


def search_with(llm: ScriptedLLM | None, name: str = "two", steps: int = 3, **options: object):
    built = make_search(llm)
    limits = built.settings.model_copy(update={"steps": steps})
    return replace(built, settings=limits, chosen=chosen(name, **options))


def test_shipped_strategies_are_found_by_their_names_and_say_what_they_are():
    assert set(available_strategies()) >= set(SHIPPED)
    for name in available_strategies():
        found = find_strategy(name)
        assert found.name == name
        assert found.summary
        assert all(field.description for field in found.options.model_fields.values()), f"an option of {name}"


def test_a_name_or_an_option_that_is_none_is_refused_with_those_that_are(two):
    with pytest.raises(UnknownName, match="Did you mean 'random'"):
        find_strategy("randon")
    with pytest.raises(ConfigError, match=r"unknown key 'question'.*It has: questions"):
        chosen("two", question=1)
    with pytest.raises(ConfigError, match="It has: none"):
        chosen("ipo", exemplars=1)


def test_a_strategy_of_another_package_asks_several_questions_a_step(two):
    llm, record = ScriptedLLM(PAIRS), Record("accuracy")
    optimize(search_with(llm), record)
    assert len(llm.asked) == 6
    assert [entry.step for entry in record.history] == [0] + [step for step in (1, 2, 3) for _ in range(4)]
    assert record.usage().steps == 3
    assert record.usage().proposals == 12
    several = [entry for entry in record.history if entry.parents]
    assert several
    assert all((entry.parents or ())[0] == entry.parent for entry in several)


def test_each_question_of_a_step_has_a_seed_of_its_own_and_the_first_has_the_steps():
    seeds = [step_seed(7, 3), *(step_seed(7, 3, ask) for ask in range(3))]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


RUNS: dict[str, dict[str, Any]] = {
    "two": {},
    "ipo": {},
    "blackbox": {"sample": 2, "resets": 2, "iterations": 1, "restarts": 2, "good": 2},
    "evoprompt-de": {"start": "first", "population": 4},
    "evoprompt-ga": {"start": "first", "population": 2},
    "opro": {"exemplars": 2},
    "random": {"source": "words"},
    "reflect": {"pairs": 2, "images": 1},
    "subset": {"start": "first", "tries": 2, "top": 2},
}
"""Each strategy, with options under which its draws matter."""
ALONE = ("random", "subset")
"""Those that ask no LLM under these options."""


def run_to_the_end(name: str, record: Record, script: Sequence[Sequence[str]]) -> ScriptedLLM:
    """Search with a strategy, or go on with it, with replies that are left of a script."""
    llm = ScriptedLLM(script)
    search = search_with(None if name in ALONE else llm, name, **RUNS[name])
    captions = tuple(f"picture {place}" for place in range(len(search.images)))
    settings = search.settings.model_copy(update={"first_prompts": FIRST})
    optimize(replace(search, settings=settings, image_captions=captions), record)
    return llm


def test_all_shipped_strategies_are_killed_and_resumed_below():
    assert set(RUNS) == {"two", *available_strategies()}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_bytes(two, tmp_path, name):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    width = 2 if name == "two" else 3
    script = [[*pair, f"a very {pair[0]}"][:width] for pair in PAIRS]
    if name.startswith("evoprompt"):
        script = [[text] for texts in script for text in texts]  # a question for each child
    run_to_the_end(name, Record("accuracy", whole), script)
    lines = {file: (whole / file).read_bytes().splitlines(keepends=True) for file in FILES}
    steps = [json.loads(line)["step"] for line in lines["history.jsonl"]]
    questions = [json.loads(line)["step"] for line in lines["replies.jsonl"]]
    for kept in range(max(0, len(FIRST) - 2), len(steps) + 1):
        asked = sum(step <= max(steps[:kept], default=0) for step in questions)  # history lines come after replies
        for logged in range(asked, min(asked + 2, len(questions)) + 1) if kept >= len(FIRST) else (0,):
            shutil.rmtree(broken, ignore_errors=True)
            broken.mkdir()
            (broken / "history.jsonl").write_bytes(b"".join(lines["history.jsonl"][:kept]))
            if logged > asked and kept < sum(step <= max(steps[:kept], default=0) for step in steps):
                continue  # the next step is not asked before this one is judged
            (broken / "replies.jsonl").write_bytes(b"".join(lines["replies.jsonl"][:logged]))
            llm = run_to_the_end(name, Record.resume("accuracy", broken, FIRST), script[logged:])
            assert len(llm.asked) == (0 if name in ALONE else len(questions) - logged)
            assert (broken / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
            assert questions_of(broken) == questions_of(whole)


def questions_of(folder: Path) -> list[dict[str, object]]:
    """What was asked and answered in each step, without what a clock says."""
    rows = [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("time", "seconds")} for row in rows]


@pytest.mark.parametrize("source", ["phrases", "words"])
def test_random_proposals_need_no_llm_and_are_the_same_for_the_same_seed(source):
    texts = []
    for _ in range(2):
        record = Record("accuracy")
        assert optimize(search_with(None, "random", source=source), record) == "all 3 steps done"
        texts.append([entry.text for entry in record.history])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 10
    assert record.usage().tokens == 0
    assert all(entry.parent is None for entry in record.history)


def test_random_proposals_of_an_llm_are_asked_for_without_a_history():
    llm = ScriptedLLM([[*pair, f"a very {pair[0]}"] for pair in PAIRS])
    optimize(search_with(llm, "random", source="llm"), Record("accuracy"))
    asked = [messages[0].content for messages, _ in llm.asked]
    assert len(set(asked)) == 1
    assert "a photo of a <CLASS>.\nloss" not in asked[0]


def test_a_strategy_sees_the_mistakes_of_a_prompt_on_the_training_images_alone(two):
    search = search_with(ScriptedLLM(PAIRS))
    mistakes = search.view(Record("accuracy").history, 1).mistakes("a photo of a <CLASS>.")
    count = len(search.images)
    record = Record("accuracy")
    optimize(replace(search, settings=search.settings.model_copy(update={"steps": 1})), record)
    right = round(score_of(record.history.entries[0]).accuracy * count)
    assert len(mistakes) == count - right
    for mistake in mistakes:
        assert search.classnames[search.images.items[mistake.image].label] == mistake.truth != mistake.taken_for


def test_a_limit_on_scored_prompts_ends_the_search():
    search = search_with(None, "random", steps=9)
    record = Record("accuracy")
    limited = replace(search, settings=search.settings.model_copy(update={"max_scored": 5}))
    assert optimize(limited, record).endswith("prompts scored")
    assert 5 <= len(record.history.scored()) < 5 + search.settings.candidates


def test_the_strategy_of_the_docs_works():
    page = (Path(__file__).parent.parent / "docs/methods.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from ipo.config.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "docs"}
    exec(compile(code.replace("from __future__", "#"), "methods.md", "exec"), names)
    built = search_with(ScriptedLLM([[*pair, f"a very {pair[0]}"] for pair in PAIRS]), "ipo")
    worst = names["STRATEGY"]
    record = Record("accuracy")
    optimize(replace(built, chosen=Chosen(worst, worst.configure({"shown": 1}))), record)
    scored = record.history.scored()
    assert record.last_step == 3
    last = [entry for entry in record.history if entry.step == 3]
    before = [entry for entry in scored if entry.step < 3]
    assert {entry.parent for entry in last} == {min(before, key=lambda entry: record.history.rule(score_of(entry))).id}
