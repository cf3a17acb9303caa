"""`ipo optimize`: the search, from options to the result on the screen."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.errors import LLMError
from ipo.screen import counted, printable, say

if TYPE_CHECKING:
    from ipo.config import Settings
    from ipo.experiment import Experiment
    from ipo.record import Record
    from ipo.run_folder import RunFolder


def optimize(
    dataset: options.Dataset = None,
    llm: options.Llm = None,
    target: options.Target = None,
    base_url: options.BaseUrl = None,
    clip: options.Clip = None,
    captioner: options.Captioner = None,
    steps: options.Steps = None,
    max_tokens: options.MaxTokens = None,
    candidates: options.Candidates = None,
    history: options.HistorySize = None,
    select: options.Select = None,
    template: options.Template = None,
    temperature: options.Temperature = None,
    shots: options.Shots = None,
    seed: options.Seed = None,
    classes: options.Classes = None,
    domains: options.Domains = None,
    data_root: options.DataRoot = None,
    device: options.DeviceOption = None,
    offline: options.Offline = False,
    paper: options.Paper = False,
    controls: options.Controls = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    out: options.Out = None,
    resume: options.Resume = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Search for a prompt: an LLM proposes, CLIP scores, the scored history goes back to the LLM.

    Examples:

      ipo optimize --dataset folder:photos/ --llm openai:gpt-4o-mini

      ipo optimize --dataset caltech101 --llm local-llama --steps 40

      ipo optimize --dataset stamps --offline

      ipo optimize --resume runs/caltech101-local-llama-16shot-seed1

      ipo optimize --resume runs/caltech101-local-llama-16shot-seed1 --steps 200
    """
    flags: dict[str, Any] = {
        "data": options.data_flags(dataset, data_root, domains, shots, classes, target),
        "clip": {"model": clip, "device": device},
        "llm": {"spec": llm, "base_url": base_url, "temperature": temperature},
        "captions": {"captioner": captioner},
        "search": {
            "steps": steps,
            "max_tokens": max_tokens,
            "candidates": candidates,
            "history": history,
            "select": select,
            "template": template and str(template),
            "controls": controls,
        },
        "seed": seed,
        "offline": offline or None,
    }
    options.check_resumption(resume, force, {"--config": config, "--paper": paper, "--out": out})

    from ipo.cli.settings import make_settings, resumed_settings

    if resume is not None:
        settings = resumed_settings("optimize", resume, assignments, flags)
    else:
        settings = make_settings("optimize", config, assignments, flags, paper)
    folder, result = run_search(settings, resume, out, force)
    if as_json:
        print_json(result)
    else:
        print_result(result, folder)
    complain(result, folder)


