"""Training of CLIP's image tower and a classification head, as Lipsum-FT's code does it (arXiv 2404.00860).

The head starts from the prompt ensemble; the text tower stays as it is. A `Regulariser` pulls the tower back to the
zero-shot model. Several processes share each step's images and end with the same weights as one would.
Shape legend: B images, C classes, D feature width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from accelerate import Accelerator
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from ipo.config import Section
from ipo.errors import ConfigError, RunError
from ipo.methods import FitRun
from ipo.progress import progress_bar
from ipo.screen import counted
from ipo.task import FewShotTask

from .towers import TunedClassifier
from .training import describe_seconds, require_finite, seeded_generator, shuffled_batches
from .views import ViewKey, Views, load_views

CURVE_ROWS = 100
"""About how many rows the curve of a fit has."""

ROWS_A_CHECKPOINT = 10
"""A fit is saved after so many rows of its curve, and so never within one."""


class TuningOptions(Section):
    """Hyper-parameters that all fine-tuning methods share."""

    changeable = frozenset(("workers",))

    steps: PositiveInt = 5000
    """Updates; 5,000 on DomainNet and 50,000 on ImageNet as published."""
    batch: PositiveInt = 256
    """Images an update; all of them where there are fewer."""
    learning_rate: PositiveFloat = 1e-5
    """Highest rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0; a cosine to 0 follows."""
    augment: bool = True
    """Random crops and flips, as published; otherwise the test transform."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; `auto` is bfloat16 on a GPU, as published, and float32 on a CPU."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    images_at_once: PositiveInt = 64
    """Images whose activations are in memory at once; changes nothing else."""
    workers: NonNegativeInt = 2
    """Processes that decode images."""
    alpha: float = Field(default=1.0, ge=0, le=1)
    """Share of the tuned weights in the result; the rest is the zero-shot model (WiSE-FT, arXiv 2109.01903)."""


@dataclass(frozen=True)
class TuningBatch:
    """What a penalty is computed from: features (B, D) now, `frozen` ones of the same pixels, and logits (B, C)."""

    features: Tensor
    frozen: Tensor
    logits: Tensor


Penalty = Callable[[TuningBatch], Tensor]
"""The penalty of some images, a mean over them."""

Regulariser = Callable[[torch.Generator], Penalty]
"""The penalty of one step; called once a step with that step's generator."""


