"""SAP: Semantic Alignment for Prompt-Tuning in Vision-Language Models (arXiv 2405.07921), outside the towers.

A context is learned in front of texts of a class and one of its attributes, by the mean of their cosines, and kept near
where it started. With `fusion` the feature of an image is mixed with those of its patches that the attributes find.
The paper also learns prompts inside both towers; there the image side moves, here it is frozen, so that its loss that
keeps image features near their start is 0 and is left out.
Shape legend: A attributes, B images, C classes, D feature width, M context vectors, N images, P patches, W token
embedding width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.base import ClipModel
from ipo.descriptions import Descriptions, read_descriptions
from ipo.descriptions.clauses import clause
from ipo.methods import FitRun, Fitted, Method
from ipo.metrics import count_right
from ipo.progress import track
from ipo.scoring import ImageSet
from ipo.task import FewShotTask, PatchSource, TaskTexts

from .augment import TrainingFeatures
from .class_texts import DescriptionsOption
from .contexts import ContextOptions, chunk_size, first_context, require_context_fits
from .plot import source_of
from .reading import read_context
from .training import Step, StepResult, fit_by_sgd

TEMPLATE = "a photo of a"
"""The words whose texts the learned ones are kept near."""

_WITH_RELATION = re.compile(r"which (?:is|has)\b", re.IGNORECASE)

Similarity = Literal["raw", "cosine"]


class SAPOptions(ContextOptions, DescriptionsOption):
    """Hyper-parameters of SAP."""

    only_with = {**ContextOptions.only_with, "augment": ("fusion", False), "similarity": ("fusion", True)}

    epochs: PositiveInt = 20
    """Passes over the training shots."""
    batch: PositiveInt = 4
    """Images a step."""
    learning_rate: PositiveFloat = 0.0025
    """Rate of the first epoch after warm-up."""
    text_weight: NonNegativeFloat = 25.0
    """Factor on the mean distance of text features from where "a photo of a" has them."""
    fusion: bool = False
    """Mix the features of images with those of their patches; for models that have such."""
    similarity: Similarity = "raw"
    """What attributes and patches are compared by: `raw`, products of raw features, as published, or `cosine`,
    logit_scale x cosine, for models such as `mini` whose features have no length of their own."""
    pairs_at_once: PositiveInt = 8192
    """Pairs of an image and an attribute that a prediction compares together; bounds the memory, no more."""


def relative_clause(attribute: str) -> str:
    """An attribute as it follows a class name: as it stands with its relation, or what follows its comma."""
    text = attribute.strip().rstrip(".")
    if _WITH_RELATION.match(text):
        return text
    return text.partition(",")[2].strip() if "," in text else clause(text)


@dataclass(frozen=True)
class AttributeTexts:
    """The attributes of some classes in one row: as they stand, and behind the name of their class."""

    bare: tuple[str, ...]
    named: tuple[str, ...]
    counts: tuple[int, ...]
    """Attributes of each class."""

    def mean(self, features: Tensor) -> Tensor:
        """Class features (C, D), means over attributes (A, D): a product with them is the mean of the cosines."""
        return torch.stack([part.mean(dim=0) for part in torch.split(features, list(self.counts))])


@dataclass(frozen=True)
class Attributes:
    """The attributes of any classes; those that CLIP cannot read behind `vectors` context vectors are left out."""

    clip: ClipModel
    descriptions: Descriptions
    vectors: int

    def of(self, classnames: Sequence[str]) -> AttributeTexts:
        """The attributes of these classes; the name alone where a class has none. `DataError` for a lacking class."""
        bare, named, counts = list[str](), list[str](), list[int]()
        for name in classnames:
            rows = [(text, f"{name}, {relative_clause(text)}") for text in self.descriptions[name]]
            rows = [row for row in rows if self._fits(row[1])] or [(name, name)]
            bare += [text for text, _ in rows]
            named += [text for _, text in rows]
            counts.append(len(rows))
        return AttributeTexts(tuple(bare), tuple(named), tuple(counts))

    def _fits(self, text: str) -> bool:
        return self.vectors + self.clip.token_count(f"{text}.") <= self.clip.context_length


@dataclass(frozen=True)
class Fusion:
    """Features of images mixed with those of their patches that attributes find."""

    clip: ClipModel
    source: PatchSource
    bias: Tensor
    """(D), added to patches."""
    similarity: Similarity = "raw"
    pairs_at_once: int = 8192

    def attributes(self, texts: AttributeTexts) -> Tensor:
        """What images are compared with (A, D): raw features of bare attributes."""
        return self.clip.encode_texts(texts.bare, unit=False)

    def mix(self, tokens: Tensor, attributes: Tensor) -> Tensor:
        """Unit-length features (B, D) of raw ones (B, 1 + P, D) of images and patches, and raw attributes (A, D)."""
        whole, patches = tokens[:, 0], tokens[:, 1:] + self.bias
        relevance = self._compare(whole, attributes).softmax(dim=-1)  # (B, A): among the attributes of all classes
        attention = self._compare(patches, attributes).mT.softmax(dim=-1)  # (B, A, P)
        found = (relevance[:, None] @ attention @ patches).squeeze(1)  # (B, D)
        share = (relevance * attention.amax(dim=-1)).sum(dim=-1, keepdim=True)  # (B, 1)
        return normalize((1 - share) * whole + share * found, dim=-1)

    def _compare(self, seen: Tensor, attributes: Tensor) -> Tensor:
        """Similarities (..., A) of raw features (..., D)."""
        if self.similarity == "raw":
            return seen @ attributes.T
        return self.clip.logit_scale * normalize(seen, dim=-1) @ normalize(attributes, dim=-1).T

    def features(self, images: ImageSet, texts: AttributeTexts) -> Tensor:
        """Mixed features (N, D) of images, some at a time."""
        patches, attributes = self.source.load(images.items), self.attributes(texts)
        parts = torch.split(torch.arange(len(images)), chunk_size(self.pairs_at_once, len(texts.bare)))
        done = track(parts, "patches", len(parts))
        return torch.cat([self.mix(patches.take(part.tolist()).to(self.bias), attributes) for part in done])


@dataclass(frozen=True)
class AttributePredictor:
    """CLIP with a learned context (1, M, W) before class names with attributes, and fusion if any."""

    clip: ClipModel
    context: Tensor
    attributes: Attributes
    fusion: Fusion | None = None

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x mean cosine over the attributes of a class."""
        texts = self.attributes.of(classnames)
        with torch.no_grad():
            features = images.features if self.fusion is None else self.fusion.features(images, texts)
            return self.clip.logit_scale * features @ texts.mean(encoded(self.clip, self.context, texts)).T


