"""Prompts weighed by images without labels: CARPRT and ZPE against what has to hold, and that no label plays a part."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ipo.config import Section
from ipo.errors import ConfigError
from ipo.methods import FitRun, Means, find_method
from ipo.metrics import centred_top_logit, top_logit_of_classes
from ipo.prompt import Prompt
from ipo.scoring import ImageSet, PromptPredictor, text_features
from ipo.search.weighing import WeighedPredictor, prompt_weights, read_unlabelled
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES

RULES = ("carprt", "zpe")
PROMPTS = tuple(Prompt(text) for text in ("a red <CLASS>.", "the <CLASS>", "a photo of a blue <CLASS>."))


def weighed(task, rule, prompts=PROMPTS, temperature=1.0):
    return WeighedPredictor(task.clip, prompts, rule, task.train.features, temperature)


def fit(name, task, **options):
    method = find_method(name)
    fitted = method.fit(task, method.configure("tiny", task.shots, options), FitRun(report=lambda _: None))
    return fitted, fitted.predictors[fitted.headline]


@pytest.mark.parametrize("rule", RULES)
def test_one_prompt_alone_is_that_prompt(task, rule):
    for prompt in PROMPTS:
        for names in (CLASSNAMES, NEW_NAMES):
            expected = PromptPredictor(task.clip, (prompt,)).logits(task.val, names)
            torch.testing.assert_close(weighed(task, rule, (prompt,)).logits(task.val, names), expected)


@pytest.mark.parametrize("rule", RULES)
def test_the_hotter_the_nearer_to_the_mean_of_scores(task, rule):
    mean = PromptPredictor(task.clip, PROMPTS, "score_mean").logits(task.val, CLASSNAMES)
    away = [
        float((weighed(task, rule, temperature=heat).logits(task.val, CLASSNAMES) - mean).abs().max())
        for heat in (1.0, 100.0, 1e12)
    ]
    assert away[0] > away[1] > away[2]
    assert away[2] < 1e-9


@pytest.mark.parametrize("rule", RULES)
def test_prompts_that_are_alike_weigh_the_same(task, rule):
    weights = weighed(task, rule, (PROMPTS[0],) * 4).weights(CLASSNAMES)
    torch.testing.assert_close(weights, torch.full_like(weights, 0.25))


@pytest.mark.parametrize("rule", RULES)
def test_weights_are_shares_for_each_class_or_for_all_alike(task, rule):
    weights = weighed(task, rule).weights(CLASSNAMES)
    assert weights.shape == (len(PROMPTS), len(CLASSNAMES) if rule == "carprt" else 1)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones_like(weights[0]))
    assert float(weights.std(dim=0).max()) > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_images_plays_no_part(task, rule):
    text = text_features(task.clip, PROMPTS, CLASSNAMES)
    features = task.train.features
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(3))
    one, other = (prompt_weights(rule, text, images, 20.0, 1.0) for images in (features, features[order]))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_labels_play_no_part_whether_permuted_or_hidden(task, name):
    permuted = tuple(replace(item, label=(item.label + 1) % 3) for item in task.train.items)
    hidden = replace(task, train=task.train.unlabelled(), val=None)
    tasks = (task, replace(task, train=ImageSet(permuted, task.train.features)), hidden)
    fits = [fit(name, one) for one in tasks]
    logits = [predictor.logits(task.train, CLASSNAMES) for _, predictor in fits]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    assert fits[0][0].figures == fits[1][0].figures == fits[2][0].figures
    uses = find_method(name).uses
    assert uses is not None
    assert uses(Section(), Means()) == {"unlabelled_images"}


def test_carprt_is_the_mean_of_the_largest_logits_of_a_class_image_by_image(task):
    text = text_features(task.clip, PROMPTS, CLASSNAMES).numpy()
    confidence = np.zeros((len(PROMPTS), len(CLASSNAMES)))
    for p in range(len(PROMPTS)):
        own: dict[int, list[float]] = {c: [] for c in range(len(CLASSNAMES))}
        for image in task.train.features.numpy():
            logits = [20.0 * float(image @ vector) for vector in text[p]]
            own[int(np.argmax(logits))].append(max(logits))
        confidence[p] = [np.mean(found) if found else 0.0 for found in own.values()]
    shares = np.exp(confidence) / np.exp(confidence).sum(axis=0)
    np.testing.assert_allclose(weighed(task, "carprt").weights(CLASSNAMES).numpy(), shares, rtol=1e-9)


def test_zpe_is_the_mean_largest_logit_beyond_what_the_class_gets_from_any_image(task):
    text = text_features(task.clip, PROMPTS, CLASSNAMES).numpy()
    scores = []
    for own in text:
        logits = 20.0 * task.train.features.numpy() @ own.T
        usual = [np.mean([row[c] for row in logits]) for c in range(len(CLASSNAMES))]
        scores.append(np.mean([max(value - other for value, other in zip(row, usual)) for row in logits]))
    shares = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(weighed(task, "zpe").weights(CLASSNAMES).numpy()[:, 0], shares, rtol=1e-9)


def test_a_class_without_images_gets_nothing_and_images_that_are_all_alike_tell_nothing():
    logits = torch.tensor([[3.0, 1.0, 0.0], [5.0, 2.0, 0.0], [0.0, 7.0, 1.0]])
    assert top_logit_of_classes(logits).tolist() == [4.0, 7.0, 0.0]
    assert centred_top_logit(logits[:1].expand(4, -1)).tolist() == [0.0]
    shifted = logits + torch.tensor([0.0, 50.0, 0.0])
    torch.testing.assert_close(centred_top_logit(shifted), centred_top_logit(logits))


@pytest.mark.parametrize("name", RULES)
def test_test_images_together_are_predicted_as_one_by_one(task, name):
    _, predictor = fit(name, task)
    images = task.train
    alone = [
        predictor.logits(ImageSet(images.items[i : i + 1], images.features[i : i + 1]), NEW_NAMES)
        for i in range(len(images))
    ]
    torch.testing.assert_close(predictor.logits(images, NEW_NAMES), torch.cat(alone))


def test_a_folder_gives_the_features_of_its_images_and_no_labels(task, tmp_path, monkeypatch):
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "given"
    (folder / "deep" / "er").mkdir(parents=True)
    for place, item in enumerate(task.train.items):
        shutil.copy(item.path, (folder, folder / "deep" / "er")[place % 2] / f"{place:02d}.png")
    (folder / "notes.txt").write_text("no picture")
    images = read_unlabelled(task.clip, folder)
    places = [int(item.path.stem) for item in images.items]
    assert sorted(places) == list(range(len(task.train)))
    torch.testing.assert_close(images.features.double(), task.train.features[places], rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="label"):
        images.labels.sum()


@pytest.mark.parametrize("name", RULES)
def test_images_of_a_folder_take_the_place_of_those_of_the_task(task, name, tmp_path, monkeypatch):
    folder = task.train.items[0].path.parent
    monkeypatch.setattr("ipo_baselines.carprt.read_unlabelled", lambda clip, path: {folder: task.val}[path])
    _, given = fit(name, task, images=folder)
    _, own = fit(name, replace(task, train=task.val))
    assert torch.equal(given.logits(task.train, CLASSNAMES), own.logits(task.train, CLASSNAMES))


@pytest.mark.parametrize("name", RULES)
def test_a_folder_without_images_is_named_before_anything_is_loaded(name, tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="no folder with images"):
            find_method(name).configure("tiny", 4, {"images": folder})


def test_a_result_names_the_heaviest_prompts(task):
    fitted, predictor = fit("zpe", task)
    weights = predictor.weights(CLASSNAMES)[:, 0]
    heaviest = fitted.figures["heaviest"]
    assert fitted.figures["prompts"] == len(weights) == 80
    assert [row["weight"] for row in heaviest] == pytest.approx(sorted(weights.tolist())[::-1][:5], abs=1e-6)
    assert heaviest[0]["prompt"] == predictor.prompts[int(weights.argmax())].text
