"""LASP: Text-to-Text Optimization for Language-Aware Soft Prompting of Vision & Language Models (arXiv 2210.01115).

CoOp with a second loss between texts: learned prompts are kept where hand-written ones of the same class are. Groups
of contexts each keep to prompts of their own; names without images may take part in that loss; an offset is learned
that is added to text features before they are brought to unit length. The layer norms of the image tower, which the
paper trains too, stay as they are here: image features are computed once.
Shape legend: B images of a batch, C classes of the fit, D feature width, G groups, H hand-written texts, L hand-written
prompts, M context vectors, N images, V class names of the text loss, W token embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.base import ClipModel
from ipo.clip.lengths import TextRoom
from ipo.data.uses import Use
from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Means, Method
from ipo.metrics import count_right
from ipo.prompt import Prompt
from ipo.render import templates_folder
from ipo.scoring import ImageSet, Predictor, text_features
from ipo.screen import counted
from ipo.search.pools import eighty, read_prompts
from ipo.store.inputs import read_input
from ipo.store.toml import read_toml
from ipo.task import FewShotTask, TaskTexts

from .augment import TrainingFeatures
from .contexts import ContextOptions, first_context, require_context_fits
from .reading import read_context
from .text_losses import Direction, grouped_loss
from .training import Step, StepResult, fit_by_sgd
from .zero_shot import report_left_out, usable

LONG = {"epochs": 50, "alpha": 10.0, "warmup_epochs": 5}
SMALL_STEPS = {"epochs": 10, "batch": 1, "learning_rate": 0.002, "warmup_epochs": 1}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "caltech101": LONG,
    "dtd": LONG,
    "ucf101": LONG,
    "eurosat": {"epochs": 300, "warmup_epochs": 7},
    "food101": SMALL_STEPS,
    "imagenet": SMALL_STEPS,
}
"""Where the base-to-new runs differ from the defaults."""


class LASPOptions(ContextOptions):
    """Hyper-parameters of LASP."""

    epochs: PositiveInt = 25
    """Passes over the training shots."""
    learning_rate: PositiveFloat = 0.032
    """Rate of the first epoch after warm-up."""
    warmup_epochs: NonNegativeInt = 3
    """Epochs at the warm-up rate."""
    alpha: NonNegativeFloat = 5.0
    """Factor on the loss between texts; 0 leaves it out."""
    direction: Direction = "hand"
    """What is classified: each hand-written text among the learned ones, as the reference code has it, each learned one
    among the hand-written, as the paper's words have it, or the mean of the two losses."""
    templates: str = "lasp34"
    """Hand-written prompts: the reference's 34, CLIP's `80`, or those of a file, one a line."""
    groups: PositiveInt = 1
    """Contexts, to which the hand-written prompts are dealt in turn; their cosines are averaged."""
    virtual: str = "none"
    """Names without images in the loss between texts: those of a file, one a line, or `dataset`: its new classes,
    as the released figures have it."""
    offset: bool = True
    """Learn an offset of all text features, added before they are brought to unit length."""
    noise: NonNegativeFloat = 0.05
    """Standard deviation of the noise on the features of hand-written texts."""
    noise_rate: float = Field(0.5, ge=0, le=1)
    """Share of the steps that have such noise."""
    largest_gradient: PositiveFloat | None = 1.0
    """Norm that the gradient of a step is cut to; `none` cuts nothing."""

    @field_validator("templates", mode="before")
    @classmethod
    def _is_text(cls, templates: Any) -> Any:
        return str(templates) if templates == 80 else templates

    @field_validator("templates")
    @classmethod
    def _templates_can_be_read(cls, templates: str) -> str:
        """A file by a path that no longer depends on the working folder."""
        return templates if templates in ("lasp34", "80") else _readable(templates, read_prompts)

    @field_validator("virtual")
    @classmethod
    def _names_can_be_read(cls, virtual: str) -> str:
        return virtual if virtual in ("none", "dataset") else _readable(virtual, read_names)


def _readable(path: str, read: Any) -> str:
    read(place := Path(path).expanduser().absolute())
    return str(place)


def read_names(path: Path) -> tuple[str, ...]:
    """Different class names of a text file, one a line; empty lines are passed over. Raises `ConfigError`."""
    lines = (" ".join(line.split()) for line in read_input(path, "class names", ConfigError).splitlines())
    names = tuple(dict.fromkeys(filter(None, lines)))
    if not names:
        raise ConfigError("no class names in the file", where=str(path))
    return names


def hand_written(options: LASPOptions) -> tuple[Prompt, ...]:
    """The prompts that the learned ones are kept near."""
    if options.templates == "lasp34":
        return tuple(map(Prompt, read_toml(templates_folder() / "lasp.toml")["prompts"]))
    return eighty() if options.templates == "80" else read_prompts(Path(options.templates))


def text_names(task: TaskTexts, options: LASPOptions) -> tuple[str, ...]:
    """Class names (V) of the loss between texts: those of the fit, and behind them those without images."""
    if options.alpha == 0 or options.virtual == "none":
        return task.classnames
    more = task.new_classnames if options.virtual == "dataset" else read_names(Path(options.virtual))
    return (*task.classnames, *(name for name in more if name not in task.classnames))