def run_search(
    settings: Settings, resume: Path | None, out: Path | None, force: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Start or resume a run, with progress on standard error; the run folder and the content of `result.json`."""
    built, folder, record = resume_search(resume, settings, force) if resume else start_search(settings, out)

    from ipo.experiment import run

    say(describe(built))
    with folder:
        try:
            with Watch(built.settings.search.steps) as watch:
                result = run(built, folder, record, watch)
        except BaseException:
            say(f"Everything so far is kept. Go on with: ipo optimize --resume {shlex.quote(str(folder.path))}")
            raise
    return folder.path, result


def start_search(settings: Settings, out: Path | None) -> tuple[Experiment, RunFolder, Record]:
    """A new run, after all that can be refused before heavy packages are imported."""
    from ipo.check import check, require_run_place
    from ipo.data.load import require_known
    from ipo.run_path import RUNS, claim_run_path, new_run_path

    place = require_known(settings.data.dataset)
    words = (Path(place).name, Path(settings.llm.spec).name, f"{settings.data.shots}shot", f"seed{settings.seed}")
    require_run_place(out or new_run_path(RUNS, *words), settings)
    check("optimize", settings)

    from ipo import experiment

    built = experiment.prepare(settings)
    folder, record = experiment.start(built, out or claim_run_path(RUNS, *words))
    return built, folder, record


def resume_search(path: Path, settings: Settings, force: bool) -> tuple[Experiment, RunFolder, Record]:
    """A run that is gone on with, after the same."""
    from ipo.check import check
    from ipo.resume import plan_resumption
    from ipo.run_folder import RunFolder

    folder = RunFolder.open(path)
    resumption = plan_resumption("optimize", path, settings, force)
    check("optimize", settings, without=("captions.captioner",))

    from ipo import experiment

    built = experiment.prepare(settings, resumption)
    return built, folder, experiment.reopen(built, folder, resumption)


def describe(built: Experiment) -> str:
    """What is about to run, in a few lines."""
    from ipo.propose import named_by_first_prompts
    from ipo.report import classes_of

    task = built.protocol.task
    classes = classes_of({"classes": built.protocol.classes, "class_count": len(task.classnames)})
    lines = [
        f"{task.dataset}: {classes}, {counted(len(task.train), 'training image')}, "
        f"split {built.protocol.source.split_source}",
        f"CLIP {built.clip.fingerprint.name}; LLM {built.llm.name}",
    ]
    if named := named_by_first_prompts(built.settings.search, task.classnames):
        lines.append(f"a first prompt names a class, and so may proposals: {', '.join(named)}")
    if built.settings.offline:
        lines.append("offline: stand-ins from package registries, not the models of the paper")
    return "\n".join(lines)


class Watch:
    """Progress of a search on standard error: a live bar on a terminal, a line a step elsewhere."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        console = Console(stderr=True)
        self.live = console.is_terminal
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self.bar = Progress(*columns, console=console, disable=not self.live)
        self.task = self.bar.add_task("scoring the first prompts", total=self.steps)
        self.started = time.monotonic()

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, record: Record) -> None:
        """Show the state after a step."""
        history, usage, best = record.history, record.usage(), record.history.best()
        proposed = len([entry for entry in history if entry.step > 0])
        accepted = len([entry for entry in history.scored() if entry.step > 0])
        share = f"{100 * accepted / proposed:.0f}%" if proposed else "-"
        assert best.score is not None
        text = f"best {100 * best.score.accuracy:.1f}%  accepted {share}  tokens {usage.tokens:,}"
        self.bar.update(self.task, completed=record.last_step, description=text)
        if not self.live:
            say(f"step {record.last_step}/{self.steps}  {text}  {time.monotonic() - self.started:.0f} s")


def complain(result: dict[str, Any], folder: Path) -> None:
    """Show what an LLM said that was of no use. Raises `LLMError` where the search gave up without one proposal."""
    useless = result["unusable"]
    if useless is None:
        return
    for reply in useless["replies"]:
        said = " ".join(reply["text"].split()) or "(nothing)"
        say(f"rejected ({reply['reason']}): {said}")
    steps = "step" if useless["steps"] == 1 else f"{useless['steps']} steps"
    what = f"no proposal of the last {steps} could be used"
    remedy = f"Try another model, or another --template; all it said: ipo history {shlex.quote(str(folder))} --rejects"
    if useless["gave_up"] and useless["steps"] == useless["of"]:
        raise LLMError(f"{what}, so the result is that of the first prompts", where=result["llm"], remedy=remedy)
    say(f"warning: {what}. {remedy}")


def print_result(result: dict[str, Any], folder: Path) -> None:
    """The best prompt, the results table and where to read more, on standard output."""
    from ipo.cli.result_table import result_table
    from ipo.report import HISTORY_PAGE, REPORT_PAGE, WEAK_MODEL_NOTES

    console = output()
    console.print(printable(f"Stopped: {result['stopped']}."))
    console.print(f"Best prompt (training accuracy {100 * result['best']['score']['accuracy']:.1f}%):", style="bold")
    console.print(f"  {printable(result['best']['text'])}", style="bold")
    print(result_table(result))
    members = result["ensemble"]["prompts"]
    if len(members) > 1:
        console.print("Ensemble:")
        for text in members:
            console.print(f"  {printable(text)}")
    if result["model"] in WEAK_MODEL_NOTES:
        console.print(WEAK_MODEL_NOTES[result["model"]])
    for name, page in (("History", HISTORY_PAGE), ("Report", REPORT_PAGE)):
        console.print(f"{name}: {printable(str(folder / page))}", soft_wrap=True)
