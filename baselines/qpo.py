"""QPO: Query-dependent Prompt Optimization via Multi-Loop Offline Reinforcement Learning (arXiv 2408.10504), on CLIP.

A prompt of its own for each image, learned from what finished searches have scored: every prompt of their histories on
every training image. The policy is a linear router over the best prompts, or a small GPT that writes one.
Shape legend: B batch, D feature width, K prompts to choose among, N images, P prompts of the histories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from ipo.data.uses import Use
from ipo.draws import Draws
from ipo.methods import FitRun, Fitted, Means, Method
from ipo.prompt import Prompt
from ipo.scoring import Predictor, PromptPredictor
from ipo.screen import counted
from ipo.task import FewShotTask, TaskTexts

from .offline_data import Lesson, OfflineData, fold_of, read_offline, require_run_of, seen_by
from .prompt_generator import Generator, GPTOptions, Vocabulary, combined, readable
from .routed import RoutedPredictor, first_router, routed, router_step, routes
from .training import Descent, EpochOptions, Step, StepResult, fit_by_epochs, seeded_torch

Router = dict[str, Tensor]


class QPOOptions(GPTOptions, EpochOptions):
    """Runs to learn from, and hyper-parameters of QPO's first round."""

    only_with: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "layers": ("policy", "generator"),
        "width": ("policy", "generator"),
        "query_tokens": ("policy", "generator"),
        "pairs": ("policy", "generator"),
    }

    runs: tuple[str, ...] = Field(min_length=1)
    """Folders of finished searches on the same dataset, split and classes: one, or a list of several."""
    policy: Literal["router", "generator"] = "router"
    """Choose among the best prompts of the runs, or write new ones of their words."""
    k: PositiveInt = 8
    """Prompts that the router chooses among."""
    folds: int = Field(4, ge=2)
    """Folds of the training images: a prompt's accuracy, and that of a router, are counted on images of other folds."""
    epochs: PositiveInt = 100
    """Passes over the training images, or over as many `pairs`."""
    batch: PositiveInt = 128
    """Images, or pairs, a step."""
    learning_rate: PositiveFloat = 1e-3
    """Rate of AdamW in the first 20 epochs; every 20 epochs it falls to 65%."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay of AdamW."""
    largest_gradient: PositiveFloat = 0.25
    """Norm that the gradient of a step is cut to."""
    pairs: PositiveInt = 4096
    """Pairs of image and prompt that an epoch of the generator draws, where there are more."""

    @field_validator("runs", mode="before")
    @classmethod
    def _may_be_one(cls, runs: Any) -> Any:
        return (runs,) if isinstance(runs, str | Path) else runs

    @field_validator("runs")
    @classmethod
    def _by_a_path_that_stays(cls, runs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Path(run).expanduser().absolute()) for run in runs)

    @property
    def folders(self) -> list[Path]:
        """The folders of the runs."""
        return [Path(run) for run in self.runs]


def check(task: TaskTexts, options: QPOOptions) -> None:
    """Raise `RunError` where a run is not finished, or is of other data than the task; nothing is scored yet."""
    for folder in options.folders:
        require_run_of(folder, task)


def uses(options: QPOOptions, _means: Means) -> set[Use]:
    """Labels, and what the searches saw."""
    seen: set[Use] = {"labels"}
    return seen.union(*map(seen_by, options.folders))


