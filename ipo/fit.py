"""One whole `ipo baseline`: build what the settings name, fit a method, and report what it does on the test images.

Nothing is written before all models and data are there, so a run that cannot start leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ipo import __version__
from ipo.check import check
from ipo.clip.load import load_clip
from ipo.config import Section, Settings
from ipo.errors import RunError
from ipo.experiment import feature_store
from ipo.facts import listing_facts, task_facts
from ipo.methods import FitRun, Fitted, Method, find_method, save_tensors
from ipo.protocols import BaseToNew, BaseToNewResult, Listing, evaluate_base_to_new, load_task, read_listing, verdicts
from ipo.registry import require_method
from ipo.render import render
from ipo.report import classes_of, report_stop, result_columns, result_rows, write_reports
from ipo.result_file import CORRECT_FILE
from ipo.results import data_facts, test_hashes
from ipo.resume import Resumption, changed_values, require_same
from ipo.run_folder import RESULT_FILE, RunFolder
from ipo.scope import unread

LEARNED_FILE = "learned.safetensors"
RESULT_PAGE = "result.md"


@dataclass(frozen=True)
class Fit:
    """A method with its options, and the task and test sets it is for."""

    method: Method
    options: Section
    settings: Settings
    listing: Listing
    protocol: BaseToNew

    def facts(self) -> dict[str, Any]:
        """What `run.json` records of the method, the model and the data."""
        return {
            "method": self.method.name,
            "options": self.options.model_dump(mode="json"),
            **task_facts(self.listing, self.protocol),
            "offline": self.settings.offline,
        }


def prepare_fit(
    name: str,
    settings: Settings,
    overrides: Mapping[str, Any] | None = None,
    resumption: Resumption | None = None,
) -> Fit:
    """Check all that needs no model, then read listings, load the model, and make the features of the shots.

    Writes to the cache folder only. A fit that is gone on with has to have the same listing.
    """
    require_method(name)
    check("baseline", settings)
    method = find_method(name)
    method.configure(settings.data.dataset, settings.data.shots, overrides)
    listing = read_listing(settings)
    if resumption:
        require_same(resumption, listing_facts(listing))
    listing.require_openable(skip_unreadable=settings.data.skip_unreadable)
    options = method.configure(listing.dataset.name, settings.data.shots, overrides)
    clip = load_clip(settings.clip, offline=settings.offline)
    protocol = load_task(settings, clip, feature_store(settings, clip), listing)
    method.check(protocol.task, options)
    return Fit(method, options, settings, listing, protocol)


def start_fit(fit: Fit, path: Path) -> RunFolder:
    """A new run folder for the fit."""
    facts = fit.facts() | data_facts(fit.protocol)
    return RunFolder.create(path, fit.settings, facts, unread=unread("baseline", fit.settings))


def reopen_fit(resumption: Resumption, overrides: Mapping[str, Any] | None = None) -> tuple[Fit, Resumption]:
    """The fit of an existing run folder, to go on with it under the same method, model and data; and what changes.

    Raises `RunError` and `ConfigError` where anything is another that the result depends on.
    """
    run, settings = resumption.run, resumption.settings
    if not isinstance(run["options"], dict):
        raise RunError("the options of the method are damaged", where=str(resumption.path), remedy="Start a new run")
    method = find_method(str(run.get("method")))
    now = {**run["options"], **(overrides or {})}
    before, after = (
        method.configure(settings.data.dataset, settings.data.shots, values).model_dump(mode="json")
        for values in (run["options"], now)
    )
    changes = changed_values(before, after, method.options.changeable)
    resumption = replace(resumption, changes=(*resumption.changes, *changes))
    fit = prepare_fit(method.name, settings, now, resumption)
    require_same(resumption, {name: value for name, value in fit.facts().items() if name != "options"})
    return fit, resumption


def run_fit(fit: Fit, folder: RunFolder) -> dict[str, Any]:
    """Fit, or go on fitting, evaluate once on the test images, and write the results."""
    run = FitRun(folder.path)
    try:
        fitted = fit.method.fit(fit.protocol.task, fit.options, run)
        seconds = run.seconds
        load_test_features(fit)
        results = evaluate_fitted(fit, fitted, run.report)
    except BaseException as error:
        report_stop(folder, error)
        raise
    if fitted.learned:
        save_tensors(folder.path / LEARNED_FILE, fitted.learned)
    folder.write(CORRECT_FILE, verdicts(fit.protocol, results))
    result = _result(fit, fitted, results, seconds)
    folder.write(RESULT_FILE, result)
    folder.update(status="done")
    table = {"columns": result_columns(result), "rows": result_rows(result), "classes": classes_of(result)}
    folder.write(RESULT_PAGE, render("result.md.j2", result=result, **table) + "\n")
    write_reports(folder.path)
    return result


def assist_fit(fit: Fit, path: Path | None) -> None:
    """The part of a process beside the first: it shares the work of a fit, resumed from `path` or new."""
    fit.method.fit(fit.protocol.task, fit.options, FitRun(path, writes=False, report=lambda _: None))
    load_test_features(fit)


def load_test_features(fit: Fit) -> None:
    """Read all test images; a group of processes shares this work too."""
    for held_out in fit.protocol.test_sets().values():
        len(held_out.images)


def evaluate_fitted(fit: Fit, fitted: Fitted, report: Callable[[str], None]) -> dict[str, BaseToNewResult]:
    """Every predictor on every test set that it knows the classes of; `report` tells what was left out."""
    protocol = fit.protocol.of_own_classes() if fitted.own_classes_only else fit.protocol
    left_out = fit.protocol.test_sets().keys() - protocol.test_sets().keys()
    if left_out:
        report(f"not tested on {', '.join(sorted(left_out))}: the fit knows its own classes only")
    return {name: evaluate_base_to_new(predictor, protocol) for name, predictor in fitted.predictors.items()}


def _result(fit: Fit, fitted: Fitted, results: Mapping[str, BaseToNewResult], seconds: float) -> dict[str, Any]:
    task = fit.protocol.task
    predictors = {name: result.to_json() | {"prompts": fitted.prompts(name)} for name, result in results.items()}
    return {
        **fit.facts(),
        **data_facts(fit.protocol),
        "ipo": __version__,
        "test_hashes": test_hashes(fit.protocol),
        "paper": fit.method.paper,
        "model": task.clip.fingerprint.name,
        "shots": task.shots,
        "headline": fitted.headline,
        "predictors": predictors,
        "figures": dict(fitted.figures),
        "seconds": round(seconds, 1),
        "cost": None,
    }
