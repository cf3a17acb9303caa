from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from ipo.errors import ConfigError, DataError
from ipo.methods import FitRun, Means, find_method
from ipo.prompt import Prompt
from ipo.scoring import ClassTextPredictor, PromptPredictor
from ipo_baselines.contexts import first_context
from ipo_baselines.coop import METHOD as COOP
from ipo_baselines.sap import METHOD, AttributePredictor, Fusion, attributes_of, encoded, frozen_texts, relative_clause
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES

QUIET = FitRun(report=lambda _: None)
FILE = {
    "red thing": ["a red stone", "which has grey stone", "has the blue"],
    "green": ["green photo"],
    "blue stone": ["stone, which is blue", "grey"],
    "grey": ["a stone"],
    "stone": ["grey", "grey thing"],
}


@pytest.fixture(name="options")
def _options(tmp_path):
    path = tmp_path / "descriptions.json"
    path.write_text(json.dumps(FILE))

    def configure(texts=None, **values):
        if texts is not None:
            path.write_text(json.dumps(texts))
        return METHOD.configure("tiny", 4, {"epochs": 2, "descriptions": str(path), **values})

    return configure


def start_of(task, own, fusion=None):
    return AttributePredictor(task.clip, first_context(task.clip, own, 1).detach(), attributes_of(task, own), fusion)


@pytest.mark.parametrize(
    ("attribute", "clause"),
    [
        ("long tail", "which has long tail"),
        ("which is long.", "which is long"),
        ("Which has a tail", "Which has a tail"),
        ("lemur, which has a tail", "which has a tail"),
        ("a tail", "which is a tail"),
        ("has a tail", "which has a tail"),
    ],
)
def test_an_attribute_follows_the_class_name(attribute, clause):
    assert relative_clause(attribute) == clause


@pytest.mark.parametrize("names", [CLASSNAMES, NEW_NAMES])
def test_untrained_it_is_the_mean_of_cosines_with_the_same_texts(task, options, names):
    predictor = start_of(task, options())

    def texts(classnames):
        return [[f"a photo of a {n}, {relative_clause(text)}." for text in FILE[n]] for n in classnames]

    expected = ClassTextPredictor(task.clip, texts, "score_mean").logits(task.train, names)
    assert torch.allclose(predictor.logits(task.train, names), expected, atol=1e-10)


def test_the_mean_of_cosines_is_a_product_with_the_mean_that_is_not_of_unit_length(task, options):
    predictor = start_of(task, options())
    texts = predictor.attributes.of(CLASSNAMES)
    features = encoded(task.clip, predictor.context, texts)
    cosines = task.clip.logit_scale * task.train.features @ features.T  # (N, 3 + 1 + 2)
    expected = torch.stack([cosines[:, :3].mean(1), cosines[:, 3], cosines[:, 4:].mean(1)], dim=1)
    assert texts.counts == (3, 1, 2)
    assert torch.allclose(predictor.logits(task.train, CLASSNAMES), expected, atol=1e-10)


def test_without_attributes_and_weight_it_is_coop_bit_for_bit(task, options):
    own = options({name: [] for name in FILE}, text_weight=0)
    values = {name: getattr(own, name) for name in ("epochs", "batch", "learning_rate")}
    ours, theirs = METHOD.fit(task, own, QUIET), COOP.fit(task, COOP.configure("tiny", 4, values), QUIET)
    assert torch.equal(ours.learned["context"], theirs.learned["context"])
    ours, theirs = (f.predictors[name].logits(task.train, NEW_NAMES) for f, name in ((ours, "sap"), (theirs, "coop")))
    assert torch.equal(ours, theirs)


def test_at_the_start_the_text_loss_and_its_gradient_are_0(task, options):
    own = options()
    texts = attributes_of(task, own).of(CLASSNAMES)
    context = first_context(task.clip, own, 1)
    loss = (encoded(task.clip, context, texts) - frozen_texts(task.clip, texts)).abs().mean()
    loss.backward()
    assert loss == 0
    assert not context.grad.any()


def test_the_text_loss_keeps_texts_near_where_they_were(task, options):
    texts = attributes_of(task, options()).of(CLASSNAMES)
    frozen, distances = frozen_texts(task.clip, texts), []
    for weight in (0, 25):
        own = options(text_weight=weight, epochs=15, learning_rate=0.01)
        learned = METHOD.fit(task, own, QUIET).learned["context"]
        distances.append(float((encoded(task.clip, learned, texts) - frozen).abs().mean()))
    assert distances[1] < 0.7 * distances[0]


def mixed_by_hand(tokens, attributes, bias):
    """Steps 4 to 6 for one image, attribute by attribute."""
    whole, patches = tokens[0], tokens[1:] + bias
    relevance = torch.stack([whole @ e for e in attributes]).softmax(0)
    vector, share = torch.zeros_like(whole), 0.0
    for weight, e in zip(relevance, attributes, strict=True):
        attention = torch.stack([e @ x for x in patches]).softmax(0)
        vector = vector + weight * sum(a * x for a, x in zip(attention, patches, strict=True))
        share = share + weight * attention.max()
    assert 1 / len(patches) <= share <= 1
    return normalize((1 - share) * whole + share * vector, dim=0)


