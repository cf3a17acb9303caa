import math

import pytest
import torch

from ipo import metrics
from ipo.errors import DataError


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(30, 7, generator=generator), torch.randint(0, 7, (30,), generator=generator)


def test_accuracy_counts_right_predictions(case):
    logits, labels = case
    right = sum(max(range(7), key=row.__getitem__) == label for row, label in zip(logits.tolist(), labels.tolist()))
    assert metrics.accuracy(logits, labels) == pytest.approx(right / 30)


def test_cross_entropy_is_the_mean_over_all_images_not_of_the_last_batch(case):
    logits, labels = case
    by_hand = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(logits.tolist(), labels.tolist())]
    assert metrics.cross_entropy(logits, labels) == pytest.approx(sum(by_hand) / 30, abs=1e-6)
    last_batch_only = sum(by_hand[-5:]) / 5
    assert metrics.cross_entropy(logits, labels) != pytest.approx(last_batch_only, abs=1e-3)


def test_margin_is_true_minus_best_other(case):
    logits, labels = case
    by_hand = [row[y] - max(v for i, v in enumerate(row) if i != y) for row, y in zip(logits.tolist(), labels.tolist())]
    assert metrics.margin(logits, labels) == pytest.approx(sum(by_hand) / 30, abs=1e-6)
    assert metrics.margin(torch.ones(2, 1), torch.zeros(2, dtype=torch.long)) == 0.0


def test_folds_let_classes_compete_inside_their_fold_only():
    logits = torch.tensor([[1.0, 9.0, 0.0, 0.0], [9.0, 1.0, 0.0, 2.0]])
    labels = torch.tensor([0, 1])
    inside = metrics.within_folds(logits, labels, folds=2)
    by_hand = [math.log(math.exp(1) + math.exp(0)) - 1, math.log(math.exp(1) + math.exp(2)) - 1]
    assert metrics.accuracy(inside, labels) == 0.5
    assert metrics.cross_entropy(inside, labels) == pytest.approx(sum(by_hand) / 2)


def test_one_fold_equals_the_plain_scores(case):
    logits, labels = case
    assert metrics.within_folds(logits, labels, folds=1).equal(logits.double())


def test_per_class_recall_averages_to_accuracy_when_classes_are_balanced():
    logits = torch.eye(3).repeat(4, 1)
    logits[0] = torch.tensor([0.0, 1.0, 0.0])
    labels = torch.arange(3).repeat(4)
    recalls = metrics.per_class_recall(logits, labels)
    assert recalls == [0.75, 1.0, 1.0]
    assert metrics.per_class_recall(logits, torch.zeros(12, dtype=torch.long))[2] is None


def test_harmonic_mean_against_published_rows():
    assert metrics.harmonic_mean(72.08, 66.71) == pytest.approx(69.29, abs=0.005)
    assert metrics.harmonic_mean(71.76, 77.00) == pytest.approx(74.29, abs=0.005)
    assert metrics.harmonic_mean(0.4, 0.4) == pytest.approx(0.4)
    assert metrics.harmonic_mean(0.0, 0.0) == 0.0


def test_wilson_interval_solves_its_defining_equation():
    low, high = metrics.wilson_interval(0.3, 40)
    for bound in (low, high):
        assert abs(0.3 - bound) == pytest.approx(metrics.Z95 * math.sqrt(bound * (1 - bound) / 40))
    assert metrics.wilson_interval(1.0, 10)[1] == pytest.approx(1.0)
    assert metrics.wilson_interval(0.0, 0) == (0.0, 1.0)


def test_mean_and_spread_is_the_population_deviation():
    assert metrics.mean_and_spread([1.0, 2.0, 3.0]) == pytest.approx((2.0, math.sqrt(2 / 3)))


@pytest.mark.parametrize(("base", "new"), [(0.65, 0.61), (0.9, 0.3), (0.2, 0.85)])
def test_interval_of_h_is_that_of_resampled_accuracies(base, new):
    counts = (400, 250)
    generator = torch.Generator().manual_seed(1)
    drawn = [
        torch.binomial(torch.full((20000,), float(count)), torch.full((20000,), share), generator=generator) / count
        for share, count in zip((base, new), counts, strict=True)
    ]
    resampled = 2 * drawn[0] * drawn[1] / (drawn[0] + drawn[1])
    intervals = [(share, *metrics.wilson_interval(share, count)) for share, count in zip((base, new), counts)]
    low, high = metrics.harmonic_interval(*intervals)
    assert low == pytest.approx(float(resampled.quantile(0.025)), abs=0.008)
    assert high == pytest.approx(float(resampled.quantile(0.975)), abs=0.008)


def test_interval_of_h_at_the_ends():
    nothing, all_right = (0.0, *metrics.wilson_interval(0.0, 10)), (1.0, *metrics.wilson_interval(1.0, 10))
    low, high = metrics.harmonic_interval(all_right, all_right)
    assert low < 0.85
    assert high == 1
    assert metrics.harmonic_interval(nothing, nothing) == (0.0, nothing[2])


def test_an_accuracy_over_no_images_is_an_error_and_no_nan():
    with pytest.raises(DataError, match="no images"):
        metrics.accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
