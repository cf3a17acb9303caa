"""From a finished history to its results: the single best prompt, and a small ensemble chosen greedily.

Shape legend: P prompts, C classes, D feature width.
"""

from __future__ import annotations

from ipo.clip.base import ClipModel
from ipo.prompt import AnyScore, HistoryEntry, Prompt
from ipo.scoring import ConfidenceImages, ImageSet, ensemble_classifier, score_classifier, text_features
from ipo.search.history import History

POOL = 20
"""The ensemble is chosen among so many best prompts."""


def greedy_ensemble(
    history: History, clip: ClipModel, images: ImageSet, classnames: tuple[str, ...], most: int
) -> tuple[list[HistoryEntry], AnyScore]:
    """The ensemble and its training score: from the best prompt on, add what improves the selection rule the most.

    Stops at `most` prompts or when no prompt of the pool improves the score; so the ensemble is never worse than the
    best prompt on the training shots. By images without labels it is the best prompts, as many as there may be: a mean
    of prompts is seldom as sure of itself as the best of them, though it may be right more often.
    """
    pool = [entry for entry in history.ranked() if entry.members is None][:POOL]
    if isinstance(images, ConfidenceImages):
        return _leading(pool[:most], clip, images, classnames)
    features = text_features(clip, [Prompt(entry.text) for entry in pool], classnames)  # (P, C, D)
    chosen = [0]
    score = score_classifier(clip, features[0], images)
    while len(chosen) < min(most, len(pool)):
        trials = {
            index: score_classifier(clip, ensemble_classifier(features[[*chosen, index]]), images)
            for index in range(len(pool))
            if index not in chosen
        }
        best = max(trials, key=lambda index: history.rule(trials[index]))
        if history.rule(trials[best]) <= history.rule(score):
            break
        chosen.append(best)
        score = trials[best]
    return [pool[index] for index in chosen], score


def _leading(
    best: list[HistoryEntry], clip: ClipModel, images: ImageSet, classnames: tuple[str, ...]
) -> tuple[list[HistoryEntry], AnyScore]:
    features = text_features(clip, [Prompt(entry.text) for entry in best], classnames)
    return best, score_classifier(clip, ensemble_classifier(features), images)
