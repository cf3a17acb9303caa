from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from ipo.errors import ConfigError
from ipo.methods import FitRun, find_method
from ipo.prompt import Prompt
from ipo.scoring import PromptPredictor
from ipo_baselines.augment import TrainingFeatures
from ipo_baselines.contexts import encode_context, first_context
from ipo_baselines.coop import METHOD, ContextPredictor, CoOpOptions, published
from ipo_baselines.views import Views, encode_views
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, TinyClip

QUIET = FitRun(report=lambda _: None)


def options(**values):
    return CoOpOptions(**{"epochs": 4, "batch": 4, **values})


@pytest.mark.parametrize(
    ("position", "prompt"),
    [("end", "a photo of a <CLASS>."), ("middle", "a photo <CLASS> of a."), ("front", "<CLASS> a photo of a.")],
)
def test_untrained_worded_context_is_zero_shot_with_those_words(task, position, prompt):
    context = first_context(task.clip, options(init="a photo of a"), seed=1)
    for classnames in (CLASSNAMES, NEW_NAMES):
        logits = ContextPredictor(task.clip, context.detach(), position).logits(task.train, classnames)
        expected = PromptPredictor(task.clip, (Prompt(prompt),)).logits(task.train, classnames)
        assert torch.allclose(logits, expected, atol=1e-12)


def test_class_specific_context_of_equal_rows_is_the_unified_one(task):
    clip = task.clip
    unified = first_context(clip, options(), seed=1)
    specific = first_context(clip, options(), seed=1, rows=3)
    assert torch.allclose(
        encode_context(clip, CLASSNAMES, unified[None]), encode_context(clip, CLASSNAMES, specific[None]), atol=1e-12
    )
    losses = [
        cross_entropy(
            clip.logit_scale * task.train.features @ encode_context(clip, CLASSNAMES, c[None])[0].T, task.train.labels
        )
        for c in (unified, specific)
    ]
    for loss in losses:
        torch.autograd.backward(loss)
    assert torch.allclose(specific.grad.sum(dim=0, keepdim=True), unified.grad, atol=1e-12)


def test_one_step_equals_sgd_written_out(task):
    clip, labels = task.clip, task.train.labels
    start = first_context(clip, options(), seed=1)
    fitted = METHOD.fit(task, options(epochs=1, batch=100, warmup_epochs=0), QUIET)
    text = encode_context(clip, CLASSNAMES, start[None])[0]
    loss = cross_entropy(clip.logit_scale * task.train.features @ text.T, labels)
    (gradient,) = torch.autograd.grad(loss, start)
    expected = start - 0.002 * (gradient + 5e-4 * start)
    assert torch.allclose(fitted.learned["context"], expected.detach(), atol=1e-12)


def test_gradient_of_the_context_is_the_finite_difference(task):
    def loss(context):
        text = encode_context(task.clip, CLASSNAMES, context[None], "middle")[0]
        return cross_entropy(task.clip.logit_scale * task.train.features @ text.T, task.train.labels)

    assert torch.autograd.gradcheck(loss, first_context(task.clip, options(init="random", n_ctx=3), seed=1))


def test_fitting_lowers_the_loss_and_reads_back_from_its_checkpoint(task, tmp_path):
    run = FitRun(tmp_path, report=lambda _: None)
    fitted = METHOD.fit(task, options(epochs=30, learning_rate=0.05), run)
    rows = (tmp_path / "curves.jsonl").read_text().splitlines()
    assert len(rows) == 30
    before = ContextPredictor(task.clip, first_context(task.clip, options(), 1).detach())
    losses = [
        cross_entropy(predictor.logits(task.train, CLASSNAMES), task.train.labels).item()
        for predictor in (before, fitted.predictors["coop"])
    ]
    assert losses[1] < 0.85 * losses[0]
    again = METHOD.fit(task, options(epochs=30, learning_rate=0.05), run)
    assert torch.equal(again.learned["context"], fitted.learned["context"])


def test_class_specific_fit_answers_for_its_own_classes_only(task):
    fitted = METHOD.fit(task, options(class_specific=True), QUIET)
    assert fitted.learned["context"].shape == (3, 4, task.clip.width)
    assert fitted.own_classes_only
    with pytest.raises(ConfigError, match="knows only"):
        fitted.predictors["coop"].logits(task.train, NEW_NAMES)


