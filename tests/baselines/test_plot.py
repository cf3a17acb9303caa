from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from ipo.errors import ConfigError, DivergedError
from ipo.methods import FitRun
from ipo_baselines.contexts import first_context
from ipo_baselines.coop import METHOD as COOP
from ipo_baselines.plot import METHOD, PatchMatcher, PatchPredictor, matching_step, raw_texts
from ipo_baselines.transport import transport_plans
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, TinyPatches

QUIET = FitRun(report=lambda _: None)
EXACT = {"epsilon": 0.1, "iterations": 10_000, "tolerance": 1e-12}


def options(**values):
    return METHOD.configure("tiny", 4, {"epochs": 2, "batch": 5, "n_ctx": 3, **values})


def random_cost(problems=6, patches=5, prompts=3):
    draws = torch.Generator().manual_seed(0)
    return 2 * torch.rand(problems, patches, prompts, generator=draws, dtype=torch.double)


def plain_sinkhorn(cost, epsilon, iterations):
    """A second way: one problem in NumPy, in logarithms, with the potentials instead of the factors."""
    patches, prompts = cost.shape
    left, right = np.zeros(patches), np.zeros(prompts)
    for _ in range(iterations):
        left = -epsilon * (np.log(np.exp((right - cost) / epsilon).sum(axis=1)) - np.log(1 / patches))
        right = -epsilon * (np.log(np.exp((left[:, None] - cost) / epsilon).sum(axis=0)) - np.log(1 / prompts))
    return np.exp((left[:, None] + right - cost) / epsilon)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_plans_are_those_of_a_second_way(epsilon):
    cost = random_cost()
    plans = transport_plans(cost, epsilon, 200, 0.0)
    expected = [plain_sinkhorn(own.numpy(), epsilon, 200) for own in cost]
    np.testing.assert_allclose(plans.numpy(), np.stack(expected), atol=1e-12)


def test_with_little_entropy_a_plan_costs_what_the_linear_program_says():
    """Of two prompts and as many patches the best plan is one of two: both can be counted out."""
    cost = random_cost(problems=50, patches=2, prompts=2)
    plans = transport_plans(cost, 0.02, 2000, 0.0)
    straight, crossed = (cost[:, 0, 0] + cost[:, 1, 1]) / 2, (cost[:, 0, 1] + cost[:, 1, 0]) / 2
    assert torch.allclose((plans * cost).sum(dim=(1, 2)), torch.minimum(straight, crossed), atol=1.5e-2)


def test_plans_keep_their_marginals_and_their_order():
    cost = random_cost()
    plans = transport_plans(cost, **EXACT)
    assert torch.allclose(plans.sum(dim=2), torch.full((6, 5), 1 / 5, dtype=torch.double), atol=1e-9)
    assert torch.allclose(plans.sum(dim=1), torch.full((6, 3), 1 / 3, dtype=torch.double), atol=1e-9)
    assert torch.allclose(transport_plans(cost.flip(1), **EXACT), plans.flip(1), atol=1e-9)
    assert torch.allclose(transport_plans(cost.flip(2), **EXACT), plans.flip(2), atol=1e-9)
    even = transport_plans(cost, 1e6, 100, 0.0)
    assert torch.allclose(even, torch.full_like(even, 1 / 15), atol=1e-6)


def test_one_prompt_takes_all_patches_alike_whatever_they_cost():
    plans = transport_plans(random_cost(prompts=1), 0.1, 100, 0.01)
    assert torch.allclose(plans, torch.full_like(plans, 1 / 5), atol=1e-12)


def test_a_plan_does_not_depend_on_what_is_solved_beside_it():
    cost = random_cost(problems=40)
    together = transport_plans(cost, 0.1, 100, 0.01)
    alone = torch.cat([transport_plans(own[None], 0.1, 100, 0.01) for own in cost])
    assert torch.equal(together, alone)
    assert not torch.allclose(together, transport_plans(cost, 0.1, 100, 0.0), atol=1e-6)  # some do end early


def test_one_prompt_is_coop_on_the_mean_cosine_of_patches(task):
    context = first_context(task.clip, options(), 1).detach()
    found = PatchPredictor(PatchMatcher(task.clip, options()), context, task.patches).logits(task.train, NEW_NAMES)
    patches = normalize(task.patches.load(task.train.items).take(range(12))[:, 1:], dim=-1)
    text = task.clip.encode_embeddings(NEW_NAMES, context[:, None])[0]
    assert torch.allclose(found, task.clip.logit_scale * (patches @ text.T).mean(dim=1), atol=1e-9)


