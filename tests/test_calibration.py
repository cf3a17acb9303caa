"""A temperature and thresholds that a second way finds too, and that do what they promise."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipo.data.types import Item
from ipo.predict.calibration import LEVEL, calibrate, class_thresholds, conformal_threshold, fit_temperature
from ipo.scoring import ImageSet


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).double()


def shots(labels):
    return ImageSet(
        tuple(Item(Path(f"{place}.png"), label) for place, label in enumerate(labels)), torch.zeros(len(labels), 1)
    )


def drawn(count, classes, scale, seed):
    """Logits whose softmax is the truth once they are divided by `scale`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator, dtype=torch.double)
    labels = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).flatten().tolist()
    return scale * logits, labels


def loss_at(logits, labels, temperature):
    """Cross-entropy under smoothed labels, written out in numpy."""
    values, count = np.asarray(logits) / temperature, len(labels)
    logs = (
        values
        - np.log(np.exp(values - values.max(1, keepdims=True)).sum(1, keepdims=True))
        - values.max(1, keepdims=True)
    )
    share = 1 / (count + 2)
    own = logs[np.arange(count), labels]
    return -((1 - share) * own + share * logs.mean(1)).mean()


@pytest.mark.parametrize(("scale", "seed"), [(1, 0), (7, 1), (0.2, 2), (40, 3)])
def test_the_temperature_is_the_one_that_a_grid_finds_and_that_made_the_logits(scale, seed):
    logits, labels = drawn(2000, 5, scale, seed)
    found = fit_temperature(logits, one_hot(labels, 5))
    grid = scale * np.exp(np.linspace(-1.5, 1.5, 601))
    best = grid[np.argmin([loss_at(logits, labels, one) for one in grid])]
    assert found == pytest.approx(best, rel=0.006)
    assert found == pytest.approx(scale, rel=0.15)


def test_shots_that_are_all_right_ask_for_no_certainty_and_hopeless_ones_for_none():
    right = fit_temperature(torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3]]).double(), one_hot([0, 1, 2], 3))
    assert 0.5 < (torch.tensor([3.0, 0, 0]) / right).softmax(dim=-1)[0] < 0.95
    wrong = fit_temperature(torch.tensor([[3.0, 0, 0], [0, 3, 0]]).double(), one_hot([1, 0], 3))
    assert (torch.tensor([3.0, 0, 0]) / wrong).softmax(dim=-1)[0] == pytest.approx(1 / 3, abs=0.01)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.05, 0.1, 0.3]))
def test_a_threshold_is_the_highest_that_turns_few_enough_shots_down(values, level):
    found = conformal_threshold(torch.tensor(values, dtype=torch.double), level)
    allowed = math.floor(level * (len(values) + 1))
    turned_down = lambda limit: sum(value < limit for value in values)  # noqa: E731
    candidates = [value for value in {*values} if turned_down(value) <= allowed - 1]
    assert found == (max(candidates) if allowed else 0.0)


def test_pictures_like_the_shots_are_turned_down_as_seldom_as_promised():
    generator = torch.Generator().manual_seed(0)
    for count in (9, 16, 40):
        values = torch.rand(4000, count + 1, generator=generator).double() ** 3
        share = np.mean([float(row[-1]) < conformal_threshold(row[:-1], LEVEL) for row in values])
        assert share <= LEVEL + 0.012, count


def test_each_class_has_a_threshold_of_its_own_where_one_cut_off_would_lose_a_class():
    generator = torch.Generator().manual_seed(0)
    sure, unsure = 0.9 + 0.1 * torch.rand(20, generator=generator), 0.3 + 0.1 * torch.rand(20, generator=generator)
    own = one_hot([0] * 20 + [1] * 20, 2).bool()
    probabilities = torch.zeros(40, 2, dtype=torch.double)
    probabilities[:20, 0], probabilities[20:, 1] = sure.double(), unsure.double()
    first, second = class_thresholds(probabilities, own).tolist()
    assert first > 0.9
    assert 0.3 < second < 0.4
    assert int((unsure >= second).sum()) >= 18
    assert int((unsure >= first).sum()) == 0


def test_few_shots_of_a_class_take_the_threshold_of_all():
    probabilities = torch.linspace(0.1, 1, 12, dtype=torch.double)[:, None].repeat(1, 3)
    own = one_hot([0, 1, 2] * 4, 3).bool()
    assert len(set(class_thresholds(probabilities, own).tolist())) == 1
    assert class_thresholds(probabilities, own)[0] == pytest.approx(0.1)
    assert class_thresholds(probabilities[:3], own[:3]).tolist() == [0, 0, 0]


def test_what_is_caught_is_what_removing_each_class_by_hand_catches():
    logits, labels = drawn(60, 4, 5, 4)
    found = calibrate(logits, shots(labels))
    kept = caught = 0
    for row, label in zip(logits.tolist(), labels, strict=True):
        values = np.array(row) / found.temperature
        for names in (list(range(4)), [name for name in range(4) if name != label]):
            shares = np.exp(values[names]) / np.exp(values[names]).sum()
            place = names[int(shares.argmax())]
            passes = shares.max() >= found.thresholds[place]
            kept, caught = kept + (passes and len(names) == 4), caught + (not passes and len(names) == 3)
    assert (found.kept, found.caught) == pytest.approx((kept / 60, caught / 60))


def test_one_class_and_several_labels_an_image():
    alone = calibrate(torch.ones(3, 1), shots([0, 0, 0]))
    assert (alone.kept, alone.caught) == (1, None)
    items = (Item(Path("a.png"), 0, labels=(0, 1)), Item(Path("b.png"), 1, labels=(1,)))
    both = calibrate(torch.tensor([[5.0, 5, 0], [0, 5, 0]]), ImageSet(items, torch.zeros(2, 1)))
    assert both.temperature > 0
    assert len(both.thresholds) == 3