def test_random_start_depends_on_the_seed_alone(task):
    first, again, other = (first_context(task.clip, options(init="random", n_ctx=5), seed) for seed in (1, 1, 2))
    assert first.shape == (1, 5, task.clip.width)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.01 < first_context(task.clip, options(init="random", n_ctx=200), 1).std() < 0.03


def test_n_ctx_that_contradicts_the_words_is_an_error(task):
    with pytest.raises(ConfigError, match="4 tokens"):
        first_context(task.clip, options(n_ctx=16), seed=1)


@pytest.mark.parametrize(
    ("dataset", "shots", "epochs"),
    [("dtd", 1, 50), ("dtd", 2, 100), ("dtd", 4, 100), ("dtd", 8, 200), ("dtd", 16, 200), ("imagenet", 16, 50)],
)
def test_published_epochs(dataset, shots, epochs):
    assert published(dataset, shots) == {"epochs": epochs}


def test_random_crops_are_reproducible_differ_by_draw_and_are_cached_by_view(task):
    clip = task.clip
    views = Views.of(clip, task.train.items, crops=True, seed=task.seed)
    first, parts, second = (
        encode_views(views, clip.encode_images, draw, batch) for draw, batch in ((0, 64), (0, 5), (1, 64))
    )
    assert torch.allclose(first, parts, atol=1e-12)
    assert not torch.allclose(first, second)
    cached = TrainingFeatures.of(task, "cached", 3)
    assert cached.cached.shape == (3, 12, clip.dim)
    assert torch.allclose(cached.cached[1], second, atol=1e-12)
    features, labels = cached.batch(torch.tensor([4, 7]), torch.Generator().manual_seed(0))
    assert any(torch.equal(features[0], view) for view in cached.cached[:, 4])
    assert labels.tolist() == [1, 1]


def test_the_view_of_the_test_transform_is_what_the_task_holds(task):
    views = Views.of(task.clip, task.train.items, crops=False)
    assert torch.allclose(encode_views(views, task.clip.encode_images), task.train.features, atol=1e-12)


def test_a_fit_on_crops_differs_from_one_on_the_test_transform(task):
    contexts = [
        METHOD.fit(task, options(augment=augment, crops=2), QUIET).learned["context"]
        for augment in ("none", "cached", "fly")
    ]
    assert not torch.equal(contexts[0], contexts[1])
    assert not torch.equal(contexts[0], contexts[2])


def test_the_nearest_word_of_an_untrained_vector_is_its_own(task):
    fitted = METHOD.fit(task, options(epochs=1, warmup_rate=1e-12), QUIET)
    reading = fitted.figures["reading"]
    assert reading["sentence"] == "a photo of a <CLASS>."
    assert reading["nearest_words"][1][0] == ["photo", 0.0]
    second = reading["nearest_words"][1][1]
    words, embeddings = TinyClip().vocabulary()
    pairs = [(word, row) for word, row in zip(words, embeddings, strict=True) if not word.startswith("[")]
    distances = sorted((float((row - embeddings[4]).norm()), word) for word, row in pairs)
    assert second == [distances[1][1], pytest.approx(distances[1][0], abs=1e-4)]


@pytest.mark.parametrize("method", ["coop", "cocoop", "bayesian"])
@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("", "words are wanted"),
        ("  ", "words are wanted"),
        ("a photo of a <CLASS>", "without it"),
        ("a photo of a <class>.", "without it"),
        ("a {} photo", "no angle brackets"),
        ("a < photo", "no angle brackets"),
        ("a\u200bphoto", "invisible"),
        ("salt &amp; pepper", "no HTML entities"),
    ],
)
def test_a_start_that_is_no_words_is_refused_before_anything_is_loaded(method, init, words):
    with pytest.raises(ConfigError, match=words):
        find_method(method).configure("tiny", 4, {"init": init})


def test_a_start_that_the_model_has_no_token_for_is_refused(task, monkeypatch):
    monkeypatch.setattr(type(task.clip), "embed_words", lambda self, text: torch.zeros(0, self.width))
    with pytest.raises(ConfigError, match="no token"):
        first_context(task.clip, options(init="a"), 1)
