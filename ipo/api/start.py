"""Start or go on with a run of any method, by the command as from Python: checks first, then models, then the run.

What a run tells of itself meanwhile goes to standard error; inside `ipo.screen.silence` nothing does.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipo.api.watch import Watch
from ipo.config import LLMSettings, SearchOptions, Settings, StrategySettings
from ipo.errors import DivergedError, LLMError, RunError
from ipo.registry import SEARCH
from ipo.screen import counted, say

if TYPE_CHECKING:
    from ipo.run import Job
    from ipo.runs.folder import RunFolder
    from ipo.runs.readers import Reader
    from ipo.runs.result import Result


def start_run(method: str, settings: Settings, own: Mapping[str, Any], out: Path | None) -> tuple[Path, Result | None]:
    """A new run of a method with options of its `own`, after all that can be refused before heavy packages are there.

    The run folder and the result, which only the first process of a group has.
    """
    from ipo.data.load import require_known
    from ipo.runs.check import check, require_run_place
    from ipo.runs.folder import is_first_process
    from ipo.runs.path import RUNS, claim_run_path, new_run_path
    from ipo.runs.readers import method_reader

    reader = method_reader(method)
    place = require_known(settings.data.dataset)
    label = search_label(settings.strategy, settings.llm) if method == SEARCH else method
    words = (Path(place).name, label, f"{settings.data.shots}shot", f"seed{settings.seed}")
    if is_first_process():
        require_run_place(out or new_run_path(RUNS, *words), settings.data)
    check(reader, settings)

    from ipo import run

    job = run.prepare(method, settings, own)
    if not is_first_process():
        run.assist(job, None)
        return Path(), None
    return carry_out(job, run.start(job, out or claim_run_path(RUNS, *words)))


def search_label(strategy: StrategySettings, llm: LLMSettings) -> str:
    """What a search is called in the name of its folder: the LLM, after a strategy that is not the default."""
    from ipo.search.strategy import choose

    chosen, model = choose(strategy), Path(llm.spec).name
    name = chosen.strategy.name
    if name == StrategySettings().name:
        return model
    return f"{name}-{model}" if chosen.asks_llm else name


def resume_run(path: Path, settings: Settings, own: Mapping[str, Any], force: bool) -> tuple[Path, Result | None]:
    """Go on with a run of whatever method; see `start_run`."""
    from ipo.runs.check import check
    from ipo.runs.folder import RunFolder, is_first_process
    from ipo.runs.readers import method_reader
    from ipo.runs.resume import plan_resumption

    folder = RunFolder.open(path) if is_first_process() else None
    resumption = plan_resumption(path, settings, force)
    check(method_reader(resumption.method), settings, without=("captions.captioner",))

    from ipo import run

    job, resumption = run.plan(resumption, own)
    if folder is None:
        run.assist(job, path)
        return Path(), None
    run.reopen(job, folder, resumption)
    return carry_out(job, folder)


def reader_of(run: Path) -> Reader:
    """What the method of a run reads of the settings."""
    from ipo.runs.folder import read_run, require_run
    from ipo.runs.readers import method_reader
    from ipo.runs.resume import recorded_method

    require_run(run)
    return method_reader(recorded_method(run, read_run(run)))


def require_search(path: Path) -> None:
    """Raise `RunError` for the folder of a run that is no search."""
    if reader_of(path).name != SEARCH:
        raise RunError("not a run of `ipo optimize`", where=str(path), remedy="See: ipo baseline --resume")


def carry_out(job: Job, folder: RunFolder) -> tuple[Path, Result]:
    """Run in an open folder, which is closed in the end, with progress on standard error."""
    from ipo import run

    say(describe(job))
    search = job.options.search if isinstance(job.options, SearchOptions) else None
    with folder:
        try:
            with Watch(search.steps) if search else nullcontext() as watch:
                told = (watch, watch.trying) if watch else ()
                return folder.path, run.run(job, folder, *told)
        except DivergedError:
            raise
        except BaseException:
            command = "optimize" if search else "baseline"
            say(f"Go on with: ipo {command} --resume {shlex.quote(str(folder.path))}")
            raise


def describe(job: Job) -> str:
    """What is about to run, in a few lines."""
    from ipo.comparison.trials import with_domains
    from ipo.report.pages import classes_of
    from ipo.search.propose import named_by_first_prompts

    task, options, llm = job.protocol.task, job.options, job.means.llm
    classes = classes_of({"classes": job.protocol.classes, "class_count": len(task.classnames)})
    found = f"{classes}, {counted(len(task.train), 'training image')}, split {job.protocol.source.split_source}"
    method = "" if job.method.name == SEARCH else f"{job.method.name} on "
    lines = [
        f"{method}{with_domains(task.dataset, job.settings.model_dump(mode='json'))}: {found}",
        f"CLIP {task.clip.fingerprint.name}" + (f"; LLM {llm.name}" if llm else ""),
    ]
    if isinstance(options, SearchOptions):
        if named := named_by_first_prompts(options.search, task.classnames):
            lines.append(f"a first prompt names a class, and so may proposals: {', '.join(named)}")
    elif chosen := options.model_dump(mode="json"):
        lines.append(", ".join(f"{key}={value}" for key, value in chosen.items()))
    if job.settings.offline:
        lines.append("offline: stand-ins from package registries, not the models of the paper")
    return "\n".join(lines)


def complain(result: Result, folder: Path) -> None:
    """Show what an LLM said that was of no use. Raises `LLMError` where the search gave up without one proposal."""
    useless = result.unusable
    if useless is None:
        return
    for reply in useless.replies:
        said = " ".join(reply.text.split()) or "(nothing)"
        say(f"rejected ({reply.reason}): {said}")
    steps = "step" if useless.steps == 1 else f"{useless.steps} steps"
    what = f"no proposal of the last {steps} could be used"
    remedy = f"Try another model, or another --template; all it said: ipo history {shlex.quote(str(folder))} --rejects"
    if useless.gave_up and useless.steps == useless.of:
        raise LLMError(f"{what}, so the result is that of the first prompts", where=result.llm, remedy=remedy)
    say(f"warning: {what}. {remedy}")
