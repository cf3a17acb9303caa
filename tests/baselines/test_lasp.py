from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from ipo.errors import ConfigError
from ipo.methods import FitRun, Means, find_method
from ipo.scoring import text_features
from ipo_baselines.contexts import first_context
from ipo_baselines.coop import METHOD as COOP
from ipo_baselines.lasp import METHOD, GroupPredictor, hand_written, noisy, text_names
from ipo_baselines.text_losses import grouped_loss, text_loss
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES

QUIET = FitRun(report=lambda _: None)


def options(**values):
    return METHOD.configure("tiny", 4, {"epochs": 3, "batch": 4, "warmup_epochs": 0, "templates": "80", **values})


def random_texts(learned=3, prompts=5, seed=0):
    draws = torch.Generator().manual_seed(seed)
    shapes = (learned, 16), (prompts, learned, 16)
    return (normalize(torch.randn(shape, generator=draws, dtype=torch.double), dim=-1) for shape in shapes)


@pytest.mark.parametrize("init", ["a photo of a", "random"])
def test_without_text_loss_and_offset_it_is_coop_bit_for_bit(task, init):
    values = {"epochs": 4, "batch": 4, "learning_rate": 0.05, "warmup_epochs": 1, "init": init, "n_ctx": 4}
    own = METHOD.configure("tiny", 4, {**values, "alpha": 0, "offset": False, "largest_gradient": None})
    ours, theirs = METHOD.fit(task, own, QUIET), COOP.fit(task, COOP.configure("tiny", 4, values), QUIET)
    assert torch.equal(ours.learned["context"], theirs.learned["context"])
    for names in (CLASSNAMES, NEW_NAMES):
        logits = (fit.predictors[name].logits(task.train, names) for fit, name in ((ours, "lasp"), (theirs, "coop")))
        assert torch.equal(*logits)


def test_at_the_start_learned_texts_are_the_hand_written_ones_and_both_directions_agree(task):
    clip = task.clip
    model = GroupPredictor(clip, first_context(clip, options(), 1).detach(), torch.zeros(clip.dim, dtype=torch.double))
    [prompt] = [
        prompt for prompt in hand_written(options(templates="lasp34")) if prompt.text == "a photo of a <CLASS>."
    ]
    learned, hand = model.text(CLASSNAMES)[0], text_features(clip, [prompt], CLASSNAMES)
    assert torch.allclose(learned, hand[0], atol=1e-12)
    losses = [text_loss(learned, hand, clip.logit_scale, direction) for direction in ("hand", "learned", "both")]
    assert torch.allclose(torch.stack(losses), losses[0], atol=1e-12)


def test_each_direction_written_out():
    """As coded the softmax is over the learned texts, for each hand-written one: cross-entropy of the transposed."""
    learned, hand = random_texts()
    each = [20 * learned @ own.T for own in hand]
    labels = torch.arange(3)
    rows = torch.stack([cross_entropy(scores, labels) for scores in each]).mean()
    columns = torch.stack([cross_entropy(scores.T, labels) for scores in each]).mean()
    assert text_loss(learned, hand, 20.0, "hand") == pytest.approx(float(columns), abs=1e-12)
    assert text_loss(learned, hand, 20.0, "learned") == pytest.approx(float(rows), abs=1e-12)
    assert text_loss(learned, hand, 20.0, "both") == pytest.approx(float(rows + columns) / 2, abs=1e-12)
    assert abs(rows - columns) > 0.01


def test_two_equal_groups_with_every_prompt_twice_are_one_group(task):
    learned, hand = random_texts()
    twice = hand.repeat_interleave(2, dim=0)
    for direction in ("hand", "learned"):
        one = grouped_loss(learned[None], hand, 20.0, direction)
        assert torch.allclose(grouped_loss(learned.expand(2, -1, -1), twice, 20.0, direction), one, atol=1e-12)
    context = first_context(task.clip, options(), 1).detach()
    logits = [GroupPredictor(task.clip, context.repeat(g, 1, 1)).logits(task.train, NEW_NAMES) for g in (1, 2)]
    assert torch.allclose(logits[0], logits[1], atol=1e-12)


def test_prompts_are_dealt_to_the_groups_in_turn():
    learned, hand = random_texts(prompts=5)
    groups = torch.stack([learned, learned.flip(0), learned.roll(1, 0)])
    each = [text_loss(groups[index % 3], hand[index : index + 1], 20.0) for index in range(5)]
    assert torch.allclose(grouped_loss(groups, hand, 20.0, "hand"), torch.stack(each).mean(), atol=1e-12)


def test_noise_comes_in_some_steps_and_is_not_normalised_away():
    _, hand = random_texts()
    draws = torch.Generator().manual_seed(1)
    changed = [noisy(hand, options(), draws) - hand for _ in range(400)]
    found = torch.stack([change for change in changed if bool(change.any())])
    assert 160 < len(found) < 240
    assert found.std() == pytest.approx(0.05, rel=0.02)
    assert torch.equal(noisy(hand, options(noise_rate=0), draws), hand)
    assert torch.equal(noisy(hand, options(noise=0, noise_rate=1), draws), hand)


