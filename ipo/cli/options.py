"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ipo.errors import ConfigError

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", help="A name (see: ipo datasets), a path, or folder:PATH, csv:FILE, hf:NAME, wds:SHARDS."
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
Strategy = Annotated[
    str | None,
    typer.Option("--strategy", help="What a step shows and asks; see --strategies. (default: ipo)"),
]
Strategies = Annotated[bool, typer.Option("--strategies", help="Show the strategies with their options.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Rounds of the loop. (default: 100)")]
Candidates = Annotated[int | None, typer.Option("--candidates", min=1, help="Prompts asked for a step. (default: 8)")]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, help="Stop after so many LLM tokens, prompts and replies of the run together."),
]
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
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Go on with this run folder. Beside it: what changes no result, such as a new place of the --dataset.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="With --resume: go on although a library has another patch release now.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML); options given here win over it.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, as key=value, such as search.patience=10. Repeatable.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. Default: a new one under runs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def check_resumption(resume: Path | None, force: bool, others: dict[str, Any]) -> None:
    """Raise `ConfigError` for `--force` without a run to go on with, and for `others` beside one."""
    if force and resume is None:
        raise ConfigError("--force is for --resume RUN", remedy="Leave it out")
    given = [name for name, value in others.items() if value]
    if resume is not None and given:
        raise ConfigError(f"--resume goes on with a run, and takes no {' and no '.join(given)}", remedy="Leave it out")


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
