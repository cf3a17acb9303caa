"""What finished runs of a search leave to learn from: which prompt was right on which training image.

Prompts are those of the histories; what each is worth on each image is computed anew from the task. Nothing of a test
image is read.
Shape legend: C classes, N images, P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ipo.data.uses import Use
from ipo.errors import RunError
from ipo.methods import FitRun
from ipo.prompt import Prompt, text_key
from ipo.runs.folder import read_run
from ipo.runs.result import read_result
from ipo.scoring import require_finite, text_features
from ipo.screen import counted
from ipo.search.history import History
from ipo.task import FewShotTask, TaskTexts

from .training import seeded_generator

HISTORY = "history.jsonl"
PROMPTS_AT_ONCE = 8


def require_run_of(folder: Path, task: TaskTexts) -> dict[str, Any]:
    """What a run recorded of itself. Raises `RunError` where its data, split or classes are not those of the task."""
    facts = read_run(folder)
    ours = {"split_hash": task.split_hash, "class_count": len(task.classnames)}
    others = [name for name, value in ours.items() if facts.get(name) != value]
    if others:
        what = (
            f"the run is of other data: {facts.get('dataset')}, where {' and '.join(others)} differ from {task.dataset}"
        )
        raise RunError(what, where=str(folder), remedy="Give runs of this dataset, split, domains and classes")
    return facts


def seen_by(folder: Path) -> set[Use]:
    """What the search of a run saw, which whoever learns from it has seen, too.

    A run of an earlier version does not tell: its language model may have been shown class names.
    """
    uses = read_result(folder).uses
    return {"labels", "llm_saw_class_names"} if uses is None else set(uses)


def history_prompts(folders: Sequence[Path]) -> list[Prompt]:
    """The scored prompts of runs in the order they came, each once; sets of prompts are not among them.

    Raises `RunError` where a run has no history.
    """
    found: dict[str, Prompt] = {}
    for folder in folders:
        if not (folder / HISTORY).is_file():
            raise RunError(f"{HISTORY} is missing", where=str(folder), remedy="Give runs of `ipo optimize`")
        for entry in History.read("accuracy", folder / HISTORY).scored():
            if entry.members is None:
                found.setdefault(text_key(entry.text), Prompt(entry.text))
    return list(found.values())


@dataclass(frozen=True)
class OfflineData:
    """Prompts, best first, and for each of N training images and P prompts whether it is right, and its loss."""

    prompts: tuple[Prompt, ...]
    correct: Tensor
    """Right or not (N, P)."""
    losses: Tensor
    """Cross-entropy of the true class in nats (N, P), float64."""

    @classmethod
    def of(cls, prompts: Sequence[Prompt], task: FewShotTask) -> OfflineData:
        """The table of some prompts on the training images, ordered by accuracy, then loss, then as they came."""
        images, labels = task.train, task.train.labels
        correct, losses = list[Tensor](), list[Tensor]()
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            for classifier in text_features(task.clip, prompts[start : start + PROMPTS_AT_ONCE], task.classnames):
                logits = (task.clip.logit_scale * images.features @ classifier.T).double()
                require_finite(logits, images, task.clip.fingerprint.name)
                correct.append(logits.argmax(dim=-1) == labels)
                losses.append(cross_entropy(logits, labels, reduction="none"))
        data = cls(tuple(prompts), torch.stack(correct, dim=1).cpu(), torch.stack(losses, dim=1).cpu())
        return data.only(data.order())

    def order(self) -> list[int]:
        """The places of the prompts, best first: by accuracy, then loss, then as they stand."""
        hits, means = self.correct.sum(dim=0).tolist(), self.losses.mean(dim=0).tolist()
        return sorted(range(len(self.prompts)), key=lambda place: (-hits[place], means[place]))

    def only(self, places: Sequence[int]) -> OfflineData:
        """Some of the prompts, in this order."""
        index = list(places)
        return OfflineData(tuple(self.prompts[i] for i in index), self.correct[:, index], self.losses[:, index])

    def of_images(self, kept: Tensor) -> OfflineData:
        """The same prompts, as they stand, on some of the images (N,) alone."""
        return OfflineData(self.prompts, self.correct[kept], self.losses[kept])

    def single(self) -> float:
        """Accuracy of the first prompt, the best single one."""
        return float(self.correct[:, 0].double().mean())

    def head_room(self) -> float:
        """Accuracy of whoever knows the best prompt for each image: no choice among these prompts does better."""
        return float(self.correct.any(dim=1).double().mean())

    def returns(self, folds: int) -> Tensor:
        """R (N, P) = 10 if right + 10 x accuracy of the prompt - its cross-entropy, rescaled to 0..100 over all.

        The accuracy is that on the images of the other folds, so that no image counts twice; with one fold, on all.
        """
        right = self.correct.double()
        fold = fold_of(len(right), folds)
        accuracy = torch.stack([right[fold != own].mean(dim=0) if folds > 1 else right.mean(dim=0) for own in fold])
        return rescaled(10 * right + 10 * accuracy - self.losses)


@dataclass(frozen=True)
class Lesson:
    """What a policy learns from: image features (N, D), and what prompts are worth on them, as returns (N, P) too."""

    features: Tensor
    data: OfflineData
    returns: Tensor

    @classmethod
    def of(cls, features: Tensor, data: OfflineData, folds: int) -> Lesson:
        """The lesson of some images; fewer images than folds are as many folds."""
        return cls(features, data, data.returns(min(folds, len(features))))

    def shuffled(self, seed: int) -> Lesson:
        """The control: each image has the returns of another, so that there is nothing to learn about images."""
        order = torch.randperm(len(self.features), generator=seeded_generator(seed, "shuffled"))
        return Lesson(self.features[order], self.data, self.returns)


def fold_of(images: int, folds: int) -> Tensor:
    """The fold (N,) of each image: in turn, so that the images of a class, which stand together, are dealt out."""
    return torch.arange(images) % folds


def rescaled(returns: Tensor) -> Tensor:
    """Returns with the least at 0 and the largest at 100; all 0 where they are equal."""
    low, high = returns.min(), returns.max()
    return torch.zeros_like(returns) if bool(low == high) else 100 * (returns - low) / (high - low)


def read_offline(folders: Sequence[Path], task: FewShotTask, run: FitRun) -> OfflineData:
    """The data that runs leave, with those prompts that CLIP can read with all class names that are tested.

    Says so where a run was shown other training images than the task has. Raises `RunError` where nothing is left.
    """
    for folder in folders:
        facts = require_run_of(folder, task)
        seed, images = facts.get("seed", 0), facts.get("training_images", 0)
        if (seed, images) != (task.seed, len(task.train)):
            run.report(f"{folder}: the search was shown others, {counted(images, 'training image')} of seed {seed}")
    prompts = history_prompts(folders)
    fitting = task.room.fitting(prompts)
    if not fitting:
        raise RunError("no scored prompt that CLIP can read", where=str(folders[0]), remedy="Give other runs")
    return OfflineData.of(fitting, task)
