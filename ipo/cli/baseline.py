"""`ipo baseline`: fit a method that IPO is compared with, and test it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.errors import ConfigError, DivergedError
from ipo.screen import counted, printable, say

if TYPE_CHECKING:
    from ipo.config import Settings
    from ipo.fit import Fit
    from ipo.run_folder import RunFolder


def baseline(
    method: Annotated[str | None, typer.Argument(help="Name of a method; see --list.")] = None,
    dataset: options.Dataset = None,
    target: options.Target = None,
    shots: options.Shots = None,
    seed: options.Seed = None,
    classes: options.Classes = None,
    domains: options.Domains = None,
    clip: options.Clip = None,
    data_root: options.DataRoot = None,
    device: options.DeviceOption = None,
    offline: options.Offline = False,
    config: options.Config = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the method, such as epochs=10, or any setting. Repeatable."),
    ] = None,
    out: options.Out = None,
    resume: options.Resume = None,
    force: options.Force = False,
    list_methods: Annotated[bool, typer.Option("--list", help="Show the methods, or the options of one.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Fit a method that IPO is compared with, and test it on base and new classes.

    Options are the published ones unless --set says otherwise. Under torchrun, several processes share fine-tuning.

    Examples:

      ipo baseline --list

      ipo baseline coop --dataset caltech101 --shots 16

      ipo baseline coop --dataset caltech101 --set init=random --set n_ctx=16 --set epochs=50

      ipo baseline lipsum-ft --dataset pacs --domains photo --classes all --target pacs@art_painting
    """
    if list_methods:
        print_options(method) if method else print_methods()
        return
    own, general = split_assignments(assignments or [])
    flags = {
        "data": options.data_flags(dataset, data_root, domains, shots, classes, target),
        "clip": {"model": clip, "device": device},
        "seed": seed,
        "offline": offline or None,
    }
    if (method is None) == (resume is None):
        raise ConfigError("give a method, or --resume RUN", remedy="See: ipo baseline --list")
    options.check_resumption(resume, force, {"--config": config, "--out": out})

    from ipo.cli.settings import make_settings, resumed_settings

    if resume is not None:
        settings = resumed_settings("baseline", resume, general, flags)
        path, result = resume_fit(resume, settings, own, force)
    else:
        assert method is not None
        settings = make_settings("baseline", config, general, flags)
        path, result = start_and_fit(method, settings, own, out)
    if as_json:
        print_json(result)
    elif result:
        print_result(result, path)


def split_assignments(assignments: list[str]) -> tuple[list[str], list[str]]:
    """Those that are options of the method, and those that are settings of the run (`section.key=value`)."""
    from ipo.config import Settings

    general = [
        text for text in assignments if text.partition("=")[0].partition(".")[0].strip() in Settings.model_fields
    ]
    return [text for text in assignments if text not in general], general


def start_and_fit(method: str, settings: Settings, own: list[str], out: Path | None) -> tuple[Path, dict[str, Any]]:
    """Start a run; the run folder and the content of `result.json`, which only the first process has."""
    from ipo.check import check, require_run_place
    from ipo.config import parse_assignments
    from ipo.data.load import require_known
    from ipo.registry import require_method
    from ipo.run_folder import is_first_process
    from ipo.run_path import RUNS, claim_run_path, new_run_path

    require_method(method)
    place = require_known(settings.data.dataset)
    words = (Path(place).name, method, f"{settings.data.shots}shot", f"seed{settings.seed}")
    if is_first_process():
        require_run_place(out or new_run_path(RUNS, *words), settings)
    check("baseline", settings)

    from ipo import fit as fits

    fit = fits.prepare_fit(method, settings, parse_assignments(own))
    if not is_first_process():
        fits.assist_fit(fit, None)
        return Path(), {}
    return run_fit(fit, fits.start_fit(fit, out or claim_run_path(RUNS, *words)))


