"""RLPrompt: Optimizing Discrete Text Prompts with Reinforcement Learning (arXiv 2205.12548), on CLIP.

A small net on a frozen language model writes a few tokens in front of the class name, and learns by soft Q-learning
which ones raise the probability of the true class on the training shots. The outcome is a prompt like any other.
Shape legend: K greedy prompts, N prompts of a step, T tokens of a prompt.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ipo.config import Section
from ipo.data.uses import Use
from ipo.errors import ConfigError, DataError
from ipo.llm.local.huggingface import HuggingFaceLLM
from ipo.methods import FitRun, Fitted, Means, Method
from ipo.progress import progress_bar
from ipo.prompt import CLASS_PLACEHOLDER, Prompt
from ipo.scoring import PromptPredictor
from ipo.screen import counted
from ipo.task import FewShotTask

from . import training
from .prompt_rewards import UNREADABLE, Judge, Verdict, shaped
from .soft_q import Writer, follow, soft_q_loss, value_net

CHECKPOINT_STEPS = 100
TOP = 3
"""Prompts that are named in the result; the paper reports the mean of so many."""


class RLPromptOptions(Section):
    """Hyper-parameters of RLPrompt."""

    steps: PositiveInt = 12000
    """Steps of learning; for prompts of two tokens the paper takes 6,000."""
    tokens: PositiveInt = 5
    """Tokens in front of the class name."""
    batch: PositiveInt = 16
    """Prompts that are written and scored a step, each on all training shots."""
    learning_rate: PositiveFloat = 5e-5
    """Rate of Adam."""
    hidden: PositiveInt = 2048
    """Width of the hidden layer of the net."""
    target_rate: float = Field(0.001, gt=0, le=1)
    """Share of the way that the target net goes towards the net each step."""
    largest_gradient: PositiveFloat = 5.0
    """Norm that the gradient of a step is cut to."""
    every: PositiveInt = 10
    """Steps from one greedy prompt to the next; the result is the best of them."""
    validation: bool = False
    """Choose among the greedy prompts by the validation images, as published; else by the training shots."""
    fluency: PositiveInt | None = None
    """Write only tokens among so many that the language model finds likeliest; unset, any."""


@dataclass
class Learner:
    """The net, its target, and the greedy prompts so far, as tokens (K, T)."""

    writer: Writer
    options: RLPromptOptions
    net: nn.Sequential
    target: nn.Sequential
    optimizer: torch.optim.Optimizer
    greedy: Tensor

    @classmethod
    def start(cls, writer: Writer, options: RLPromptOptions, seed: int) -> Learner:
        """A learner that has learned nothing."""
        with training.seeded_torch(seed, "net"):
            net = value_net(writer.width, options.hidden, training.seeded_generator(seed, "net"))
        net.to(writer.allowed.device)
        optimizer = torch.optim.Adam(net.parameters(), lr=options.learning_rate)
        greedy = torch.empty(0, options.tokens, dtype=torch.long)
        return cls(writer, options, net, copy.deepcopy(net).requires_grad_(False), optimizer, greedy)

    def prompts(self, tokens: Tensor) -> list[Prompt]:
        """The prompts that rows of tokens (N, T) make in front of the class name."""
        return [Prompt.from_sides(f"{self.writer.llm.decode(row)} ", ".") for row in tokens.tolist()]

    def step(self, judge: Judge, generator: torch.Generator) -> dict[str, float]:
        """Write prompts, have them judged, and learn from it; the figures of the step."""
        tokens, states = self.writer.write(self.net, (self.options.batch, self.options.tokens), generator)
        verdicts = [judge(prompt) for prompt in self.prompts(tokens)]
        rewards = torch.tensor([verdict.reward for verdict in verdicts], dtype=torch.double)
        with torch.no_grad():
            target = self.writer.logits(self.target, states)
        shaped_rewards = shaped(rewards).to(states)
        loss = soft_q_loss(self.writer.logits(self.net, states), target, tokens, shaped_rewards)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.options.largest_gradient)
        self.optimizer.step()
        follow(self.target, self.net, self.options.target_rate)
        best = max(verdict.accuracy for verdict in verdicts)
        return {"loss": loss.item(), "reward": float(rewards.mean()), "best_of_batch": best}

    def decode(self) -> Prompt:
        """The likeliest prompt, which joins the greedy ones."""
        tokens, _ = self.writer.write(self.net, (1, self.options.tokens), None)
        if not bool((self.greedy == tokens.cpu()).all(dim=1).any()):
            self.greedy = torch.cat([self.greedy, tokens.cpu()])
        return self.prompts(tokens)[0]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        target = {f"target/{name}": value for name, value in self.target.named_parameters()}
        own = training.fit_state(dict(self.net.named_parameters()), self.optimizer)
        return {**own, **target, "greedy": self.greedy}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from a checkpoint; nothing saved is the start."""
        if not saved:
            return
        training.load_fit_state(dict(self.net.named_parameters()), self.optimizer, saved)
        for name, value in self.target.named_parameters():
            value.copy_(saved[f"target/{name}"])
        self.greedy = saved["greedy"]


