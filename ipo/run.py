"""One run of any method, the search among them: prepare, start or reopen, fit, test once, and report.

Nothing is written before all models and data are there, so a run that cannot start leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ipo import __version__
from ipo.captions import NO_CAPTIONS, make_captioner, make_captions, pick_captions, read_captions
from ipo.clip.base import ClipModel
from ipo.clip.features import feature_store
from ipo.clip.hashes import dataset_hash
from ipo.clip.load import load_clip
from ipo.clip.patches import PatchStore, patch_store
from ipo.comparison.verdict import compare_best, compare_best_map
from ipo.config import Section, Settings
from ipo.data.listing import Listing, read_listing
from ipo.data.splits import relative
from ipo.data.uses import Use
from ipo.draws import drawn_figures
from ipo.errors import ConfigError, RunError
from ipo.llm.base import PHRASE_FORMS, Usage
from ipo.llm.load import load_llm, require_local
from ipo.llm.phrases import word_lists
from ipo.methods import LEARNED_FILE, FitRun, Fitted, Means, Method, find_method
from ipo.predict.keep import keep_to_predict
from ipo.registry import asks_llm, opens_llm
from ipo.report.kept import evaluate_hand_crafted, keep_predictions
from ipo.report.pages import report_stop, write_reports
from ipo.runs.check import check
from ipo.runs.facts import listing_facts, task_facts, test_hashes
from ipo.runs.folder import RunFolder
from ipo.runs.path import CAPTIONS_FILE
from ipo.runs.readers import method_reader
from ipo.runs.result import Result, with_draws, write_result
from ipo.runs.resume import Resumption, changed_values, note_resumption, require_same
from ipo.runs.scope import unread
from ipo.runs.tracker import Tracker
from ipo.screen import say
from ipo.store.tensors import save_tensors
from ipo.task import BaseToNew, BaseToNewResult, FewShotTask, evaluate_base_to_new, load_task, task_texts, verdicts


@dataclass(frozen=True)
class Job:
    """A method with its options, what it is handed, and the task and test sets that it is for."""

    method: Method[Any]
    options: Section
    settings: Settings
    listing: Listing
    protocol: BaseToNew
    means: Means
    uses: list[Use] | None
    """What the method sees beside the names of its classes; None where it does not declare it."""

    @property
    def shown(self) -> FewShotTask:
        """The task, without what the method does not declare to use."""
        return self.protocol.shown(None if self.uses is None else frozenset(self.uses))

    def facts(self) -> dict[str, Any]:
        """What `run.json` records of the method, the models and the data: what has to be the same later."""
        own = {} if self.method.of_settings else {"options": self.options.model_dump(mode="json")}
        llm, captions = self.means.llm, self.means.captions
        asked = {"llm": llm.name, "captioner": captions.captioner} if llm else {}
        if llm and llm.form in PHRASE_FORMS:
            asked["phrases"] = word_lists().digest
        task = task_facts(self.listing, self.protocol)
        return {"method": self.method.name, **own, **task, **asked, "offline": self.settings.offline}

    def data_facts(self) -> dict[str, Any]:
        """What it records of the data beside: the classes, and which content."""
        protocol, names = self.protocol, self.protocol.task.classnames
        return {"class_count": len(names), "classnames": list(names), "dataset_hash": dataset_hash(protocol.source)}

    @property
    def training_images(self) -> list[str]:
        """Where each training image lies below the folder of the dataset."""
        return [relative(item.path, self.protocol.source.root) for item in self.protocol.task.train.items]


def prepare(
    name: str, settings: Settings, own: Mapping[str, Any] | None = None, resumption: Resumption | None = None
) -> Job:
    """Check all that needs no model, then read listings, load models, and make image features and captions.

    `own` are options of the method. Writes to the cache folder only. A run that is gone on with has to have the same
    listing; it keeps the captions in its folder, and nobody is asked for any.
    """
    check(method_reader(name), settings, without=("captions.captioner",) if resumption else ())
    method = find_method(name)
    if settings.data.metric == "map" and not method.multi_label:
        what = f"method '{name}' is for one label an image, not for data.metric=map"
        raise ConfigError(what, remedy="Leave the metric out, or see `ipo baseline --list` for others")
    method.options_of(settings, settings.data.dataset, own)
    if opened := opens_llm(name):
        require_local(settings.llm, offline=settings.offline)
    listing = read_listing(settings.data, settings.seed)
    if resumption:
        require_same(resumption, listing_facts(listing))
    listing.require_openable(skip_unreadable=settings.data.skip_unreadable)
    options = method.options_of(settings, listing.dataset.name, own)
    clip = load_clip(settings.clip, offline=settings.offline)
    asked = asks_llm(name) and method.asks_llm(options)
    means = Means(captioned=asked and settings.captions.captioner != "none")
    uses = method.uses_of(options, means, listing.dataset.name, settings.data.shots)
    patches = _patch_store(settings, clip) if method.needs_patches(options) else None
    method.check(task_texts(listing, clip, frozenset(uses or ())), options)
    if asked or opened:
        llm = load_llm(settings.llm, offline=settings.offline, opened=opened)
        means = Means(llm, settings.llm, means.captioned)
        method.ready(options, means)
    store = feature_store(settings.clip, clip, skip_unreadable=settings.data.skip_unreadable)
    protocol = load_task(listing, clip, store, patches)
    if patches is not None and (words := patches.announce(protocol.read_items())):
        say(words)
    job = Job(method, options, settings, listing, protocol, means, uses)
    return replace(job, means=_with_captions(job, resumption)) if asked else job


def _patch_store(settings: Settings, clip: ClipModel) -> PatchStore:
    return patch_store(settings.clip, clip, skip_unreadable=settings.data.skip_unreadable)


def _with_captions(job: Job, resumption: Resumption | None) -> Means:
    """What the method is handed, with the captions of the training images."""
    settings, llm, means = job.settings, job.means.llm, job.means
    assert llm is not None
    if resumption:
        captions = read_captions(resumption.path / CAPTIONS_FILE, resumption.run, job.training_images)
    else:
        captioner = make_captioner(settings.captions, settings.clip, offline=settings.offline)
        images = [item.path for item in job.protocol.task.train.items]
        captions = make_captions(captioner, images, priced=settings.search.max_cost is not None)
    budget = settings.captions.token_budget
    most = llm.caption_tokens if budget is None else budget
    shown = pick_captions(captions.texts, most, llm.token_count, settings.seed)
    return replace(means, captions=captions, shown_captions=tuple(shown))


def start(job: Job, path: Path) -> RunFolder:
    """A new run folder."""
    captions = job.means.captions
    texts, spent = dict[str, str](), dict[str, Any]()
    if job.means.llm:
        spent = {"caption_usage": asdict(captions.spent)}
    if captions != NO_CAPTIONS:
        texts[CAPTIONS_FILE] = captions.rows(job.training_images)
    passed_over = unread(method_reader(job.method.name), job.settings)
    return RunFolder.create(path, job.settings, job.facts() | job.data_facts() | spent, texts, passed_over)


def plan(resumption: Resumption, own: Mapping[str, Any] | None = None) -> tuple[Job, Resumption]:
    """The job of an existing run folder, to go on with it under the same method, models and data; and what changes.

    Raises `RunError` and `ConfigError` where anything is another that the result depends on; changes nothing.
    """
    method, settings = find_method(resumption.method), resumption.settings
    if method.of_settings is None:
        before = resumption.run.get("options")
        if not isinstance(before, dict):
            what = "the options of the method are damaged"
            raise RunError(what, where=str(resumption.path), remedy="Start a new run")
        own = {**before, **(own or {})}
        was, now = (
            method.configure(settings.data.dataset, settings.data.shots, values).model_dump(mode="json")
            for values in (before, own)
        )
        changes = changed_values(was, now, method.options.changeable)
        resumption = replace(resumption, changes=(*resumption.changes, *changes))
    job = prepare(method.name, settings, own, resumption)
    require_same(resumption, {name: value for name, value in job.facts().items() if name != "options"})
    method.reopen(resumption.path, job.options)
    return job, resumption


def reopen(job: Job, folder: RunFolder, resumption: Resumption) -> None:
    """Note in the folder of a run that it is gone on with, and what changes."""
    names = {"classnames": list(job.protocol.task.classnames)}  # earlier versions did not keep them
    note_resumption(folder, resumption, job.facts() | names)


def run(
    job: Job,
    folder: RunFolder,
    watch: Callable[[Any], None] = lambda _: None,
    trying: Callable[[Sequence[str]], None] = lambda _: None,
) -> Result:
    """Fit, or go on fitting, test once on the test images, and write the results.

    `watch` sees a search's steps, `trying` the prompts that are about to be scored.
    """
    settings = job.settings
    tracker = Tracker.start(settings.tracker, folder.path.name, settings.model_dump(mode="json"))
    fit = FitRun(folder.path, means=job.means, watch=watch, trying=trying, follow=tracker.log)
    try:
        fitted = job.method.fit(job.shown, job.options, fit)
        usage, started = fitted.usage or Usage(seconds=fit.seconds), time.monotonic()
        load_test_features(job)
        results = evaluate_fitted(job, fitted, fit.report)
        draws = {name: drawn_figures(one, job.protocol, results) for name, one in fitted.draws.items()}
        plain = evaluate_hand_crafted(job.protocol, fitted)
        calibration = keep_to_predict(folder.path, job.method, fitted, job.protocol.task)
    except BaseException as error:
        report_stop(folder, error)
        raise
    finally:
        tracker.finish()
    if fitted.learned:
        save_tensors(folder.path / LEARNED_FILE, fitted.learned)
    correct = verdicts(job.protocol, results)
    result = with_draws(_result(job, fitted, results, usage, time.monotonic() - started), draws)
    result = result.model_copy(update={"calibration": calibration})
    if fitted.chosen:
        by_map = result.metric == "map"
        figures = {name: one.resampled() for name, one in results.items()} if by_map else {}
        compared = compare_best_map(figures, result) if by_map else compare_best(correct, result)
        result = result.model_copy(update={"comparisons": compared})
    write_result(folder, result, correct)
    keep_predictions(folder, job.protocol, {**results, **plain}, fitted.headline, settings.report.pictures)
    folder.update(status="done")
    write_reports(folder.path)
    return result


def assist(job: Job, path: Path | None) -> None:
    """The part of a process beside the first: it shares the work of a fit, resumed from `path` or new."""
    job.method.fit(job.shown, job.options, FitRun(path, writes=False, report=lambda _: None, means=job.means))
    load_test_features(job)


def load_test_features(job: Job) -> None:
    """Read all test images; a group of processes shares this work too."""
    patches = job.protocol.task.patches
    for held_out in job.protocol.test_sets().values():
        images = held_out.images
        if patches is not None:
            patches.load(images.items)


def evaluate_fitted(job: Job, fitted: Fitted, report: Callable[[str], None]) -> dict[str, BaseToNewResult]:
    """Every predictor on every test set that it knows the classes of; `report` tells what was left out."""
    protocol = job.protocol.of_own_classes() if fitted.own_classes_only else job.protocol
    left_out = job.protocol.test_sets().keys() - protocol.test_sets().keys()
    if left_out:
        report(f"not tested on {', '.join(sorted(left_out))}: the fit knows its own classes only")
    return {name: evaluate_base_to_new(predictor, protocol) for name, predictor in fitted.predictors.items()}


def _result(
    job: Job, fitted: Fitted, results: Mapping[str, BaseToNewResult], usage: Usage, evaluation_seconds: float
) -> Result:
    task = job.protocol.task
    predictors = {name: result.to_json() | {"prompts": fitted.prompts(name)} for name, result in results.items()}
    for name in predictors:
        if fitted.aggregate(name) == "score_mean":
            predictors[name]["aggregate"] = "score_mean"
    for name in fitted.uses.keys() & predictors.keys():
        predictors[name]["uses"] = fitted.uses[name]
    gains = results[fitted.headline].gains(results[fitted.before], task.classnames) if fitted.before else []
    return Result.model_validate(
        {
            **job.facts(),
            **job.data_facts(),
            **fitted.found,
            "ipo": __version__,
            "test_hashes": test_hashes(job.protocol),
            "paper": job.method.paper,
            "model": task.clip.fingerprint.name,
            "shots": task.shots,
            "uses": job.uses,
            "headline": fitted.headline,
            "predictors": predictors,
            "figures": dict(fitted.figures),
            "per_class_gain": gains,
            "usage": asdict(usage),
            "seconds": round(usage.seconds, 1),
            "evaluation_seconds": round(evaluation_seconds, 1),
            "cost": fitted.cost,
        }
    )
