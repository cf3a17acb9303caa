"""`ipo optimize`: the search, from options to the result on the screen."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ipo.cli import options
from ipo.errors import ConfigError
from ipo.screen import say

if TYPE_CHECKING:
    from ipo.config import Settings
    from ipo.experiment import Experiment
    from ipo.record import Record


def optimize(
    dataset: options.Dataset = None,
    llm: options.Llm = None,
    target: options.Target = None,
    base_url: options.BaseUrl = None,
    clip: options.Clip = None,
    captioner: options.Captioner = None,
    steps: options.Steps = None,
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
    as_json: options.AsJson = False,
) -> None:
    """Search for a prompt: an LLM proposes, CLIP scores, the scored history goes back to the LLM.

    Examples:

      ipo optimize --dataset folder:photos/ --llm openai:gpt-4o-mini

      ipo optimize --dataset caltech101 --llm local-llama --steps 40

      ipo optimize --dataset stamps --offline

      ipo optimize --resume runs/caltech101-local-llama-seed1
    """
    flags: dict[str, Any] = {
        "data": options.data_flags(dataset, data_root, domains, shots, classes, target),
        "clip": {"model": clip, "device": device},
        "llm": {"spec": llm, "base_url": base_url, "temperature": temperature, "device": device},
        "captions": {"captioner": captioner},
        "search": {
            "steps": steps,
            "candidates": candidates,
            "history": history,
            "select": select,
            "template": options.template_place(template),
            "controls": controls,
        },
        "seed": seed,
        "offline": offline or None,
    }
    given = options.without_unset(flags)
    if resume is not None and (given or assignments or config or paper or out):
        raise ConfigError("--resume takes the settings of the run", remedy="Give no other setting beside it")
    settings = None if resume else options.make_settings(config, assignments, flags, paper=paper)
    folder, result = run_search(settings, resume, out)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        print_result(result, folder)


def run_search(settings: Settings | None, resume: Path | None, out: Path | None) -> tuple[Path, dict[str, Any]]:
    """Start or resume a run, with progress on standard error; the run folder and the content of `result.json`."""
    from ipo import experiment
    from ipo.run_folder import RunFolder
    from ipo.run_path import RUNS, claim_run_path, new_run_path, require_free

    if resume is not None:
        folder = RunFolder.open(resume)
        built = experiment.prepare(folder.settings, folder)
        record = experiment.reopen(built, folder)
    else:
        assert settings is not None
        words = [Path(settings.data.dataset).name, Path(settings.llm.spec).name, f"{settings.data.shots}shot"]
        words.append(f"seed{settings.seed}")
        require_free(out or new_run_path(RUNS, *words))
        built = experiment.prepare(settings)
        folder, record = experiment.start(built, out or claim_run_path(RUNS, *words))
    say(describe(built))
    with folder:
        try:
            with Watch(built.settings.search.steps) as watch:
                result = experiment.run(built, folder, record, watch)
        except BaseException:
            say(f"Everything so far is kept. Go on with: ipo optimize --resume {shlex.quote(str(folder.path))}")
            raise
    return folder.path, result


def describe(built: Experiment) -> str:
    """What is about to run, in two or three lines."""
    task = built.protocol.task
    lines = [
        f"{task.dataset}: {len(task.classnames)} {built.protocol.classes} classes, {len(task.train)} training images, "
        f"split {built.protocol.source.split_source}",
        f"CLIP {built.clip.fingerprint.name}; LLM {built.llm.name}",
    ]
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


def print_result(result: dict[str, Any], folder: Path) -> None:
    """The best prompt, the results table and where to read more, on standard output."""
    from ipo.cli.result_table import result_table
    from ipo.report import HISTORY_PAGE, REPORT_PAGE, WEAK_MODEL_NOTE

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"Stopped: {result['stopped']}.")
    console.print(f"Best prompt (training accuracy {100 * result['best']['score']['accuracy']:.1f}%):", style="bold")
    console.print(f"  {result['best']['text']}", style="bold")
    console.print(result_table(result))
    console.print("Ensemble:")
    for text in result["ensemble"]["prompts"]:
        console.print(f"  {text}")
    if result["model"] == "mini":
        console.print(WEAK_MODEL_NOTE)
    console.print(f"History: {folder / HISTORY_PAGE}\nReport:  {folder / REPORT_PAGE}", soft_wrap=True)
