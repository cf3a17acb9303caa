"""The loop with a fake CLIP and a scripted LLM: what it shows, keeps, scores, refuses, and how it goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from ipo.clip.lengths import TextRoom
from ipo.config import LLMSettings, SearchSettings
from ipo.llm.base import Spent, Usage
from ipo.llm.prices import cost
from ipo.metrics import accuracy
from ipo.prompt import HistoryEntry, Prompt, Score
from ipo.scoring import PromptPredictor, score_prompts, text_features
from ipo.search.ensemble import greedy_ensemble
from ipo.search.loop import Search, optimize
from ipo.search.record import Record
from ipo.search.stopping import total_cost
from ipo.seeds import step_seed
from tests.fakes import FakeClip, ScriptedLLM, image_set

CLASSNAMES = ("cat", "dog", "house", "tree", "boat")
SCRIPT = [
    ["a drawing of a <CLASS>.", "a photo of a <CLASS>", "a very old <CLASS>"],
    ["a small <CLASS> outside.", "no slot here", "A DRAWING of a <CLASS>"],
    ["the <CLASS> at night.", "a <CLASS> and a <CLASS>", "a red <CLASS>."],
]


def score_of(entry: HistoryEntry) -> Score:
    assert isinstance(entry.score, Score)
    return entry.score


def make_search(llm: ScriptedLLM | None, **settings) -> Search:
    clip = FakeClip()
    return Search(
        settings=SearchSettings(steps=3, candidates=3, **settings),
        sampling=LLMSettings(),
        clip=clip,
        llm=llm,
        images=image_set(clip, CLASSNAMES),
        classnames=CLASSNAMES,
        room=TextRoom.of(clip, CLASSNAMES),
        captions=(),
        seed=7,
    )


def test_every_reply_becomes_one_entry_scored_or_with_a_reason():
    record = Record("accuracy")
    reason = optimize(make_search(ScriptedLLM(SCRIPT)), record)
    assert reason == "all 3 steps done"
    assert [entry.id for entry in record.history] == list(range(10))
    assert [entry.step for entry in record.history] == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    reasons = {entry.text: entry.reason for entry in record.history.rejects()}
    assert str(reasons["a photo of a <CLASS>"]).startswith("duplicate")
    assert str(reasons["A DRAWING of a <CLASS>"]).startswith("duplicate")
    assert "no slot here" in reasons
    assert "a <CLASS> and a <CLASS>" in reasons
    assert all((entry.score is None) != (entry.reason is None) for entry in record.history)


def test_each_score_is_that_of_its_own_prompt_over_all_images():
    search, record = make_search(ScriptedLLM(SCRIPT)), Record("accuracy")
    optimize(search, record)
    for entry in record.history.scored():
        logits = PromptPredictor(search.clip, (Prompt(entry.text),)).logits(search.images, CLASSNAMES)
        assert score_of(entry).accuracy == pytest.approx(accuracy(logits, search.images.labels), abs=1e-6)


def test_scores_in_a_batch_equal_scores_one_by_one():
    search = make_search(ScriptedLLM([]))
    prompts = [Prompt(text) for text in ("a <CLASS>", "the old <CLASS> here", "one <CLASS>!")]
    together = score_prompts(search.clip, prompts, search.images, CLASSNAMES)
    alone = [score_prompts(search.clip, [prompt], search.images, CLASSNAMES)[0] for prompt in prompts]
    assert together == alone


def test_the_meta_prompt_shows_the_best_prompts_and_the_parent_is_the_best_shown():
    llm, record = ScriptedLLM(SCRIPT), Record("accuracy")
    optimize(make_search(llm, history=1), record)
    for step in (1, 2, 3):
        before = [entry for entry in record.history.scored() if entry.step < step]
        best = max(before, key=lambda e: (score_of(e).accuracy, -score_of(e).loss, -e.id))
        content = llm.asked[step - 1][0][0].content
        assert best.text in content
        assert all(entry.text not in content for entry in before if entry.id != best.id)
        assert {e.parent for e in record.history if e.step == step} == {best.id}


def test_the_first_prompt_stays_among_those_shown_where_that_is_asked_for():
    for keep in (True, False):
        llm, record = ScriptedLLM(SCRIPT), Record("loss")
        optimize(make_search(llm, history=1, keep_first=keep, select="loss"), record)
        assert record.history.best().step > 0, "the first prompt is the best one, so nothing is tested"
        last = llm.asked[-1][0][0].content
        assert (f"text prompt: {record.history.entries[0].text}\n" in last) is keep
        assert last.count("text prompt:") == 1


def test_without_feedback_nothing_of_the_history_is_shown():
    llm, record = ScriptedLLM(SCRIPT), Record("accuracy")
    optimize(make_search(llm, history=0), record)
    assert len({messages[0].content for messages, _ in llm.asked}) == 1
    assert {entry.parent for entry in record.history} == {None}


def test_step_seeds_differ_and_do_not_depend_on_earlier_steps():
    llm = ScriptedLLM(SCRIPT)
    optimize(make_search(llm), Record("accuracy"))
    assert [seed for _, seed in llm.asked] == [step_seed(7, step) for step in (1, 2, 3)]
    assert len({step_seed(seed, step) for seed in range(3) for step in range(100)}) == 300


def test_the_same_seed_gives_the_same_history_file_byte_for_byte(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        optimize(make_search(ScriptedLLM(SCRIPT)), Record("accuracy", tmp_path / name))
    assert (tmp_path / "one/history.jsonl").read_bytes() == (tmp_path / "two/history.jsonl").read_bytes()


@pytest.mark.parametrize("killed_after", ["reply", "half the history", "step"])
def test_a_killed_run_goes_on_to_the_same_history(tmp_path, killed_after):
    (tmp_path / "whole").mkdir()
    optimize(make_search(ScriptedLLM(SCRIPT)), Record("accuracy", tmp_path / "whole"))
    broken = tmp_path / "broken"
    broken.mkdir()
    llm = ScriptedLLM(SCRIPT)
    stop_after_two_steps(make_search(llm), Record("accuracy", broken))
    cut_history(broken / "history.jsonl", {"reply": 3, "half the history": 1, "step": 0}[killed_after])
    record = Record.resume("accuracy", broken, SearchSettings().first_prompts)
    optimize(make_search(llm), record)
    assert len(llm.asked) == 3, "a logged reply was asked for again"
    assert (broken / "history.jsonl").read_bytes() == (tmp_path / "whole/history.jsonl").read_bytes()


def stop_after_two_steps(search: Search, record: Record) -> None:
    def watch(state: Record) -> None:
        if state.last_step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize(search, record, watch)


def cut_history(path: Path, lines: int) -> None:
    if lines:
        kept = path.read_text().splitlines(keepends=True)[:-lines]
        path.write_text("".join(kept) + '{"id": 99, "st')


@pytest.mark.parametrize(
    ("limit", "steps", "words"),
    [
        ({"max_proposals": 4}, 2, "proposals"),
        ({"max_tokens": 45}, 1, "tokens"),
        ({"max_minutes": 1e-9}, 1, "minutes"),
        ({"max_tokens": 46}, 2, "tokens"),
    ],
)
def test_limits_stop_the_run_between_steps(limit, steps, words):
    record = Record("accuracy")
    reason = optimize(make_search(ScriptedLLM(SCRIPT), **limit), record)
    assert words in reason
    assert record.last_step == steps


@pytest.mark.parametrize(
    ("limit", "steps"), [({"max_tokens": 146}, 2), ({"max_tokens": 100}, 0), ({"max_cost": 1e-9}, 0)]
)
def test_what_captions_took_counts_towards_the_limits_and_again_after_a_resume(tmp_path, limit, steps):
    captions = Spent("openai:gpt-4o", 90, 10)
    record = Record("accuracy", tmp_path, captions)
    search = make_search(ScriptedLLM(SCRIPT), **limit)
    reason = optimize(search, record)
    assert record.last_step == steps
    assert record.usage().tokens == 100 + steps * 45
    again = Record.resume("accuracy", tmp_path, search.settings.first_prompts, captions)
    assert optimize(search, again) == reason
    assert again.last_step == steps


def test_the_cost_is_that_of_the_llm_and_of_the_captions():
    captions = Spent("openai:gpt-4o", 10**6, 10**6)
    own, paid = (cost(name, 10**6, 10**6) for name in ("gpt-4o-mini", "gpt-4o"))
    assert own is not None
    assert paid is not None
    usage = Usage(prompt_tokens=10**6, completion_tokens=10**6)
    assert total_cost("openai:gpt-4o-mini", usage) == own
    assert total_cost("openai:gpt-4o-mini", replace(usage, captions=captions)) == pytest.approx(own + paid)
    assert total_cost("a model here", usage) is None
    assert total_cost("a model here", replace(usage, captions=captions)) == paid
    assert total_cost("openai:unknown", replace(usage, captions=captions)) is None
    assert total_cost("openai:gpt-4o-mini", replace(usage, captions=replace(captions, model="openai:x"))) is None


def test_a_first_prompt_that_nearly_repeats_another_is_a_reject_and_not_in_the_ensemble(tmp_path):
    first = ("a photo of a <CLASS>.", "a sketch of a <CLASS>.", "A photo  of a <CLASS>", "a sketch of a <CLASS>")
    search = make_search(ScriptedLLM(SCRIPT), first_prompts=first)
    record = Record("accuracy", tmp_path)
    optimize(search, record)
    begin = record.history.entries[:4]
    assert [(entry.text, entry.reason) for entry in begin] == list(zip(first, [None, None, "duplicate", "duplicate"]))
    alone = score_prompts(search.clip, [Prompt(text) for text in first[:2]], search.images, CLASSNAMES)
    assert [entry.score for entry in begin[:2]] == alone
    members, _ = greedy_ensemble(record.history, search.clip, search.images, CLASSNAMES, most=9)
    assert len({Prompt(entry.text).key() for entry in members}) == len(members)
    assert Record.resume("accuracy", tmp_path, first).history.entries == record.history.entries


def test_patience_counts_the_steps_since_the_best_prompt():
    record = Record("accuracy")
    reason = optimize(make_search(ScriptedLLM([SCRIPT[0], ["bad"] * 3]), patience=1), record)
    assert "no better prompt" in reason
    assert record.last_step == record.history.best().step + 1


def test_a_step_in_which_every_reply_is_rejected_scores_nothing_and_goes_on():
    script = [["bad"] * 3, SCRIPT[0], SCRIPT[2]]
    record = Record("accuracy")
    optimize(make_search(ScriptedLLM(script)), record)
    assert [entry.score for entry in record.history if entry.step == 1] == [None] * 3
    assert record.last_step == 3


def test_the_ensemble_starts_with_the_best_and_never_scores_worse():
    search, record = make_search(ScriptedLLM(SCRIPT)), Record("accuracy")
    optimize(search, record)
    members, score = greedy_ensemble(record.history, search.clip, search.images, CLASSNAMES, most=3)
    best = record.history.best()
    assert members[0] == best
    assert len({entry.id for entry in members}) == len(members) <= 3
    assert record.history.rule(score) >= record.history.rule(score_of(best))
    predictor = PromptPredictor(search.clip, tuple(Prompt(entry.text) for entry in members))
    logits = predictor.logits(search.images, CLASSNAMES)
    assert isinstance(score, Score)
    assert score.accuracy == pytest.approx(accuracy(logits, search.images.labels), abs=1e-6)


def test_an_ensemble_of_one_is_its_prompt():
    search = make_search(ScriptedLLM([]))
    features = text_features(search.clip, [Prompt("a <CLASS>")], CLASSNAMES)[0]
    logits = PromptPredictor(search.clip, (Prompt("a <CLASS>"),)).logits(search.images, CLASSNAMES)
    assert (search.clip.logit_scale * search.images.features @ features.T - logits).abs().max() < 1e-5
