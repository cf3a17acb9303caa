"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ipo.config import Settings, load_settings, merge, parse_assignments
from ipo.paper import PAPER_SETTINGS, require_captioner

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", help="A catalogue name (see: ipo datasets), folder:PATH, csv:FILE, hf:NAME, wds:SHARDS."
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder that holds the datasets. Default: IPO_DATA, or a cache folder."),
]
Shots = Annotated[int | None, typer.Option("--shots", min=1, help="Labelled training images a class. (default: 16)")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every random choice. (default: 1)")]
Classes = Annotated[
    str | None, typer.Option("--classes", help="base, all, or auto: base for benchmarks, all for one's own data.")
]
Domains = Annotated[
    str | None, typer.Option("--domains", help="Domains to use, with commas, where a dataset has several.")
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", help="Test on this dataset too, or on one DOMAIN of it: NAME@DOMAIN. Repeatable."),
]
Clip = Annotated[
    str | None,
    typer.Option(
        "--clip",
        help="NAME/TAG of open_clip, hf-hub:ORG/REPO, local-dir:PATH, or mini. (default: ViT-B-16-quickgelu/openai)",
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps, for CLIP and a local LLM.")]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Use only models from package registries: mini and SmolLM2. Also IPO_OFFLINE=1."),
]
Llm = Annotated[
    str | None,
    typer.Option("--llm", help="Preset, hf:ORG/MODEL, a folder, a .gguf file, or openai:MODEL. (default: local-llama)"),
]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Address of an OpenAI-compatible server.")]
Captioner = Annotated[
    str | None, typer.Option("--captioner", help="none, describe, hf:ORG/MODEL or openai:MODEL. (default: none)")
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Rounds of the loop. (default: 100)")]
Candidates = Annotated[int | None, typer.Option("--candidates", min=1, help="Prompts asked for a step. (default: 8)")]
HistorySize = Annotated[
    int | None,
    typer.Option("--history", min=0, help="Best prompts shown to the LLM; 0 is no feedback. (default: 20)"),
]
Select = Annotated[
    str | None,
    typer.Option("--select", help="Ranking: accuracy, loss, margin, fold_accuracy, fold_loss. (default: accuracy)"),
]
Template = Annotated[
    Path | None,
    typer.Option(
        "--template", help="Meta-prompt: a Jinja file of your own, or a shipped one by its name, such as ipo.j2."
    ),
]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, help="Sampling temperature. (default: 1.0)")]
Paper = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="The paper's setting: 1 shot, 100 steps of 5 candidates, the first prompt always shown, a description of "
        "every image; needs --captioner.",
    ),
]
Controls = Annotated[
    bool | None,
    typer.Option(
        "--controls/--no-controls",
        help="Test the best and the mean of 80 hand-made prompts too. (default: with --offline)",
    ),
]
Resume = Annotated[Path | None, typer.Option("--resume", help="Go on with this run folder; its settings are used.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML); options given here win over it.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, as key=value, such as search.patience=10. Repeatable.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. Default: a new one under runs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def make_settings(
    config: Path | None, assignments: list[str] | None, flags: dict[str, Any], *, paper: bool = False
) -> Settings:
    """Settings from the file, then `--paper`, then the flags that were given, then `--set`; all paths absolute."""
    given = without_unset(flags)
    layers = merge(PAPER_SETTINGS if paper else {}, merge(given, parse_assignments(assignments or ())))
    settings = load_settings(config, layers)
    if paper:
        require_captioner(settings)
    return absolute_places(settings)


def absolute_places(settings: Settings) -> Settings:
    """The settings without a path that depends on the working folder, so that a run can be resumed from another one."""
    data, captioner, template = settings.data, settings.captions.captioner, settings.search.template
    changes: dict[str, dict[str, Any]] = {
        "data": {
            "dataset": absolute_place(data.dataset),
            "targets": tuple(absolute_place(target) for target in data.targets),
            "root": absolute(data.root),
            "names": absolute(data.names),
        },
        "clip": {"model": absolute_place(settings.clip.model)},
        "llm": {"spec": _model_place(settings.llm.spec)},
        "search": {"template": template_place(Path(template) if template else None)},
    }
    if captioner.startswith("hf:") and Path(captioner[3:]).is_dir():
        changes["captions"] = {"captioner": f"hf:{absolute(Path(captioner[3:]))}"}
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in changes.items()}
    )


def absolute_place(spec: str | None) -> str | None:
    """The spec of a dataset or CLIP model; its path, if it has one, no longer depends on the working folder."""
    kind, colon, place = (spec or "").partition(":")
    return f"{kind}:{absolute(Path(place))}" if colon and kind in ("folder", "csv", "wds", "local-dir") else spec


def _model_place(spec: str) -> str:
    """The spec of a language model, which may be a folder or a file; a preset of the same name goes first."""
    from ipo.llm.presets import presets

    path = Path(spec).expanduser()
    return str(path.absolute()) if path.exists() and spec not in presets() else spec


def absolute(path: Path | None) -> Path | None:
    """A path that no longer depends on the working folder."""
    return None if path is None else path.expanduser().absolute()


def template_place(template: Path | None) -> str | None:
    """A shipped template by its name; one's own by a path that no longer depends on the working folder."""
    from ipo.render import is_shipped

    if template is None:
        return None
    return str(template) if is_shipped(str(template)) else str(absolute(template))


def data_flags(
    dataset: str | None,
    data_root: Path | None,
    domains: str | None,
    shots: int | None = None,
    classes: str | None = None,
    targets: list[str] | None = None,
) -> dict[str, Any]:
    """The `data` section of the options that were given."""
    return {
        "dataset": dataset,
        "root": data_root,
        "shots": shots,
        "classes": classes,
        "domains": split_commas(domains),
        "targets": targets or None,
    }


def without_unset(values: dict[str, Any]) -> dict[str, Any]:
    """Nested mapping without the entries that are None."""
    kept = {key: without_unset(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def split_commas(text: str | None) -> tuple[str, ...] | None:
    """`"photo,sketch"` as a tuple; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
