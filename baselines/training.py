"""The training loop of the prompt learners, with the schedule of CoOp's code (arXiv 2109.01134)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from ipo.config import Section
from ipo.errors import DivergedError, RunError
from ipo.methods import FitRun
from ipo.progress import progress_bar
from ipo.screen import counted
from ipo.seeds import fit_seed

START = "before anything is learned"
"""When a loss is that of the start, for `require_finite`."""


class EpochOptions(Section):
    """How often the training shots are gone through, and how many at a time."""

    epochs: NonNegativeInt = 50
    """Passes over the training shots."""
    batch: PositiveInt = 32
    """Images a step; an incomplete last batch of an epoch is dropped, as published."""


class SgdOptions(EpochOptions):
    """Stochastic gradient descent as CoOp and its kin use it."""

    epochs: PositiveInt = 50
    """Passes over the training shots."""
    learning_rate: PositiveFloat = 0.002
    """Rate of the first epoch after warm-up."""
    momentum: NonNegativeFloat = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 5e-4
    """L2 penalty of SGD."""
    warmup_epochs: NonNegativeInt = 1
    """Epochs at the warm-up rate."""
    warmup_rate: PositiveFloat = 1e-5
    """Constant rate of warm-up."""


@dataclass(frozen=True)
class StepResult:
    """Mean loss and number of right predictions of one batch, before the update."""

    loss: float
    hits: int


Step = Callable[[Tensor, torch.Generator], StepResult]
"""Adds the gradient of the mean loss of the images at some indices to the parameters; draws from the generator."""


def epoch_rate(options: SgdOptions, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1: warm-up, then a cosine over `epochs` that starts at the full rate.

    The cosine counts from the end of warm-up but is as long as the whole fit, so it never reaches 0.
    """
    past = epoch - 1 - options.warmup_epochs
    if past < 0:
        return options.warmup_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * past / options.epochs))


@dataclass(frozen=True)
class Descent:
    """An optimiser of some parameters, and its learning rate after a number of epochs, whole or not."""

    options: EpochOptions
    optimizer: torch.optim.Optimizer
    rate: Callable[[float], float]


def fit_by_sgd(
    parameters: Mapping[str, Tensor], step: Step, size: int, options: SgdOptions, run: FitRun, seed: int
) -> None:
    """As `fit_by_epochs`, by stochastic gradient descent with the schedule of `epoch_rate`."""
    optimizer = torch.optim.SGD(
        list(parameters.values()),
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )
    descent = Descent(options, optimizer, lambda passed: epoch_rate(options, int(passed) + 1))
    fit_by_epochs(parameters, step, size, descent, run, seed)


