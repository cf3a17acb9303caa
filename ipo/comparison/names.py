"""What rows are called: as short as tells them apart, and never one name for two things."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ipo.comparison.trials import Trial
from ipo.prompt import METRIC_WORDS
from ipo.screen import printable

AVERAGE = "average"
"""What the rows over all datasets have in the place of a dataset."""

FIXED = ("shots", "model")
"""What every method's name tells where not all runs agree on it."""

ALL_CLASSES = "all"

_OF_THE_MODEL = ("precision", "preprocessing", "weights")
"""What is told besides where models of one name are not one model."""

_RESOURCES = {"texts_at_once", "images_at_once", "checkpointing", "workers", "search.controls", "captions.base_url"}
_RESOURCES |= {f"llm.{key}" for key in ("base_url", "concurrency", "device", "retries", "timeout")}
"""Options that say how something is computed and not what: they make no other method."""

_WIDEST = 32
"""Characters of the longest value that a name holds in full."""

Identity = tuple[str, str]


def name_places(trials: Sequence[Trial]) -> list[str]:
    """Each trial's dataset, by its content: one name for one dataset, whatever folder it lies in, and two for two.

    With a note, where only some of them have all classes at once instead of the base ones.
    """
    identities = identify(trials)
    first = dict(reversed([*zip(identities, trials, strict=True)]))
    by_name: dict[str, list[Identity]] = {}
    for identity in dict.fromkeys(identities):
        by_name.setdefault(first[identity].dataset, []).append(identity)
    labels: dict[Identity, str] = {}
    for name, same in by_name.items():
        told = {same[0]: name} if len(same) == 1 else _tell_apart(name, {one: first[one] for one in same})
        if set(told.values()) & set(labels.values()):
            told = _by_hash(name, same)
        labels |= told
    labels = {identity: f"{name} (dataset)" if name == AVERAGE else name for identity, name in labels.items()}
    mixed = len({trial.facts["classes"] for trial in trials}) > 1
    return [
        printable(labels[identity]) + (", all classes" if mixed and trial.facts["classes"] == ALL_CLASSES else "")
        for identity, trial in zip(identities, trials, strict=True)
    ]


def label_notes(trials: Sequence[Trial]) -> list[str]:
    """What the short names leave out, and what the runs differ in that is in no name."""
    labels = dict.fromkeys(label for label in name_methods(trials) if label.whole)
    lines = [f"{label.name}: {label.whole[1:-1]}." for label in labels]
    marked = [place for place in dict.fromkeys(name_places(trials)) if " #" in place]
    if marked:
        lines.append(f"{', '.join(marked)}: of one name, but with other images, classes or splits.")
    versions = sorted({trial.version for trial in trials} - {""})
    if len(versions) > 1:
        lines.append(f"The runs were made by different versions of ipo: {', '.join(versions)}.")
    return lines


def identify(trials: Sequence[Trial]) -> list[Identity]:
    """What each trial's dataset and split are known by: their content, and for drawn splits the content alone.

    Runs of earlier versions recorded no hash of the content. They are known by their split, or by the place of a
    dataset whose split each seed draws, and count to a newer run that has this in common with them.
    """
    known: dict[Identity, set[Identity]] = {}
    for trial in trials:
        if trial.data.content:
            known.setdefault(_earlier_identity(trial), set()).add((trial.data.content, trial.data.split))
    identities = []
    for trial in trials:
        earlier = _earlier_identity(trial)
        newer = known.get(earlier, set())
        alike = next(iter(newer)) if len(newer) == 1 else earlier
        identities.append((trial.data.content, trial.data.split) if trial.data.content else alike)
    return identities


def _earlier_identity(trial: Trial) -> Identity:
    return trial.dataset, trial.data.split or trial.data.spec


def _tell_apart(name: str, same: dict[Identity, Trial]) -> dict[Identity, str]:
    """Names for datasets of one name: the ends of their paths, or else the start of a hash of their content."""
    domains = name.partition("@")[1] + name.partition("@")[2]
    specs = [trial.data.spec for trial in same.values()]
    tails = path_ends([spec.partition(":")[2] or spec for spec in specs])
    if len(set(tails)) == len(same):
        return {identity: tail + domains for identity, tail in zip(same, tails, strict=True)}
    return _by_hash(name, list(same))


def _by_hash(name: str, same: Sequence[Identity]) -> dict[Identity, str]:
    hashes = [hashlib.sha256(repr(identity).encode()).hexdigest() for identity in same]
    length = next(n for n in range(4, 65) if len({text[:n] for text in hashes}) == len(same))
    return {identity: f"{name} #{text[:length]}" for identity, text in zip(same, hashes, strict=True)}


