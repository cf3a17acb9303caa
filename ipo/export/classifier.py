"""A predictor as class features that are multiplied with image features: a tensor file, or an ONNX graph.

Shape legend: N images, D feature width, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from ipo import __version__
from ipo.clip.base import ClipModel
from ipo.clip.load import load_clip
from ipo.data.types import UnlabelledItem
from ipo.errors import ConfigError
from ipo.export.source import Exported
from ipo.packages import extra_remedy, is_installed
from ipo.runs.restore import require_same_model, restore_predictor
from ipo.scoring import ImageSet, Predictor
from ipo.store.files import json_text

TENSOR = "classifier"
"""Name of the tensor (D, C) of class features."""
OPSET, IR_VERSION = 17, 8
"""Of an ONNX file: old enough for the onnxruntime of the last years."""
_PROBES = 8
_TOLERANCE = 1e-3
"""Most that logits may differ from those of the matrix, in parts of the logit scale."""


@dataclass(frozen=True)
class Classifier:
    """Class features (D, C): logits are `logit_scale` times the product of unit-length image features with them."""

    matrix: Tensor
    logit_scale: float
    facts: dict[str, str]
    """What is told of it in a file, as texts; those that are lists or tables as JSON."""


def make_classifier(exported: Exported, clip: ClipModel | None = None) -> Classifier:
    """The classifier of a predictor, with the model of the run, which is loaded where it is not given.

    Raises `ModelError` where it is another model by now, and `ConfigError` for a predictor that is no such product.
    """
    model = clip or load_clip(exported.settings.clip, offline=exported.settings.offline)
    require_same_model(exported.folder, model, exported.result)
    own = exported.classnames
    predictor = restore_predictor(exported.folder, model, exported.result, exported.name, own, own)
    matrix = linear_part(predictor, model, own)
    if matrix is None:
        what = f"class features of '{exported.name}' depend on the image, so that no matrix holds them"
        raise ConfigError(what, where=str(exported.folder), remedy="Use it by `ipo`")
    facts = {
        "ipo": __version__,
        "method": exported.result.method,
        "predictor": exported.name,
        "classnames": json_text(list(exported.classnames)),
        "prompts": json_text(list(exported.prompts)),
        "logit_scale": repr(model.logit_scale),
        "metric": exported.result.metric,
        "clip": json_text(asdict(model.fingerprint)),
    }
    return Classifier(matrix, model.logit_scale, facts)


def linear_part(predictor: Predictor, clip: ClipModel, classnames: tuple[str, ...]) -> Tensor | None:
    """Class features (D, C) whose product with image features the predictor's logits are; None where they are not.

    Each column of the unit matrix is an image feature of unit length, and its logits are a row of class features.
    """
    random = torch.randn((_PROBES, clip.dim), generator=torch.Generator().manual_seed(0))
    features = torch.cat([torch.eye(clip.dim), normalize(random, dim=-1)]).to(clip.device)
    items = tuple(UnlabelledItem(Path(f"probe {index}")) for index in range(len(features)))
    with torch.no_grad():
        logits = predictor.logits(ImageSet(items, features), classnames).float()
    matrix = logits[: clip.dim] / clip.logit_scale
    differences = (logits[clip.dim :] / clip.logit_scale - features[clip.dim :] @ matrix).abs()
    return matrix.cpu() if float(differences.max()) < _TOLERANCE else None


def as_safetensors(classifier: Classifier) -> bytes:
    """A file with the tensor `classifier` (D, C), and the rest in its metadata."""
    return bytes(save({TENSOR: classifier.matrix.contiguous()}, dict(classifier.facts)))


def require_onnx() -> None:
    """Raise `ConfigError` where the package onnx is missing."""
    if not is_installed("onnx"):
        raise ConfigError("--to onnx needs the package onnx", remedy=f"Run: {extra_remedy('export')}")


def as_onnx(classifier: Classifier) -> bytes:
    """A graph from `image_features` (N, D), of any length, to `logits` and `probabilities` (N, C).

    Raises `ConfigError` where the package onnx is missing.
    """
    require_onnx()
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    width, classes = classifier.matrix.shape
    scaled = (classifier.logit_scale * classifier.matrix).numpy()
    floats: Any = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("LpNormalization", ["image_features"], ["unit"], axis=1, p=2),
            helper.make_node("MatMul", ["unit", TENSOR], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "zero-shot-classifier",
        [helper.make_tensor_value_info("image_features", floats, ["N", width])],
        [helper.make_tensor_value_info(name, floats, ["N", classes]) for name in ("logits", "probabilities")],
        [numpy_helper.from_array(scaled, TENSOR)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, classifier.facts)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
