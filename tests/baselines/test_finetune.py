from __future__ import annotations

import copy
import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from ipo.errors import ConfigError, RunError
from ipo.methods import FitRun
from ipo.scoring import PromptPredictor
from ipo.store.tensors import load_tensors
from ipo_baselines import finetune, regularisers
from ipo_baselines.towers import TunedPredictor, first_classifier, interpolate
from ipo_baselines.training import seeded_generator
from ipo_baselines.tuning import Tuning, TuningBatch, TuningOptions, step_batches, tuning_rate
from ipo_baselines.zero_shot import EIGHTY
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES
from tests.baselines.two_processes import OPTIONS
from tests.processes import run_process

QUIET = FitRun(report=lambda _: None)
FAST = {"steps": 6, "batch": 5, "learning_rate": 0.01, "warmup": 0.0, "workers": 0}


def fit(method, task, run=QUIET, **values):
    return method.fit(task, method.configure("tiny", 4, {**FAST, **values}), run)


def test_two_classes_of_one_name_keep_a_head_row_each(task):
    model, names = first_classifier(task), ("crane", "green", "crane")
    with torch.no_grad():
        model.head.copy_(torch.randn(model.head.shape, dtype=torch.double, generator=seeded_generator(2)))
    predictor = TunedPredictor(task.clip, model, names)
    expected = task.clip.logit_scale * predictor.features(task.train) @ model.head.T
    assert torch.allclose(predictor.logits(task.train, names), expected)


def test_a_fit_that_diverges_ends_with_an_error_and_no_checkpoint(task, tmp_path):
    with pytest.raises(RunError, match=r"loss became (nan|inf).*learning_rate"):
        fit(finetune.FT, task, FitRun(tmp_path, report=lambda _: None), learning_rate=1e308)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_curve_row_is_never_within_a_checkpoint(task, monkeypatch):
    options = finetune.FT.configure("tiny", 4, {**FAST, "steps": 150})
    model = first_classifier(task)
    tuning = Tuning(task, options, model, regularisers.no_penalty(task, model, 0.0))
    seen = []
    tuning.update = lambda step, chunks: torch.ones(4)
    run = FitRun(report=lambda _: None)
    monkeypatch.setattr(run, "log", lambda row: seen.append(("row", row["step"])))
    monkeypatch.setattr(run, "save", lambda tensors, done: seen.append(("checkpoint", done)))
    tuning.run(run)
    rows = {step for kind, step in seen if kind == "row"}
    saved = [step for kind, step in seen if kind == "checkpoint"]
    assert saved[-1] == 150
    assert len(saved) > 3
    assert rows.issuperset(saved)


def test_untuned_tower_is_the_zero_shot_ensemble(task):
    predictor = TunedPredictor(task.clip, first_classifier(task), CLASSNAMES)
    for names in (CLASSNAMES, CLASSNAMES[::-1], NEW_NAMES):
        expected = PromptPredictor(task.clip, EIGHTY).logits(task.train, names)
        assert torch.allclose(predictor.logits(task.train, names), expected, atol=1e-9)


def test_lipsum_ft_with_weight_0_is_ft(task):
    plain, guided = fit(finetune.FT, task).learned, fit(finetune.LIPSUM_FT, task, weight=0.0).learned
    for name, value in plain.items():
        assert torch.allclose(guided[name], value, atol=1e-12), name
    assert not torch.allclose(fit(finetune.LIPSUM_FT, task).learned["head"], plain["head"], atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        regularisers.text_guidance,
        regularisers.weight_distance,
        regularisers.distillation,
        regularisers.context_distillation,
        regularisers.no_penalty,
    ],
)
def test_every_penalty_is_0_at_the_start_and_all_but_ft_rise_when_the_model_moves(task, make):
    model, pixels = first_classifier(task), torch.stack([task.clip.preprocess(i) for i in images(task)])
    penalty = make(task, model, 1.0)(seeded_generator(1))
    for moved in (False, True):
        if moved:
            with torch.no_grad():
                model.tower.layers[1].weight.add_(0.3)
        features, logits = model(pixels)
        value = penalty(TuningBatch(features, task.clip.encode_images(pixels), logits)).item()
        assert (value > 1e-4) == (moved and make is not regularisers.no_penalty), value
        assert moved or abs(value) < 1e-12


