"""RLPrompt on a language model and a CLIP with random weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ipo.errors import ConfigError, DataError
from ipo.methods import FitRun, Means
from ipo.prompt import Prompt, Score
from ipo.scoring import PromptPredictor, evaluate_on, score_prompts
from ipo_baselines.prompt_rewards import UNREADABLE, Judge, image_rewards, shaped
from ipo_baselines.rlprompt import METHOD, Learner, RLPromptOptions, fit
from ipo_baselines.soft_q import Writer, follow, pick, soft_q_loss, soft_q_losses, value_net
from ipo_baselines.training import seeded_generator
from tests.baselines.tiny import CLASSNAMES, TinyClip, tiny_task
from tests.fakes import ScriptedLLM
from tests.llm.test_local import tiny_llm

SHORT = {"steps": 6, "tokens": 3, "batch": 4, "hidden": 8, "every": 2, "learning_rate": 0.01, "target_rate": 0.1}


def quiet(folder=None):
    return FitRun(folder, report=lambda _: None, means=Means(tiny_llm()))


def learner_of(**own):
    options = RLPromptOptions(**{**SHORT, **own})
    return Learner.start(Writer.of(tiny_llm(), options.fluency), options, seed=1)


def random_path(tokens=4, prompts=3, words=7):
    torch.manual_seed(0)
    logits, targets = torch.randn(2, prompts, tokens, words, dtype=torch.double)
    return logits, targets, torch.randint(words, (prompts, tokens)), torch.randn(prompts, dtype=torch.double)


def test_both_losses_are_one_for_a_single_token():
    logits, targets, tokens, rewards = random_path(tokens=1)
    taken = logits.gather(2, tokens[..., None])[..., 0] - logits.logsumexp(-1)
    single, multi = soft_q_losses(taken, targets.logsumexp(-1), rewards)
    assert torch.equal(single, multi)
    assert single.max() > 0


def test_both_losses_are_0_at_the_exact_soft_values():
    """Two tokens over three words: Q of the last is the reward, Q of the first the log-sum-exp of what follows."""
    torch.manual_seed(0)
    rewards = torch.randn(3, 3, dtype=torch.double)  # of (first, second)
    first = rewards.logsumexp(1)
    tokens = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    logits = torch.stack([first.expand(9, 3), rewards[tokens[:, 0]]], dim=1)
    taken = logits.gather(2, tokens[..., None])[..., 0] - logits.logsumexp(-1)
    single, multi = soft_q_losses(taken, logits.logsumexp(-1), rewards[tokens[:, 0], tokens[:, 1]])
    assert single.abs().max() < 1e-12
    assert multi.abs().max() < 1e-12
    assert soft_q_loss(logits, logits, tokens, rewards.flatten() + 1) > 0.1


def test_a_constant_on_the_logits_of_a_step_changes_nothing():
    logits, targets, tokens, rewards = random_path()
    moved = logits + torch.randn(1, 4, 1, dtype=torch.double)
    assert soft_q_loss(logits, targets, tokens, rewards) == pytest.approx(
        float(soft_q_loss(moved, targets, tokens, rewards)), rel=1e-12
    )


def test_the_loss_is_half_the_sum_of_both_in_the_mean_over_prompts():
    """Written out token by token."""
    logits, targets, tokens, rewards = random_path()
    total = 0.0
    for row in range(3):
        values = [float(targets[row, t].logsumexp(0)) for t in range(4)] + [float(rewards[row])]
        gains = [float(logits[row, t, tokens[row, t]] - logits[row, t].logsumexp(0)) for t in range(4)]
        total += sum((gains[t] - (values[t + 1] - values[t])) ** 2 for t in range(4)) / 2
        total += sum((sum(gains[t:]) - (values[4] - values[t])) ** 2 for t in range(4)) / 2
    assert float(soft_q_loss(logits, targets, tokens, rewards)) == pytest.approx(total / 3)


def test_a_bandit_ends_at_the_softmax_of_its_rewards():
    rewards = torch.tensor([1.0, 0.0, -1.0, 0.5], dtype=torch.double)
    net, target = nn.Linear(1, 4, bias=False).double(), nn.Linear(1, 4, bias=False).double()
    nn.init.zeros_(net.weight)
    nn.init.zeros_(target.weight)
    optimizer, generator = torch.optim.Adam(net.parameters(), lr=0.05), torch.Generator().manual_seed(0)
    one = torch.ones(512, 1, 1, dtype=torch.double)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.985**step
        tokens = pick(net(one[:, 0]), generator)
        loss = soft_q_loss(net(one), target(one).detach(), tokens, rewards[tokens[:, 0]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        follow(target, net, 0.05)
    shares = net.weight[:, 0].softmax(0)
    assert torch.allclose(shares, rewards.softmax(0), atol=3e-3)


def test_equal_rewards_teach_nothing_and_others_have_mean_0_and_spread_5():
    assert shaped(torch.full((16,), 37.1, dtype=torch.double)).abs().max() < 1e-6
    some = shaped(torch.tensor([1.0, 2.0, 30.0, -4.0], dtype=torch.double))
    assert float(some.mean()) == pytest.approx(0, abs=1e-9)
    assert float(some.std(correction=0)) == pytest.approx(5, abs=1e-3)


def test_a_reward_does_not_change_with_a_constant_on_all_logits_of_an_image_and_has_bounds():
    torch.manual_seed(0)
    logits, labels = 5 * torch.randn(50, 4, dtype=torch.double), torch.arange(50) % 4
    rewards = image_rewards(logits, labels)
    assert torch.allclose(image_rewards(logits + torch.randn(50, 1), labels), rewards)
    assert ((rewards >= -180) & (rewards <= 200)).all()
    sure = 1e3 * torch.nn.functional.one_hot(labels, 4).double()
    assert image_rewards(sure, labels).tolist() == [200.0] * 50
    assert image_rewards(sure, (labels + 1) % 4).tolist() == [-180.0] * 50


def test_a_tie_is_no_success():
    tie = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    assert image_rewards(tie, torch.tensor([0, 1])).tolist() == [0.0, 0.0]
    assert image_rewards(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([0])) < -179


def test_a_policy_of_one_token_writes_one_prompt_and_is_worth_what_it_is_worth(tmp_path):
    task, learner = tiny_task(tmp_path), learner_of()
    learner.writer = learner.writer.only([70])
    judge = Judge(task, task.train)
    for step in range(3):
        learner.step(judge, seeded_generator(1, "step", step))
    text = Prompt.from_sides(tiny_llm().decode([70] * 3) + " ", ".").text
    assert [learner.decode().text, *judge.known] == [text, text]
    (score,) = score_prompts(task.clip, [Prompt(text)], task.train, CLASSNAMES)
    assert isinstance(score, Score)
    assert judge.known[text].accuracy == pytest.approx(score.accuracy, abs=1e-6)
    assert judge.known[text].loss == pytest.approx(score.loss, abs=1e-5)


def test_the_net_starts_with_all_tokens_about_as_likely_and_none_that_is_no_token():
    learner = learner_of(hidden=64)
    states = torch.randn(2, 32)
    logits = learner.writer.logits(learner.net, states)
    assert not learner.writer.allowed[tiny_llm().tokenizer.all_special_ids].any()
    open_logits = logits[:, learner.writer.allowed]
    assert (open_logits.max() - open_logits.min()) < 0.01
    assert logits[:, ~learner.writer.allowed].isneginf().all()


def test_states_of_the_cache_are_those_of_a_whole_pass():
    learner = learner_of(tokens=4)
    tokens, states = learner.writer.write(learner.net, (3, 4), torch.Generator().manual_seed(0))
    whole = torch.cat([torch.full((3, 1), 0), tokens[:, :-1]], dim=1)
    with torch.no_grad():
        expected = tiny_llm().model.base_model(whole).last_hidden_state
    assert torch.allclose(states, expected, atol=1e-5)


def test_fluent_tokens_are_among_the_likeliest_of_the_language_model():
    learner = learner_of(tokens=4, fluency=3)
    tokens, _ = learner.writer.write(learner.net, (8, 4), torch.Generator().manual_seed(0))
    for row in tokens.tolist():
        for place, token in enumerate(row):
            with torch.no_grad():
                own = tiny_llm().model(torch.tensor([[0, *row[:place]]])).logits[0, -1]
            assert token in own.masked_fill(~learner.writer.allowed, -torch.inf).topk(3).indices
    free, _ = learner_of(tokens=4).writer.write(learner.net, (8, 4), torch.Generator().manual_seed(0))
    assert not torch.equal(free, tokens)


def test_the_target_goes_a_share_of_the_way():
    net = value_net(4, 8, torch.Generator().manual_seed(0))
    target = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in target.parameters()]
    follow(target, net, 0.25)
    for old, new in zip(before, target.parameters()):
        assert torch.allclose(new, old + 0.25)


def test_a_prompt_is_encoded_once(tmp_path):
    class Counting(TinyClip):
        texts = 0

        def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
            self.texts += len(texts)
            return super().encode_texts(texts, unit)

    clip = Counting()
    task = tiny_task(tmp_path, clip)
    judge = Judge(task, task.train)
    for text in ("a <CLASS>.", "the <CLASS>.", "a <CLASS>."):
        judge(Prompt(text))
    assert clip.texts == 2 * len(CLASSNAMES)


def test_a_prompt_that_is_too_long_for_clip_is_worth_the_least_and_is_never_the_result(tmp_path):
    clip = TinyClip()
    task = tiny_task(tmp_path, clip)
    judge = Judge(task, task.train)
    assert judge(Prompt("a " * 40 + "<CLASS>.")) is UNREADABLE
    clip.context_length = 3
    with pytest.raises(ConfigError, match="fewer tokens"):
        fit(task, RLPromptOptions(**SHORT), quiet())


def test_learning_raises_the_reward(tmp_path):
    rows = []
    task, learner = tiny_task(tmp_path), learner_of(hidden=64, learning_rate=0.3, tokens=2, batch=16)
    judge = Judge(task, task.train)
    for step in range(40):
        rows.append(learner.step(judge, seeded_generator(1, "step", step))["reward"])
    assert sum(rows[-10:]) / 10 > sum(rows[:10]) / 10 + 3


def test_the_result_is_a_prompt_with_its_fluency_and_the_curve_beside_it(tmp_path):
    task = tiny_task(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    fitted = fit(task, RLPromptOptions(**SHORT), quiet(folder))
    predictor = fitted.predictors["rlprompt"]
    assert isinstance(predictor, PromptPredictor)
    first = fitted.figures["prompts"][0]
    assert first["text"] == predictor.prompts[0].text
    assert first["accuracy"] == evaluate_on(predictor, task.train, CLASSNAMES).value
    assert first["perplexity"] > 1
    rows = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [2, 4, 6]
    assert first["accuracy"] == max(row["accuracy"] for row in rows)


def test_a_fit_that_was_ended_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("ipo_baselines.rlprompt.CHECKPOINT_STEPS", 2)
    task, options = tiny_task(tmp_path), RLPromptOptions(**SHORT)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = fit(task, options, quiet(whole))
    save = FitRun.save

    def save_and_end(run, tensors, done):
        save(run, tensors, done)
        if done == 4:
            raise RuntimeError("ended")

    with monkeypatch.context() as patch:
        patch.setattr(FitRun, "save", save_and_end)
        with pytest.raises(RuntimeError, match="ended"):
            fit(task, options, quiet(broken))
    again = fit(task, options, quiet(broken))
    assert again.prompts("rlprompt") == expected.prompts("rlprompt")
    assert again.figures["prompts"] == expected.figures["prompts"]
    assert (broken / "curves.jsonl").read_bytes() == (whole / "curves.jsonl").read_bytes()


def test_validation_images_choose_where_asked(tmp_path):
    task = tiny_task(tmp_path)
    fitted = fit(task, RLPromptOptions(**SHORT, validation=True), quiet())
    predictor = fitted.predictors["rlprompt"]
    assert fitted.figures["prompts"][0]["accuracy"] == evaluate_on(predictor, task.val, CLASSNAMES).value
    empty = replace(task.val, items=(), features=task.val.features[:0])
    with pytest.raises(DataError, match="validation"):
        fit(replace(task, val=empty), RLPromptOptions(**SHORT, validation=True), quiet())


def test_a_model_without_weights_is_refused():
    with pytest.raises(ConfigError, match="transformers"):
        METHOD.ready(RLPromptOptions(), Means(ScriptedLLM([])))
