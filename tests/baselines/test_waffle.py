"""Random words that all classes share, and random sets of the 80: the controls by chance."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from ipo.errors import ConfigError, PromptError
from ipo.methods import FitRun, find_method
from ipo.prompt import PLAIN_PROMPT, Prompt
from ipo.scoring import PromptPredictor, text_features
from ipo.search.words import unfit_words
from ipo_baselines.random_sets import random_sets
from ipo_baselines.waffle import random_letters, random_words, waffle_prompts
from ipo_baselines.zero_shot import EIGHTY
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, TinyClip, tiny_task

QUIET = FitRun(report=lambda _: None)


def fit(name, task, **options):
    method = find_method(name)
    chosen = method.configure("tiny", task.shots, options)
    method.check(task, chosen)
    return method.fit(task, chosen, QUIET)


def test_15_pairs_of_words_and_letters_after_the_plain_prompt():
    prompts = [prompt.text for prompt in waffle_prompts(CLASSNAMES, 15, seed=1)]
    assert len(prompts) == 30
    assert all(text.startswith("a photo of a <CLASS>, which has ") and text.endswith(".") for text in prompts)
    assert len(set(prompts)) > 25
    assert waffle_prompts(CLASSNAMES, 15, seed=1) == waffle_prompts(CLASSNAMES, 15, seed=1)
    assert waffle_prompts(CLASSNAMES, 15, seed=2) != waffle_prompts(CLASSNAMES, 15, seed=1)


@pytest.mark.parametrize(
    ("names", "words", "length", "groups", "letters"),
    [
        (["cat", "dog"], 1, 3, 1, 4),
        (["ice bear", "polar owl"], 2, 4, 2, 3),
        (["red thing", "green", "blue stone"], 2, 5, 2, 3),
        (["a", "bb"], 1, 2, 1, 3),
    ],
)
def test_words_and_letters_are_as_many_and_as_long_as_those_of_class_names(names, words, length, groups, letters):
    for seed in range(30):
        found = random_words(names, random.Random(seed)).split()
        assert len(found) == words
        assert all(1 <= len(word) <= length for word in found)
        parts = random_letters(names, random.Random(seed)).split(", ")
        assert [len(part) for part in parts] == [letters] * groups


def test_no_word_is_cut_into_one_that_is_not_fit_to_be_read():
    words = {word for seed in range(3000) for word in random_words(["abc def"], random.Random(seed)).split()}
    assert len(words) > 500
    assert not [word for word in words if unfit_words(word)]


def test_without_pairs_it_is_zero_shot(task):
    fitted = fit("waffle", task, pairs=0)
    plain = PromptPredictor(task.clip, (Prompt(PLAIN_PROMPT),))
    for names in (CLASSNAMES, NEW_NAMES):
        got = fitted.predictors["waffle"].logits(task.train, names)
        assert torch.allclose(got, plain.logits(task.train, names))


def test_all_classes_share_the_junk_so_that_swapping_two_names_swaps_their_features(task):
    predictor = fit("waffle", task).predictors["waffle"]
    names = ["red thing", "green", "blue stone"]
    got = predictor.logits(task.train, names)
    other = predictor.logits(task.train, ["green", "red thing", "blue stone"])
    assert torch.allclose(got, other[:, [1, 0, 2]])
    assert not torch.allclose(got, other)


def test_it_is_the_mean_of_the_cosines_with_each_text(task):
    fitted = fit("waffle", task, pairs=3)
    rows = [
        sum(task.train.features @ task.clip.encode_texts([text.replace("<CLASS>", name)])[0] for text in texts) / 6
        for texts in [fitted.prompts("waffle")]
        for name in CLASSNAMES
    ]
    expected = task.clip.logit_scale * torch.stack(rows, dim=1)
    assert torch.allclose(fitted.predictors["waffle"].logits(task.train, CLASSNAMES), expected)


def test_repetitions_are_draws_of_their_own_and_the_first_is_the_method(task):
    fitted = fit("waffle", task, pairs=2, reps=3)
    each = list(fitted.draws["waffle"].logits(task.train, CLASSNAMES))
    assert len(each) == 3
    assert torch.allclose(each[0], fitted.predictors["waffle"].logits(task.train, CLASSNAMES))
    drawn, more = (fit("waffle", task, pairs=2, reps=reps).draws["waffle"] for reps in (3, 5))
    texts = [[[one.prompts[place].text for place in chosen] for chosen in one.sets] for one in (drawn, more)]
    assert texts[0] == texts[1][:3]
    assert len({text for own in texts[1] for text in own}) == 20


def test_prompts_too_long_for_a_class_name_are_left_out_and_refused_where_none_is_left(tmp_path):
    clip = TinyClip()
    clip.context_length = 11
    task = tiny_task(tmp_path, clip)
    with pytest.raises(PromptError, match="too long"):
        fit("waffle", task)


def test_80_of_the_80_are_their_mean(task):
    expected = fit("ensemble-80", task).predictors["ensemble-80"].logits(task.train, CLASSNAMES)
    fitted = fit("random-k", task, k=80, draws=2)
    for got in fitted.draws["random-k"].logits(task.train, CLASSNAMES):
        assert torch.allclose(got, expected)
    assert torch.allclose(fitted.predictors["random-k"].logits(task.train, CLASSNAMES), expected)


def test_each_draw_is_the_ensemble_of_its_prompts_taken_alone(task):
    fitted = fit("random-k", task, k=3, draws=5)
    draws = fitted.draws["random-k"]
    features = text_features(task.clip, EIGHTY, CLASSNAMES)
    for chosen, got in zip(draws.sets, draws.logits(task.train, CLASSNAMES), strict=True):
        mean = torch.nn.functional.normalize(features[list(chosen)].mean(dim=0), dim=-1)
        assert torch.allclose(got, task.clip.logit_scale * task.train.features @ mean.T)
    assert fitted.prompts("random-k") == [EIGHTY[index].text for index in draws.sets[0]]


def test_sets_are_drawn_without_repeats_and_by_the_seed():
    sets = random_sets(80, 4, 100, seed=1)
    assert len(sets) == 100
    assert all(len({*chosen}) == 4 and list(chosen) == sorted(chosen) and chosen[-1] < 80 for chosen in sets)
    assert len(set(sets)) > 95
    assert sets == random_sets(80, 4, 100, seed=1) != random_sets(80, 4, 100, seed=2)
    counts = torch.bincount(torch.tensor(random_sets(80, 40, 500, seed=3)).flatten(), minlength=80)
    assert 180 < int(counts.min()) < int(counts.max()) < 320


def test_more_than_there_are_cannot_be_drawn(task):
    with pytest.raises(ConfigError, match="k is 81, and of the 80 prompts 80 can be read"):
        fit("random-k", task, k=81)


def test_another_seed_draws_others(task):
    one, other = (fit(name, task).prompts(name) for name in ("waffle", "random-k"))
    moved = replace(task, seed=2)
    assert one != fit("waffle", moved).prompts("waffle")
    assert other != fit("random-k", moved).prompts("random-k")