def resume_fit(path: Path, settings: Settings, own: list[str], force: bool) -> tuple[Path, dict[str, Any]]:
    """Go on with a run; the run folder and the content of `result.json`, which only the first process has."""
    from ipo.check import check
    from ipo.config import parse_assignments
    from ipo.resume import note_resumption, plan_resumption
    from ipo.run_folder import RunFolder, is_first_process

    folder = RunFolder.open(path) if is_first_process() else None
    resumption = plan_resumption("baseline", path, settings, force)
    check("baseline", settings)

    from ipo import fit as fits

    fit, resumption = fits.reopen_fit(resumption, parse_assignments(own))
    if folder is None:
        fits.assist_fit(fit, path)
        return Path(), {}
    note_resumption(folder, resumption, fit.facts())
    return run_fit(fit, folder)


def run_fit(fit: Fit, folder: RunFolder) -> tuple[Path, dict[str, Any]]:
    """Fit in an open run folder, which is closed in the end."""
    from ipo import fit as fits

    say(describe(fit))
    with folder:
        try:
            return folder.path, fits.run_fit(fit, folder)
        except DivergedError:
            raise
        except BaseException:
            say(f"Go on with: ipo baseline --resume {shlex.quote(str(folder.path))}")
            raise


def describe(fit: Fit) -> str:
    """What is about to run."""
    from ipo.report import classes_of

    task, chosen = fit.protocol.task, fit.options.model_dump(mode="json")
    classes = classes_of({"classes": fit.protocol.classes, "class_count": len(task.classnames)})
    lines = [
        f"{fit.method.name} on {task.dataset}: {classes}, "
        f"{counted(len(task.train), 'training image')}, split {fit.protocol.source.split_source}",
        f"CLIP {task.clip.fingerprint.name}"
        + ("; offline: stand-ins for the paper's models" if fit.settings.offline else ""),
    ]
    return "\n".join([*lines, ", ".join(f"{key}={value}" for key, value in chosen.items())]).rstrip()


def print_methods() -> None:
    """All methods with what they are and where they are from."""
    from ipo.methods import find_method
    from ipo.registry import available_methods

    table = Table()
    for heading in ("method", "what it is", "paper"):
        table.add_column(heading, no_wrap=heading == "method")
    for name in available_methods():
        method = find_method(name)
        table.add_row(name, method.summary, method.paper or "")
    output().print(table)


def print_options(name: str) -> None:
    """The options of a method with their defaults."""
    from ipo.methods import find_method

    table = Table(
        title=f"Options of {name} (--set KEY=VALUE); some defaults depend on dataset and shots, as published",
        title_justify="left",
    )
    for heading in ("key", "default", "meaning"):
        table.add_column(heading, no_wrap=heading == "key")
    for key, field in find_method(name).options.model_fields.items():
        table.add_row(key, repr(field.default), field.description or "")
    output().print(table)


def print_result(result: dict[str, Any], folder: Path) -> None:
    """The results table and where to read more, on standard output."""
    from ipo.cli.result_table import result_table
    from ipo.fit import RESULT_PAGE
    from ipo.report import REPORT_PAGE, WEAK_MODEL_NOTES

    console = output()
    print(result_table(result))
    for figures in result["predictors"].values():
        if figures["prompts"]:
            more = f" and {len(figures['prompts']) - 1} more" if len(figures["prompts"]) > 1 else ""
            console.print(f"Prompt: {printable(figures['prompts'][0])}{more}", soft_wrap=True)
    if "reading" in result["figures"]:
        console.print(f"Nearest words: {printable(result['figures']['reading']['sentence'])}", soft_wrap=True)
    for name in ("energy_gap", "feature_distortion"):
        if name in result["figures"]:
            console.print(f"{name.replace('_', ' ')}: {result['figures'][name]:.4g}")
    if result["model"] in WEAK_MODEL_NOTES:
        console.print(WEAK_MODEL_NOTES[result["model"]])
    console.print(f"Fitted in {result['seconds']:.0f} s")
    for name, page in (("Result", RESULT_PAGE), ("Report", REPORT_PAGE)):
        console.print(f"{name}: {printable(str(folder / page))}", soft_wrap=True)
