from __future__ import annotations

import pytest
import torch

from ipo.errors import ConfigError
from ipo.methods import FitRun, find_method
from ipo.prompt import Prompt
from ipo.scoring import PromptPredictor
from ipo_baselines import atprompt, cocoop, coop
from ipo_baselines.contexts import Lead, encode_context, first_context
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES

QUIET = FitRun(report=lambda _: None)
BOTH = pytest.mark.parametrize(("name", "plain"), [("atprompt", "coop"), ("atprompt-cocoop", "cocoop")])


def fit(name, task, run=QUIET, **values):
    method = find_method(name)
    options = method.configure("tiny", 4, {"epochs": 3, "batch": 4, "learning_rate": 0.02, **values})
    return method.fit(task, options, run)


@BOTH
@pytest.mark.parametrize("init", ["a photo of a", "random"])
def test_without_attributes_it_is_the_plain_method_bit_for_bit(task, name, plain, init):
    values = {"init": init, "n_ctx": 4}
    ours, theirs = fit(name, task, attributes=" ", **values), fit(plain, task, **values)
    assert ours.learned.keys() == theirs.learned.keys()
    assert all(torch.equal(ours.learned[key], value) for key, value in theirs.learned.items())
    for names in (CLASSNAMES, NEW_NAMES):
        logits = (fitted.predictors[key].logits(task.train, names) for fitted, key in ((ours, name), (theirs, plain)))
        assert torch.equal(*logits)


def test_attributes_stand_between_learned_vectors_in_front_of_the_context(task):
    """With the embeddings of words for learned vectors, the whole is a sentence; attributes may have several tokens."""
    clip = task.clip
    lead = Lead(
        (clip.embed_words("the photo"), clip.embed_words("a")),
        (clip.embed_words("grey stone"), clip.embed_words("red")),
    )
    context = first_context(clip, coop.CoOpOptions(), seed=1).detach()
    assert len(lead) == 6
    for position, words in (("end", "a photo of a <CLASS>."), ("front", "<CLASS> a photo of a.")):
        logits = coop.ContextPredictor(clip, context, position, lead=lead).logits(task.train, NEW_NAMES)
        prompt = Prompt(f"the photo grey stone a red {words}")
        expected = PromptPredictor(clip, (prompt,)).logits(task.train, NEW_NAMES)
        assert torch.allclose(logits, expected, atol=1e-12)


def test_the_first_lead_has_the_published_form_and_depends_on_the_seed_and_the_place_alone(task):
    method = find_method("atprompt")
    options = method.configure("tiny", 4, {"attributes": "grey stone, red", "n_attribute": 200})
    lead, again, other = (atprompt.first_lead(task.clip, options, seed) for seed in (1, 1, 2))
    assert [tuple(part.shape) for part in lead.words] == [(2, 12), (1, 12)]
    assert 0.009 < lead.learned[0].std() < 0.011
    assert torch.equal(lead.learned[1], again.learned[1])
    assert not torch.equal(lead.learned[1], other.learned[1])
    fewer = method.configure("tiny", 4, {"attributes": "green", "n_attribute": 200})
    assert torch.equal(atprompt.first_lead(task.clip, fewer, 1).learned[0], lead.learned[0])
    assert first_context(task.clip, options, 1).shape == (1, 2, 12)


def test_gradients_reach_the_vectors_and_not_the_words(task):
    options = find_method("atprompt").configure("tiny", 4, {"attributes": "grey stone, red"})
    lead, context = atprompt.first_lead(task.clip, options, 1), first_context(task.clip, options, 1)
    assert not any(part.requires_grad for part in lead.words)

    def features(*learned):
        return encode_context(task.clip, CLASSNAMES, context[None], lead=Lead(learned, lead.words))

    assert torch.autograd.gradcheck(features, lead.learned)


@BOTH
def test_a_fit_trains_all_vectors_and_reads_back_from_its_checkpoint(task, tmp_path, monkeypatch, name, plain):
    options = {"attributes": "grey stone, red", "warmup_epochs": 0}
    whole = fit(name, task, epochs=4, **options)
    start = atprompt.first_lead(task.clip, find_method(name).configure("tiny", 4, options), task.seed)
    assert not torch.allclose(whole.learned["attribute.1"], start.learned[1], atol=1e-6)
    run = FitRun(tmp_path, report=lambda _: None)

    def stop(after):
        def save(tensors, done):
            FitRun.save(run, tensors, done)
            if done == after:
                raise KeyboardInterrupt

        return save

    monkeypatch.setattr(run, "save", stop(2))
    with pytest.raises(KeyboardInterrupt):
        fit(name, task, run, epochs=4, **options)
    resumed = fit(name, task, FitRun(tmp_path, report=lambda _: None), epochs=4, **options)
    assert all(torch.equal(resumed.learned[key], value) for key, value in whole.learned.items())
    assert whole.learned.keys() >= {"context", "attribute.0", "attribute.1"}
    assert whole.figures["attributes"] == ["grey stone", "red"]


def test_on_cocoop_the_net_shifts_the_context_and_not_what_stands_in_front(task):
    clip, net = task.clip, cocoop.meta_net(task.clip, seed=1)
    options = find_method("atprompt-cocoop").configure("tiny", 4, {"attributes": "red"})
    lead, context = atprompt.first_lead(clip, options, 1).detach(), first_context(clip, options, 1).detach()
    model = cocoop.ConditionalPredictor(clip, context, net, texts_at_once=7, lead=lead)
    logits = model.logits(task.train, CLASSNAMES)
    with torch.no_grad():
        shift = net(task.train.features[5])
    alone = coop.ContextPredictor(clip, context + shift, lead=lead).logits(task.train, CLASSNAMES)
    assert torch.allclose(logits[5], alone[5], atol=1e-12)
    assert not torch.allclose(logits[4], alone[4], atol=1e-6)


def test_the_attributes_that_were_found_for_a_dataset_are_the_default():
    chosen = find_method("atprompt").configure("oxford_flowers", 16)
    assert chosen.words == ("color", "habitat", "growth")
    assert (chosen.epochs, chosen.batch, chosen.init, chosen.n_attribute) == (100, 32, "random", 2)
    assert find_method("atprompt-cocoop").configure("mine", 16).batch == 1


@pytest.mark.parametrize("attributes", ["red,", ",", "a <CLASS>", "salt &amp; pepper"])
def test_what_is_no_attribute_is_refused_before_anything_is_loaded(attributes):
    with pytest.raises(ConfigError):
        find_method("atprompt").configure("tiny", 4, {"attributes": attributes})


def test_attributes_that_leave_no_room_for_a_class_name_are_refused(task):
    for name in ("atprompt", "atprompt-cocoop"):
        method = find_method(name)
        with pytest.raises(ConfigError, match="too many"):
            method.check(task, method.configure("tiny", 4, {"attributes": "red", "n_attribute": 27}))
        method.check(task, method.configure("tiny", 4, {"attributes": "red", "n_attribute": 20}))
