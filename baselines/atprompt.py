"""ATPrompt: Advancing Textual Prompt Learning with Anchored Attributes (arXiv 2412.09442), on CoOp and on CoCoOp.

Attribute words, each with learned vectors before it, stand in front of the context, for every class alike. Without an
attribute the fit is that of CoOp or CoCoOp. CoCoOp's net shifts the context alone, as in the reference code.
Shape legend: A vectors before an attribute, W token embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt, field_validator
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Method
from ipo.scoring import Predictor
from ipo.task import FewShotTask, TaskTexts

from . import cocoop, coop
from .contexts import RANDOM, ContextOptions, Lead, check_words, require_context_fits
from .training import seeded_generator

DEVIATION = 0.01
"""Standard deviation of the vectors before an attribute at the start; that of a random context is 0.02."""

SEARCHED = {
    "imagenet": "color, shape",
    "caltech101": "shape, size",
    "oxford_pets": "playfulness, energy",
    "stanford_cars": "luxury",
    "oxford_flowers": "color, habitat, growth",
    "food101": "flavor, preparation",
    "fgvc_aircraft": "design, range",
    "sun397": "function",
    "dtd": "pattern, color, design",
    "eurosat": "habitat",
    "ucf101": "precision",
}
"""What the authors' search chose for each dataset out of five attributes that an LLM had named."""


class AttributeOptions(ContextOptions):
    """What stands in front of the context; and a context that starts as in the reference code."""

    random_vectors: ClassVar[int] = 2

    attributes: str = "color, shape"
    """Attribute words with commas between them, the same for all classes; an empty text for none."""
    n_attribute: PositiveInt = 2
    """Learned vectors before each attribute."""
    init: str = RANDOM
    """Words whose token embeddings the context starts from, or `random` for N(0, 0.02^2)."""
    n_ctx: PositiveInt | None = None
    """Context vectors; as many as `init` has tokens, or 2 for a random start."""

    @field_validator("attributes")
    @classmethod
    def _are_words(cls, attributes: str) -> str:
        for word in attributes.split(",") if attributes.strip() else ():
            check_words(word)
        return attributes

    @property
    def words(self) -> tuple[str, ...]:
        """The attributes, in order."""
        return tuple(word.strip() for word in self.attributes.split(",")) if self.attributes.strip() else ()


class CoOpOptions(AttributeOptions, coop.CoOpOptions):
    """Hyper-parameters of ATPrompt on CoOp."""

    epochs: PositiveInt = 100
    """Passes over the training shots."""


class CoCoOpOptions(AttributeOptions, cocoop.CoCoOpOptions):
    """Hyper-parameters of ATPrompt on CoCoOp."""

    epochs: PositiveInt = 10
    """Passes over the training shots."""
    batch: PositiveInt = 1
    """Images a step."""


def first_lead(clip: ClipModel, options: AttributeOptions, seed: int) -> Lead:
    """The attributes' embeddings with the vectors before each as they are at the start, drawn for each by itself."""
    dtype, learned, words = clip.vocabulary()[1].dtype, [], []
    for index, attribute in enumerate(options.words):
        words.append(embedded(clip, attribute))
        start = torch.randn(options.n_attribute, clip.width, generator=seeded_generator(seed, "attribute", index))
        learned.append((DEVIATION * start).to(clip.device, dtype).requires_grad_())
    return Lead(tuple(learned), tuple(words))


def embedded(clip: ClipModel, attribute: str) -> Tensor:
    """Token embeddings of an attribute, of which it may have several. Raises `ConfigError` for one without a token."""
    words = clip.embed_words(attribute).detach()
    if not len(words):
        raise ConfigError(f"the attribute '{attribute}' has no token for this model", remedy="Name another one")
    return words


def check_on_coop(task: TaskTexts, options: CoOpOptions) -> None:
    """Raise `ConfigError` for attributes and a context that do not fit around the class names."""
    lead = first_lead(task.clip, options, task.seed)
    require_context_fits(task, options, options.position, options.class_specific, len(lead))


def check_on_cocoop(task: TaskTexts, options: CoCoOpOptions) -> None:
    """The same for CoCoOp, whose class names stand at the end."""
    require_context_fits(task, options, lead=len(first_lead(task.clip, options, task.seed)))


def fit_on_coop(task: FewShotTask, options: CoOpOptions, run: FitRun) -> Fitted:
    """Learn the context and the vectors before each attribute."""
    return _named(coop.learn("atprompt", task, options, run, first_lead(task.clip, options, task.seed)), options)


def fit_on_cocoop(task: FewShotTask, options: CoCoOpOptions, run: FitRun) -> Fitted:
    """Learn the context, the vectors before each attribute, and the net that shifts the context."""
    return _named(
        cocoop.learn("atprompt-cocoop", task, options, run, first_lead(task.clip, options, task.seed)), options
    )


def _named(fitted: Fitted, options: AttributeOptions) -> Fitted:
    """What was learned, with the attributes that it stands between."""
    return replace(fitted, figures={**fitted.figures, "attributes": list(options.words)})


def restore(
    clip: ClipModel, classnames: tuple[str, ...], options: CoOpOptions, learned: Mapping[str, Tensor]
) -> Mapping[str, Predictor]:
    """The predictor of a fit on CoOp by what it learned."""
    own = {name: value.to(clip.device) for name, value in learned.items()}
    words = tuple(embedded(clip, attribute) for attribute in options.words)
    lead = Lead(tuple(own[f"attribute.{index}"] for index in range(len(words))), words)
    names = classnames if options.class_specific else None
    return {"atprompt": coop.ContextPredictor(clip, own["context"], options.position, names, lead)}


def published(dataset: str, _shots: int) -> Mapping[str, Any]:
    """The attributes that were found for a dataset."""
    return {"attributes": SEARCHED[dataset]} if dataset in SEARCHED else {}


PAPER = "Advancing Textual Prompt Learning with Anchored Attributes, arXiv 2412.09442"
ON_COOP = Method(
    name="atprompt",
    summary="CoOp behind attribute words that have learned vectors of their own",
    options=CoOpOptions,
    fit=fit_on_coop,
    paper=PAPER,
    published=published,
    check=check_on_coop,
    restore=restore,
    uses=lambda *_: {"labels"},
)
ON_COCOOP = Method(
    name="atprompt-cocoop",
    summary="CoCoOp behind attribute words that have learned vectors of their own",
    options=CoCoOpOptions,
    fit=fit_on_cocoop,
    paper=PAPER,
    published=published,
    check=check_on_cocoop,
    uses=lambda *_: {"labels"},
)