def encoded(clip: ClipModel, context: Tensor, texts: AttributeTexts) -> Tensor:
    """Unit-length features (A, D) of a context (1, M, W) before class names with attributes, with gradient."""
    return clip.encode_embeddings(texts.named, context[None])[0]


def frozen_texts(clip: ClipModel, texts: AttributeTexts) -> Tensor:
    """Where "a photo of a" has these texts (A, D), by the same way as learned ones, so that they are equal to a bit."""
    return encoded(clip, clip.embed_words(TEMPLATE)[None].clone().requires_grad_(), texts).detach()


def attributes_of(task: TaskTexts, options: SAPOptions) -> Attributes:
    """The attributes in the file."""
    vectors = first_context(task.clip, options, task.seed).shape[1]
    return Attributes(task.clip, read_descriptions(options.descriptions, task.dataset), vectors)


def check(task: TaskTexts, options: SAPOptions) -> None:
    """Raise an `IpoError` for a context that does not fit, or a class that is tested and not in the file."""
    require_context_fits(task, options)
    attributes = attributes_of(task, options)
    task.room.require_of_names(lambda names: attributes.descriptions.require(names, may_be_empty=True))


def fit(task: FewShotTask, options: SAPOptions, run: FitRun) -> Fitted:
    """Learn the context, and with fusion the bias, on the training shots."""
    clip = task.clip
    parameters = {"context": first_context(clip, options, task.seed)}
    attributes, fusion = attributes_of(task, options), None
    if options.fusion:
        parameters["bias"] = torch.zeros_like(task.train.features[0]).requires_grad_()
        fusion = Fusion(clip, source_of(task), parameters["bias"], options.similarity, options.pairs_at_once)
    model = AttributePredictor(clip, parameters["context"], attributes, fusion)
    fit_by_sgd(parameters, _step(task, options, model), len(task.train), options, run, task.seed)
    learned = {name: value.detach() for name, value in parameters.items()}
    if fusion is not None:
        fusion = Fusion(clip, fusion.source, learned["bias"], options.similarity, options.pairs_at_once)
    predictor = AttributePredictor(clip, learned["context"], attributes, fusion)
    figures = {"reading": read_context(clip, learned["context"][0]), "digest": attributes.descriptions.digest}
    return Fitted({"sap": predictor}, learned, {**figures, "texts": len(attributes.of(task.classnames).bare)})


def _step(task: FewShotTask, options: SAPOptions, model: AttributePredictor) -> Step:
    clip, fusion = task.clip, model.fusion
    texts = model.attributes.of(task.classnames)
    frozen = frozen_texts(clip, texts)
    training = TrainingFeatures.of(task, options.augment, options.crops)
    patches = None if fusion is None else fusion.source.load(task.train.items)
    relevant = None if fusion is None else fusion.attributes(texts)

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch."""
        features, labels = training.batch(indices, generator)  # (B, D), (B,)
        if fusion is not None and patches is not None and relevant is not None:
            features = fusion.mix(patches.take(indices.tolist()).to(fusion.bias), relevant)
        learned = encoded(clip, model.context, texts)  # (A, D)
        logits = clip.logit_scale * features @ texts.mean(learned).T
        loss = cross_entropy(logits, labels) + options.text_weight * (learned - frozen).abs().mean()
        torch.autograd.backward(loss)
        return StepResult(loss.item(), count_right(logits, labels))

    return step


METHOD = Method(
    name="sap",
    summary="a context learned before class names with attributes, and features of patches that attributes find",
    options=SAPOptions,
    fit=fit,
    paper="SAP: Semantic Alignment for Prompt-Tuning in Vision-Language Models, arXiv 2405.07921",
    check=check,
    needs_patches=lambda options: options.fusion,
    uses=lambda *_: {"labels", "llm_saw_class_names"},
)
