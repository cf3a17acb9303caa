"""The methods on an open_clip model: the real text engine and image tower, with random weights."""

from __future__ import annotations

import pytest
import torch

from ipo.clip.load import load_clip
from ipo.config import ClipSettings
from ipo.methods import FitRun, find_method
from ipo.prompt import Prompt
from ipo.scoring import PromptPredictor
from ipo_baselines import finetune
from ipo_baselines.contexts import first_context
from ipo_baselines.coop import ContextPredictor, CoOpOptions
from ipo_baselines.regularisers import text_guidance
from ipo_baselines.towers import first_classifier
from ipo_baselines.tuning import Tuning
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, save_openclip, tiny_task

QUIET = FitRun(report=lambda _: None)


@pytest.fixture(scope="module")
def openclip_task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openclip")
    clip = load_clip(ClipSettings(model=save_openclip(folder / "model"), device="cpu"), offline=True)
    return tiny_task(folder, clip)


def fit(name, task, **options):
    method = find_method(name)
    return method.fit(task, method.configure("tiny", 4, options), QUIET)


def test_untrained_coop_is_zero_shot(openclip_task):
    context = first_context(openclip_task.clip, CoOpOptions(), seed=1).detach()
    for names in (CLASSNAMES, NEW_NAMES):
        logits = ContextPredictor(openclip_task.clip, context).logits(openclip_task.train, names)
        prompt = PromptPredictor(openclip_task.clip, (Prompt("a photo of a <CLASS>."),))
        assert torch.allclose(logits, prompt.logits(openclip_task.train, names), atol=1e-4)


@pytest.mark.parametrize("name", ["coop", "cocoop", "bayesian"])
def test_prompt_learners_train_their_context(openclip_task, name):
    fitted = fit(name, openclip_task, epochs=2, batch=4, warmup_epochs=0)
    start = openclip_task.clip.embed_words("a photo of a")
    assert not torch.equal(fitted.learned["context"][0], start)
    logits = fitted.predictors[name].logits(openclip_task.train, NEW_NAMES)
    assert logits.shape == (12, 2)
    assert torch.isfinite(logits).all()


def test_recomputed_activations_and_small_chunks_give_the_same_tower(openclip_task):
    options = {"steps": 3, "workers": 0, "warmup": 0.0, "learning_rate": 1e-3}
    plain = fit("lipsum-ft", openclip_task, **options).predictors["lipsum-ft"]
    other = fit("lipsum-ft", openclip_task, checkpointing=True, images_at_once=5, **options).predictors["lipsum-ft"]
    features = plain.features(openclip_task.train)
    assert torch.allclose(features, other.features(openclip_task.train), atol=1e-4)
    assert not torch.allclose(features, openclip_task.train.features, atol=1e-2)


def test_in_bfloat16_too_the_penalty_is_0_at_the_start(openclip_task):
    options = finetune.LIPSUM_FT.configure("tiny", 4, {"workers": 0, "precision": "bfloat16", "augment": False})
    model = first_classifier(openclip_task)
    tuning = Tuning(openclip_task, options, model, text_guidance(openclip_task, model, 1.0, texts=80, length=8))
    chunks = next(iter(tuning.steps(0)))
    assert float(tuning.gradient(0, chunks)[1]) == 0
    model.tower.visual.proj.data += 0.1
    assert float(tuning.gradient(0, chunks)[1]) > 0


def test_bfloat16_tunes_near_float32(openclip_task):
    options = {"steps": 2, "workers": 0, "warmup": 0.0, "learning_rate": 1e-3}
    exact, low = (fit("ft", openclip_task, precision=p, **options).learned["head"] for p in ("float32", "bfloat16"))
    assert low.dtype == torch.float32
    assert not torch.equal(exact, low)
    assert torch.allclose(exact, low, atol=5e-3)
