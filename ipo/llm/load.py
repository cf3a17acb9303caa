"""From a spec in the settings to a language model that can be asked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ipo.config import LLMSettings
from ipo.errors import ConfigError, ModelError, UnknownName
from ipo.llm.base import CAPTION_TOKENS, LLM, ReplyForm, Style, TextForm
from ipo.llm.local.dequantise import require_gguf
from ipo.llm.phrases import word_lists
from ipo.llm.presets import Preset, presets
from ipo.packages import OFFLINE_REMEDY

REMOTE = "openai:"
"""How the spec of a model on a server begins."""

NO_HUB = "Use --offline with --llm local-llama (a model that comes as a package), a folder or a .gguf file"
"""What to do where no hub can be reached."""
_SMALL_MODEL = 700_000_000
"""Below so many parameters a model continues a pattern far better than it follows an instruction."""


def load_llm(settings: LLMSettings, *, offline: bool, form: TextForm | None = None, opened: bool = False) -> LLM:
    """The language model that `settings.spec` names; with a `form` it answers in such texts, and proposes no prompts.

    `opened` is one of transformers, whose weights can be used.

    Raises `UnknownName` for a spec that is none, and `ModelError` when its weights cannot be had.
    """
    if opened:
        settings = settings.model_copy(update={"grammar": "free"})
    preset = _preset(settings, offline)
    if preset.spec.startswith(REMOTE):
        return _load_remote(preset, settings, offline, form)
    return _load_local(preset, settings, offline, form, opened)


def require_llm(settings: LLMSettings, *, offline: bool) -> Preset:
    """The row of the model that `settings.spec` names. Raises what `load_llm` would, as far as names and places tell.

    On a GPU another row may be taken in the end.
    """
    preset = _row(settings.spec, offline)
    if grammar_of(preset, settings) == "phrase":
        word_lists()
    kind, _, rest = preset.spec.partition(":")
    if kind == "openai":
        remote_name(settings, offline=offline)
        return preset
    _require_no_server(settings)
    if kind == "hf":
        from ipo.net.hub import LANGUAGE_MODEL, require_repository

        require_repository(rest, LANGUAGE_MODEL, offline=offline, instead=NO_HUB)
    elif kind == "package":
        _package_file(rest)
    elif preset.spec.endswith(".gguf"):
        require_gguf(Path(preset.spec).expanduser())
    elif not (Path(preset.spec).expanduser() / "config.json").is_file():
        raise ModelError("no config.json", where=preset.spec, remedy="Give a folder saved by transformers")
    return preset


def remote_name(settings: LLMSettings, *, offline: bool) -> str | None:
    """The name in the price table of a model on a server; None for one on this machine, and where the server chooses.

    Raises `ModelError` where the server needs a key and there is none, and `UnknownName` for a spec that is none.
    """
    preset = _row(settings.spec, offline)
    if not preset.spec.startswith(REMOTE):
        return None
    from ipo.llm.server.client import Server

    server = Server(preset.spec, _base_url(preset, settings, offline), "llm.base_url", timeout=1, retries=0)
    model = preset.spec.removeprefix(REMOTE)
    return None if model == "auto" else server.name_of(model)


def is_remote(spec: str, *, offline: bool) -> bool:
    """Whether the spec names a model on a server. Raises `UnknownName` where it names none."""
    return _row(spec, offline).spec.startswith(REMOTE)


def require_local(settings: LLMSettings, *, offline: bool) -> None:
    """Raise `ConfigError` for a model on a server, whose weights nobody has here; and `UnknownName`."""
    if is_remote(settings.spec, offline=offline):
        what = "the method works with the weights of the language model, and this one is on a server"
        raise ConfigError(what, where=settings.spec, remedy="Give a model on this machine, such as local-llama")


def grammar_of(preset: Preset, settings: LLMSettings) -> Literal["free", "phrase"]:
    """What a proposal may be: as the settings say, or else the preset."""
    return preset.grammar if settings.grammar == "auto" else settings.grammar


def reply_form(preset: Preset, settings: LLMSettings) -> ReplyForm:
    """The form of reply that a model is asked for."""
    phrases = grammar_of(preset, settings) == "phrase"
    if preset.spec.startswith(REMOTE):
        return "phrase object" if phrases else preset.form
    return "phrase" if phrases else "line"


def _preset(settings: LLMSettings, offline: bool) -> Preset:
    """The row of a preset name, after its offline or GPU replacement; or a row made of the spec itself."""
    row, known = _row(settings.spec, offline), presets()
    other = None if offline or settings.spec not in known else _gpu_preset(row, settings)
    return _replacement(settings.spec, other, known) if other is not None else row


def _row(spec: str, offline: bool) -> Preset:
    """The row of a preset name, after its offline replacement; or a row made of the spec itself."""
    known = presets()
    if spec in known:
        other = known[spec].offline if offline else None
        return _replacement(spec, other, known) if other is not None else known[spec]
    path = Path(spec).expanduser()
    if not (spec.startswith(("hf:", REMOTE, "package:")) or spec.endswith(".gguf") or path.is_dir()):
        remedy = "Or give hf:org/model, openai:MODEL, a folder or a .gguf file"
        raise UnknownName("language model", spec, known, remedy)
    return Preset(spec=spec)


def _replacement(spec: str, other: str, known: Mapping[str, Preset]) -> Preset:
    if other not in known:
        raise UnknownName(f"preset in the row '{spec}'", other, known)
    return known[other]


def _gpu_preset(row: Preset, settings: LLMSettings) -> str | None:
    if row.gpu is None:
        return None
    from ipo.clip.load import resolve_device

    return row.gpu if resolve_device(settings.device).type == "cuda" else None


def _load_remote(preset: Preset, settings: LLMSettings, offline: bool, text: TextForm | None) -> LLM:
    from ipo.llm.server.chat import OpenAILLM

    base_url = _base_url(preset, settings, offline)
    settings = settings.model_copy(update={"base_url": base_url, "top_p": settings.top_p or preset.top_p})
    form = text or reply_form(preset, settings)
    return OpenAILLM(preset.spec.removeprefix(REMOTE), settings, form, preset.template or "ipo.j2")


def _base_url(preset: Preset, settings: LLMSettings, offline: bool) -> str | None:
    base_url = settings.base_url or preset.base_url
    if offline and base_url is None and not os.environ.get("OPENAI_BASE_URL"):
        remedy = "Leave out --offline and IPO_OFFLINE, or give --base-url of your own server"
        raise ModelError(f"{preset.spec} is not on this machine", remedy=remedy)
    return base_url


def _require_no_server(settings: LLMSettings) -> None:
    for name, is_set in (
        ("base_url", settings.base_url is not None),
        ("response_format", settings.response_format != "auto"),
    ):
        if is_set:
            what = f"llm.{name} is set, but the model is not an openai: one"
            raise ConfigError(what, where=settings.spec, remedy="Leave it out, or give openai:MODEL")


def _load_local(preset: Preset, settings: LLMSettings, offline: bool, text: TextForm | None, opened: bool) -> LLM:
    _require_no_server(settings)
    source, label = _source(preset.spec, offline)
    if source.endswith(".gguf"):
        if has_llama_cpp() and not opened:
            return load_llama_cpp(Path(source), label, preset, settings, text)
        from ipo.llm.local.dequantise import converted

        source = str(converted(Path(source)))
    return load_transformers(source, label, preset, settings, text)


def has_llama_cpp() -> bool:
    """Whether llama-cpp-python is installed, which reads `.gguf` files as they are."""
    return importlib.util.find_spec("llama_cpp") is not None


def _source(spec: str, offline: bool) -> tuple[str, str]:
    """Where the weights are (a folder, a .gguf file or a hub name) and how the run record calls them."""
    kind, _, rest = spec.partition(":")
    if kind == "package":
        return _package_file(rest)
    if kind != "hf":
        return str(Path(spec).expanduser()), spec
    from ipo.net.hub import LANGUAGE_MODEL, hub_folder

    return str(hub_folder(rest, LANGUAGE_MODEL, offline=offline, instead=NO_HUB)), spec


def _package_file(place: str) -> tuple[str, str]:
    """Where a file PACKAGE/FILE of an installed package is, and how the run record calls it."""
    package, _, file = place.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModelError(
            f"the package '{package}' that carries the offline model is not installed",
            remedy=OFFLINE_REMEDY,
        )
    version = importlib.metadata.version(package.replace("_", "-"))
    return str(Path(found.origin).parent / file), f"{file} from the package {package} {version}"


def load_transformers(source: str, label: str, preset: Preset, settings: LLMSettings, text: TextForm | None) -> LLM:
    """A model on this machine through transformers, from a folder, a file or the hub's name."""
    import torch
    import transformers

    from ipo.clip.load import resolve_device
    from ipo.llm.local.huggingface import HuggingFaceLLM, load_huggingface

    device = resolve_device(settings.device)
    wanted = settings.dtype if settings.dtype != "auto" else preset.dtype
    dtype = wanted if wanted != "auto" else "float32" if device.type == "cpu" else "bfloat16"
    model, tokenizer = load_huggingface(source, device, getattr(torch, dtype))
    style = _style(preset, settings, tokenizer.chat_template is not None, model.num_parameters())
    style = replace(style, grammar=text or style.grammar)
    name = f"{label}, transformers {transformers.__version__}, {dtype} on {device.type}"
    return HuggingFaceLLM(model, tokenizer, name, style)


def load_llama_cpp(path: Path, label: str, preset: Preset, settings: LLMSettings, text: TextForm | None) -> LLM:
    """A `.gguf` file through llama.cpp."""
    from ipo.llm.local.llama_file import LlamaFile
    from ipo.llm.local.llamacpp import LlamaCppLLM

    file = LlamaFile(path, on_gpu=settings.device != "cpu")
    style = _style(preset, settings, file.chat_template is not None, file.parameters)
    return LlamaCppLLM(file, label, replace(style, grammar=text or style.grammar))


def _style(preset: Preset, settings: LLMSettings, has_chat: bool, parameters: int) -> Style:
    grammar = grammar_of(preset, settings)
    chat = has_chat and parameters >= _SMALL_MODEL if preset.chat is None else preset.chat
    return Style(
        chat=chat,
        template=preset.template or ("ipo.j2" if chat else "continue.j2"),
        top_p=settings.top_p or preset.top_p or (1.0 if chat else 0.9),
        min_likelihood=preset.min_likelihood if grammar == "free" else None,
        caption_tokens=preset.caption_tokens or CAPTION_TOKENS,
        grammar=grammar,
    )