class Tuning:
    """A fit under way: the model, its optimiser, and the processes that share the work."""

    def __init__(
        self, task: FewShotTask, options: TuningOptions, model: TunedClassifier, regulariser: Regulariser
    ) -> None:
        self.task, self.options, self.model, self.regulariser = task, options, model, regulariser
        self.device = task.clip.device
        self.accelerator = Accelerator(cpu=self.device.type == "cpu")
        self.size = min(options.batch, len(task.train))
        if self.size < self.accelerator.num_processes:
            raise ConfigError("fewer images a step than processes", remedy="Start fewer processes")
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.wrapped = self.accelerator.prepare(model)
        low = options.precision == "bfloat16" or (options.precision == "auto" and self.device.type == "cuda")
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low)

    def gradient(self, step: int, chunks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Add the gradient of the mean loss of a step, of whose images this process has `chunks`.

        Returns sums (4,) over the process's images: loss, penalty, right predictions, images.
        """
        penalty_of = self.regulariser(seeded_generator(self.task.seed, "step", step))
        sums = torch.zeros(4, device=self.device)
        for number, (pixels, labels) in enumerate(chunks, 1):
            pixels, labels = pixels.to(self.device), labels.to(self.device)
            with self._sync(number == len(chunks)):
                with self.autocast:  # the frozen features too: before the first update they equal the others
                    features, logits = self.wrapped(pixels)
                    frozen = self.task.clip.encode_images(pixels)
                loss, penalty = cross_entropy(logits, labels), penalty_of(TuningBatch(features, frozen, logits))
                # Gradients are averaged over processes, so each one's images count once for every process.
                share = len(labels) * self.accelerator.num_processes / self.size
                self.accelerator.backward((loss + penalty) * share)
            hits = (logits.argmax(dim=-1) == labels).float().mean()
            means = torch.stack([loss.detach().float(), penalty.detach().float(), hits, torch.ones_like(hits)])
            sums += means * len(labels)
        return sums

    def _sync(self, last: bool) -> AbstractContextManager[object]:
        """Gradients travel between processes once a step, with its last chunk."""
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def steps(self, done: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """This process's chunks of pixels and labels, for every step after `done`."""
        views = Views.of(self.task.clip, self.task.train.items, self.options.augment, self.task.seed)
        loader = load_views(views, self._chunks(done), self.options.workers)
        labels = self.task.train.labels.cpu()
        each = math.ceil(len(self._own(torch.arange(self.size))) / self.options.images_at_once)
        for _ in range(done, self.options.steps):
            yield [(pixels, labels[places]) for pixels, places in islice(loader, each)]

    def _chunks(self, done: int) -> Iterator[list[ViewKey]]:
        for step, batch in enumerate(step_batches(self.task, self.options)):
            if step >= done:
                for chunk in torch.split(self._own(batch), self.options.images_at_once):
                    yield [(step, index) for index in chunk.tolist()]

    def _own(self, batch: Tensor) -> Tensor:
        return batch[self.accelerator.process_index :: self.accelerator.num_processes]

    def state(self) -> dict[str, Tensor]:
        """Weights and AdamW's moments, for a checkpoint."""
        moments = {
            f"{key}/{name}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        return {f"model/{name}": value for name, value in self.model.state_dict().items()} | moments

    def load_state(self, saved: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        weights = {key.removeprefix("model/"): value for key, value in saved.items() if key.startswith("model/")}
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise RunError("the checkpoint is one of another model", remedy="Remove it to start anew") from error
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {
                key: saved[f"{key}/{name}"].to("cpu" if key == "step" else parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in saved
            }

    def run(self, run: FitRun) -> None:
        """All steps, from the last checkpoint on, with a curve and checkpoints."""
        run.writes = run.writes and self.accelerator.is_main_process
        saved, done = run.restore()
        if saved:
            self.load_state(saved)
        sums = torch.zeros(4, device=self.device)
        with progress_bar() as bar:
            task = bar.add_task("fit", total=self.options.steps, completed=done)
            for step, chunks in enumerate(self.steps(done), done):
                if step == done:
                    self._report_estimate(run, step, chunks)
                sums += self.update(step, chunks)
                bar.advance(task)
                steps_a_row = math.ceil(self.options.steps / CURVE_ROWS)
                if self._is_due(step + 1, steps_a_row):
                    row = self._row(step + 1, sums)
                    require_finite(row["loss"] + row["penalty"], f"step {step + 1}", run, self.options)
                    run.log(row)
                    sums.zero_()
                    bar.update(task, description=f"loss {row['loss']:.3f} accuracy {100 * row['accuracy']:.1f}%")
                if self._is_due(step + 1, steps_a_row * ROWS_A_CHECKPOINT):
                    run.save(self.state(), step + 1)

    def update(self, step: int, chunks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """One step of the optimiser; the sums that `gradient` returns."""
        for group in self.optimizer.param_groups:
            group["lr"] = tuning_rate(self.options, step)
        sums = self.gradient(step, chunks)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return sums

    def _is_due(self, done: int, every: int) -> bool:
        """Whether something that happens every so many steps, and after the last one, happens now."""
        return done % every == 0 or done == self.options.steps

    def _report_estimate(self, run: FitRun, step: int, chunks: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Time one step, without an update, and say how long all of them will take."""
        started = time.monotonic()
        self.gradient(step, chunks)
        seconds, left = time.monotonic() - started, self.options.steps - step
        self.optimizer.zero_grad()
        if self.accelerator.is_main_process:
            run.report(
                f"about {describe_seconds(seconds * left)} for {counted(left, 'step')} of {counted(self.size, 'image')}"
            )

    def _row(self, step: int, sums: Tensor) -> dict[str, float]:
        loss, penalty, hits, count = self.accelerator.reduce(sums.clone(), "sum").tolist()
        epoch = step * self.size / len(self.task.train)
        figures = {"loss": loss / count, "penalty": penalty / count, "accuracy": hits / count}
        return {"epoch": round(epoch, 4), "step": step, "rate": tuning_rate(self.options, step - 1), **figures}


def tuning_rate(options: TuningOptions, step: int) -> float:
    """Learning rate of a step, counted from 0: linear from 0, then a cosine to 0."""
    rising = options.warmup * options.steps
    if step < rising:
        return options.learning_rate * step / rising
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / (options.steps - rising)))


def step_batches(task: FewShotTask, options: TuningOptions) -> Iterable[Tensor]:
    """Indices of the images of every step: one shuffled epoch after another, without incomplete batches."""
    done, epoch = 0, 0
    while done < options.steps:
        epoch += 1
        batches = shuffled_batches(len(task.train), options.batch, seeded_generator(task.seed, "epoch", epoch))
        yield from batches[: options.steps - done]
        done += len(batches)
