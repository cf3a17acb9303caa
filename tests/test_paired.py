"""The paired bootstrap: what it is on paper, and whether its 95% hold the truth 95 times in 100."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipo.comparison.paired import RESAMPLES, paired_differences
from ipo.metrics import harmonic_mean
from tests.test_compare import trial


def run_of(seed, images, correct):
    made = trial("method", seed=seed)
    bits = "".join("01"[int(hit)] for hit in correct)
    return replace(made, correct={"base": bits}, images={"base": tuple(map(str, images))}, base=float(np.mean(correct)))


def interval(ours, theirs, images, seed=0):
    """The interval over several seeds; `images` are the test images of each, their rows are its verdicts."""
    one, other = ([run_of(index, own, side[index][own]) for index, own in enumerate(images)] for side in (ours, theirs))
    return paired_differences(one, other, seed=seed, resamples=300)["base"]


def test_images_in_two_test_sets_have_one_weight():
    """With the same images in all seeds, and the same verdicts, more seeds say no more than one."""
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(200) < 0.7, rng.random(200) < 0.6
    images = np.arange(200)
    one = paired_differences([run_of(1, images, ours)], [run_of(1, images, theirs)])["base"]
    three = paired_differences(
        [run_of(seed, images, ours) for seed in (1, 2, 3)], [run_of(seed, images, theirs) for seed in (1, 2, 3)]
    )["base"]
    assert (three.value, three.low, three.high) == pytest.approx((one.value, one.low, one.high))
    shifted = [np.roll(images, 40 * seed)[:180] for seed in range(3)]
    overlapping = paired_differences(
        [run_of(seed, own, ours[own]) for seed, own in enumerate(shifted)],
        [run_of(seed, own, theirs[own]) for seed, own in enumerate(shifted)],
    )["base"]
    assert overlapping.high - overlapping.low == pytest.approx(one.high - one.low, rel=0.15)


def test_seeds_with_test_sets_of_their_own_narrow_the_interval():
    rng = np.random.default_rng(4)
    ours, theirs = rng.random(400) < 0.7, rng.random(400) < 0.6
    apart = [np.arange(400)[100 * seed : 100 * seed + 100] for seed in range(4)]
    whole = interval([ours], [theirs], [np.arange(400)])
    four = interval([ours] * 4, [theirs] * 4, apart)
    assert four.value == pytest.approx(whole.value)
    assert four.high - four.low == pytest.approx(whole.high - whole.low, rel=0.15)


def test_the_interval_of_drawn_test_sets_holds_the_truth_as_often_as_it_says():
    """Three seeds each test half of a pool, so images are shared; fits differ little, so verdicts on them agree.

    With a weight for each appearance of an image, 83 of 100 intervals hold the truth here.
    """
    rng = np.random.default_rng(5)
    held, repeats, pool = 0, 300, 160
    for repeat in range(repeats):
        theirs, ours = (rng.random((1, pool)) < share for share in (0.6, 0.7))
        changed = rng.random((3, pool)) < 0.1
        ours = np.where(changed, rng.random((3, pool)) < 0.7, ours)
        images = [rng.permutation(pool)[: pool // 2] for _ in range(3)]
        found = interval(ours, np.repeat(theirs, 3, axis=0), images, seed=repeat)
        held += found.low <= 0.1 <= found.high
    assert 0.915 <= held / repeats <= 0.985


def test_the_spread_over_fits_stands_beside_the_interval_over_images():
    images = np.arange(10)
    theirs = [run_of(seed, images, np.arange(10) < 5) for seed in (1, 2)]
    ours = [run_of(1, images, np.arange(10) < 6), run_of(2, images, np.arange(10) < 9)]
    found = paired_differences(ours, theirs)["base"]
    assert (found.value, found.spread) == pytest.approx((0.25, 0.15))
    assert paired_differences(ours[:1], theirs)["base"].spread is None


def test_h_is_that_of_the_means_and_its_spread_that_of_the_fits():
    ours, theirs = ([trial(name, seed=s, base=share) for s in (1, 2)] for name, share in (("a", 0.8), ("b", 0.7)))
    means = [[np.mean([getattr(t, half) for t in side]) for half in ("base", "new")] for side in (ours, theirs)]
    found = paired_differences(ours, theirs)["H"]
    assert found.value == pytest.approx(harmonic_mean(*means[0]) - harmonic_mean(*means[1]))
    fits = [harmonic_mean(o.base, o.new) - harmonic_mean(t.base, t.new) for o, t in zip(ours, theirs)]
    assert found.spread == pytest.approx(np.std(fits))


def test_a_resampling_without_an_image_of_some_seed_is_no_zero():
    """With one test image a seed, many resamplings miss some seed; it must not count as all wrong."""
    images = [np.array([index]) for index in range(3)]
    found = interval([np.ones(3, bool)] * 3, [np.zeros(3, bool)] * 3, images)
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)


def test_no_difference_between_pictures_that_were_changed_in_between():
    images = np.arange(10)
    ours, theirs = (replace(run_of(1, images, images < 5), test_hashes={"base": name}) for name in ("x", "y"))
    assert paired_differences([ours], [theirs]) == {}
    assert paired_differences([ours], [replace(theirs, test_hashes={"base": "x"})]).keys() == {"base"}
    assert paired_differences([ours], [replace(theirs, test_hashes={})]).keys() == {"base"}, "an older run"
    assert RESAMPLES == 2000
