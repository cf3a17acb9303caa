"""`ipo describe`: a language model writes texts about the classes of a dataset, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.runs.readers import DESCRIBE
from ipo.screen import counted, printable, say

if TYPE_CHECKING:
    from ipo.config import Settings
    from ipo.descriptions.ask import Described, Describing

DESCRIPTIONS = Path("descriptions")
"""Where folders of descriptions lie that nobody named."""


@options.for_settings(DESCRIBE)
def describe(
    given: options.Given,
    kind: Annotated[
        Literal["dclip", "cupl", "attributes"],
        typer.Option("--kind", help="Visual features (dclip), sentences (cupl), or phrases with has and is."),
    ] = "dclip",
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Answers to each question (cupl: 10 to each of 5; else 1)."),
    ] = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; one that was begun is gone on with. Default: descriptions/...")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a language model describe each class once, for the methods that read descriptions.

    Names of all classes are shown to it, those of --target too. What was answered is kept: the same command goes on.

    Examples:

      ipo describe --dataset caltech101 --llm openai:gpt-4o-mini

      ipo describe --dataset caltech101 --llm local-llama --kind cupl --samples 2

      ipo baseline dclip --dataset caltech101 --set descriptions=FOLDER/descriptions.json
    """
    from ipo.api.settings import make_settings
    from ipo.runs.check import check

    settings = make_settings(DESCRIBE, config, assignments, given)
    check(DESCRIBE, settings)

    from ipo.descriptions import ask

    job = _job(settings, kind, samples)
    folder = out or DESCRIPTIONS / _folder_name(settings.data.dataset, kind, settings.llm.spec)
    say(ask.estimate(job, folder))
    found = ask.describe(job, folder)
    if as_json:
        print_json({**found.facts, "file": str(found.file), "without": found.without})
        return
    _show(found, job.llm.name)


def _job(settings: Settings, kind: str, samples: int | None) -> Describing:
    """What is asked: as the kind says, and the settings where they say otherwise."""
    from ipo.data.listing import named_dataset, read_target
    from ipo.descriptions.ask import Describing
    from ipo.descriptions.kinds import kinds
    from ipo.llm.load import load_llm

    chosen, llm = kinds()[kind], settings.llm
    own = llm.model_dump(include={"temperature", "max_tokens"} & llm.model_fields_set)
    chosen = chosen.model_copy(update=own | ({"samples": samples} if samples else {}))
    data, seed = settings.data, settings.seed
    targets = [read_target(spec, data.root, seed).classnames for spec in data.targets]
    names = dict.fromkeys(name for own in (named_dataset(data, seed).classnames, *targets) for name in own)
    model = load_llm(llm, offline=settings.offline, form=chosen.form)
    return Describing(kind, chosen, model, tuple(names), seed, llm.concurrency)


def _folder_name(dataset: str, kind: str, llm: str) -> str:
    from ipo.runs.path import folder_name

    return folder_name(Path(dataset.partition(":")[2] or dataset).name, kind, Path(llm).name)


def _show(found: Described, model: str) -> None:
    console, usage = output(), found.facts["usage"]
    texts = sum(map(len, found.texts.values()))
    price = f", ${found.facts['cost']:.4f}" if found.facts["cost"] else ""
    took = f"{usage['prompt_tokens']:,} tokens asked, {usage['completion_tokens']:,} answered{price}"
    console.print(printable(f"{counted(texts, 'text')} about {counted(len(found.texts), 'class')} by {model}: {took}"))
    for name, own in list(found.texts.items())[:3]:
        console.print(printable(f"  {name}: {'; '.join(own[:4])}"), soft_wrap=True)
    if found.without:
        names = ", ".join(found.without[:5])
        console.print(printable(f"{counted(len(found.without), 'class')} without a text, such as {names}"))
    console.print(f"Descriptions: {printable(str(found.file))}", soft_wrap=True)