def images(task):
    from PIL import Image

    return [Image.open(item.path) for item in task.train.items]


def test_lipsum_regulariser_is_half_the_mean_squared_change_of_scaled_inner_products(task):
    texts = regularisers.random_texts(task.clip, seeded_generator(3), count=5, length=4)
    now = normalize(task.train.features + 0.1, dim=-1)
    total = 0.0
    for feature, frozen in zip(now, task.train.features, strict=True):
        for text in texts:
            total += (task.clip.logit_scale * float(text @ feature) - task.clip.logit_scale * float(text @ frozen)) ** 2
    expected = total / (2 * len(texts) * len(now))
    assert float(regularisers.energy_gap(task.clip, now, task.train.features, texts)) == pytest.approx(expected)


def test_random_texts_are_drawn_anew_every_step_and_alike_for_the_same_step(task):
    model = first_classifier(task)
    regulariser = regularisers.text_guidance(task, model, 1.0)
    moved = torch.randn(task.train.features.shape, dtype=torch.double, generator=seeded_generator(5))
    batch = TuningBatch(moved, task.train.features, moved @ model.head.T)
    first, again, second = (float(regulariser(seeded_generator(1, "step", s))(batch)) for s in (0, 0, 1))
    assert first == again
    assert first != pytest.approx(second, rel=1e-6)


def test_kl_is_that_of_probabilities():
    target, logits = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    p = target.softmax(dim=-1)[0]
    expected = sum(float(x) * (math.log(x) - math.log(1 / 3)) for x in p)
    assert float(regularisers.divergence(target, logits)) == pytest.approx(expected, rel=1e-5)


