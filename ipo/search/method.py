"""The search as a method: it is fitted by asking an LLM for prompts, and what it found predicts as prompts do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from ipo.config import SearchOptions, SearchSettings
from ipo.data.uses import Use
from ipo.draws import Draws
from ipo.errors import ConfigError, PromptError
from ipo.llm.prices import require_price
from ipo.methods import FitRun, Fitted, Means, Method, find_method
from ipo.prompt import PLAIN_PROMPT, Prompt, text_key
from ipo.registry import SEARCH
from ipo.scoring import ConfidenceImages, ImageSet, Predictor, PromptPredictor
from ipo.search.ensemble import POOL, greedy_ensemble
from ipo.search.history import History, is_label_free
from ipo.search.loop import Search, estimate, optimize
from ipo.search.propose import reject_counts
from ipo.search.record import Record
from ipo.search.stopping import total_cost, unusable
from ipo.search.strategy import choose, try_out
from ipo.task import FewShotTask, TaskTexts

TEXT_CACHE_FILE = "text_features.sqlite"
PLAIN = "photo"
"""What the predictor of the plain prompt is called, where it is neither the first nor the hand-crafted one."""
CONTROLS = ("select-80", "ensemble-80")
"""Methods without a search that stand beside the result, as its yardstick; without labels the first is another."""
WAFFLE, RANDOM_SETS = "waffle", "random-k"
"""Controls by chance: random words that all classes share, and random sets of the 80 of the size of the ensemble."""


def check(texts: TaskTexts, options: SearchOptions) -> None:
    """Raise `PromptError` where a prompt that is tested in any case is too long for some class name."""
    settings = options.search
    certain = (*settings.first_prompts, texts.hand_crafted_prompt)
    texts.room.require(Prompt(text) for text in certain)
    for method in _controls(settings):
        method.check(texts, method.configure(texts.dataset, texts.shots))


def uses(options: SearchOptions, means: Means) -> set[Use]:
    """What prompts are scored by, labels or images without, and class names where the LLM may be shown some."""
    named = choose(options.strategy).may_name_classes(means.captioned)
    scored_by: set[Use] = {"unlabelled_images" if is_label_free(options.search.select) else "labels"}
    return scored_by | {"llm_saw_class_names"} if named else scored_by


def ready(options: SearchOptions, means: Means) -> None:
    """Raise `ConfigError` for a template that the LLM's form of replies does not fit, and for a cost without prices."""
    if means.llm is None:
        return
    if options.search.max_cost is not None:
        require_price(means.llm.name)  # a model that its server chose has its name only now
    try_out(options, means.captioned, means.llm.template, means.llm.form)


def reopen(folder: Path, options: SearchOptions) -> None:
    """Raise `RunError` for damaged files, and `ConfigError` where more steps are done than the settings want."""
    settings, first = options.search, choose(options.strategy).first(options.search)
    done = Record.read(settings.select, folder, first).last_step
    if done > settings.steps:
        what = f"search.steps is {settings.steps}, but the run has done {done} steps"
        raise ConfigError(what, where=str(folder), remedy="Give at least as many")


def fit(task: FewShotTask, options: SearchOptions, run: FitRun) -> Fitted:
    """Search, or go on searching, until something stops it; then choose an ensemble among what was found."""
    settings, chosen, name = options.search, choose(options.strategy), options.strategy.name
    llm, spent, images = run.means.llm, run.means.captions.spent, scored_on(task, settings)
    if run.folder is not None:
        task.clip.use_text_cache(run.folder / TEXT_CACHE_FILE)
        record = Record.resume(settings.select, run.folder, chosen.first(settings), spent)
    else:
        record = Record(settings.select, captions=spent)
    search = Search(
        settings=settings,
        chosen=chosen,
        sampling=run.means.sampling,
        clip=task.clip,
        llm=llm,
        images=images,
        classnames=task.classnames,
        room=task.room,
        captions=run.means.shown_captions,
        image_captions=run.means.captions.texts,
        seed=task.seed,
    )

    def follow(state: Record) -> None:
        run.watch(state)
        run.follow(max(0, state.last_step), step_figures(state))

    if record.last_step < 1:
        run.report(estimate(search))
    reason = optimize(search, record, follow, run.trying)
    usage = record.usage()
    history, left_out = _testable(record.history, task)
    best = history.best()
    members, score = greedy_ensemble(history, task.clip, images, task.classnames, settings.ensemble)
    found = {name: record.history.texts(best), f"{name}-ensemble": [entry.text for entry in members]}
    return Fitted(
        predictors=_predictors(task, settings, found) | _waffle(task, settings, run.report),
        draws=_random_sets(task, settings, f"{name}-ensemble", len(members), run.report),
        found={
            "strategy": name,
            "stopped": reason,
            "rejects": reject_counts(record.history.rejects()),
            "unusable": unusable(record.history, settings.give_up),
            "best": best.to_json(),
            **({"untestable": left_out} if left_out else {}),
            "ensemble": {"prompts": found[f"{name}-ensemble"], "score": asdict(score)},
        },
        chosen=name,
        uses=_uses_beside(task, settings),
        before="first",
        usage=usage,
        cost=total_cost(llm.name if llm else "", usage),
    )