def test_fusion_written_out(task, options):
    bias = 0.1 * torch.randn(task.clip.dim, dtype=torch.double)
    fusion = Fusion(task.clip, task.patches, bias)
    attributes = fusion.attributes(attributes_of(task, options()).of(CLASSNAMES))
    assert torch.equal(
        attributes, task.clip.encode_texts([text for name in CLASSNAMES for text in FILE[name]], unit=False)
    )
    tokens = task.patches.load(task.train.items).take(range(12))
    expected = torch.stack([mixed_by_hand(own, attributes, bias) for own in tokens])
    assert torch.allclose(fusion.mix(tokens, attributes), expected, atol=1e-10)


def test_patches_that_are_all_alike_have_the_least_share(task):
    whole, patch = torch.randn(2, task.clip.dim, dtype=torch.double)
    tokens = torch.stack([whole, *[patch] * 196])[None]
    attributes = torch.randn(7, task.clip.dim, dtype=torch.double)
    mixed = Fusion(task.clip, task.patches, torch.zeros(task.clip.dim, dtype=torch.double)).mix(tokens, attributes)
    assert torch.allclose(mixed[0], normalize((195 * whole + patch) / 196, dim=0), atol=1e-10)


def test_patches_that_are_the_image_leave_it_as_it_is(task, options):
    """As a share of 0 would: the logits are those of the global features."""
    own = options()
    fusion = Fusion(task.clip, task.patches, torch.zeros(task.clip.dim, dtype=torch.double))
    tokens = 3 * task.train.features[:, None].expand(-1, 5, -1)
    mixed = fusion.mix(tokens, fusion.attributes(attributes_of(task, own).of(CLASSNAMES)))
    assert torch.allclose(mixed, task.train.features, atol=1e-10)


def test_cosines_take_the_place_of_products_where_asked_for(task, options):
    zero = torch.zeros(task.clip.dim, dtype=torch.double)
    cosine = Fusion(task.clip, task.patches, zero, "cosine")
    tokens = task.patches.load(task.train.items).take([0, 5])
    attributes = torch.randn(4, task.clip.dim, dtype=torch.double)
    assert torch.allclose(cosine.mix(tokens, attributes), cosine.mix(tokens, 9 * attributes), atol=1e-10)
    raw, unit = Fusion(task.clip, task.patches, zero), normalize(attributes, dim=-1)
    scaled = normalize(tokens, dim=-1)
    assert torch.allclose(cosine.mix(scaled, attributes), raw.mix(scaled, task.clip.logit_scale * unit), atol=1e-10)


def test_predictions_in_parts_are_those_one_by_one(task, options):
    own = options(fusion=True)
    bias = 0.1 * torch.randn(task.clip.dim, dtype=torch.double)
    predictors = [start_of(task, own, Fusion(task.clip, task.patches, bias, "raw", pairs)) for pairs in (1, 14, 1000)]
    logits = [predictor.logits(task.train, CLASSNAMES) for predictor in predictors]
    assert torch.allclose(logits[1], logits[0], atol=1e-10)
    assert torch.allclose(logits[2], logits[0], atol=1e-10)
    plain = start_of(task, own).logits(task.train, CLASSNAMES)
    assert not torch.allclose(logits[0], plain, atol=1e-3)


@pytest.mark.parametrize("fusion", [False, True])
def test_a_resumed_fit_is_the_unbroken_one(task, options, tmp_path, fusion):
    own = options(epochs=4, fusion=fusion, learning_rate=0.05)
    whole = METHOD.fit(task, own, QUIET).learned
    assert whole.keys() == ({"context", "bias"} if fusion else {"context"})
    assert not fusion or whole["bias"].any()

    class Killed(FitRun):
        def save(self, tensors, done):
            super().save(tensors, done)
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHOD.fit(task, own, Killed(tmp_path, report=lambda _: None))
    resumed = METHOD.fit(task, own, FitRun(tmp_path, report=lambda _: None)).learned
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_what_it_needs_and_uses_is_declared(task, options):
    assert not METHOD.needs_patches(options())
    assert METHOD.needs_patches(options(fusion=True))
    assert METHOD.uses(options(), Means()) == {"labels", "llm_saw_class_names"}
    with pytest.raises(ConfigError, match="no patch features"):
        METHOD.fit(replace(task, patches=None), options(fusion=True), QUIET)
    with pytest.raises(ConfigError, match="'similarity' is set, and read only with fusion=true"):
        options(similarity="cosine")
    with pytest.raises(ConfigError, match="'augment' is set, and read only with fusion=false"):
        options(fusion=True, augment="fly")


def test_a_class_that_the_file_lacks_is_named_before_anything_is_encoded(task, options):
    METHOD.check(task, options())
    with pytest.raises(DataError, match="missing: 'stone'"):
        METHOD.check(task, options({name: texts for name, texts in FILE.items() if name != "stone"}))
    with pytest.raises(ConfigError, match="descriptions"):
        find_method("sap").configure("tiny", 4, {})


def test_attributes_that_are_too_long_are_left_out(task, options):
    own = options({**FILE, "green": ["red " * 40], "grey": ["red " * 40, "stone"]})
    texts = attributes_of(task, own).of(["green", "grey"])
    assert texts.named == ("green", "grey, which has stone")
    predictor = start_of(task, own)
    expected = PromptPredictor(task.clip, (Prompt("a photo of a <CLASS>."),)).logits(task.train, ["green"])
    assert torch.allclose(predictor.logits(task.train, ["green"]), expected, atol=1e-10)
