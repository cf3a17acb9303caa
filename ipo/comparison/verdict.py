"""What a search found, in a sentence: its best prompt against the plain ones, on the same test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipo.comparison.names import target_names
from ipo.comparison.paired import paired_differences
from ipo.comparison.trials import ENSEMBLE
from ipo.config import MetricName
from ipo.metrics import Z95, harmonic_mean, mean_and_spread
from ipo.prompt import text_key
from ipo.runs.result import Comparison, Difference, Draws, Result
from ipo.screen import counted

REFERENCES = ("photo", "first", "hand-crafted")
"""The predictors of a search that its best prompt is measured against, where they are there."""
_MAIN = ("H", "base")
_POINTS: Mapping[MetricName, str] = {"accuracy": "points", "map": "points of mAP"}


@dataclass(frozen=True)
class Answers:
    """Whether one prompt was right on each test image: one character an image, for each test set."""

    seed: int
    correct: Mapping[str, str]
    images: Mapping[str, tuple[str, ...]]
    test_hashes: Mapping[str, str]


def compare_best(correct: Mapping[str, Any], result: Result) -> list[Comparison]:
    """The best prompt's paired differences to each plain prompt of a search, from the content of `correct.json`.

    Prompts that say the same are one.
    """
    images = {split: tuple(paths) for split, paths in correct["images"].items() if paths}

    def answers(name: str) -> Answers:
        return Answers(result.seed, {split: bits for split, bits in correct[name].items() if bits}, images, {})

    def differences(other: str) -> dict[str, Difference]:
        found = paired_differences([answers(result.headline)], [answers(other)])
        return {split: Difference(value=d.value, low=d.low, high=d.high) for split, d in found.items()}

    return _comparisons(result, differences)


Resamplings = Mapping[str, Mapping[str, tuple[float, Sequence[float]]]]
"""For each predictor, on each test set: its mean average precision, and that on resamplings, the same ones for all."""


def compare_best_map(figures: Resamplings, result: Result) -> list[Comparison]:
    """`compare_best` by mean average precision: the 95% interval is by the standard error over the resamplings."""

    def differences(other: str) -> dict[str, Difference]:
        ours, theirs = figures[result.headline], figures[other]
        found = {split: (ours[split], theirs[split]) for split in ours}
        if {"base", "new"} <= ours.keys():
            found["H"] = (_harmonic(ours), _harmonic(theirs))
        return {split: _map_difference(*pair) for split, pair in found.items()}

    return _comparisons(result, differences)


def _harmonic(figures: Mapping[str, tuple[float, Sequence[float]]]) -> tuple[float, list[float]]:
    (base, bases), (new, news) = figures["base"], figures["new"]
    return harmonic_mean(base, new), [harmonic_mean(*pair) for pair in zip(bases, news, strict=True)]


def _map_difference(ours: tuple[float, Sequence[float]], theirs: tuple[float, Sequence[float]]) -> Difference:
    value = ours[0] - theirs[0]
    _, spread = mean_and_spread([one - other for one, other in zip(ours[1], theirs[1], strict=True)])
    return Difference(value=value, low=value - Z95 * spread, high=value + Z95 * spread)


def _comparisons(result: Result, differences: Callable[[str], dict[str, Difference]]) -> list[Comparison]:
    said = {text_key(_prompt(result, result.headline))}
    found: list[Comparison] = []
    for name in REFERENCES:
        text = _prompt(result, name)
        if text and text_key(text) not in said:
            said.add(text_key(text))
            found.append(Comparison(prompt=text, differences=differences(name)))
    return found


def _prompt(result: Result, name: str) -> str:
    """The prompt of a predictor; empty where there is none, or a set of them."""
    predictor = result.predictors.get(name)
    prompts = (predictor and predictor.prompts) or ()
    return prompts[0] if len(prompts) == 1 else ""


def verdict(result: Result) -> list[str]:
    """The verdict on a search in sentences, and where anything stands among what was drawn by chance."""
    return [*_on_search(result), *(f"{sentence}." for draws in result.draws.values() for sentence in _places(draws))]


def _places(draws: Draws) -> Iterator[str]:
    """`Among 100 random draws of 3 of the 80 prompts, the ensemble stands at percentile 83 on the test images`."""
    name = "the ensemble" if draws.beside.endswith(ENSEMBLE) else draws.beside
    main = draws.sets.get("H") or draws.sets["base"]
    where = "base and new classes (H)" if "H" in draws.sets else "the test images"
    if main.percentile is not None:
        drawn = f"{counted(len(main.values), 'random draw')} of {draws.what}"
        yield f"Among {drawn}, {name} stands at percentile {main.percentile:.0f} on {where}"


def _on_search(result: Result) -> list[str]:
    """Nothing for other methods and runs of earlier versions."""
    if result.comparisons is None or result.best is None:
        return []
    found = list(_sentences(result.best.text, result))
    if result.best.step == 0:
        found.insert(0, f'No proposal was better on the training images than "{result.best.text}"')
    return [f"{sentence}." for sentence in found]


def _sentences(best: str, result: Result) -> Iterator[str]:
    comparisons = result.comparisons or []
    for comparison in comparisons:
        differences = comparison.differences
        main = next((name for name in _MAIN if name in differences), None)
        if main is not None:
            count = result.predictors[result.headline].base.n
            where = counted(count, "test image") if main == "base" else "the test images of base and new classes (H)"
            yield _sentence(where, best, comparison.prompt, differences[main], _POINTS[result.metric])
    for target, name in target_names(result.targets).items():
        for comparison in comparisons[:1]:
            if target in comparison.differences:
                where = f"{counted(result.predictors[result.headline].targets[target].n, 'image')} of {name}"
                yield _sentence(where, best, comparison.prompt, comparison.differences[target], _POINTS[result.metric])


def _sentence(where: str, best: str, other: str, difference: Difference, points: str) -> str:
    """`On 152 test images "X" does better than "Y", beyond chance: +12.5 points, 95% interval [+6.1, +18.9]`."""
    value, low, high = (100 * share for share in (difference.value, difference.low, difference.high))
    figures = f"{value:+.1f} {points}, 95% interval [{low:+.1f}, {high:+.1f}]"
    if low <= 0 <= high:
        return f'On {where} "{best}" and "{other}" differ by no more than chance explains: {figures}'
    return f'On {where} "{best}" does {"better" if low > 0 else "worse"} than "{other}", beyond chance: {figures}'