def scored_on(task: FewShotTask, settings: SearchSettings) -> ImageSet:
    """The training images, without labels where the selection rule looks at none."""
    if is_label_free(settings.select):
        return ConfidenceImages(task.train.unlabelled().items, task.train.features, settings.select)
    return task.train


def step_figures(record: Record) -> dict[str, float]:
    """The figures of a search after its last step, for an experiment tracker."""
    history, usage, best = record.history, record.usage(), record.history.best().score
    assert best is not None
    return {
        f"best_training_{best.metric}": best.value,
        "best_training_loss": best.loss,
        "scored": len(history.scored()),
        "rejected": len(history.rejects()),
        "tokens": usage.tokens,
        "seconds": usage.seconds,
    }


def _predictors(task: FewShotTask, settings: SearchSettings, found: dict[str, list[str]]) -> dict[str, Predictor]:
    """What is tested: the prompts that the search set out from, those that it found, and the controls."""
    prompts = {"first": [settings.first_prompts[0]], "hand-crafted": [task.hand_crafted_prompt], **found}
    said = {text_key(texts[0]) for texts in (prompts["first"], prompts["hand-crafted"])}
    if text_key(PLAIN_PROMPT) not in said and _is_testable(PLAIN_PROMPT, task):
        prompts = {PLAIN: [PLAIN_PROMPT], **prompts}
    predictors: dict[str, Predictor] = {
        name: PromptPredictor(task.clip, tuple(Prompt(text) for text in texts)) for name, texts in prompts.items()
    }
    for method in _controls(settings):
        fitted = method.fit(task, method.configure(task.dataset, task.shots), FitRun())
        predictors[method.name] = fitted.predictors[fitted.headline]
    return predictors


def _uses_beside(task: FewShotTask, settings: SearchSettings) -> dict[str, list[Use] | None]:
    """What the predictors saw that the search did not find."""
    own: dict[str, list[Use] | None] = {PLAIN: [], "first": [], "hand-crafted": ["per_dataset_settings"]}
    for method in map(find_method, (*_control_names(settings), WAFFLE) if settings.controls else ()):
        options = method.configure(task.dataset, task.shots)
        own[method.name] = method.uses_of(options, Means(), task.dataset, task.shots)
    return own


def _waffle(task: FewShotTask, settings: SearchSettings, report: Callable[[str], None]) -> dict[str, Predictor]:
    fitted = _by_chance(WAFFLE, task, report) if settings.controls else None
    return {WAFFLE: fitted.predictors[fitted.headline]} if fitted else {}


def _random_sets(
    task: FewShotTask, settings: SearchSettings, ensemble: str, size: int, report: Callable[[str], None]
) -> dict[str, Draws]:
    """Where the ensemble stands among random ones of its size."""
    fitted = _by_chance(RANDOM_SETS, task, report, k=size) if settings.controls else None
    return {name: replace(draws, beside=ensemble) for name, draws in fitted.draws.items()} if fitted else {}


def _by_chance(name: str, task: FewShotTask, report: Callable[[str], None], **options: Any) -> Fitted | None:
    """A control by chance; None, which is reported, where its prompts are too long for some class name."""
    method = find_method(name)
    chosen = method.configure(task.dataset, task.shots, options)
    try:
        method.check(task, chosen)
    except (ConfigError, PromptError) as error:
        report(f"without the control {name}: {error.what}")
        return None
    return method.fit(task, chosen, FitRun(report=lambda _: None))


def _control_names(settings: SearchSettings) -> tuple[str, ...]:
    """Without labels it is not the best of the 80 that stands beside, but all of them as the rule weighs them."""
    return (settings.select, *CONTROLS[1:]) if is_label_free(settings.select) else CONTROLS


def _controls(settings: SearchSettings) -> Iterable[Method[Any]]:
    return map(find_method, _control_names(settings) if settings.controls else ())


def _testable(history: History, task: FewShotTask) -> tuple[History, list[str]]:
    """The best prompts that can be tested, and the better ones that cannot.

    Of those there are none today. Runs of earlier versions may hold some, too long for a new or target name.
    """
    kept, left_out, testable = history.empty(), list[str](), cache(lambda text: _is_testable(text, task))
    for entry in history.ranked():
        if all(map(testable, history.texts(entry))):
            kept.append([entry])
        else:
            left_out.append(entry.text)
        if len([one for one in kept if one.members is None]) == POOL:
            break
    return kept, left_out


def _is_testable(text: str, task: FewShotTask) -> bool:
    try:
        return task.room.prompt_excess(Prompt(text)) is None
    except PromptError:
        return False


METHOD = Method(
    name=SEARCH,
    summary="search by an LLM for a prompt that people can read",
    options=SearchOptions,
    fit=fit,
    paper="IPO: Interpretable Prompt Optimization for Vision-Language Models, arXiv 2410.15397",
    check=check,
    ready=ready,
    reopen=reopen,
    multi_label=True,
    asks_llm=lambda options: choose(options.strategy).asks_llm,
    of_settings=lambda settings: SearchOptions(search=settings.search, strategy=settings.strategy),
    uses=uses,
)