def fit_by_epochs(
    parameters: Mapping[str, Tensor], step: Step, size: int, descent: Descent, run: FitRun, seed: int
) -> None:
    """Train `parameters` in place on `size` images, logging a curve row and a checkpoint every epoch.

    Every epoch draws from a generator of its own, so that a fit that goes on from a checkpoint equals an unbroken one.
    """
    options, optimizer = descent.options, descent.optimizer
    saved, done = run.restore()
    load_fit_state(parameters, optimizer, saved)
    batches = max(1, size // options.batch)
    steps = (options.epochs - done) * batches
    loss = _report_estimate(parameters, step, torch.arange(min(options.batch, size)), steps, run)
    if not done:
        require_finite(loss, START, run, options)
    with progress_bar() as bar:
        task = bar.add_task("fit", total=options.epochs * batches, completed=done * batches)
        for epoch in range(done + 1, options.epochs + 1):
            generator = seeded_generator(seed, "epoch", epoch)
            loss, hits, count = 0.0, 0, 0
            for place, indices in enumerate(shuffled_batches(size, options.batch, generator)):
                rate = optimizer.param_groups[0]["lr"] = descent.rate(epoch - 1 + place / batches)
                optimizer.zero_grad()
                result = step(indices, generator)
                optimizer.step()
                loss, hits, count = loss + result.loss * len(indices), hits + result.hits, count + len(indices)
                require_finite(loss, f"epoch {epoch}", run, options)
                text = f"epoch {epoch} loss {loss / count:.3f} accuracy {100 * hits / count:.1f}%"
                bar.update(task, advance=1, description=text)
            run.log({"epoch": epoch, "rate": rate, "loss": loss / count, "accuracy": hits / count})
            run.save(fit_state(parameters, optimizer), epoch)


def require_finite(loss: float, when: str, run: FitRun, options: Section) -> None:
    """Raise `DivergedError` where a fit has diverged, before anything of it is saved.

    Before the first step no learning rate can be the cause, and later on it need not be the only one.
    """
    if math.isfinite(loss):
        return
    rate = [] if when == START else ["with a lower learning_rate (--set learning_rate=...)"]
    shown = {name: value for name, value in _odd_figures(options).items() if when == START or name != "learning_rate"}
    given = ", ".join(f"{name}={value}" for name, value in shown.items())
    ways = [*rate, *([f"{'or ' if rate else ''}with other figures than {given}"] if given else [])]
    what = f"the loss is {loss} {when}" if when == START else f"the loss became {loss} in {when}"
    remedy = f"Start a new run {', '.join(ways)}" if ways else "Try another model, or float32"
    raise DivergedError(what, where=str(run.folder) if run.folder else "", remedy=remedy)


def _odd_figures(options: Section) -> dict[str, float]:
    """The numbers among the options that are not the defaults, but for those that say how much is done."""
    fields = type(options).model_fields
    return {name: value for name, value in options if isinstance(value, float) and value != fields[name].default}


def shuffled_batches(size: int, batch: int, generator: torch.Generator) -> list[Tensor]:
    """Indices of one epoch's batches in random order; all images in one batch when there are fewer than `batch`."""
    order = torch.randperm(size, generator=generator)
    if size < batch:
        return [order]
    return list(torch.split(order[: size // batch * batch], batch))


def seeded_generator(seed: int, *words: object) -> torch.Generator:
    """A CPU generator that depends on the fit's seed and on what it is for."""
    return torch.Generator().manual_seed(fit_seed(seed, *words))


@contextmanager
def seeded_torch(seed: int, *words: object) -> Iterator[None]:
    """Inside, new layers and transforms draw from a seed of their own; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit_seed(seed, *words))
        yield


def _report_estimate(parameters: Mapping[str, Tensor], step: Step, indices: Tensor, steps: int, run: FitRun) -> float:
    """Time a step on one batch, without an update, and say how long `steps` of them will take; its loss."""
    if steps <= 0:
        return 0.0
    started = time.monotonic()
    result = step(indices, seeded_generator(0))
    seconds = time.monotonic() - started
    for parameter in parameters.values():
        parameter.grad = None
    run.report(
        f"about {describe_seconds(seconds * steps)} for {counted(steps, 'step')} of {counted(len(indices), 'image')}"
    )
    return result.loss


def describe_seconds(seconds: float) -> str:
    """A duration in words that fit its length."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def fit_state(parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a checkpoint holds of a fit: the parameters, and the moments of the optimizer."""
    moments = {
        f"{key.removesuffix('_buffer')}/{name}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
        if value is not None
    }
    return {**parameters, **moments}


def load_fit_state(
    parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]
) -> None:
    """Put what `fit_state` gave into place; nothing is the start. Raises `RunError` where it is of another fit."""
    if not saved:
        return
    for name, parameter in parameters.items():
        if name not in saved or saved[name].shape != parameter.shape:
            raise RunError(f"the checkpoint has no '{name}' of this shape", remedy="Remove it to start anew")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
            for key in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step"):
                if (kept := saved.get(f"{key.removesuffix('_buffer')}/{name}")) is not None:
                    optimizer.state[parameter][key] = kept.to("cpu" if key == "step" else parameter.device)
