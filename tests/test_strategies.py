"""What each shipped strategy shows and asks: the rules of its source, and ours where the source is at fault."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipo.config import SelectionRule
from ipo.errors import ConfigError, PromptError
from ipo.prompt import HistoryEntry, Prompt, Score
from ipo.scoring import PromptPredictor, score_prompts
from ipo.search.history import History
from ipo.search.loop import Search, optimize
from ipo.search.meta_prompt import build_messages
from ipo.search.pools import eighty
from ipo.search.record import Record
from ipo.search.strategies.blackbox import BlackBoxOptions, pool
from ipo.search.strategies.reflect import confused_pairs
from ipo.search.strategy import View
from tests.fakes import ScriptedLLM, chosen
from tests.test_optimize import CLASSNAMES, make_search

WORDS = ("big", "small", "old", "new", "red", "blue", "dark", "bright", "wide", "thin")


def history_of(accuracies: list[float], rule: SelectionRule = "accuracy") -> History:
    """Entries of step 0 with these accuracies."""
    history = History(rule)
    scores = [Score(value, 1.0, 0.0, 1.0, 0.0, value, 1.0) for value in accuracies]
    history.append([HistoryEntry(i, 0, f"a {WORDS[i]} <CLASS>.", score=score) for i, score in enumerate(scores)])
    return history


def search_of(
    name: str, llm: ScriptedLLM | None = None, limits: dict[str, Any] | None = None, **options: object
) -> Search:
    search = make_search(llm or ScriptedLLM([]))
    settings = search.settings.model_copy(update={"history": 20, **(limits or {})})
    return replace(search, settings=settings, chosen=chosen(name, **options))


def view_of(search: Search, history: History, step: int = 1, seed: int = 7) -> View:
    return replace(search, seed=seed).view(history, step)


def asked(search: Search, history: History, step: int = 1, seed: int = 7) -> str:
    (ask,) = search.chosen.ask(view_of(search, history, step, seed))
    (message,) = ask.messages
    return message.content


def listed(text: str, heading: str) -> list[str]:
    """The items of the list below a heading."""
    return re.findall(r"^- (.*)$", text.partition(heading)[2].partition("\n\n")[0], re.MULTILINE)


def shown_scores(text: str) -> list[tuple[str, str]]:
    return re.findall(r"text prompt: (.*)\n(?:loss: .*\n)?(?:score|accuracy): (.*)", text)


# opro


def test_opro_shows_what_ipo_shows_without_loss_and_captions():
    history = history_of([0.31, 0.52, 0.11, 0.97, 0.45])
    (ipo,) = build_messages("ipo.j2", history.top(20), [], "line")
    opro = asked(search_of("opro", exemplars=0), history)
    assert "loss" not in opro
    assert [text for text, _ in shown_scores(opro)] == [text for text, _ in shown_scores(ipo.content)]
    assert [score for _, score in shown_scores(opro)] == ["11", "31", "45", "52", "97"]
    assert "wrong class" not in opro


def test_opro_shows_scores_as_they_are_without_buckets():
    text = asked(search_of("opro", buckets=0, exemplars=0), history_of([0.31251, 0.5]))
    assert [score for _, score in shown_scores(text)] == ["0.313", "0.500"]
    assert "from 0 to 1:" in text


def test_opro_keeps_equal_scores_in_the_order_they_came_and_the_best_last():
    text = asked(search_of("opro", None, {"history": 3}), history_of([0.5, 0.2, 0.5, 0.9, 0.5]))
    assert [text for text, _ in shown_scores(text)] == ["a old <CLASS>.", "a red <CLASS>.", "a new <CLASS>."]


def test_opro_hides_what_is_below_the_threshold_and_nothing_at_it():
    search = search_of("opro", threshold=0.3)
    text = asked(search, history_of([0.3, 0.2999, 0.4]))
    assert [score for _, score in shown_scores(text)] == ["30", "40"]
    nothing = asked(search, history_of([0.1]))
    assert "Below are" not in nothing
    (ask,) = search.chosen.ask(view_of(search, history_of([0.1])))
    assert ask.parents == ()


def test_opros_exemplars_are_mistakes_of_the_best_prompt_drawn_by_the_seed_of_the_step():
    search, history = search_of("opro"), history_of([0.2, 0.9, 0.5])
    truly = {(m.truth, m.taken_for) for m in search.mistakes("a small <CLASS>.")}
    drawn = []
    for step in (1, 1, 2, 3, 4):
        text = asked(search, history, step)
        pairs = re.findall(r"^an image of (.*) was taken for (.*)$", text, re.MULTILINE)
        assert len({truth for truth, _ in pairs}) == len(pairs) == 3
        assert set(pairs) <= truly
        drawn.append(tuple(pairs))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_opro_keeps_the_first_prompts_in_sight_where_the_settings_say_so():
    history = history_of([0.1, 0.9])
    history.append([HistoryEntry(2, 1, "the <CLASS>.", score=Score(0.8, 1.0, 0.0, 1.0, 0.0, 0.8, 1.0))])
    text = asked(search_of("opro", None, {"history": 2, "keep_first": True}), history)
    assert [text for text, _ in shown_scores(text)] == ["a big <CLASS>.", "a small <CLASS>."]


# blackbox


def test_blackbox_shows_the_ends_of_the_pool_without_scores_and_class_names():
    accuracies = [0.5, 0.2, 0.8, 0.3, 0.9, 0.1, 0.7]
    text = asked(search_of("blackbox"), history_of(accuracies))
    ranked = [f"a {WORDS[i]} <CLASS>." for i in sorted(range(7), key=lambda i: -accuracies[i])]
    assert listed(text, "Good prompts:") == ranked[:3]
    assert listed(text, "Bad prompts:") == ranked[-3:]
    assert not re.search(r"\d\.\d|accuracy|score|loss", text)
    assert not any(re.search(rf"\b{name}\b", text) for name in CLASSNAMES)


def test_blackbox_without_bad_prompts_says_nothing_of_any():
    history = history_of([0.5, 0.2, 0.8, 0.3])
    positive = asked(search_of("blackbox", bad=0), history)
    both = asked(search_of("blackbox"), history)
    assert "bad" not in positive.lower()
    assert listed(positive, "Good prompts:") == listed(both, "Good prompts:")
    assert "bad ones bad" in both


@pytest.mark.parametrize("size", range(1, 8))
def test_blackbox_shows_no_prompt_as_good_and_bad(size):
    text = asked(search_of("blackbox"), history_of([i / 10 for i in range(size)]))
    good, bad = listed(text, "Good prompts:"), listed(text, "Bad prompts:")
    assert len(good) == min(3, size)
    assert len(bad) == max(0, min(3, size - 3))
    assert not set(good) & set(bad)


def test_the_request_of_blackbox_depends_on_the_order_of_the_accuracies_alone():
    search = search_of("blackbox")
    assert asked(search, history_of([0.5, 0.2, 0.8, 0.3])) == asked(search, history_of([0.6, 0.01, 0.99, 0.02]))


def test_blackbox_without_iterations_ends_with_the_best_start_template():
    search, record = search_of("blackbox", iterations=0, start="80"), Record("accuracy")
    assert optimize(search, record) == "blackbox has nothing more to ask"
    assert len(record.history) == 80  # a photo of a, which is the first prompt, is among them
    scores = score_prompts(search.clip, eighty(), search.images, CLASSNAMES)
    best = max(scores, key=lambda score: (score.accuracy, -score.loss) if isinstance(score, Score) else (-1.0, 0.0))
    assert record.history.best().score == best
    assert record.usage().proposals == 0


def test_the_pool_of_blackbox_is_the_start_and_the_distinct_valid_replies():
    script = [["a big <CLASS>."], ["a photo of a <CLASS>"], ["nothing"], ["a small <CLASS>."], ["A BIG <CLASS>"]]
    search = search_of("blackbox", ScriptedLLM(script), {"steps": 5, "candidates": 1})
    record = Record("accuracy")
    optimize(search, record)
    members = pool(view_of(search, record.history, 6), 1, 1, 80)
    assert {entry.text for entry in members} == {"a photo of a <CLASS>.", "a big <CLASS>.", "a small <CLASS>."}
    assert members == [entry for entry in record.history.ranked() if entry in members]


def test_blackbox_goes_through_iterations_resets_and_restarts(tmp_path: Path):
    file = tmp_path / "start.txt"
    file.write_text("\n".join(f"the {word} <CLASS>." for word in WORDS))
    script = [[f"a {a} {b} <CLASS>."] for a in WORDS[:3] for b in WORDS[3:]]
    llm = ScriptedLLM(script)
    options = {"restarts": 2, "resets": 2, "iterations": 3, "good": 99, "sample": 4, "start": str(file)}
    search, record = search_of("blackbox", llm, {"steps": 99, "candidates": 1}, **options), Record("accuracy")
    assert optimize(search, record) == "blackbox has nothing more to ask"
    assert len(llm.asked) == 2 * 2 * 3
    pools = [set(listed(messages[0].content, "Good prompts:")) for messages, _ in llm.asked]
    assert [len(members) for members in pools] == [4, 5, 6] * 4
    assert pools[3] == pools[0]  # a reset goes back to the same start
    assert pools[6] == pools[9] != pools[0]  # a restart to another
    for step, members in enumerate(pools):
        begin = step - step % 3
        assert {text for text in members if text.startswith("a ") and "photo" not in text} == {
            texts[0] for texts in script[begin:step]
        }


def test_a_prompt_of_an_earlier_pool_that_is_proposed_again_is_of_the_new_pool_too():
    llm = ScriptedLLM([["a big <CLASS>."], ["a Big <CLASS>"], ["a small <CLASS>."]])
    search = search_of("blackbox", llm, {"steps": 3, "candidates": 1}, iterations=1)
    record = Record("accuracy")
    optimize(search, record)
    second = [entry.text for entry in pool(view_of(search, record.history, 3), 2, 2, 80)]
    assert sorted(second) == ["a big <CLASS>.", "a photo of a <CLASS>.", "a small <CLASS>."]


def test_start_templates_are_refused_by_their_line_and_come_after_the_first_prompts(tmp_path: Path):
    file = tmp_path / "start.txt"
    file.write_text("a photo of a <CLASS>\n\nno slot\n")
    with pytest.raises(PromptError, match=r"start.txt:3"):
        chosen("blackbox", start=str(file))
    with pytest.raises(ConfigError, match="no such file"):
        chosen("blackbox", start=str(tmp_path / "none.txt"))
    file.write_text("a photo of a <CLASS>\nmy <CLASS>\n")
    search = search_of("blackbox", start=str(file))
    assert search.first_prompts == ("a photo of a <CLASS>.", "my <CLASS>")
    assert search_of("blackbox", start=80).chosen.options == BlackBoxOptions(start="80")


def test_a_start_template_that_does_not_fit_or_names_a_class_is_kept_as_a_reject(tmp_path: Path):
    file = tmp_path / "start.txt"
    file.write_text(f"a house with a <CLASS>.\nmy <CLASS>\n{'very ' * 80}<CLASS>\nMY <CLASS>.\n")
    record = Record("accuracy")
    optimize(search_of("blackbox", iterations=0, start=str(file)), record)
    reasons = [entry.reason and entry.reason.partition(":")[0] for entry in record.history]
    assert reasons == [None, "names a class", None, "too long", "duplicate"]


# reflect


def captioned(search: Search) -> Search:
    return replace(search, image_captions=tuple(f"picture {place}" for place in range(len(search.images))))


def test_reflects_pairs_are_those_counted_from_the_logits():
    search, history = search_of("reflect", pairs=20), history_of([0.2, 0.9, 0.5])
    logits = PromptPredictor(search.clip, (Prompt("a small <CLASS>."),)).logits(search.images, CLASSNAMES)
    counts: Counter[tuple[str, ...]] = Counter()
    for item, row in zip(search.images.items, logits.tolist()):
        taken = row.index(max(row))
        if taken != item.label:
            counts[tuple(sorted((CLASSNAMES[item.label], CLASSNAMES[taken])))] += 1
    text = asked(search, history)
    found = re.findall(r"^(\w+) and (\w+): (\d+) images? of one taken", text, re.MULTILINE)
    assert {(a, b): int(count) for a, b, count in found} == counts
    assert [int(count) for *_, count in found] == sorted(counts.values(), reverse=True)
    fewer = asked(search_of("reflect", pairs=2), history)
    assert re.findall(r"^(\w+) and (\w+): (\d+) images? of one taken", fewer, re.MULTILINE) == found[:2]


def test_reflect_shows_captions_of_mistaken_images_alone_each_with_its_classes():
    search, history = captioned(search_of("reflect", pairs=3, images=2)), history_of([0.2, 0.9, 0.5])
    search = replace(search, captions=("not this one",))
    mistakes = {f"picture {m.image}": (m.truth, m.taken_for) for m in search.mistakes("a small <CLASS>.")}
    seen = set()
    for step in range(1, 9):
        text = asked(search, history, step)
        found = re.findall(r"^an image of (\w+) that was taken for (\w+): (.*)$", text, re.MULTILINE)
        assert found
        assert all(mistakes[caption] == (truth, taken) for truth, taken, caption in found)
        pairs = Counter(frozenset((truth, taken)) for truth, taken, _ in found)
        assert max(pairs.values()) <= 2
        assert "not this one" not in text
        seen |= {caption for *_, caption in found}
    assert len(seen) > 6  # other images in other steps
    assert asked(search, history, 3) == asked(search, history, 3)


def test_reflect_says_in_a_pattern_too_which_class_a_caption_is_of():
    llm = ScriptedLLM([])
    llm.template = "continue.j2"
    search = captioned(search_of("reflect", llm))
    mistakes = {f"picture {m.image}": (m.truth, m.taken_for) for m in search.mistakes("a small <CLASS>.")}
    found = re.findall(r"^(\w+), taken for (\w+): (.*)$", asked(search, history_of([0.2, 0.9])), re.MULTILINE)
    assert found
    assert all(mistakes[caption] == (truth, taken) for truth, taken, caption in found)


def test_blackbox_in_a_pattern_shows_nothing_unjudged_beside_bad_prompts():
    llm = ScriptedLLM([])
    llm.template = "continue.j2"
    text = asked(search_of("blackbox", llm), history_of([0.5, 0.2, 0.8, 0.3]))
    assert listed(text, "Bad descriptions:") == ["a small <CLASS>."]
    assert listed(text, "Good descriptions:") == ["a new <CLASS>.", "a big <CLASS>.", "a old <CLASS>."]


def test_reflect_without_a_captioner_shows_no_captions():
    text = asked(search_of("reflect"), history_of([0.2, 0.9, 0.5]))
    assert "confuses most" in text
    assert "that was taken for" not in text
    assert "\n\n\n" not in text


def test_reflect_without_mistakes_shows_the_history_alone():
    search, history = captioned(search_of("reflect")), history_of([0.2, 0.9, 0.5])
    view = replace(view_of(search, history), mistakes=lambda _: [])
    (ask,) = search.chosen.ask(view)
    (ipo,) = build_messages("ipo.j2", history.top(20), [], "line")
    assert shown_scores(ask.messages[0].content) == shown_scores(ipo.content)
    assert "confuses" not in ask.messages[0].content
    assert not any(re.search(rf"\b{name}\b", ask.messages[0].content) for name in CLASSNAMES)


def test_pairs_are_of_either_direction_and_of_equals_the_earlier_stands_first():
    search = search_of("reflect")
    groups = confused_pairs(search.mistakes("a small <CLASS>."))
    assert sum(map(len, groups)) == len(search.mistakes("a small <CLASS>."))
    for group in groups:
        assert len({frozenset((m.truth, m.taken_for)) for m in group}) == 1
    assert [(-len(group), group[0].image) for group in groups] == sorted((-len(g), g[0].image) for g in groups)


def test_a_proposal_that_names_a_class_is_rejected_though_the_model_was_shown_it():
    llm = ScriptedLLM([["a dog and a <CLASS>.", "a <CLASS> outside.", "a cat-like <CLASS>."]])
    record = Record("accuracy")
    optimize(search_of("reflect", llm, {"steps": 1}), record)
    reasons = [entry.reason for entry in record.history if entry.step == 1]
    assert str(reasons[0]).startswith("names a class: dog")
    assert reasons[1] is None
    assert str(reasons[2]).startswith("names a class: cat")


# all


@pytest.mark.parametrize("name", ["blackbox", "opro", "reflect"])
@pytest.mark.parametrize("form", ["line", "phrase", "phrase object", "sides", "free"])
def test_the_request_fits_the_form_of_the_reply_and_is_worded_as_ipos(name, form):
    text = asked(captioned(search_of(name, ScriptedLLM([], form))), history_of([0.2, 0.9, 0.5, 0.4]))
    (ipo,) = build_messages("ipo.j2", [], [], form)
    assert text.splitlines()[0] == ipo.content.splitlines()[0]
    assert text.splitlines()[-1] == ipo.content.splitlines()[-1]
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", ["blackbox", "opro", "reflect"])
@pytest.mark.parametrize("size", [1, 4, 5, 8])
def test_a_model_that_continues_a_pattern_is_given_one(name, size):
    llm = ScriptedLLM([])
    llm.template = "continue.j2"
    history = history_of([0.1 + i / 10 for i in range(size)])
    text = asked(captioned(search_of(name, llm)), history)
    assert "Your task" not in text
    assert "Write" not in text
    assert "\n\n\n" not in text
    *_, before, last = text.splitlines()
    assert before.endswith(f"a {WORDS[size - 1]} <CLASS>.")
    assert re.fullmatch(r"-( score \d+(\.\d)?:)?", last)


@pytest.mark.parametrize("name", ["blackbox", "opro", "reflect"])
def test_a_template_of_the_users_stands_in_for_the_strategys_own(name, tmp_path: Path):
    own = tmp_path / "own.j2"
    own.write_text("mine, {{ form }}, {{ continues }}")
    assert asked(search_of(name, None, {"template": str(own)}), history_of([0.5])) == "mine, line, False"
    own.write_text("{{ nothing_such }}")
    with pytest.raises(ConfigError, match="nothing_such"):
        asked(search_of(name, None, {"template": str(own)}), history_of([0.5]))
