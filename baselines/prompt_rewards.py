"""What a prompt is worth to RLPrompt (arXiv 2205.12548): how far the true class is ahead on the training shots.

Shape legend: C classes, I images, N prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ipo import metrics
from ipo.clip.base import ClipModel
from ipo.prompt import Prompt
from ipo.scoring import ImageSet, require_finite, text_features
from ipo.task import FewShotTask

RIGHT, WRONG = 200.0, 180.0
"""What the gap counts for an image that is classified rightly, and for one that is not."""
SPREAD = 5.0
"""Factor on standardised rewards."""


def image_rewards(logits: Tensor, labels: Tensor) -> Tensor:
    """Rewards (I,) of logits (I, C): probability of the true class less the largest other, times 200 or 180.

    The rivals are all other classes by their index: one that ties with the true class is a rival, and the gap is 0.
    """
    shares = logits.softmax(dim=-1)
    own = shares.gather(1, labels[:, None])[:, 0]
    rival = shares.scatter(1, labels[:, None], 0.0).amax(dim=-1)
    gap = own - rival
    return gap * torch.where(gap > 0, RIGHT, WRONG)


def shaped(rewards: Tensor) -> Tensor:
    """Rewards (N,) of one step standardised among themselves, then times 5."""
    return SPREAD * (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-4)


@dataclass(frozen=True)
class Verdict:
    """What a prompt is worth: its reward on the training shots, and accuracy and loss by which it is chosen."""

    reward: float
    accuracy: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """The larger, the better."""
        return self.accuracy, -self.loss


UNREADABLE = Verdict(-WRONG, 0.0, math.inf)
"""Of a prompt that CLIP cannot read with every class name."""


@dataclass
class Judge:
    """Scores prompts, each once. One prompt is encoded at a time, so that its score depends on nothing else."""

    task: FewShotTask
    chosen_by: ImageSet
    known: dict[str, Verdict] = field(default_factory=dict)

    def __call__(self, prompt: Prompt) -> Verdict:
        """The verdict on a prompt."""
        if prompt.text not in self.known:
            self.known[prompt.text] = self._judge(prompt)
        return self.known[prompt.text]

    def _judge(self, prompt: Prompt) -> Verdict:
        if self.task.room.prompt_excess(prompt) is not None:
            return UNREADABLE
        clip, train = self.task.clip, self.task.train
        classifier = text_features(clip, [prompt], self.task.classnames)[0]
        logits = _logits(clip, classifier, train)
        reward = float(image_rewards(logits.double(), train.labels).mean())
        images = self.chosen_by
        judged = logits if images is train else _logits(clip, classifier, images)
        accuracy = metrics.count_right(judged, images.labels) / len(images)
        return Verdict(reward, accuracy, metrics.cross_entropy(judged, images.labels))


def _logits(clip: ClipModel, classifier: Tensor, images: ImageSet) -> Tensor:
    logits = clip.logit_scale * images.features @ classifier.T
    require_finite(logits, images, clip.fingerprint.name)
    return logits
