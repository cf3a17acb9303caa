"""Lipsum-FT (arXiv 2404.00860) and what it is compared with: FT, L2-SP, KD, CAR-FT and WiSE-FT.

All train the image tower and a head that starts from the prompt ensemble; they differ in what holds the tower back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveInt

from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Method
from ipo.screen import counted
from ipo.task import FewShotTask, TaskTexts

from . import regularisers
from .regularisers import MakeRegulariser
from .towers import TunedPredictor, first_classifier, interpolate
from .training import seeded_generator
from .tuning import Tuning, TuningOptions
from .zero_shot import EIGHTY, check_eighty, report_left_out, usable


class WeightedOptions(TuningOptions):
    """Hyper-parameters of methods with a penalty."""

    weight: NonNegativeFloat = 1.0
    """Factor on the penalty."""


class L2SpOptions(WeightedOptions):
    """Hyper-parameters of L2-SP."""

    weight: NonNegativeFloat = 0.01
    """Factor on half the squared distance; the papers tune it on each dataset."""


class LipsumOptions(WeightedOptions):
    """Hyper-parameters of Lipsum-FT."""

    texts: PositiveInt = 80
    """Random texts a step."""
    length: PositiveInt = 8
    """Random tokens a text."""


class WiseOptions(TuningOptions):
    """Hyper-parameters of WiSE-FT."""

    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the tuned weights in the result; the rest is the zero-shot model."""


def fit_tower(
    name: str, task: FewShotTask, options: TuningOptions, make: MakeRegulariser, run: FitRun, weight: float = 0.0
) -> Fitted:
    """Tune, mix with the zero-shot model where alpha is below 1, and measure how far the tower has moved."""
    model = first_classifier(task)
    start = copy.deepcopy(model) if options.alpha < 1 else None
    if options.checkpointing:
        model.recompute_activations()
    Tuning(task, options, model, make(task, model, weight)).run(run)
    if start is not None:
        interpolate(start, model, options.alpha)
    model.requires_grad_(False)
    prompts = usable(task.room, EIGHTY)
    report_left_out(run, prompts, EIGHTY)
    predictor = TunedPredictor(task.clip, model, task.classnames, options.images_at_once, options.workers, prompts)
    return Fitted({name: predictor}, model.state_dict(), movement(task, predictor))


def movement(task: FewShotTask, predictor: TunedPredictor) -> dict[str, float]:
    """How far features of the training shots moved: the energy gap, and the mean squared distance."""
    features, frozen = predictor.features(task.train), task.train.features
    texts = regularisers.random_texts(task.clip, seeded_generator(task.seed, "energy gap"))
    gap = regularisers.energy_gap(task.clip, features, frozen, texts)
    return {"energy_gap": float(gap), "feature_distortion": float((features - frozen).pow(2).sum(dim=-1).mean())}


def fit_ft(task: FewShotTask, options: TuningOptions, run: FitRun) -> Fitted:
    """Cross-entropy alone."""
    return fit_tower("ft", task, options, regularisers.no_penalty, run)


def fit_wise(task: FewShotTask, options: WiseOptions, run: FitRun) -> Fitted:
    """Cross-entropy alone, then a mix of the weights with the zero-shot model's."""
    return fit_tower("wise-ft", task, options, regularisers.no_penalty, run)


def fit_l2_sp(task: FewShotTask, options: L2SpOptions, run: FitRun) -> Fitted:
    """Weights are kept near their start."""
    return fit_tower("l2-sp", task, options, regularisers.weight_distance, run, options.weight)


def fit_kd(task: FewShotTask, options: WeightedOptions, run: FitRun) -> Fitted:
    """Class probabilities are kept near the zero-shot ones."""
    return fit_tower("kd", task, options, regularisers.distillation, run, options.weight)


def fit_car(task: FewShotTask, options: WeightedOptions, run: FitRun) -> Fitted:
    """Prompt probabilities are kept near the zero-shot ones."""
    return fit_tower("car-ft", task, options, regularisers.context_distillation, run, options.weight)


def fit_lipsum(task: FewShotTask, options: LipsumOptions, run: FitRun) -> Fitted:
    """Inner products with random texts are kept near the zero-shot ones."""
    make = partial(regularisers.text_guidance, texts=options.texts, length=options.length)
    return fit_tower("lipsum-ft", task, options, make, run, options.weight)


def check_lipsum(task: TaskTexts, options: LipsumOptions) -> None:
    """Raise `ConfigError` for random texts that are longer than the model reads, and as `check_eighty`."""
    clip = task.clip
    if options.length + clip.token_count("") > clip.context_length:
        raise ConfigError(
            f"random texts of {counted(options.length, 'token')}, and CLIP reads {clip.context_length}",
            remedy="Lower length",
        )
    check_eighty(task, options)


def published(dataset: str, _shots: int) -> Mapping[str, Any]:
    """Steps of the Lipsum-FT paper."""
    return {"steps": 50_000 if dataset == "imagenet" else 5_000}


LIPSUM_PAPER = "Robust Fine-Tuning of Zero-Shot Models Using Random Text Guidance, arXiv 2404.00860"

FT = Method(
    "ft",
    "image tower and head tuned",
    TuningOptions,
    fit_ft,
    LIPSUM_PAPER,
    published,
    check_eighty,
    uses=lambda *_: {"labels"},
)
L2_SP = Method(
    "l2-sp",
    "tuned, weights held near their start",
    L2SpOptions,
    fit_l2_sp,
    "Explicit Inductive Bias for Transfer Learning with Convolutional Networks, arXiv 1802.01483",
    published,
    check_eighty,
    uses=lambda *_: {"labels"},
)
KD = Method(
    "kd",
    "tuned, class probabilities held near the zero-shot ones",
    WeightedOptions,
    fit_kd,
    "Distilling the Knowledge in a Neural Network, arXiv 1503.02531",
    published,
    check_eighty,
    uses=lambda *_: {"labels"},
)
CAR_FT = Method(
    "car-ft",
    "tuned, prompt probabilities held near the zero-shot ones",
    WeightedOptions,
    fit_car,
    "Context-Aware Robust Fine-Tuning, arXiv 2211.16175",
    published,
    check_eighty,
    uses=lambda *_: {"labels"},
)
WISE_FT = Method(
    "wise-ft",
    "tuned, weights mixed with the zero-shot ones",
    WiseOptions,
    fit_wise,
    "Robust Fine-Tuning of Zero-Shot Models, arXiv 2109.01903",
    published,
    check_eighty,
    uses=lambda *_: {"labels"},
)
LIPSUM_FT = Method(
    "lipsum-ft",
    "tuned, inner products with random texts held near the zero-shot ones",
    LipsumOptions,
    fit_lipsum,
    LIPSUM_PAPER,
    published,
    check_lipsum,
    uses=lambda *_: {"labels"},
)