def path_ends(paths: Sequence[str]) -> list[str]:
    """The last parts of each path, as few as tell all of them apart."""
    parts = [path.rstrip("/").split("/") for path in paths]
    longest = max(map(len, parts))
    for count in range(1, longest + 1):
        tails = ["/".join(part[-count:]) for part in parts]
        if len(set(tails)) == len(set(paths)):
            return tails
    return list(paths)


def target_names(specs: Iterable[str]) -> dict[str, str]:
    """For each target the end of its path that tells it from the others; catalogue names stay as they are."""
    different = list(dict.fromkeys(specs))
    ends = path_ends([spec.partition(":")[2] or spec for spec in different]) if different else []
    alone = len(set(ends)) == len(different) and not {"base", "new", "H", *METRIC_WORDS.values()} & set(ends)
    return {spec: printable(end if alone else spec) for spec, end in zip(different, ends, strict=True)}


@dataclass(frozen=True)
class Label:
    """A method's name in tables, and all that tells it from others where the name is shorter than that."""

    name: str
    whole: str = ""


def name_methods(trials: Sequence[Trial]) -> list[Label]:
    """A name for each trial's method: the predictor's, with what tells it from others of that name.

    An option is told where it differs between runs on one dataset: published options differ between datasets, and
    that does not make another method. Of options that differ together, one is told, and all of them in `whole`.
    """
    common = [key for key in FIXED if _count(trials, (key,)) > 1]
    common += [key for key in _OF_THE_MODEL if _count(trials, ("model", key)) > _count(trials, ("model",))]
    places = name_places(trials)
    labels: dict[str, Callable[[Trial], Label]] = {}
    for predictor in dict.fromkeys(trial.predictor for trial in trials):
        own = [pair for pair in zip(trials, places, strict=True) if pair[0].predictor == predictor]
        labels[predictor] = _namer([trial for trial, _ in own], common, _telling_options(own))
    return [labels[trial.predictor](trial) for trial in trials]


def _namer(own: Sequence[Trial], common: Sequence[str], telling: Sequence[str]) -> Callable[[Trial], Label]:
    """What names the trials of one predictor."""
    told = [*common, *_enough(own, telling)]
    forms = {key: _short_forms(trial.facts.get(key) for trial in own) for key in told}
    heads = _short_keys(told)

    def name(trial: Trial) -> Label:
        values = {key: trial.facts.get(key) for key in (*common, *telling)}
        short = {heads[key]: forms[key][repr(values[key])] for key in told if values[key] is not None}
        whole = {key: printable(str(value)) for key, value in values.items() if value is not None}
        text = _in_brackets(trial.predictor, short)
        return Label(text, _in_brackets("", whole) if list(whole.values()) != list(short.values()) else "")

    return name


def _in_brackets(name: str, values: dict[str, str]) -> str:
    told = ", ".join(f"{key}={value}" for key, value in values.items())
    return f"{name} ({told})".strip() if told else name


def _count(trials: Iterable[Trial], keys: Sequence[str]) -> int:
    return len({_values(trial, keys) for trial in trials})


def _values(trial: Trial, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(repr(trial.facts.get(key)) for key in keys)


def _telling_options(own: Sequence[tuple[Trial, str]]) -> list[str]:
    """Options that differ between trials (of one predictor) in one place."""
    apart = {*FIXED, *_OF_THE_MODEL, *_RESOURCES, "classes"}
    keys = dict.fromkeys(key for trial, _ in own for key in trial.facts if key not in apart)
    places = dict.fromkeys(place for _, place in own)
    by_place = [[trial for trial, where in own if where == place] for place in places]
    return [key for key in keys if any(_count(group, (key,)) > 1 for group in by_place)]


def _enough(own: Sequence[Trial], keys: Sequence[str]) -> list[str]:
    """As few of the keys as tell apart what all of them do; those with long values go first."""
    kept = list(keys)
    for key in sorted(keys, key=lambda key: -max(len(str(trial.facts.get(key))) for trial in own)):
        rest = [other for other in kept if other != key]
        if _count(own, rest) == _count(own, kept):
            kept = rest
    return kept


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Dotted keys by their last word, where that is no other's."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)}


def _short_forms(values: Iterable[Any]) -> dict[str, str]:
    """A short text for each value, by its `repr`: itself, or the end of a path, or its beginning, or else a number."""
    texts = {repr(value): printable(str(value)) for value in values}
    shorteners: tuple[Callable[[str], str], ...] = (
        lambda text: text,
        lambda text: "…/" + text.rstrip("/").rpartition("/")[2] if "/" in text else text,
        lambda text: text[: _WIDEST - 1] + "…",
    )
    for shorten in shorteners:
        short = {key: text if len(text) <= _WIDEST else shorten(text) for key, text in texts.items()}
        if len(set(short.values())) == len(texts) and all(len(text) <= _WIDEST for text in short.values()):
            return short
    return {key: f"#{number}" for number, key in enumerate(texts, 1)}
