"""What a run keeps at its end so that it can predict: how its logits become probabilities, and a classifier."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ipo.data.types import UnlabelledItem
from ipo.errors import IpoError
from ipo.export.classifier import linear_part
from ipo.methods import Fitted, Method
from ipo.predict.calibration import LEVEL, calibrate
from ipo.runs.restore import save_classifier
from ipo.runs.result import Calibrated
from ipo.scoring import ImageSet, Predictor, require_finite
from ipo.task import FewShotTask

_TOLERANCE = 1e-3
"""Most that logits may differ from those of the stored classifier, in parts of the logit scale."""


def keep_to_predict(folder: Path, method: Method[Any], fitted: Fitted, task: FewShotTask) -> Calibrated:
    """Calibrate the predictor that stands for the method on shots, and write its class features if that restores it.

    What was learned from the training shots is surer of them than of others: it is calibrated on validation shots,
    where there are any.
    """
    predictor = fitted.predictors[fitted.headline]
    held_out = bool(fitted.learned) and len(task.val) > 0
    images = task.val if held_out else task.train
    with torch.no_grad():
        logits = predictor.logits(images.unlabelled(), task.classnames)
    require_finite(logits, images, type(predictor).__name__)
    if method.restore is None and fitted.prompts(fitted.headline) is None:
        matrix = _class_features(predictor, task, images, logits)
        if matrix is not None:
            save_classifier(folder, matrix)
    found = asdict(calibrate(logits, images))
    values = found | {"thresholds": list(found["thresholds"]), "level": LEVEL}
    return Calibrated(**values, shots="validation" if held_out else "training")


def _may_be_linear(predictor: Predictor, task: FewShotTask) -> bool:
    """Whether the logits of a sum are the sum of logits for some pairs: a look that costs little."""
    pairs = normalize(torch.randn((2, 4, task.clip.dim), generator=torch.Generator().manual_seed(1)), dim=-1)
    sums = pairs.sum(dim=0)
    features = torch.cat([pairs.flatten(0, 1), normalize(sums, dim=-1)]).to(task.clip.device)
    items = tuple(UnlabelledItem(Path(f"probe {index}")) for index in range(len(features)))
    with torch.no_grad():
        one, other, both = torch.split(predictor.logits(ImageSet(items, features), task.classnames).cpu(), 4)
    off = (one + other - both * sums.norm(dim=-1, keepdim=True)).abs().max() / task.clip.logit_scale
    return float(off) < _TOLERANCE


def _class_features(predictor: Predictor, task: FewShotTask, images: ImageSet, logits: Tensor) -> Tensor | None:
    """Class features (D, C) that give these logits (N, C) of images; None where there are none."""
    try:
        if not _may_be_linear(predictor, task):
            return None
        matrix = linear_part(predictor, task.clip, task.classnames)
    except (IpoError, LookupError):  # one that looks at the files, or at features of patches, of the pictures
        return None
    if matrix is None:
        return None
    off = (images.features @ matrix.to(images.features.device) - logits / task.clip.logit_scale).abs().max()
    return matrix if float(off) < _TOLERANCE else None
