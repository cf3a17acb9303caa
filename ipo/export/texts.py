"""A predictor that is made of prompts as text, JSON, code, and the files of CLIP_benchmark."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ipo.clip.specs import HUB, LOCAL
from ipo.errors import ConfigError, IpoError, ModelError
from ipo.export.source import BEST, Exported, read_exported
from ipo.prompt import CLASS_PLACEHOLDER, METRIC_WORDS, Prompt
from ipo.render import render
from ipo.store.files import json_text

OPENAI_TWINS = {
    "ViT-B-32": "openai/clip-vit-base-patch32",
    "ViT-B-16": "openai/clip-vit-base-patch16",
    "ViT-L-14": "openai/clip-vit-large-patch14",
    "ViT-L-14-336": "openai/clip-vit-large-patch14-336",
}
"""Where transformers has the weights that open_clip calls `openai`."""
_BOTH_FORMATS = "laion/"
"""The organisation whose repositories hold their models for open_clip and for transformers."""


def format_string(prompt: str, slot: str) -> str:
    """A prompt for `str.format`: its own braces are doubled, and `slot` (`{}`, `{c}`) stands for the class."""
    escaped = prompt.replace("{", "{{").replace("}", "}}")
    return escaped.replace(CLASS_PLACEHOLDER, slot)


def as_open_clip_reads(text: str) -> str:
    """A text as open_clip's tokenizer cleans it before it cuts it up, which that of transformers does not.

    Curly quotes become straight ones, HTML entities characters, and whatever is white one space.
    """
    if not text.isascii():
        import ftfy  # it comes with open_clip

        text = ftfy.fix_text(text)
    return " ".join(html.unescape(html.unescape(text)).split())


def to_text(exported: Exported) -> str:
    """The prompts, one a line. Raises `PromptError` for one that has line breaks or characters that nobody sees."""
    return "\n".join(Prompt(text).text for text in exported.require_prompts())


def to_json(exported: Exported) -> str:
    """Prompts, class names, model, figures and versions."""
    result, run = exported.result, exported.run
    figures = result.predictors[exported.name].model_dump(mode="json", exclude_unset=True, exclude={"prompts"})
    return json_text(
        {
            "ipo": result.ipo,
            "method": result.method,
            "predictor": exported.name,
            "prompts": list(exported.require_prompts()),
            "aggregate": exported.aggregate,
            "slot": CLASS_PLACEHOLDER,
            "classnames": list(exported.classnames),
            "model": result.model,
            "clip": result.clip.model_dump(mode="json") if result.clip else None,
            "dataset": result.dataset,
            "shots": result.shots,
            "seed": result.seed,
            "metric": METRIC_WORDS[result.metric],
            "test": figures,
            "training": result.best.score.value if result.best and exported.name == result.headline else None,
            "versions": run.get("versions", {}),
        },
        indent=2,
    )


def to_clip_benchmark(exported: Exported) -> str:
    """CLIP_benchmark's `--custom_template_file`: by the name of the dataset, and for every other one.

    It reads the file in the encoding of the system, so that all but ASCII is escaped.
    """
    templates = [format_string(prompt, "{c}") for prompt in exported.require_feature_mean()]
    return json.dumps({exported.result.dataset: templates, "imagenet1k": templates}, indent=2)


def to_clip_benchmark_classes(exported: Exported) -> str:
    """CLIP_benchmark's `--custom_classname_file`: the class names in the order of the labels."""
    return json.dumps({exported.result.dataset: list(exported.classnames)}, indent=2)


def to_open_clip(exported: Exported) -> str:
    """A Python file that classifies pictures with open_clip."""
    name, _, tag = exported.require_open_clip().partition("/")
    if exported.result.model.startswith((HUB, LOCAL)):
        name, tag = exported.result.model, ""
    return render(
        "export-open_clip.py.j2",
        model=repr(name),
        weights=repr(tag or None),
        prompts=[repr(prompt) for prompt in exported.require_feature_mean()],
        classnames=[repr(name) for name in exported.classnames],
        slot=repr(CLASS_PLACEHOLDER),
    )


def to_transformers(exported: Exported) -> str:
    """A Python file that classifies pictures with a pipeline of transformers."""
    values = transformers_values(exported)
    names = [repr(name) for name in values["candidate_labels"]]
    texts = {"model": repr(values["model"]), "hypothesis": repr(values["hypothesis_template"])}
    return render("export-transformers.py.j2", **texts, classnames=names)


def transformers_values(exported: Exported) -> dict[str, Any]:
    """What `pipeline("zero-shot-image-classification")` takes. Raises `ConfigError` for several prompts."""
    prompts = exported.require_prompts()
    if len(prompts) > 1:
        what = f"a transformers pipeline takes one prompt, and '{exported.name}' has {len(prompts)}"
        raise ConfigError(what, remedy="Use --predictor best, or --to open_clip, safetensors or onnx")
    return {
        "model": transformers_model(exported.require_open_clip()),
        "hypothesis_template": format_string(_cleaned(prompts[0]), "{}"),
        "candidate_labels": [as_open_clip_reads(name) for name in exported.classnames],
    }


def transformers_model(spec: str) -> str:
    """What transformers calls the model of open_clip. Raises `ModelError` where it is not known to have it."""
    if spec.startswith(HUB):
        return spec.removeprefix(HUB)
    if spec.startswith(LOCAL):
        folder = Path(spec.removeprefix(LOCAL))
        if not (folder / "config.json").is_file():
            what = "the model folder has no config.json of transformers"
            raise ModelError(what, where=str(folder), remedy="Use --to open_clip")
        return str(folder)
    name, _, tag = spec.partition("/")
    if tag == "openai" and name.removesuffix("-quickgelu") in OPENAI_TWINS:
        return OPENAI_TWINS[name.removesuffix("-quickgelu")]
    from ipo.clip.sources import pretrained_config  # it comes with torch

    repository = str(pretrained_config(spec).get("hf_hub", "")).strip("/")
    if repository.startswith(_BOTH_FORMATS) and repository.count("/") == 1:
        return repository
    raise ModelError(f"no version of '{spec}' for transformers is known", remedy="Use --to open_clip")


def _cleaned(prompt: str) -> str:
    before, slot, after = prompt.partition(CLASS_PLACEHOLDER)
    left, right = (f"x{side}x" for side in (before, after))
    return as_open_clip_reads(left)[1:-1] + slot + as_open_clip_reads(right)[1:-1]


TEXTS: Mapping[str, Callable[[Exported], str]] = {
    "text": to_text,
    "json": to_json,
    "open_clip": to_open_clip,
    "clip-benchmark": to_clip_benchmark,
    "transformers": to_transformers,
}
"""The formats that are texts."""


def snippet(run: Path, to: str, predictor: str = BEST) -> str:
    """The Python code that uses a run's best prompt with `open_clip` or `transformers`. Raises `IpoError` for none."""
    return {"open_clip": to_open_clip, "transformers": to_transformers}[to](read_exported(run, predictor))


def snippets(run: Path) -> dict[str, str]:
    """The snippets that a run has, by the library; none of them for `mini` and for what is not made of prompts."""
    found = {}
    for to in ("transformers", "open_clip"):
        try:
            found[to] = snippet(run, to)
        except IpoError:
            continue
    return found
