"""What the end of a run keeps for its report: what each image was taken for, and thumbnails."""

from __future__ import annotations

from collections.abc import Mapping

from ipo.methods import Fitted
from ipo.prompt import Prompt
from ipo.report.pictures import write_thumbnails
from ipo.runs.folder import RunFolder
from ipo.runs.predictions import gather, write_predictions
from ipo.scoring import PromptPredictor
from ipo.task import BaseToNew, BaseToNewResult, evaluate_base_to_new

HAND_CRAFTED = "hand-crafted"
"""The predictor that methods are measured by."""


def evaluate_hand_crafted(protocol: BaseToNew, fitted: Fitted) -> dict[str, BaseToNewResult]:
    """What the hand-crafted prompt does on the test sets, for a method that has not tested it itself.

    Nothing where that prompt is the method, or does not fit beside some class name.
    """
    prompt = Prompt(protocol.task.hand_crafted_prompt)
    if HAND_CRAFTED in fitted.predictors or fitted.prompts(fitted.headline) == [prompt.text]:
        return {}
    if protocol.task.train.metric == "map" or protocol.task.room.prompt_excess(prompt) is not None:
        return {}
    own = protocol.of_own_classes() if fitted.own_classes_only else protocol
    return {HAND_CRAFTED: evaluate_base_to_new(PromptPredictor(protocol.task.clip, (prompt,)), own)}


def keep_predictions(
    folder: RunFolder, protocol: BaseToNew, results: Mapping[str, BaseToNewResult], headline: str, pictures: int
) -> None:
    """Write what every image was taken for, and at most so many `pictures` of a kind; nothing for several labels."""
    if any(evaluation.metric == "map" for one in results.values() for evaluation in one.by_test_set().values()):
        return  # with several labels an image is not taken for one class
    before = HAND_CRAFTED if HAND_CRAFTED in results else ""
    told = protocol.task.hand_crafted_prompt if before else ""
    predictions = gather(protocol, results, before, told)
    write_predictions(folder, predictions)
    write_thumbnails(folder, protocol.source.root, predictions, headline, pictures)
