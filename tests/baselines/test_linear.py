"""Linear classifiers on features: where they are zero-shot, against NumPy, and gone on with as if never broken off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ipo.errors import ConfigError, DataError
from ipo.methods import FitRun, find_method
from ipo.metrics import accuracy
from ipo.scoring import ImageSet, PromptPredictor
from ipo.task import FewShotTask
from ipo_baselines import linear_probe
from ipo_baselines.clap import ClapOptions, multipliers
from ipo_baselines.tip_adapter import TipAdapterOptions, cosine_rate
from ipo_baselines.training import epoch_rate
from ipo_baselines.zero_shot import own_prompts
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, TinyClip, picture_set

TRAINED = [("linear-probe", {}), ("clap", {}), ("tip-adapter", {"fine_tune": True})]
QUICK = {"epochs": 4, "batch": 5}


def fit(name, task, run=None, **options):
    method = find_method(name)
    fitted = method.fit(task, method.configure("tiny", task.shots, options), run or FitRun(report=lambda _: None))
    return fitted, fitted.predictors[fitted.headline]


def zero_shot(task: FewShotTask):
    predictor = PromptPredictor(task.clip, own_prompts(task, linear_probe.ProbeOptions()))
    return predictor.logits(task.train, CLASSNAMES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear-probe", {"epochs": 0}),
        ("clap", {"epochs": 0}),
        ("tip-adapter", {"alpha": 0}),
        ("tip-adapter", {"alpha": 0, "fine_tune": True, **QUICK}),
    ],
)
def test_without_a_step_or_a_cache_it_is_zero_shot(task, name, options):
    _, predictor = fit(name, task, **options)
    torch.testing.assert_close(predictor.logits(task.train, CLASSNAMES), zero_shot(task), rtol=1e-9, atol=1e-9)


def test_the_start_is_zero_shot_though_its_vectors_have_the_length_that_the_text_tower_gives(task):
    start = linear_probe.first_weights(task, linear_probe.ProbeOptions())
    lengths = start.norm(dim=-1)
    assert float((lengths - 1).abs().min()) > 0.1
    texts = task.clip.encode_texts([f"a photo of a {name}." for name in CLASSNAMES])
    torch.testing.assert_close(start / lengths[:, None], texts)


def numpy_gradient(weights, features, labels, scale):
    """Of the mean cross-entropy of scale x cosine, by hand."""
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    unit = weights / lengths
    logits = scale * features @ unit.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    error = (shares - np.eye(len(weights))[labels]) / len(labels)
    raw = scale * error.T @ features
    return (raw - (raw * unit).sum(axis=1, keepdims=True) * unit) / lengths


@pytest.mark.parametrize("name", ["linear-probe", "clap"])
def test_the_weights_are_those_of_the_same_steps_in_numpy(task, name):
    """All images in one batch, so that the order plays no part."""
    options = {"epochs": 5, "learning_rate": 0.05}
    fitted, _ = fit(name, task, **options)
    configured = find_method(name).configure("tiny", 4, options)
    start = linear_probe.first_weights(task, configured).numpy()
    features, labels = task.train.features.numpy(), task.train.labels.numpy()
    cosines = task.clip.logit_scale * features @ (start / np.linalg.norm(start, axis=1, keepdims=True)).T
    shares = np.exp(cosines) / np.exp(cosines).sum(axis=1, keepdims=True)
    own = np.array([shares[labels == c, c].mean() for c in range(len(start))]) if name == "clap" else 0 * start[:, 0]
    weights, speed = start.copy(), np.zeros_like(start)
    for epoch in range(1, 6):
        gradient = numpy_gradient(weights, features, labels, task.clip.logit_scale)
        gradient += 2 * own[:, None] * (weights - start) / len(start)
        speed = 0.9 * speed + gradient
        weights = weights - epoch_rate(configured, epoch) * speed
    assert np.abs(weights - start).max() > 1e-3
    np.testing.assert_allclose(fitted.learned["weights"].numpy(), weights, rtol=0, atol=1e-9)


def test_a_multiplier_is_the_mean_probability_that_zero_shot_gives_the_class_on_its_own_images(task):
    start = linear_probe.first_weights(task, ClapOptions())
    probabilities = zero_shot(task).softmax(dim=-1)
    expected = [float(probabilities[task.train.labels == label, label].mean()) for label in range(3)]
    assert multipliers(task, start).tolist() == pytest.approx(expected)
    assert fit("clap", task, **QUICK)[0].figures["multipliers"] == pytest.approx(expected, abs=1e-6)


def test_clap_without_its_penalty_is_the_linear_probe(task):
    plain, held = fit("linear-probe", task, **QUICK)[0], fit("clap", task, weight=0, **QUICK)[0]
    assert torch.equal(plain.learned["weights"], held.learned["weights"])


def test_the_heavier_the_penalty_the_nearer_to_zero_shot_and_at_last_it_is_zero_shot(task):
    """At a rate that the curvature of the penalty allows, down to a millionth of its distance without one."""
    start = linear_probe.first_weights(task, ClapOptions())
    distances = []
    for weight in (1e2, 1e4, 1e8):
        fitted, predictor = fit("clap", task, weight=weight, epochs=60, learning_rate=0.5 / weight)
        distances.append(float((fitted.learned["weights"] - start).norm()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-5
    torch.testing.assert_close(predictor.logits(task.train, CLASSNAMES), zero_shot(task), rtol=0, atol=1e-4)


def test_the_cache_is_the_formula_image_by_image_and_key_by_key(task):
    _, predictor = fit("tip-adapter", task, alpha=2.5, beta=3.0)
    test = picture_set(task.train.items[0].path.parent, task.clip, 2, 7)
    expected = PromptPredictor(task.clip, own_prompts(task, TipAdapterOptions())).logits(test, CLASSNAMES).clone()
    for row, image in enumerate(test.features):
        for key, label in zip(task.train.features, task.train.labels.tolist(), strict=True):
            expected[row, label] += 2.5 * np.exp(-3.0 * (1 - float(image @ key)))
    torch.testing.assert_close(predictor.logits(test, CLASSNAMES), expected)


def test_keys_of_several_crops_are_their_mean_of_unit_length(task):
    fitted, _ = fit("tip-adapter", task, augment="cached", crops=3, fine_tune=True, epochs=0)
    keys = fitted.learned["keys"]
    torch.testing.assert_close(keys.norm(dim=-1), torch.ones_like(keys[:, 0]))
    assert float((keys - task.train.features).abs().max()) > 1e-3


def test_trained_keys_lower_the_loss_at_the_published_rates(task):
    options = TipAdapterOptions(fine_tune=True, epochs=4)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * 3)
    for step in range(12):
        assert cosine_rate(options, step / 3) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    labels = task.train.labels
    loss = [
        float(torch.nn.functional.cross_entropy(predictor.logits(task.train, CLASSNAMES), labels))
        for _, predictor in (
            fit("tip-adapter", task),
            fit("tip-adapter", task, fine_tune=True, learning_rate=0.01, epochs=10),
        )
    ]
    assert loss[1] < loss[0]


def test_alpha_and_beta_are_chosen_by_validation_images_alone(task):
    val = picture_set(task.train.items[0].path.parent, task.clip, 3, 5)
    task = replace(task, val=val)
    fitted, _ = fit("tip-adapter", task, tune=True)
    found = {key: fitted.figures[key] for key in ("alpha", "beta")}

    def right(**options):
        return accuracy(fit("tip-adapter", task, **options)[1].logits(val, CLASSNAMES), val.labels)

    others = [(1.17, 1.0), (0.1, 0.1), (2.855, 6.9), (1.0, 5.5)]
    assert all(right(**found) >= right(alpha=alpha, beta=beta) for alpha, beta in others)
    with pytest.raises(DataError, match="validation"):
        fit("tip-adapter", replace(task, val=ImageSet((), val.features[:0])), tune=True)


@pytest.mark.parametrize(("name", "options"), TRAINED)
def test_a_fit_that_was_broken_off_goes_on_to_the_same_tensors(task, tmp_path, name, options):
    whole, _ = fit(name, task, **options, **QUICK)

    class Broken(FitRun):
        def save(self, tensors, done):
            super().save(tensors, done)
            if done == 2:
                raise KeyboardInterrupt

    quiet = lambda _: None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        fit(name, task, Broken(tmp_path, report=quiet), **options, **QUICK)
    again, _ = fit(name, task, FitRun(tmp_path, report=quiet), **options, **QUICK)
    (key,) = whole.learned
    assert torch.equal(again.learned[key], whole.learned[key])
    assert not torch.equal(whole.learned[key], fit(name, task, **options, **{**QUICK, "epochs": 2})[0].learned[key])


@pytest.mark.parametrize(("name", "options"), [*TRAINED, ("tip-adapter", {})])
def test_images_together_are_predicted_as_one_by_one_and_new_classes_not_at_all(task, name, options):
    quick = QUICK if options or name != "tip-adapter" else {}
    fitted, predictor = fit(name, task, **options, **quick)
    together = predictor.logits(task.train, CLASSNAMES)
    alone = [
        predictor.logits(ImageSet(task.train.items[i : i + 1], task.train.features[i : i + 1]), CLASSNAMES)
        for i in range(len(task.train))
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    assert fitted.own_classes_only
    with pytest.raises(ConfigError, match="only the classes"):
        predictor.logits(task.train, NEW_NAMES)


@pytest.mark.parametrize("name", ["linear-probe", "clap", "tip-adapter"])
def test_several_prompts_start_it_together(task, tmp_path, name):
    file = tmp_path / "mine.txt"
    file.write_text("a red <CLASS>.\nthe <CLASS>\n")
    nothing = {"alpha": 0} if name == "tip-adapter" else {"epochs": 0}
    _, predictor = fit(name, task, prompts=file, **nothing)
    unit = name == "tip-adapter"
    rows = [
        torch.stack([task.clip.encode_texts([text.format(one)], unit=unit)[0] for text in ("a red {}.", "the {}")])
        for one in CLASSNAMES
    ]
    classifier = normalize(torch.stack([row.mean(dim=0) for row in rows]), dim=-1)
    expected = task.clip.logit_scale * task.train.features @ classifier.T
    torch.testing.assert_close(predictor.logits(task.train, CLASSNAMES), expected)


def test_options_of_training_without_training_are_named():
    with pytest.raises(ConfigError, match="fine_tune=true"):
        find_method("tip-adapter").configure("tiny", 4, {"epochs": 3})


def test_a_class_without_a_training_image_has_no_pull_and_no_harm(tmp_path):
    from tests.baselines.tiny import tiny_task

    task = tiny_task(tmp_path, TinyClip())
    kept = [index for index, label in enumerate(task.train.labels.tolist()) if label != 1]
    train = ImageSet(tuple(task.train.items[i] for i in kept), task.train.features[kept])
    fitted, _ = fit("clap", replace(task, train=train), **QUICK)
    assert fitted.figures["multipliers"][1] == 0
    assert fitted.learned["weights"].isfinite().all()
