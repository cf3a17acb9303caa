"""`ipo export`: what a run found, in the forms that other programs read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ipo.cli.console import print_json
from ipo.errors import ConfigError
from ipo.screen import say
from ipo.store.files import json_text, write_atomic

if TYPE_CHECKING:
    from ipo.export.source import Exported

Format = Literal["text", "json", "open_clip", "clip-benchmark", "transformers", "safetensors", "onnx"]
CLASSES_SUFFIX = ".classes.json"
"""How the name of the second file of CLIP_benchmark ends."""
_TENSORS = ("safetensors", "onnx")


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    to: Annotated[Format, typer.Option("--to", help="What to write.")],
    predictor: Annotated[
        str, typer.Option("--predictor", help="best, ensemble, or another predictor of the run by its name.")
    ] = "best",
    out: Annotated[
        Path | None, typer.Option("--out", help="New file. Default: standard output; tensors need a file.")
    ] = None,
) -> None:
    """Write what a run found for other programs: prompts, code, or a classifier.

    text: the prompts, one a line. json: prompts, class names, model, figures, versions. open_clip, transformers: a
    Python file that classifies pictures; for transformers with --out FILE.json the arguments of its pipeline.
    clip-benchmark: the --custom_template_file of CLIP_benchmark, and with --out FILE.json the --custom_classname_file
    beside it as FILE.classes.json. safetensors: class features (D, C), with class names and logit scale in the
    metadata. onnx: from image features to probabilities.

    Examples:

      ipo export RUN --to text

      ipo export RUN --to transformers --out classify.py && python classify.py photos/*.jpg

      ipo export RUN --to clip-benchmark --out templates.json

      ipo export RUN --to onnx --predictor ensemble --out classifier.onnx
    """
    files = [out, *([out.with_suffix(CLASSES_SUFFIX)] if to == "clip-benchmark" else [])] if out else []
    for place in filter(os.path.lexists, files):
        raise ConfigError("this file exists", where=str(place), remedy="Give --out another name, or remove it")
    if out is None and to in _TENSORS:
        raise ConfigError(f"--to {to} needs a file", remedy=f"Give --out FILE.{to}")

    from ipo.export.source import read_exported

    exported = read_exported(run, predictor)
    contents = [_content(exported, to, out), *([_classes(exported)] if to == "clip-benchmark" else [])]
    if not files:
        _print(contents[0], is_json=to in ("json", "clip-benchmark"))
    for place, content in zip(files, contents, strict=False):
        write_atomic(place, content if isinstance(content, bytes) else content + "\n")
        say(f"written: {place}")


def _content(exported: Exported, to: Format, out: Path | None) -> str | bytes:
    from ipo.export.texts import TEXTS, transformers_values

    if to == "transformers" and out is not None and out.suffix == ".json":
        return json_text(transformers_values(exported), indent=2)
    if to not in _TENSORS:
        return TEXTS[to](exported)

    from ipo.export.classifier import as_onnx, as_safetensors, make_classifier, require_onnx

    if to == "onnx":
        require_onnx()
    classifier = make_classifier(exported)
    return as_safetensors(classifier) if to == "safetensors" else as_onnx(classifier)


def _classes(exported: Exported) -> str:
    from ipo.export.texts import to_clip_benchmark_classes

    return to_clip_benchmark_classes(exported)


def _print(content: str | bytes, *, is_json: bool) -> None:
    if is_json:
        print_json(json.loads(content))
    else:
        print(content)