def test_a_huge_offset_makes_all_classes_alike(task):
    direction = normalize(torch.randn(task.clip.dim, dtype=torch.double), dim=-1)
    model = GroupPredictor(task.clip, first_context(task.clip, options(), 1).detach(), 1e9 * direction)
    logits = model.logits(task.train, CLASSNAMES)
    assert torch.allclose(model.text(CLASSNAMES), direction.expand(3, -1), atol=1e-6)
    assert cross_entropy(logits, task.train.labels) == pytest.approx(math.log(3), abs=1e-5)


def test_the_offset_is_added_to_raw_features(task):
    context, offset = first_context(task.clip, options(), 1).detach(), torch.ones(task.clip.dim, dtype=torch.double)
    raw = task.clip.encode_texts(["a photo of a green."], unit=False)
    expected = normalize(raw + offset, dim=-1)
    assert torch.allclose(GroupPredictor(task.clip, context, offset).text(["green"])[0], expected, atol=1e-12)


def test_with_a_heavy_text_loss_hand_written_texts_find_their_class(task):
    values = {"alpha": 1e4, "epochs": 30, "noise_rate": 0.0}
    fitted = METHOD.fit(task, options(**values), QUIET)
    hand = text_features(task.clip, hand_written(options()), CLASSNAMES)
    start = GroupPredictor(task.clip, first_context(task.clip, options(), task.seed).detach())

    def accuracy(model):
        return float((hand @ model.text(CLASSNAMES)[0].T).argmax(-1).eq(torch.arange(3)).double().mean())

    assert accuracy(fitted.predictors["lasp"]) >= accuracy(start)
    scale = task.clip.logit_scale
    after, before = (text_loss(m.text(CLASSNAMES)[0], hand, scale) for m in (fitted.predictors["lasp"], start))
    assert after < 0.9 * before


def test_names_without_images_take_part_in_the_text_loss_only(task, tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(reversed(CLASSNAMES)))
    plain, same = (METHOD.fit(task, options(virtual=str(value)), QUIET).learned for value in ("none", path))
    assert all(torch.equal(same[name], value) for name, value in plain.items())
    path.write_text("grey\n\nred thing\ngrey\n stone \n")
    assert text_names(task, options(virtual=str(path))) == (*CLASSNAMES, "grey", "stone")
    more = METHOD.fit(task, options(virtual=str(path)), QUIET)
    assert not torch.allclose(more.learned["context"], plain["context"], atol=1e-6)
    assert more.predictors["lasp"].logits(task.train, CLASSNAMES).shape == (12, 3)
    shown = METHOD.fit(replace(task, new_classnames=NEW_NAMES), options(virtual="dataset"), QUIET)
    assert torch.equal(shown.learned["context"], more.learned["context"])


def test_whether_new_names_are_read_is_declared(task):
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "seen": {"virtual": "dataset"},
        "unread": {"virtual": "dataset", "alpha": 0},
    }
    uses = {key: METHOD.uses(options(**values), Means()) for key, values in cases.items()}
    assert uses == {"plain": {"labels"}, "seen": {"labels", "new_names"}, "unread": {"labels"}}


def test_a_resumed_fit_is_the_unbroken_one(task, tmp_path):
    values = {"groups": 2, "epochs": 4}
    whole = METHOD.fit(task, options(**values), QUIET).learned

    class Killed(FitRun):
        def save(self, tensors, done):
            super().save(tensors, done)
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHOD.fit(task, options(**values), Killed(tmp_path, report=lambda _: None))
    resumed = METHOD.fit(task, options(**values), FitRun(tmp_path, report=lambda _: None)).learned
    assert whole.keys() == {"context", "offset"}
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_the_published_settings():
    chosen = METHOD.configure("dtd", 16)
    assert (chosen.epochs, chosen.alpha, chosen.warmup_epochs, chosen.learning_rate) == (50, 10, 5, 0.032)
    assert (METHOD.configure("imagenet", 16).batch, METHOD.configure("mine", 16).alpha) == (1, 5)
    prompts = hand_written(METHOD.configure("mine", 16))
    assert len({prompt.key() for prompt in prompts}) == len(prompts) == 34


@pytest.mark.parametrize(("values", "words"), [({"groups": 81}, "81 groups"), ({"virtual": "long"}, "too many")])
def test_what_cannot_work_is_refused_before_training(task, tmp_path, values, words):
    (tmp_path / "long").write_text("green " * 40)
    values = {key: str(tmp_path / value) if key == "virtual" else value for key, value in values.items()}
    with pytest.raises(ConfigError, match=words):
        METHOD.check(task, options(**values))


@pytest.mark.parametrize("key", ["virtual", "templates"])
def test_a_file_that_is_not_there_is_refused_when_options_are_read(tmp_path, key):
    with pytest.raises(ConfigError, match="nowhere"):
        find_method("lasp").configure("tiny", 4, {key: str(tmp_path / "nowhere.txt")})
