"""A prompt of its own for each image: the predictor, and the router that chooses among the best prompts of a search.

Shape legend: C classes, D feature width, K prompts to choose among, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ipo.clip.base import ClipModel
from ipo.prompt import Prompt
from ipo.scoring import ImageSet, PromptPredictor

from .training import Step, StepResult

Choice = Callable[[Tensor], Sequence[Prompt]]
"""From image features (N, D) to the prompt of each image, which depends on no other image."""


@dataclass(frozen=True)
class RoutedPredictor:
    """CLIP's zero-shot classifier where each image has a prompt of its own; each distinct one is encoded once."""

    clip: ClipModel
    choose: Choice

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C): row i is that of the prompt of image i."""
        chosen = self.choose(images.features)
        logits = images.features.new_empty(len(images), len(classnames))
        for prompt in dict.fromkeys(chosen):
            rows = [row for row, one in enumerate(chosen) if one == prompt]
            own = ImageSet(tuple(images.items[row] for row in rows), images.features[rows])
            logits[rows] = PromptPredictor(self.clip, (prompt,)).logits(own, classnames).to(logits.dtype)
        return logits


def first_router(width: int, prompts: int) -> dict[str, Tensor]:
    """A linear map from features (D,) to scores (K,) that prefers nothing yet."""
    return {
        "weight": torch.zeros(prompts, width, requires_grad=True),
        "bias": torch.zeros(prompts, requires_grad=True),
    }


def scores(router: dict[str, Tensor], features: Tensor) -> Tensor:
    """Scores (N, K) of the prompts for image features (N, D)."""
    weight, bias = router["weight"], router["bias"]
    return nn.functional.linear(features.to(weight), weight, bias)


def routes(router: dict[str, Tensor], features: Tensor) -> Tensor:
    """The chosen prompt (N,) of each image; of equal ones the first, which is the better. In double precision, so
    that what stands beside an image changes nothing."""
    exact = {name: value.detach().double() for name, value in router.items()}
    return scores(exact, features.cpu()).argmax(dim=-1)


def routed(clip: ClipModel, router: dict[str, Tensor], prompts: Sequence[Prompt]) -> RoutedPredictor:
    """The predictor of a router."""
    return RoutedPredictor(clip, partial(_choose, router, tuple(prompts)))


def _choose(router: dict[str, Tensor], prompts: tuple[Prompt, ...], features: Tensor) -> list[Prompt]:
    return [prompts[place] for place in routes(router, features).tolist()]


def router_step(
    router: dict[str, Tensor], features: Tensor, returns: Tensor, correct: Tensor, largest_gradient: float
) -> Step:
    """Raises the expected return (in hundredths) of the softmax over prompts, on features (N, D) and returns (N, K)."""

    def step(indices: Tensor, _generator: torch.Generator) -> StepResult:
        """Gradient of one batch."""
        own = scores(router, features[indices])
        loss = -(own.softmax(dim=-1) * returns[indices].to(own) / 100).sum(dim=-1).mean()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(list(router.values()), largest_gradient)
        hits = correct[indices].gather(1, own.argmax(dim=-1, keepdim=True))
        return StepResult(loss.item(), int(hits.sum()))

    return step
