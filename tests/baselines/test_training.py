from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import Parameter

from ipo.errors import DivergedError
from ipo.methods import FitRun
from ipo_baselines.training import SgdOptions, StepResult, epoch_rate, fit_by_sgd, seeded_generator, shuffled_batches


def published_rates(epochs, rate=0.002, warmup=1e-5):
    """CoOp's scheduler by torch's own: a constant warm-up epoch, then a cosine that starts anew."""
    parameter = Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rates = [warmup]
    for _ in range(epochs - 1):
        rates.append(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    return rates


@pytest.mark.parametrize("epochs", [10, 50, 200])
def test_learning_rate_of_every_epoch_is_the_published_one(epochs):
    ours = [epoch_rate(SgdOptions(epochs=epochs), epoch) for epoch in range(1, epochs + 1)]
    assert ours[0] == 1e-5
    assert ours[1] == 0.002
    assert ours[-1] > 0
    assert ours == pytest.approx(published_rates(epochs), rel=1e-9)


def test_an_epoch_drops_its_incomplete_last_batch_but_a_small_set_is_one_batch():
    batches = shuffled_batches(10, 4, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == [4, 4]
    assert len(set(torch.cat(batches).tolist())) == 8
    assert sorted(shuffled_batches(3, 4, torch.Generator())[0].tolist()) == [0, 1, 2]


def quadratic(target):
    parameter = Parameter(torch.zeros(3, dtype=torch.double))

    def step(indices, generator):
        noise = torch.randn(3, dtype=torch.double, generator=generator)
        loss = ((parameter - target[indices].mean(dim=0) + 0.1 * noise) ** 2).sum()
        torch.autograd.backward(loss)
        return StepResult(loss.item(), len(indices))

    return parameter, step


class Interrupted(Exception):
    """Ends a fit in the middle of an epoch."""


def test_a_fit_that_was_interrupted_equals_an_unbroken_one(tmp_path):
    target = torch.randn(12, 3, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    options = SgdOptions(epochs=5, batch=4)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected, step = quadratic(target)
    fit_by_sgd({"w": expected}, step, 12, options, FitRun(whole, report=lambda _: None), seed=1)

    first, step = quadratic(target)
    calls = iter(range(100))

    def stopping(indices, generator):
        if next(calls) == 8:
            raise Interrupted
        return step(indices, generator)

    with pytest.raises(Interrupted):
        fit_by_sgd({"w": first}, stopping, 12, options, FitRun(broken, report=lambda _: None), seed=1)
    with (broken / "curves.jsonl").open("a") as curves:
        curves.write(json.dumps({"epoch": 3, "loss": 99.0}) + "\n")
    resumed, step = quadratic(target)
    fit_by_sgd({"w": resumed}, step, 12, options, FitRun(broken, report=lambda _: None), seed=1)
    assert torch.equal(resumed, expected)
    assert (broken / "curves.jsonl").read_bytes() == (whole / "curves.jsonl").read_bytes()
    assert [json.loads(line)["epoch"] for line in (whole / "curves.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_fit_that_diverges_ends_with_an_error_and_keeps_the_last_sound_checkpoint(tmp_path, value):
    parameter, step = quadratic(torch.zeros(8, 3, dtype=torch.double))
    calls = iter(range(100))

    def diverging(indices, generator):
        return StepResult(value, 0) if next(calls) > 4 else step(indices, generator)

    with pytest.raises(DivergedError, match=r"epoch 3.*learning_rate"):
        fit_by_sgd(
            {"w": parameter},
            diverging,
            8,
            SgdOptions(epochs=4, batch=4),
            FitRun(tmp_path, report=lambda _: None),
            seed=1,
        )
    assert FitRun(tmp_path, report=lambda _: None).restore()[1] == 2


def test_the_time_is_estimated_before_the_first_update():
    target = torch.zeros(8, 3, dtype=torch.double)
    parameter, step = quadratic(target)
    lines: list[str] = []

    def watched(indices, generator):
        if not lines:
            assert torch.equal(parameter, torch.zeros(3, dtype=torch.double))
        return step(indices, generator)

    fit_by_sgd({"w": parameter}, watched, 8, SgdOptions(epochs=3, batch=4), FitRun(report=lines.append), seed=1)
    assert len(lines) == 1
    assert "6 steps" in lines[0]


def test_generators_differ_by_purpose_and_by_seed():
    draws = {
        torch.rand((), generator=seeded_generator(seed, word)).item() for seed in (0, 1) for word in ("epoch", "test")
    }
    assert len(draws) == 4
