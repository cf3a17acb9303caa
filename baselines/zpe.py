"""ZPE: prompts weighed for all classes alike by images without labels (arXiv 2302.06235).

A prompt counts by the mean over the images of the largest logit, after the mean over the images is taken from the
logits of each class: a class that is likely for whatever image says nothing. The paper takes off the mean over images
of the pre-training too, which are not at hand here. Nothing is trained.
"""

from __future__ import annotations

from ipo.methods import FitRun, Fitted, Method
from ipo.task import FewShotTask

from .carprt import WeighingOptions, fit_weighed
from .zero_shot import check_pool


def fit(task: FewShotTask, options: WeighingOptions, run: FitRun) -> Fitted:
    """A weight for each prompt."""
    return fit_weighed("zpe", task, options, run)


METHOD = Method(
    name="zpe",
    summary="the 80 prompts, weighed by images without labels",
    options=WeighingOptions,
    fit=fit,
    paper="A Simple Zero-shot Prompt Weighting Technique to Improve Prompt Ensembling in Text-Image Models, "
    "arXiv 2302.06235",
    check=check_pool,
    uses=lambda *_: {"unlabelled_images"},
)
