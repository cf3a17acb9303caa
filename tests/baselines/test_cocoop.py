from __future__ import annotations

import pytest
import torch

from ipo.methods import FitRun
from ipo_baselines.cocoop import METHOD, CoCoOpOptions, ConditionalPredictor, meta_net
from ipo_baselines.contexts import first_context
from ipo_baselines.coop import ContextPredictor
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES

QUIET = FitRun(report=lambda _: None)


def options(**values):
    return CoCoOpOptions(**{"epochs": 2, "batch": 6, **values})


def test_zero_meta_net_is_coop(task):
    net = meta_net(task.clip, seed=1)
    for parameter in net[2].parameters():
        torch.nn.init.zeros_(parameter)
    context = first_context(task.clip, options(init="random", n_ctx=4), seed=1).detach()
    for names in (CLASSNAMES, NEW_NAMES):
        logits = ConditionalPredictor(task.clip, context, net).logits(task.train, names)
        assert torch.allclose(logits, ContextPredictor(task.clip, context).logits(task.train, names), atol=1e-12)


def test_each_image_shifts_all_context_vectors_alike(task):
    net, context = meta_net(task.clip, seed=1), first_context(task.clip, options(), seed=1).detach()
    logits = ConditionalPredictor(task.clip, context, net).logits(task.train, CLASSNAMES)
    with torch.no_grad():
        shift = net(task.train.features[5])
    alone = ContextPredictor(task.clip, context + shift).logits(task.train, CLASSNAMES)
    assert torch.allclose(logits[5], alone[5], atol=1e-12)
    assert not torch.allclose(logits[4], alone[4], atol=1e-3)


@pytest.mark.parametrize("texts_at_once", [3, 6, 1000])
def test_batches_in_chunks_equal_one_image_at_a_time(task, texts_at_once):
    """The same fit whether a batch is encoded whole, in chunks, or image by image."""
    expected = METHOD.fit(task, options(texts_at_once=1), QUIET)
    task.clip.text_batches.clear()
    fitted = METHOD.fit(task, options(texts_at_once=texts_at_once), QUIET)
    assert max(task.clip.text_batches) <= max(texts_at_once, len(CLASSNAMES))
    for name, value in expected.learned.items():
        assert torch.allclose(fitted.learned[name], value, atol=1e-10), name


def test_meta_net_has_the_published_shape_and_a_seeded_start(task):
    net = meta_net(task.clip, seed=3)
    assert [tuple(p.shape) for p in net.parameters()] == [(4, 64), (4,), (12, 4), (12,)]
    assert torch.equal(net[0].weight, meta_net(task.clip, seed=3)[0].weight)


def test_defaults_are_the_published_ones():
    chosen = METHOD.configure("caltech101", 16)
    assert (chosen.epochs, chosen.batch, chosen.init, chosen.learning_rate) == (10, 1, "a photo of a", 0.002)


def test_fit_trains_context_and_meta_net(task):
    fitted = METHOD.fit(task, options(epochs=3, learning_rate=0.02), QUIET)
    start = {"context": first_context(task.clip, options(), 1), "meta_net.0.weight": meta_net(task.clip, 1)[0].weight}
    for name, value in start.items():
        assert not torch.allclose(fitted.learned[name], value, atol=1e-6), name


def test_crops_can_be_trained_on(task):
    plain, cropped = (
        METHOD.fit(task, options(augment=a, crops=2), QUIET).learned["context"] for a in ("none", "cached")
    )
    assert not torch.equal(plain, cropped)
