"""The verdict on a search: which prompts are compared, and what the sentences say of better, worse and neither."""

import pytest

from ipo.comparison.verdict import compare_best, verdict
from ipo.runs.result import Result

IMAGES = [f"{number}.png" for number in range(100)]
PLAIN, OTHER, BEST = "a photo of a <CLASS>.", "a photo of a <CLASS>, a type of food.", "a sketch of a <CLASS>."


def bits(right):
    return "1" * right + "0" * (100 - right)


def answered(**right):
    """`correct.json` and the predictors of a run whose predictors got so many of 100 test images right."""
    texts = {"first": PLAIN, "hand_crafted": OTHER, "ipo": BEST}
    names = {name: name.replace("_", "-") for name in right}
    correct = {"images": {"base": IMAGES, "new": None}} | {
        names[name]: {"base": bits(count), "new": None} for name, count in right.items()
    }
    figures = {"accuracy": 0.5, "low": 0.1, "high": 0.9, "n": 100}
    predictors = {names[name]: {"prompts": [texts[name]], "base": figures} for name in right}
    return correct, predictors


def result(predictors, targets=(), **more):
    content = {
        "method": "ipo", "headline": "ipo", "dataset": "photos", "seed": 1, "shots": 1, "classes": "all",
        "model": "mini", "seconds": 1.0, "cost": None, "predictors": predictors, "targets": list(targets), **more,
    }  # fmt: skip
    return Result.model_validate(content)


def compared(correct, predictors):
    return compare_best(correct, result(predictors))


def judged(correct, predictors, step=3, targets=()):
    comparisons = compare_best(correct, result(predictors, targets))
    text = predictors["ipo"]["prompts"][0]
    best = {"text": text, "step": step, "score": {"accuracy": 0.5, "loss": 1.0}}
    found = [comparison.model_dump() for comparison in comparisons]
    return verdict(result(predictors, targets, best=best, comparisons=found))


def test_the_best_prompt_is_measured_against_the_first_and_the_hand_crafted_one():
    sentences = judged(*answered(first=60, hand_crafted=79, ipo=80))
    assert len(sentences) == 2
    better = f'On 100 test images "{BEST}" does better than "{PLAIN}", beyond chance: +20.0 points, 95% interval [+'
    assert sentences[0].startswith(better)
    assert f'"{BEST}" and "{OTHER}" differ by no more than chance explains: +1.0 points' in sentences[1]


def test_a_worse_prompt_is_called_worse():
    (sentence,) = judged(*answered(first=80, ipo=60))
    assert f'"{BEST}" does worse than "{PLAIN}", beyond chance: -20.0 points' in sentence


def test_the_interval_is_that_of_pairs_and_the_same_every_time():
    one, two = (compared(*answered(first=60, ipo=64)) for _ in range(2))
    assert one == two
    difference = one[0].differences["base"]
    # four images of a hundred tell the two apart: as pairs no resampling can make it less than nothing
    assert 0 <= difference.low < difference.value < difference.high < 0.1


def test_prompts_that_say_the_same_are_one_reference():
    correct, predictors = answered(first=60, hand_crafted=60, ipo=80)
    predictors["hand-crafted"]["prompts"] = ["A photo of a  <CLASS>"]
    assert [found.prompt for found in compared(correct, predictors)] == [PLAIN]


@pytest.mark.parametrize("hand_crafted", [PLAIN, OTHER])
def test_a_search_that_ends_where_it_began_says_so(hand_crafted):
    correct, predictors = answered(first=60, hand_crafted=55, ipo=60)
    predictors["ipo"]["prompts"], predictors["hand-crafted"]["prompts"] = [PLAIN], [hand_crafted]
    sentences = judged(correct, predictors, step=0)
    assert sentences[0] == f'No proposal was better on the training images than "{PLAIN}".'
    assert len(sentences) == (1 if hand_crafted == PLAIN else 2)


def test_halves_are_judged_by_their_harmonic_mean():
    correct, predictors = answered(first=60, ipo=80)
    for name in ("first", "ipo"):
        correct[name]["new"] = correct[name]["base"]
    correct["images"]["new"] = IMAGES
    (sentence,) = judged(correct, predictors)
    assert sentence.startswith("On the test images of base and new classes (H)")
    assert "beyond chance: +20.0 points" in sentence


def test_another_domain_has_a_sentence_of_its_own():
    correct, predictors = answered(first=60, ipo=80)
    correct["images"]["looks@photo"] = IMAGES
    for name in ("first", "ipo"):
        predictors[name]["targets"] = {"looks@photo": predictors[name]["base"]}
    correct["first"]["looks@photo"], correct["ipo"]["looks@photo"] = bits(70), bits(69)
    sentences = judged(correct, predictors, targets=["looks@photo"])
    assert sentences[1].startswith("On 100 images of looks@photo")
    assert "differ by no more than chance explains: -1.0 points" in sentences[1]


def test_runs_of_earlier_versions_have_no_verdict():
    assert verdict(result(answered(first=60, ipo=80)[1])) == []
