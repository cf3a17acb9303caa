"""What a search found: the content of `result.json` and `correct.json`. The one place where test images are read."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from typing import Any

from ipo.clip.contents import content_hash, dataset_hash
from ipo.config import SearchSettings, Settings
from ipo.errors import PromptError
from ipo.evaluate import PromptPredictor
from ipo.history import History
from ipo.methods import FitRun, find_method
from ipo.prompt import HistoryEntry, Prompt
from ipo.protocols import BaseToNew, BaseToNewResult, FewShotTask, HeldOut, evaluate_base_to_new, verdicts
from ipo.select import POOL, greedy_ensemble

CONTROLS = ("select-80", "ensemble-80")
"""Methods without a search that stand beside an offline result, as its yardstick."""

Results = dict[str, tuple[list[str] | None, BaseToNewResult]]
"""For each predictor its evaluation, and its prompts where this run named them."""


def data_facts(protocol: BaseToNew) -> dict[str, Any]:
    """What a run records of its data beside its split: how many classes, and which content."""
    return {"class_count": len(protocol.task.classnames), "dataset_hash": dataset_hash(protocol.source)}


def test_hashes(protocol: BaseToNew) -> dict[str, str]:
    """For each test set, a hash of its class names and of the content of its images; they are read by then."""
    return {name: _content(held_out) for name, held_out in protocol.test_sets().items()}


def _content(held_out: HeldOut) -> str:
    names = "\n".join((*held_out.classnames, content_hash(held_out.images.items)))
    return hashlib.sha256(names.encode()).hexdigest()


def summarize(
    protocol: BaseToNew, settings: SearchSettings, history: History, controls: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of `result.json`, and each test image's verdict for `correct.json`."""
    task, started = protocol.task, time.monotonic()
    history, left_out = _testable(history, task)
    best = history.best()
    members, score = greedy_ensemble(history, task.clip, task.train, task.classnames, settings.ensemble)
    results = _evaluate(protocol, settings.first_prompts[0], best, members)
    if controls:
        results |= _evaluate_controls(protocol)
    figures = {
        "best": best.to_json(),
        **({"untestable": left_out} if left_out else {}),
        "ensemble": {"prompts": [entry.text for entry in members], "score": asdict(score)},
        "predictors": {name: result.to_json() | {"prompts": texts} for name, (texts, result) in results.items()},
        "per_class_gain": _gains(protocol, results),
        "evaluation_seconds": round(time.monotonic() - started, 1),
    }
    return figures, verdicts(protocol, {name: result for name, (_, result) in results.items()})


def with_controls(settings: Settings) -> bool:
    """Whether the best and the mean of 80 prompts are tested beside the result."""
    return settings.offline if settings.search.controls is None else settings.search.controls


def require_controls(task: FewShotTask, settings: Settings) -> None:
    """Raise `PromptError` where a control is asked for and all of its prompts are too long for some class name."""
    for name in CONTROLS if with_controls(settings) else ():
        method = find_method(name)
        method.check(task, method.configure(task.dataset, task.shots))


def _testable(history: History, task: FewShotTask) -> tuple[History, list[str]]:
    """The best prompts that can be tested, and the better ones that cannot.

    Of those there are none today. Runs of earlier versions may hold some, too long for a new or target name.
    """
    kept, left_out = history.empty(), []
    for entry in history.ranked():
        if _is_testable(entry, task):
            kept.append([entry])
        else:
            left_out.append(entry.text)
        if len(kept) == POOL:
            break
    return kept, left_out


def _is_testable(entry: HistoryEntry, task: FewShotTask) -> bool:
    try:
        return task.room.prompt_excess(Prompt(entry.text)) is None
    except PromptError:
        return False


def _evaluate(protocol: BaseToNew, first: str, best: HistoryEntry, members: list[HistoryEntry]) -> Results:
    """The prompts of the run on the test images."""
    prompts = {
        "first": [first],
        "hand-crafted": [protocol.task.hand_crafted_prompt],
        "ipo": [best.text],
        "ipo-ensemble": [entry.text for entry in members],
    }
    results: Results = {}
    for name, texts in prompts.items():
        predictor = PromptPredictor(protocol.task.clip, tuple(Prompt(text) for text in texts))
        results[name] = (texts, evaluate_base_to_new(predictor, protocol))
    return results


def _evaluate_controls(protocol: BaseToNew) -> Results:
    task, results = protocol.task, Results()
    for name in CONTROLS:
        method = find_method(name)
        fitted = method.fit(task, method.configure(task.dataset, task.shots), FitRun())
        evaluation = evaluate_base_to_new(fitted.predictors[fitted.headline], protocol)
        results[name] = (fitted.prompts(fitted.headline), evaluation)
    return results


def _gains(protocol: BaseToNew, results: Results) -> list[dict[str, Any]]:
    """Recall of each base class under the first and the best prompt, largest gain first."""
    first, best = results["first"][1].base.recall, results["ipo"][1].base.recall
    rows = [
        {"class": name, "first": before, "best": after, "gain": after - before}
        for name, before, after in zip(protocol.base.classnames, first, best, strict=True)
        if before is not None and after is not None
    ]
    return sorted(rows, key=lambda row: -row["gain"])
