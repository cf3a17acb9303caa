"""CLAP: a linear probe that is held near its zero-shot start, class by class (arXiv 2312.12730).

Each class has a multiplier on the squared distance of its weights from their start: the mean probability that the
zero-shot classifier gives to the class on its own training shots. It is computed once and fixed, as in the reference
code, so that nothing has to be validated: what zero-shot knows already may move less.
Shape legend: C classes, D feature width, N images.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import one_hot

from ipo.methods import FitRun, Fitted, Method
from ipo.task import FewShotTask

from .linear_probe import PAPER, ProbeOptions, check, cosine_logits, first_weights, fit_weights, fitted, restored, uses


class ClapOptions(ProbeOptions):
    """Hyper-parameters of CLAP: the ones that its authors use on every dataset."""

    weight: NonNegativeFloat = 1.0
    """Factor on the penalty; 0 is the linear probe."""


def multipliers(task: FewShotTask, start: Tensor) -> Tensor:
    """For each class (C,) the mean zero-shot probability of its own training images; 0 for one that has none."""
    probabilities = cosine_logits(task.clip, task.train.features, start).softmax(dim=-1)  # (N, C)
    own = one_hot(task.train.labels, len(start)).to(probabilities.dtype)
    return (probabilities * own).sum(dim=0) / own.sum(dim=0).clamp(min=1)


def class_penalty(weights: Tensor, start: Tensor, factors: Tensor) -> Tensor:
    """The mean over the classes of factor (C,) x squared distance of weights (C, D) from their start."""
    return (factors * (weights - start).pow(2).sum(dim=-1)).mean()


def fit(task: FewShotTask, options: ClapOptions, run: FitRun) -> Fitted:
    """Train the weights by cross-entropy and the penalty."""
    start = first_weights(task, options)
    factors = multipliers(task, start)
    weights = fit_weights(task, options, run, lambda now: options.weight * class_penalty(now, start, factors))
    moved = float(torch.linalg.vector_norm(weights - start, dim=-1).mean())
    figures = {"multipliers": [round(value, 6) for value in factors.tolist()], "mean_distance": moved}
    return fitted("clap", task, weights, figures)


METHOD = Method(
    name="clap",
    summary="a linear classifier held near the zero-shot one, class by class, without a validation set",
    options=ClapOptions,
    fit=fit,
    paper=PAPER,
    check=check,
    restore=restored("clap"),
    uses=uses,
)
