"""A predictor of a finished run, from its folder and the model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.load import load_clip
from ipo.config import Device, Settings
from ipo.errors import ModelError, RunError
from ipo.methods import LEARNED_FILE, find_method
from ipo.prompt import Prompt
from ipo.runs.result import Result
from ipo.scoring import ImageSet, Predictor, PromptPredictor
from ipo.store.tensors import damaged, load_tensors, save_tensors

CLASSIFIER_FILE = "classifier.safetensors"
"""Class features (D, C) of the predictor that stands for a method which nothing else restores."""
_TENSOR = "classifier"


@dataclass(frozen=True)
class StoredClassifier:
    """Class features (D, C) of the classes of a run, and of no others."""

    clip: ClipModel
    matrix: Tensor

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x product of image and class features."""
        del classnames
        return self.clip.logit_scale * images.features @ self.matrix


def save_classifier(folder: Path, matrix: Tensor) -> None:
    """Write class features (D, C)."""
    save_tensors(folder / CLASSIFIER_FILE, {_TENSOR: matrix})


def restore_model(path: Path, settings: Settings, result: Result, device: Device | None = None) -> ClipModel:
    """The CLIP model of a run, on another device if one is named. Raises `ModelError` where it is another by now."""
    chosen = settings.clip if device is None else settings.clip.model_copy(update={"device": device})
    clip = load_clip(chosen, offline=settings.offline)
    require_same_model(path, clip, result)
    return clip


def require_same_model(path: Path, clip: ClipModel, result: Result) -> None:
    """Raise `ModelError` for another model than that of a run, by its fingerprint."""
    now, was = asdict(clip.fingerprint), result.clip.model_dump(exclude_unset=True) if result.clip else {}
    wrong = [
        f"{name} was {value!r}, is {now.get(name)!r}" for name, value in was.items() if value and now.get(name) != value
    ]
    if wrong:
        what = f"the CLIP model is another than that of the run: {'; '.join(wrong)}"
        raise ModelError(what, where=str(path), remedy="Restore the model or its library, or make the run anew")


def restore_predictor(
    path: Path, clip: ClipModel, result: Result, name: str, own: tuple[str, ...], classnames: tuple[str, ...]
) -> Predictor:
    """The predictor of that name for `classnames`, of a run whose classes are its `own`.

    Raises `RunError` where nothing can restore it.
    """
    told = result.predictors[name]
    if told.prompts:
        return PromptPredictor(clip, tuple(map(Prompt, told.prompts)), told.aggregate)
    method = find_method(result.method)
    if method.restore is not None and (path / LEARNED_FILE).exists():
        options = method.configure(result.dataset, result.shots, result.options)
        restored = method.restore(clip, own, options, load_tensors(path / LEARNED_FILE)[0])
        if name not in restored:
            raise RunError(f"there is no '{name}' in {LEARNED_FILE}", where=str(path), remedy="Name another predictor")
        return restored[name]
    if name != result.main_predictor or not (path / CLASSIFIER_FILE).exists():
        what = f"what '{result.method}' learned cannot be read back, neither to predict further pictures nor to export"
        remedy = "Use a run of the search, of prompts, or of a method with the same class features for all pictures"
        raise RunError(what, where=str(path), remedy=remedy)
    if classnames != own:
        what = f"a run of '{result.method}' tells the classes that it was fitted on, and no others"
        raise RunError(what, where=str(path), remedy="Leave the class names out")
    return StoredClassifier(clip, _matrix(path / CLASSIFIER_FILE, (clip.dim, len(own))).to(clip.device))


def _matrix(file: Path, shape: tuple[int, int]) -> Tensor:
    matrix = load_tensors(file)[0].get(_TENSOR)
    if matrix is None or tuple(matrix.shape) != shape:
        raise damaged(file, f"no classifier of shape {shape}")
    return matrix
