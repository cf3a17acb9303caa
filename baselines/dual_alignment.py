"""After DuAl-PT: Context-Aware Prompt Tuning for Vision-Language Model with Dual-Alignment (arXiv 2309.04158).

Its abstract says that learned prompts are aligned with what a language model tells of the classes, and with local image
features. Neither code nor equations nor hyper-parameters are public, so this is a method of ours after that idea, and
its figures are not those of the paper: PLOT on the image side, and on the text side LASP's loss, in which descriptions
of a class stand in the place of hand-written prompts.
Shape legend: C classes, D feature width, H descriptions, K prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import normalize

from ipo.descriptions import read_descriptions
from ipo.methods import FitRun, Fitted, Method
from ipo.task import FewShotTask, TaskTexts

from .class_texts import DescriptionsOption, TextSource, dclip_texts
from .contexts import require_context_fits
from .plot import PlotOptions, TextPenalty, fit_contexts, published
from .text_losses import hand_loss


class DualAlignmentOptions(PlotOptions, DescriptionsOption):
    """Hyper-parameters: those of PLOT and of the loss between texts."""

    alpha: NonNegativeFloat = 5.0
    """Factor on the loss between learned texts and descriptions; without it this is PLOT."""


def description_loss(task: FewShotTask, source: TextSource, alpha: float) -> TextPenalty:
    """Alpha x the mean cross-entropy of each description among the learned texts of all classes, over all prompts."""
    texts = source(task.classnames)
    hand = task.clip.encode_texts([text for own in texts for text in own])  # (H, D)
    counts = torch.tensor([len(own) for own in texts], device=hand.device)
    owners = torch.arange(len(texts), device=hand.device).repeat_interleave(counts)  # (H,)

    def penalty(raw: Tensor) -> Tensor:
        """The loss of raw text features (K, C, D)."""
        learned = normalize(raw, dim=-1)
        return alpha * torch.stack([hand_loss(own, hand, owners, task.clip.logit_scale) for own in learned]).mean()

    return penalty


def source_of_texts(task: TaskTexts, options: DualAlignmentOptions) -> TextSource:
    """The descriptions of any classes in the file."""
    return TextSource(task.clip, read_descriptions(options.descriptions, task.dataset), named_texts)


def named_texts(classname: str, descriptions: Sequence[str]) -> list[str]:
    """Descriptions that name their class as they stand, others behind its name."""
    named = classname.casefold()
    return [text if named in text.casefold() else dclip_texts(classname, [text])[0] for text in descriptions]


def check(task: TaskTexts, options: DualAlignmentOptions) -> None:
    """Raise an `IpoError` for contexts that do not fit, or a class of the fit without a description."""
    require_context_fits(task, options)
    source = source_of_texts(task, options)
    source.descriptions.require(task.classnames)
    source(task.classnames)


def fit(task: FewShotTask, options: DualAlignmentOptions, run: FitRun) -> Fitted:
    """Learn the contexts on the patches of the training shots and the descriptions of their classes."""
    source = source_of_texts(task, options)
    penalty = description_loss(task, source, options.alpha) if options.alpha else None
    fitted = fit_contexts("dual-alignment", task, options, run, penalty)
    return Fitted(fitted.predictors, fitted.learned, {**fitted.figures, "digest": source.descriptions.digest})


METHOD = Method(
    name="dual-alignment",
    summary="after DuAl-PT, of which only the idea is public: PLOT, with contexts kept near descriptions",
    options=DualAlignmentOptions,
    fit=fit,
    paper="after: Context-Aware Prompt Tuning with Dual-Alignment, arXiv 2309.04158",
    published=published,
    check=check,
    needs_patches=lambda _: True,
    uses=lambda *_: {"labels", "llm_saw_class_names"},
)