def descent(options: QPOOptions, parameters: Sequence[Tensor]) -> Descent:
    """AdamW with the published steps of the rate."""
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    return Descent(options, optimizer, lambda passed: options.learning_rate * 0.65 ** (int(passed) // 20))


def learn_router(lesson: Lesson, options: QPOOptions, run: FitRun, seed: int) -> Router:
    """A router of the prompts of a lesson."""
    router = first_router(lesson.features.shape[1], len(lesson.data.prompts))
    step = router_step(router, lesson.features, lesson.returns, lesson.data.correct, options.largest_gradient)
    fit_by_epochs(router, step, len(lesson.features), descent(options, list(router.values())), run, seed)
    return {name: value.detach() for name, value in router.items()}


def fold_figures(lesson: Lesson, options: QPOOptions, seed: int) -> dict[str, float]:
    """Accuracy on images of folds that were kept apart: of the router, and of the best single prompt of the others.

    Of a lesson of all prompts: the K best are those of the other folds, too.
    """
    count = len(lesson.features)
    folds = min(options.folds, count)
    if folds < 2:
        return {}
    fold, right, single = fold_of(count, folds), 0, 0
    for own in range(folds):
        rest, apart = lesson.data.of_images(fold != own), lesson.data.of_images(fold == own)
        best = rest.order()[: options.k]
        taught = Lesson.of(lesson.features[fold != own], rest.only(best), options.folds)
        router = learn_router(taught, options, quiet(), seed)
        verdicts = apart.only(best).correct
        places = routes(router, lesson.features[fold == own])
        right += int(verdicts.gather(1, places[:, None]).sum())
        single += int(verdicts[:, 0].sum())
    return {"router": right / count, "best_single": single / count}


def quiet() -> FitRun:
    """A fit beside that of the run: it writes and says nothing."""
    return FitRun(report=lambda _: None)


def fit_router(task: FewShotTask, data: OfflineData, options: QPOOptions, run: FitRun) -> Fitted:
    """The router, the best single prompt, and the control on shuffled images."""
    features = task.train.features.cpu()
    lesson = Lesson.of(features, data.only(range(min(options.k, len(data.prompts)))), options.folds)
    prompts = lesson.data.prompts
    apart = fold_figures(Lesson.of(features, data, options.folds), options, task.seed)
    control = learn_router(lesson.shuffled(task.seed), options, quiet(), task.seed)
    router = learn_router(lesson, options, run, task.seed)
    chosen = routes(router, lesson.features).bincount(minlength=len(prompts)).tolist()
    figures = {
        "head_room": _head_room(lesson.data),
        "other_folds": apart,
        "chosen": [{"text": prompt.text, "images": images} for prompt, images in zip(prompts, chosen, strict=True)],
    }
    predictors: dict[str, Predictor] = {
        "qpo": routed(task.clip, router, prompts),
        "best-single": PromptPredictor(task.clip, prompts[:1]),
        "qpo-shuffled": routed(task.clip, control, prompts),
    }
    sets = tuple((place,) for place in range(len(prompts)))
    draws = {"single-prompts": Draws(task.clip, prompts, sets, f"one of {counted(len(prompts), 'prompt')}", "qpo")}
    return Fitted(predictors, learned=router, figures=figures, draws=draws)


def _head_room(data: OfflineData) -> dict[str, float]:
    """Training accuracy of the best single prompt, and of whoever knew the best prompt for each image."""
    return {"best_single": data.single(), "best_per_image": data.head_room()}


def generator_step(model: Generator, lesson: Lesson, options: QPOOptions) -> Step:
    """Gradient of the paper's loss on pairs of image and prompt, of which there are N x P."""
    pieces = model.vocabulary.encode(lesson.data.prompts)
    count = len(lesson.data.prompts)

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch; which pairs it holds is drawn where an epoch does not hold all."""
        every = lesson.returns.numel()
        pairs = indices if every <= options.pairs else torch.randint(every, (len(indices),), generator=generator)
        images, prompts = pairs // count, pairs % count
        with seeded_torch(int(torch.randint(1 << 30, (), generator=generator))):
            words, error, hits = model.losses(
                lesson.returns[images, prompts].float(), lesson.features[images].float(), pieces[prompts]
            )
        loss = combined(words, error)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), options.largest_gradient)
        return StepResult(loss.item(), hits)

    return step


def learn_generator(lesson: Lesson, options: QPOOptions, run: FitRun, seed: int) -> Generator:
    """A generator of prompts, in evaluation mode and double precision."""
    with seeded_torch(seed, "generator"):
        model = Generator(Vocabulary.of(lesson.data.prompts), lesson.features.shape[1], options)
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    size = min(options.pairs, lesson.returns.numel())
    step = generator_step(model.train(), lesson, options)
    fit_by_epochs(parameters, step, size, descent(options, list(parameters.values())), run, seed)
    return model.eval().double()


def fit_generator(task: FewShotTask, data: OfflineData, options: QPOOptions, run: FitRun) -> Fitted:
    """The generator, the best single prompt, and the control on shuffled images."""
    lesson, instead = Lesson.of(task.train.features.cpu(), data, options.folds), data.prompts[0]

    def predictor(model: Generator) -> RoutedPredictor:
        def choose(features: Tensor) -> list[Prompt]:
            return [readable(text, task.room, instead) for text in model.write(features.cpu().double())]

        return RoutedPredictor(task.clip, choose)

    control = predictor(learn_generator(lesson.shuffled(task.seed), options, quiet(), task.seed))
    model = learn_generator(lesson, options, run, task.seed)
    written = model.write(lesson.features.double())
    known = {prompt.text for prompt in data.prompts}
    texts = sorted(set(written), key=lambda text: (-written.count(text), text))
    figures = {
        "head_room": _head_room(data),
        "written": [{"text": text, "images": written.count(text), "new": text not in known} for text in texts[:10]],
        "distinct": len(texts),
    }
    predictors: dict[str, Predictor] = {
        "qpo": predictor(model),
        "best-single": PromptPredictor(task.clip, (instead,)),
        "qpo-shuffled": control,
    }
    learned = {name: value.detach() for name, value in model.named_parameters()}
    return Fitted(predictors, learned=learned, figures=figures)


def fit(task: FewShotTask, options: QPOOptions, run: FitRun) -> Fitted:
    """Learn which prompt suits which image from the histories of the runs."""
    data = read_offline(options.folders, task, run)
    run.report(f"{counted(len(data.prompts), 'prompt')} on {counted(len(task.train), 'image')}")
    return (fit_router if options.policy == "router" else fit_generator)(task, data, options, run)


METHOD = Method(
    name="qpo",
    summary="a prompt for each image, learned from the histories of finished searches",
    options=QPOOptions,
    fit=fit,
    paper="QPO: Query-dependent Prompt Optimization via Multi-Loop Offline Reinforcement Learning, arXiv 2408.10504",
    check=check,
    uses=uses,
)