@dataclass(frozen=True)
class GroupPredictor:
    """CLIP with several learned contexts (G, M, W), whose cosines are averaged, and an offset (D) or none."""

    clip: ClipModel
    contexts: Tensor
    offset: Tensor | None = None

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x mean cosine."""
        with torch.no_grad():
            return self.classify(images.features, self.text(classnames))

    def text(self, classnames: Sequence[str]) -> Tensor:
        """Text features (G, C, D) of unit length, with gradient."""
        contexts = self.contexts[:, None]
        if self.offset is None:
            return self.clip.encode_embeddings(classnames, contexts)
        return normalize(self.clip.encode_embeddings(classnames, contexts, unit=False) + self.offset, dim=-1)

    def classify(self, features: Tensor, text: Tensor) -> Tensor:
        """Logits (B, C) of image features (B, D) under text features (G, C, D)."""
        return self.clip.logit_scale * features @ text.mean(dim=0).T


def noisy(hand: Tensor, options: LASPOptions, generator: torch.Generator) -> Tensor:
    """Hand-written text features (L, V, D), in some steps with noise, after which they are not of unit length."""
    if options.noise == 0 or float(torch.rand((), generator=generator)) >= options.noise_rate:
        return hand
    return hand + options.noise * torch.randn(hand.shape, generator=generator).to(hand)


def uses(options: LASPOptions, _means: Means) -> set[Use]:
    """Labels; and names of new classes where they are asked for."""
    sees_names = options.virtual == "dataset" and options.alpha > 0
    return {"labels", "new_names"} if sees_names else {"labels"}


def check(task: TaskTexts, options: LASPOptions) -> None:
    """Raise an `IpoError` where context, prompts, names and groups do not fit together."""
    require_context_fits(task, options)
    if options.alpha == 0:
        return
    names = text_names(task, options)
    room = TextRoom.of(task.clip, names)
    require_context_fits(replace(task, room=room), options)
    prompts = usable(room, hand_written(options))
    if len(prompts) < options.groups:
        what = f"{counted(options.groups, 'group')} cannot share {counted(len(prompts), 'hand-written prompt')}"
        raise ConfigError(what, remedy="Take fewer groups")


def fit(task: FewShotTask, options: LASPOptions, run: FitRun) -> Fitted:
    """Learn the contexts and the offset on the training shots and the hand-written prompts."""
    clip = task.clip
    contexts = first_context(clip, options, task.seed, options.groups)
    parameters = {"context": contexts}
    if options.offset:
        parameters["offset"] = torch.zeros(
            clip.dim, device=clip.device, dtype=task.train.features.dtype
        ).requires_grad_()
    model = GroupPredictor(clip, contexts, parameters.get("offset"))
    fit_by_sgd(parameters, _step(task, options, run, model), len(task.train), options, run, task.seed)
    learned = {name: value.detach() for name, value in parameters.items()}
    figures = {"reading": read_context(clip, learned["context"][0]), "text_names": len(text_names(task, options))}
    return Fitted({"lasp": GroupPredictor(clip, learned["context"], learned.get("offset"))}, learned, figures)


def _step(task: FewShotTask, options: LASPOptions, run: FitRun, model: GroupPredictor) -> Step:
    training = TrainingFeatures.of(task, options.augment, options.crops)
    names, scale = text_names(task, options), task.clip.logit_scale
    hand = _hand_features(task, options, run, names) if options.alpha else None
    trained = [part for part in (model.contexts, model.offset) if part is not None]

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch."""
        features, labels = training.batch(indices, generator)  # (B, D), (B,)
        text = model.text(names)  # (G, V, D)
        logits = model.classify(features, text[:, : len(task.classnames)])
        loss = cross_entropy(logits, labels)
        if hand is not None:
            loss = loss + options.alpha * grouped_loss(text, noisy(hand, options, generator), scale, options.direction)
        torch.autograd.backward(loss)
        if options.largest_gradient is not None:
            torch.nn.utils.clip_grad_norm_(trained, options.largest_gradient)
        return StepResult(loss.item(), count_right(logits, labels))

    return step


def _hand_features(task: FewShotTask, options: LASPOptions, run: FitRun, names: Sequence[str]) -> Tensor:
    """Features (L, V, D) of the hand-written prompts that CLIP can read with all these names."""
    prompts = hand_written(options)
    fitting = usable(TextRoom.of(task.clip, names), prompts)
    report_left_out(run, fitting, prompts)
    return text_features(task.clip, fitting, names)


def restore(
    clip: ClipModel, _names: tuple[str, ...], _options: LASPOptions, learned: Mapping[str, Tensor]
) -> Mapping[str, Predictor]:
    """The predictor of a fit by what it learned."""
    own = {name: value.to(clip.device) for name, value in learned.items()}
    return {"lasp": GroupPredictor(clip, own["context"], own.get("offset"))}


METHOD = Method(
    name="lasp",
    summary="context vectors kept near hand-written prompts by a loss between texts",
    options=LASPOptions,
    fit=fit,
    paper="LASP: Text-to-Text Optimization for Language-Aware Soft Prompting, arXiv 2210.01115",
    published=lambda dataset, _shots: PUBLISHED.get(dataset, {}),
    check=check,
    restore=restore,
    uses=uses,
)