def test_one_prompt_and_one_patch_that_is_the_whole_image_is_coop(task):
    whole = replace(task, patches=TinyPatches(task.clip, quarters=False))
    values = {"epochs": 3, "batch": 4, "learning_rate": 0.05, "init": "a photo of a"}
    ours = METHOD.fit(whole, METHOD.configure("tiny", 4, {**values, "prompts": 1, "n_ctx": None}), QUIET)
    theirs = COOP.fit(task, COOP.configure("tiny", 4, values), QUIET)
    assert torch.allclose(ours.learned["context"], theirs.learned["context"], atol=1e-9)
    logits = ours.predictors["plot"].logits(task.train, NEW_NAMES)
    assert torch.allclose(logits, theirs.predictors["coop"].logits(task.train, NEW_NAMES), atol=1e-7)


def test_the_whole_image_is_added_where_asked_for(task):
    context = first_context(task.clip, options(), 1, 4).detach()
    predictors = [
        PatchPredictor(PatchMatcher(task.clip, options(whole_image=whole)), context, task.patches)
        for whole in (True, False)
    ]
    more, less = (predictor.logits(task.train, CLASSNAMES) for predictor in predictors)
    mean = normalize(raw_texts(task.clip, context, CLASSNAMES).mean(dim=0), dim=-1)
    assert torch.allclose(more - less, task.clip.logit_scale * task.train.features @ mean.T, atol=1e-9)
    assert METHOD.configure("imagenet", 16).whole_image
    assert not METHOD.configure("dtd", 16).whole_image


def test_gradients_are_those_of_the_loss_under_fixed_plans(task):
    """The plan is no part of the gradient: with plans held fixed, autograd finds the same in one piece."""
    own = options(prompts=2, pairs_at_once=6)
    contexts = first_context(task.clip, own, 1, 2)
    matching_step(task, PatchMatcher(task.clip, own), contexts)(torch.arange(12), torch.Generator())
    found, contexts.grad = contexts.grad, None
    patches = normalize(task.patches.load(task.train.items).take(range(12))[:, 1:], dim=-1)
    cosines = torch.einsum("bpd,kcd->bcpk", patches, task.clip.encode_embeddings(CLASSNAMES, contexts[:, None]))
    plans = transport_plans((1 - cosines).detach(), own.epsilon, own.iterations, own.tolerance)
    cross_entropy(task.clip.logit_scale * (plans * cosines).sum(dim=(2, 3)), task.train.labels).backward()
    assert torch.allclose(found, contexts.grad, atol=1e-10)


def test_parts_of_a_batch_change_nothing(task):
    fits = [METHOD.fit(task, options(pairs_at_once=pairs), QUIET) for pairs in (1, 7, 1000)]
    for other in fits[1:]:
        assert torch.allclose(other.learned["context"], fits[0].learned["context"], atol=1e-10)
        ours, theirs = (fit.predictors["plot"].logits(task.train, NEW_NAMES) for fit in (other, fits[0]))
        assert torch.allclose(ours, theirs, atol=1e-8)


def test_a_resumed_fit_is_the_unbroken_one_and_its_prompts_differ(task, tmp_path):
    whole = METHOD.fit(task, options(epochs=4), QUIET).learned["context"]
    assert whole.shape == (4, 3, task.clip.width)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)

    class Killed(FitRun):
        def save(self, tensors, done):
            super().save(tensors, done)
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHOD.fit(task, options(epochs=4), Killed(tmp_path, report=lambda _: None))
    resumed = METHOD.fit(task, options(epochs=4), FitRun(tmp_path, report=lambda _: None))
    assert torch.equal(resumed.learned["context"], whole)


def test_a_plan_that_is_no_number_ends_the_fit_and_says_which_figure_is_odd(task):
    with pytest.raises(DivergedError, match="epsilon"):
        METHOD.fit(task, options(epsilon=1e-5, prompts=2), QUIET)


def test_it_declares_the_patches_that_it_needs(task):
    assert METHOD.needs_patches(options())
    with pytest.raises(ConfigError, match="no patch features"):
        METHOD.fit(replace(task, patches=None), options(), QUIET)
    chosen = METHOD.configure("caltech101", 16)
    assert (chosen.prompts, chosen.epochs, chosen.epsilon, chosen.init) == (4, 200, 0.1, "random")
    assert first_context(task.clip, chosen, 1, 4).shape == (4, 16, task.clip.width)
