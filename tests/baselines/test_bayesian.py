from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import log_softmax

from ipo.errors import DivergedError
from ipo.methods import FitRun
from ipo_baselines.bayesian import (
    METHOD,
    BayesianOptions,
    BayesianPredictor,
    data_term,
    log_mean,
)
from ipo_baselines.contexts import first_context
from ipo_baselines.coop import ContextPredictor
from ipo_baselines.residuals import ConditionalResidual, Residual, kl_to_standard_normal
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, TinyClip

QUIET = FitRun(report=lambda _: None)


def options(**values):
    return BayesianOptions(**{"epochs": 2, "batch": 6, "samples": 3, **values})


def predictor(task, residual, samples=3):
    context = first_context(task.clip, options(), seed=1).detach()
    noise = torch.randn(samples, task.clip.width, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    return BayesianPredictor(task.clip, context, residual.double(), noise, texts_at_once=12)


def test_without_variance_it_is_coop_with_the_mean(task):
    residual = Residual(task.clip)
    torch.nn.init.normal_(residual.mean)
    torch.nn.init.constant_(residual.log_variance, -2000)
    model = predictor(task, residual)
    coop = ContextPredictor(task.clip, model.context + residual.mean.detach())
    for names in (CLASSNAMES, NEW_NAMES):
        expected = log_softmax(coop.logits(task.train, names), dim=-1)
        assert torch.allclose(model.logits(task.train, names), expected, atol=1e-12)


def test_conditional_with_constant_nets_is_the_unconditional(task):
    plain, conditional = Residual(task.clip), ConditionalResidual(task.clip)
    torch.nn.init.normal_(plain.mean)
    for net, value in ((conditional.mean_net, plain.mean), (conditional.log_variance_net, plain.log_variance)):
        torch.nn.init.zeros_(net[4].weight)
        net[4].bias.data.copy_(value.data)
    logits = [predictor(task, residual).logits(task.train, CLASSNAMES) for residual in (plain, conditional)]
    assert torch.allclose(logits[0], logits[1], atol=1e-12)


def test_prediction_is_the_mean_probability_of_the_samples_one_by_one(task):
    residual = Residual(task.clip)
    model = predictor(task, residual)
    samples = residual.mean + model.noise * residual.log_variance.exp().sqrt()
    single = [
        ContextPredictor(task.clip, (model.context + sample).detach()).logits(task.train, CLASSNAMES).softmax(dim=-1)
        for sample in samples
    ]
    assert torch.allclose(model.logits(task.train, CLASSNAMES).exp(), torch.stack(single).mean(dim=0), atol=1e-12)


def test_kl_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(2, 7, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros(7), torch.ones(7)))
    assert torch.allclose(kl_to_standard_normal(mean, log_variance), expected)