def uses(options: RLPromptOptions, _means: Means) -> set[Use]:
    """Labels; and those of validation images where they choose."""
    return {"labels", "val_labels"} if options.validation else {"labels"}


def ready(_options: RLPromptOptions, means: Means) -> None:
    """Raise `ConfigError` where there is no language model whose weights can be used."""
    policy_model(means)


def policy_model(means: Means) -> HuggingFaceLLM:
    """The language model that writes. Raises `ConfigError` where it is not one of transformers."""
    if not isinstance(means.llm, HuggingFaceLLM):
        raise ConfigError("rlprompt needs a language model of transformers", remedy="Give --set llm.spec=local-llama")
    return means.llm


def fit(task: FewShotTask, options: RLPromptOptions, run: FitRun) -> Fitted:
    """Learn to write prompts, or go on learning; the best of the greedy ones is the result."""
    llm = policy_model(run.means)
    if options.validation and not len(task.val):
        raise DataError("no validation images to choose by", where=task.dataset, remedy="Leave out validation=true")
    learner = Learner.start(Writer.of(llm, options.fluency), options, task.seed)
    judge = Judge(task, task.val if options.validation else task.train)
    learn(learner, judge, run)
    found = {prompt.text: judge(prompt) for prompt in learner.prompts(learner.greedy)}
    ranked = sorted(found, key=lambda text: (*found[text].rank, text), reverse=True)
    readable = [text for text in ranked if found[text] is not UNREADABLE]
    if not readable:
        raise ConfigError("CLIP can read none of the prompts that were written", remedy="Take fewer tokens")
    figures = {
        "prompts": [_row(text, found[text], llm) for text in readable[:TOP]],
        "chosen_by": "validation" if options.validation else "training",
        "greedy_prompts": len(found),
        "scored": len(judge.known),
        "texts": len(judge.known) * len(task.classnames),
    }
    run.report(f"best of {counted(len(found), 'greedy prompt')}: {readable[0]}")
    return Fitted({"rlprompt": PromptPredictor(task.clip, (Prompt(readable[0]),))}, figures=figures)


def _row(text: str, verdict: Verdict, llm: HuggingFaceLLM) -> dict[str, Any]:
    perplexity = math.exp(-llm.mean_log_likelihood([text])[0])
    return {"text": text, "accuracy": verdict.accuracy, "loss": verdict.loss, "perplexity": round(perplexity, 1)}


def learn(learner: Learner, judge: Judge, run: FitRun) -> None:
    """All steps, or those that a checkpoint lacks. Every step draws from a generator of its own."""
    options, seed = learner.options, judge.task.seed
    saved, done = run.restore()
    learner.load(saved)
    with progress_bar() as bar:
        shown = bar.add_task("fit", total=options.steps, completed=done)
        started = time.monotonic()
        for step in range(done + 1, options.steps + 1):
            figures = learner.step(judge, training.seeded_generator(seed, "step", step))
            training.require_finite(figures["loss"], f"step {step}", run, options)
            if step == done + 1:
                seconds = (time.monotonic() - started) * (options.steps - done)
                words = f"{counted(options.steps - done, 'step')} of {counted(options.batch, 'prompt')}"
                run.report(f"about {training.describe_seconds(seconds)} for {words}")
            last = step == options.steps
            if step % options.every == 0 or last:
                prompt = learner.decode()
                verdict = judge(prompt)
                run.log({"epoch": step, **figures, "accuracy": verdict.accuracy, "greedy_loss": verdict.loss})
                shown_text = prompt.before.strip() or CLASS_PLACEHOLDER
                bar.update(shown, description=f"accuracy {100 * verdict.accuracy:.1f}% {shown_text}")
            if step % CHECKPOINT_STEPS == 0 or last:
                run.save(learner.state(), step)
            bar.update(shown, advance=1)


METHOD = Method(
    name="rlprompt",
    summary="words before the class name, written by soft Q-learning on a small language model",
    options=RLPromptOptions,
    fit=fit,
    paper="RLPrompt: Optimizing Discrete Text Prompts with Reinforcement Learning, arXiv 2205.12548",
    uses=uses,
    ready=ready,
)