def test_one_step_is_adamw_on_the_mean_loss(task):
    fitted = fit(finetune.FT, task, steps=1, batch=12, augment=False, images_at_once=5)
    model = first_classifier(task)
    pixels = torch.stack([task.clip.preprocess(image) for image in images(task)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0)
    torch.autograd.backward(cross_entropy(model(pixels)[1], task.train.labels))
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(fitted.learned[name], value, atol=1e-9), name


def test_wise_ft_at_its_ends_is_the_zero_shot_model_and_ft(task):
    tuned, start = fit(finetune.FT, task).learned, first_classifier(task).state_dict()
    for alpha, expected in ((0.0, start), (1.0, tuned)):
        mixed = fit(finetune.WISE_FT, task, alpha=alpha).learned
        for name, value in expected.items():
            assert torch.allclose(mixed[name], value, atol=1e-12), (alpha, name)
    middle = fit(finetune.WISE_FT, task).learned["head"]
    assert torch.allclose(middle, (tuned["head"] + start["head"]) / 2, atol=1e-12)


def test_interpolation_is_per_weight():
    start, end = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.7 * start.weight + 0.3 * end.weight
    interpolate(start, end, 0.3)
    assert torch.allclose(end.weight, expected)


def test_rate_rises_from_0_for_a_tenth_and_falls_as_a_cosine_to_0():
    options = TuningOptions(steps=100)
    assert [tuning_rate(options, step) for step in (0, 5, 10)] == pytest.approx([0, 0.5e-5, 1e-5])
    assert tuning_rate(options, 55) == pytest.approx(0.5e-5)
    assert tuning_rate(options, 99) < 1e-8


def test_batches_run_over_whole_shuffled_epochs_and_stop_at_the_last_step(task):
    batches = list(step_batches(task, TuningOptions(steps=5, batch=5)))
    assert [len(batch) for batch in batches] == [5] * 5
    assert len(set(torch.cat(batches[:2]).tolist())) == 10
    assert len(list(step_batches(task, TuningOptions(steps=3, batch=256)))) == 3


def test_a_resumed_fit_equals_an_unbroken_one(task, tmp_path):
    folders = [tmp_path / "whole", tmp_path / "broken"]
    for folder in folders:
        folder.mkdir()
    whole = fit(finetune.LIPSUM_FT, task, FitRun(folders[0], report=lambda _: None), steps=12)
    options = finetune.LIPSUM_FT.configure("tiny", 4, {**FAST, "steps": 12})
    interrupt_after(task, options, folders[1], steps=7)
    resumed = finetune.LIPSUM_FT.fit(task, options, FitRun(folders[1], report=lambda _: None))
    for name, value in whole.learned.items():
        assert torch.equal(resumed.learned[name], value), name
    rows = [(folder / "curves.jsonl").read_text() for folder in folders]
    assert rows[0] == rows[1]
    assert [json.loads(line)["step"] for line in rows[0].splitlines()] == list(range(1, 13))


def interrupt_after(task, options, folder, steps):
    model = first_classifier(task)
    make = partial(regularisers.text_guidance, texts=options.texts, length=options.length)
    tuning = Tuning(task, options, model, make(task, model, options.weight))
    gradient, calls = tuning.gradient, iter(range(100))

    def stopping(step, chunks):
        if next(calls) > steps:
            raise KeyboardInterrupt
        return gradient(step, chunks)

    tuning.gradient = stopping
    with pytest.raises(KeyboardInterrupt):
        tuning.run(FitRun(folder, report=lambda _: None))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, task):
    pictures, alone, shared = tmp_path / "pictures", tmp_path / "alone", tmp_path / "shared"
    for folder in (pictures, alone, shared):
        folder.mkdir()
    from tests.baselines.tiny import tiny_task

    expected = finetune.LIPSUM_FT.fit(tiny_task(pictures), OPTIONS, FitRun(alone, report=lambda _: None))
    command = [sys.executable, "-m", "tests.baselines.two_processes", str(pictures), str(shared)]
    done = run_process(command, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    learned, _ = load_tensors(shared / "learned.safetensors")
    for name, value in expected.learned.items():
        assert torch.allclose(learned[name], value, atol=1e-9), name
    rows = [[json.loads(line) for line in (f / "curves.jsonl").read_text().splitlines()] for f in (alone, shared)]
    for one, two in zip(*rows, strict=True):
        assert two == pytest.approx(one, rel=1e-5)


def test_energy_gap_and_distortion_are_0_without_movement_and_not_otherwise(task):
    still = fit(finetune.FT, task, steps=1, learning_rate=1e-20).figures
    assert still["energy_gap"] == pytest.approx(0, abs=1e-12)
    moved = fit(finetune.FT, task).figures
    assert moved["energy_gap"] > 1e-3
    predictor = fit(finetune.FT, task).predictors["ft"]
    change = predictor.features(task.train) - task.train.features
    assert moved["feature_distortion"] == pytest.approx(float(change.norm(dim=-1).pow(2).mean()))


def test_a_tower_that_cannot_recompute_activations_says_so(task):
    with pytest.raises(ConfigError, match="recompute"):
        fit(finetune.FT, task, checkpointing=True)


def test_recomputing_activations_changes_no_gradient(task):
    class Block(torch.nn.Module):
        def __init__(self, tower):
            super().__init__()
            self.inner, self.recompute = tower, False

        def set_grad_checkpointing(self, enable):
            self.recompute = enable

        def forward(self, pixels):
            if self.recompute:
                return torch.utils.checkpoint.checkpoint(self.inner, pixels, use_reentrant=False)
            return self.inner(pixels)

    plain = fit(finetune.FT, task).learned
    clip = task.clip
    image_tower = clip.image_tower
    clip.image_tower = lambda: Block(image_tower())
    learned = fit(finetune.FT, task, checkpointing=True).learned
    for name, value in plain.items():
        assert torch.equal(learned[name.replace("tower.", "tower.inner.")], value), name


def test_the_frozen_model_is_left_alone(task):
    before = copy.deepcopy(task.clip.tower.state_dict())
    fit(finetune.FT, task)
    for name, value in task.clip.tower.state_dict().items():
        assert torch.equal(value, before[name])


def test_published_defaults():
    options = finetune.LIPSUM_FT.configure("domainnet", 16)
    assert (options.steps, options.batch, options.learning_rate, options.warmup) == (5000, 256, 1e-5, 0.1)
    assert (options.texts, options.length, options.weight) == (80, 8, 1.0)
    assert finetune.FT.configure("imagenet", 16).steps == 50_000