def test_data_term_of_the_code_is_a_bound_above_the_papers_and_equal_for_one_sample():
    scores = log_softmax(torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    labels = torch.tensor([0, 1, 2, 1, 0])
    own = torch.stack([scores[:, image, label] for image, label in enumerate(labels)], dim=1)
    as_coded = -(own.exp().mean(dim=0).log()).mean()
    assert float(data_term(scores, labels, options())) == pytest.approx(float(as_coded), rel=1e-5)
    elbo = data_term(scores, labels, options(data_term="mean_log"))
    assert float(elbo) == pytest.approx(float(-own.mean()), rel=1e-5)
    assert elbo > as_coded
    one = scores[:1]
    assert float(data_term(one, labels, options())) == pytest.approx(
        float(data_term(one, labels, options(data_term="mean_log"))), rel=1e-5
    )


def test_log_mean_of_equal_rows_is_the_row():
    row = torch.tensor([-1.0, -2.0])
    assert torch.allclose(log_mean(row.expand(6, -1)), row)
    assert math.isclose(float(log_mean(torch.tensor([0.5, 0.25]).log())), math.log(0.375), rel_tol=1e-6)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("texts_at_once", [9, 27, 1000])
def test_batches_in_chunks_equal_one_by_one(task, texts_at_once, conditional):
    fits = [
        METHOD.fit(task, options(conditional=conditional, texts_at_once=size), QUIET).learned
        for size in (1, texts_at_once)
    ]
    for name, value in fits[0].items():
        assert torch.allclose(fits[1][name], value, atol=1e-10), name


def test_fewer_texts_at_once_take_less_memory(task):
    kept = {}
    for size in (3, 1000):
        residual = Residual(task.clip).double()
        context = task.clip.embed_words("a photo of a")[None].clone().requires_grad_()
        model = BayesianPredictor(task.clip, context, residual, torch.zeros(1), texts_at_once=size)
        noise = torch.randn(40, task.clip.width, dtype=torch.double)
        sizes: list[int] = []

        def noted(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
            model.log_probabilities(task.train.features, CLASSNAMES, noise)
        kept[size] = sum(sizes)
    assert kept[3] < kept[1000] / 2


@pytest.mark.parametrize("conditional", [False, True])
def test_equal_seeds_give_equal_fits_and_predictions(task, conditional):
    fits = [METHOD.fit(task, options(conditional=conditional), QUIET).predictors["bayesian"] for _ in range(2)]
    logits = [fitted.logits(task.train, NEW_NAMES) for fitted in fits]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(fits[0].logits(task.train, NEW_NAMES), logits[0])


@pytest.mark.parametrize("dataset", ["caltech101", "ucf101", "eurosat"])
def test_published_samples_and_epochs(dataset):
    expected = {"caltech101": (20, 20), "ucf101": (5, 20), "eurosat": (20, 60)}[dataset]
    chosen = METHOD.configure(dataset, 16)
    assert (chosen.samples, chosen.epochs) == expected
    assert (chosen.batch, chosen.kl_weight, chosen.data_term, chosen.kl) == (1, 0.001, "log_mean", "mean")


@pytest.mark.parametrize("kind", [Residual, ConditionalResidual])
def test_the_log_variance_can_start_elsewhere(task, kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        published = kind(task.clip).double()(task.train.features)[1]
        torch.manual_seed(0)
        lower = kind(task.clip, -6.0).double()(task.train.features)[1]
    assert published.min().item() > -2
    assert torch.allclose(lower, torch.full_like(lower, -6.0) if kind is Residual else published - 6, atol=1e-6)


def test_the_learned_distribution_can_be_inspected(task):
    fitted = METHOD.fit(task, options(), QUIET)
    spread = (0.5 * fitted.learned["residual.log_variance"]).exp()
    assert fitted.learned["residual.mean"].shape == spread.shape == (task.clip.width,)
    assert fitted.figures["residual"]["deviation_mean"] == pytest.approx(float(spread.mean()))


@pytest.mark.parametrize(("dim", "chosen", "width"), [(512, None, 256), (64, None, 32), (768, None, 384), (64, 7, 7)])
def test_the_nets_have_half_the_feature_width_as_in_the_reference_code_unless_told_otherwise(dim, chosen, width):
    nets = ConditionalResidual(TinyClip(dim=dim), hidden=chosen)
    for net in (nets.mean_net, nets.log_variance_net):
        assert [tuple(layer.weight.shape) for layer in net[::2]] == [(width, dim), (width, width), (12, width)]


def test_the_hidden_width_is_an_option_of_the_fit(task):
    learned = METHOD.fit(task, options(epochs=1, conditional=True, hidden=3), QUIET).learned
    assert learned["residual.mean_net.2.weight"].shape == (3, 3)
    assert METHOD.fit(task, options(epochs=1, conditional=True), QUIET).learned["residual.mean_net.2.weight"].shape == (
        task.clip.dim // 2,
        task.clip.dim // 2,
    )


def test_a_start_that_gives_no_finite_loss_is_not_blamed_on_the_learning_rate(task, tmp_path):
    options = METHOD.configure("tiny", 4, {"log_variance": 2000, "epochs": 1, "learning_rate": 0.01})
    with pytest.raises(DivergedError, match=r"before anything is learned.*log_variance=2000\.0") as caught:
        METHOD.fit(task, options, FitRun(tmp_path, report=lambda _: None))
    assert "with a lower learning_rate" not in str(caught.value)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_fit_that_diverges_names_the_rate_and_the_figures_that_were_given(task, tmp_path):
    options = METHOD.configure("tiny", 4, {"learning_rate": 1e308, "kl_weight": 7, "warmup_epochs": 0})
    with pytest.raises(DivergedError, match=r"lower learning_rate .*, or with other figures than kl_weight=7\.0"):
        METHOD.fit(task, options, FitRun(tmp_path, report=lambda _: None))
