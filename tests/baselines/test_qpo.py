"""QPO: the table of what histories leave, the router and the generator, against what can be known without them."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from ipo.errors import ConfigError, RunError
from ipo.methods import FitRun, Means
from ipo.prompt import Prompt, Score
from ipo.scoring import ImageSet, PromptPredictor, evaluate_on, score_prompts
from ipo.task import WithheldImages
from ipo_baselines.offline_data import Lesson, OfflineData, history_prompts, rescaled
from ipo_baselines.prompt_generator import END, Generator, GPTOptions, Vocabulary, combined, readable
from ipo_baselines.qpo import METHOD, QPOOptions, fit, fold_figures, learn_generator, learn_router
from ipo_baselines.routed import RoutedPredictor, routed, routes
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, tiny_task
from tests.fakes import word_vector

FINISHED = Path(__file__).parent / "finished_search"
TEXTS = [
    "a photo of a <CLASS>.",
    "the red <CLASS>.",
    "a <CLASS> of stone.",
    "a grey photo of the <CLASS>.",
    "blue <CLASS>.",
]
PROMPTS = tuple(map(Prompt, TEXTS))


def options(**own):
    return QPOOptions(**{"runs": str(FINISHED), "epochs": 3, "width": 16, "layers": 1, **own})


def quiet(folder=None):
    return FitRun(folder, report=lambda _: None)


def data_of(correct, losses=None):
    correct = torch.as_tensor(correct, dtype=torch.bool)
    losses = torch.zeros(correct.shape, dtype=torch.double) if losses is None else losses
    return OfflineData(PROMPTS[: correct.shape[1]], correct, losses)


def two_kinds(images=60, noise=0.3, seed=0):
    """Images of two kinds, of which each is known by one of two prompts only."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(images) % 2
    directions = torch.stack([word_vector("left", 24), word_vector("right", 24)])
    features = normalize(directions[kind] + noise * torch.randn(images, 24, generator=generator), dim=-1)
    return features, data_of(torch.stack([kind == 0, kind == 1], dim=1)), kind


def test_the_prompts_are_those_that_were_scored_each_once(tmp_path):
    assert [prompt.text for prompt in history_prompts([FINISHED, FINISHED])] == TEXTS
    shutil.copytree(FINISHED, tmp_path / "other")
    row = json.loads((FINISHED / "history.jsonl").read_text().splitlines()[0])
    (tmp_path / "other/history.jsonl").write_text(json.dumps({**row, "text": "one more <CLASS>."}) + "\n")
    assert [prompt.text for prompt in history_prompts([FINISHED, tmp_path / "other"])] == [*TEXTS, "one more <CLASS>."]


def test_what_a_prompt_is_worth_on_each_image_adds_up_to_its_score(tmp_path):
    task = tiny_task(tmp_path)
    data = OfflineData.of(PROMPTS, task)
    assert data.correct.shape == data.losses.shape == (12, 5)
    for place, score in enumerate(score_prompts(task.clip, data.prompts, task.train, CLASSNAMES)):
        assert isinstance(score, Score)
        assert float(data.correct[:, place].double().mean()) == pytest.approx(score.accuracy, abs=1e-6)
        assert float(data.losses[:, place].mean()) == pytest.approx(score.loss, abs=1e-5)
    keys = [(-int(hits), float(loss)) for hits, loss in zip(data.correct.sum(0), data.losses.mean(0))]
    assert keys == sorted(keys)


def test_returns_are_what_the_formula_says_and_an_image_does_not_count_in_its_own_accuracy():
    correct = [[1, 0], [1, 1], [0, 1], [0, 1]]
    losses = torch.tensor([[0.1, 2.0], [0.3, 0.2], [1.5, 0.4], [3.0, 0.6]], dtype=torch.double)
    by_hand = []
    for image in range(4):
        others = [other for other in range(4) if other % 2 != image % 2]
        for prompt in range(2):
            accuracy = sum(correct[other][prompt] for other in others) / 2
            by_hand.append(10 * correct[image][prompt] + 10 * accuracy - float(losses[image, prompt]))
    expected = rescaled(torch.tensor(by_hand, dtype=torch.double).view(4, 2))
    assert torch.allclose(data_of(correct, losses).returns(folds=2), expected)


def test_returns_go_from_0_to_100_and_equal_ones_are_0():
    returns = rescaled(torch.tensor([[-3.0, 4.0], [1.0, 2.0]], dtype=torch.double))
    assert (float(returns.min()), float(returns.max())) == (0.0, 100.0)
    assert float(returns[1, 0]) == pytest.approx(100 * 4 / 7)
    assert rescaled(torch.full((3, 2), 7.0)).abs().max() == 0


@pytest.mark.parametrize("names", [CLASSNAMES, NEW_NAMES])
def test_a_router_of_one_prompt_is_that_prompt(tmp_path, names):
    task = tiny_task(tmp_path)
    fitted = fit(task, options(k=1), quiet())
    best = OfflineData.of(PROMPTS, task).prompts[:1]
    expected = PromptPredictor(task.clip, best).logits(task.train, names)
    assert torch.equal(fitted.predictors["qpo"].logits(task.train, names), expected)
    assert torch.equal(fitted.predictors["best-single"].logits(task.train, names), expected)


def test_whoever_knows_the_best_prompt_for_each_image_is_at_least_as_good_as_any_choice(tmp_path):
    task = tiny_task(tmp_path)
    figures = fit(task, options(k=5), quiet()).figures["head_room"]
    data = OfflineData.of(PROMPTS, task)
    known = [data.prompts[int(row.long().argmax())] for row in data.correct]
    oracle = RoutedPredictor(task.clip, lambda _: known)
    assert evaluate_on(oracle, task.train, CLASSNAMES).value == pytest.approx(figures["best_per_image"])
    singles = [evaluate_on(PromptPredictor(task.clip, (one,)), task.train, CLASSNAMES).value for one in PROMPTS]
    assert figures["best_single"] == pytest.approx(max(singles))
    assert figures["best_per_image"] >= max(singles)


def test_a_router_finds_which_prompt_suits_which_kind_of_image():
    features, data, _ = two_kinds()
    lesson = Lesson.of(features, data, folds=4)
    apart = fold_figures(lesson, options(epochs=60, k=2), seed=1)
    assert apart["router"] > 0.95
    assert apart["best_single"] <= 0.55
    router = learn_router(lesson, options(epochs=60), quiet(), seed=1)
    others, _, their_kind = two_kinds(seed=5)
    assert (routes(router, others) == their_kind).double().mean() > 0.95


def test_a_router_of_shuffled_images_is_no_better_than_the_best_single_prompt():
    """The control: on images that it has not seen, in the mean over some draws."""
    gains = []
    others, verdicts, _ = two_kinds(images=200, seed=9)
    for seed in range(8):
        features, data, _ = two_kinds(seed=seed)
        router = learn_router(Lesson.of(features, data, 4).shuffled(seed), options(epochs=60), quiet(), seed=1)
        right = verdicts.correct.gather(1, routes(router, others)[:, None]).double().mean()
        gains.append(float(right) - verdicts.single())
    assert abs(sum(gains) / len(gains)) < 0.2


def test_a_fold_that_was_kept_apart_does_not_choose_the_prompts_either():
    """The first prompt is right where the others are wrong in every fold: whoever peeks would choose it for all."""
    correct = torch.zeros(8, 2, dtype=torch.bool)
    correct[:4, 0] = correct[4:, 1] = True
    features = torch.eye(8)
    figures = fold_figures(Lesson.of(features, data_of(correct[[0, 4, 1, 5, 2, 6, 3, 7]]), 2), options(k=1, folds=2), 1)
    assert figures["router"] == figures["best_single"] == 0.0


@pytest.mark.parametrize("policy", ["router", "generator"])
def test_what_stands_beside_an_image_changes_nothing(tmp_path, policy):
    task = tiny_task(tmp_path)
    predictor = fit(task, options(policy=policy, k=5, epochs=20, folds=2), quiet()).predictors["qpo"]
    together = predictor.logits(task.train, CLASSNAMES)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    mixed = ImageSet(tuple(task.train.items[i] for i in order), task.train.features[order])
    assert torch.allclose(predictor.logits(mixed, CLASSNAMES), together[order], atol=1e-9)
    for row in range(12):
        alone = ImageSet(task.train.items[row : row + 1], task.train.features[row : row + 1])
        assert torch.allclose(predictor.logits(alone, CLASSNAMES)[0], together[row], atol=1e-9)


def test_each_image_has_the_logits_of_its_own_prompt_and_each_prompt_is_encoded_once(tmp_path):
    task = tiny_task(tmp_path)
    chosen = [PROMPTS[row % 3] for row in range(12)]
    logits = RoutedPredictor(task.clip, lambda _: chosen).logits(task.train, CLASSNAMES)
    for row, prompt in enumerate(chosen):
        alone = PromptPredictor(task.clip, (prompt,)).logits(task.train, CLASSNAMES)[row]
        assert torch.allclose(logits[row], alone)


@pytest.mark.slow
def test_with_equal_returns_the_generator_learns_them_and_how_often_prompts_come():
    """Nothing is told of the images, and prompts come equally often: the cross-entropy a prompt is log P."""
    torch.manual_seed(0)
    vocabulary = Vocabulary.of(PROMPTS)
    model = Generator(vocabulary, 4, GPTOptions(width=32, layers=1)).eval()
    pieces, features = vocabulary.encode(PROMPTS), torch.zeros(5, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        words, error, _ = model.losses(torch.zeros(5), features, pieces)
        optimizer.zero_grad()
        (words + 0.5 * error).backward()
        optimizer.step()
    count = int((pieces >= END).sum())
    assert float(error.detach()) < 1e-3
    assert float(words.detach()) * count / 5 == pytest.approx(math.log(5), abs=0.1)


def test_the_error_of_the_return_counts_a_half_and_a_tenth_where_it_is_large():
    words = torch.tensor(2.0)
    assert float(combined(words, torch.tensor(4.0))) == pytest.approx(4.0)
    assert float(combined(words, torch.tensor(20.0))) == pytest.approx(4.0)


def test_the_loss_of_a_generator_is_that_of_the_pieces_without_padding():
    vocabulary = Vocabulary.of(PROMPTS)
    model = Generator(vocabulary, 4, GPTOptions(width=16, query_tokens=3)).eval()
    pieces, features, returns = vocabulary.encode(PROMPTS), torch.randn(5, 4), torch.tensor([0.0, 50, 100, 3, 4])
    words, _, _ = model.losses(returns, features, pieces)
    total, count = 0.0, 0
    for row in range(5):
        own = pieces[row][pieces[row] >= END][None]
        logits, _ = model(returns[row : row + 1], features[row : row + 1], own[:, :-1])
        total += cross_entropy(logits[0], own[0], reduction="sum").item()
        count += own.shape[1]
    assert words.item() == pytest.approx(total / count, rel=1e-4)


def test_prompts_are_their_pieces_and_back():
    texts = ["a photo, of a <CLASS>'s  red (thing)!", "<CLASS>", "in the <CLASS>."]
    vocabulary = Vocabulary.of(list(map(Prompt, texts)))
    assert [vocabulary.decode(row) for row in vocabulary.encode(list(map(Prompt, texts))).tolist()] == texts


def test_whatever_a_generator_writes_has_the_class_slot_once():
    features = torch.randn(16, 8, dtype=torch.double)
    for seed in range(5):
        torch.manual_seed(seed)
        model = Generator(Vocabulary.of(PROMPTS), 8, GPTOptions(width=16)).eval().double()
        for parameter in model.parameters():
            parameter.data.normal_(std=0.5)
        for text in model.write(features):
            assert Prompt(text).text == text


def test_a_text_that_is_no_prompt_or_too_long_is_not_used(tmp_path):
    room = tiny_task(tmp_path).room
    assert readable("no slot", room, PROMPTS[1]) == PROMPTS[1]
    assert readable("a " * 40 + "<CLASS>", room, PROMPTS[1]) == PROMPTS[1]
    assert readable("the <CLASS>", room, PROMPTS[1]) == Prompt("the <CLASS>")


@pytest.mark.slow
def test_a_generator_told_of_two_kinds_of_image_writes_each_its_own_prompt():
    features, data, kind = two_kinds(images=20)
    own = options(policy="generator", epochs=50, width=32, learning_rate=0.01, batch=8)
    model = learn_generator(Lesson.of(features, data, 4), own, quiet(), seed=1)
    written = model.write(features.double())
    right = sum(text == TEXTS[int(one)] for text, one in zip(written, kind))
    assert right >= 18


@pytest.mark.parametrize("policy", ["router", "generator"])
def test_a_fit_that_was_ended_goes_on_to_the_same_result(tmp_path, monkeypatch, policy):
    task, own = tiny_task(tmp_path), options(policy=policy, epochs=4, folds=2)
    folders = [tmp_path / "whole", tmp_path / "broken"]
    for folder in folders:
        folder.mkdir()
    expected = fit(task, own, quiet(folders[0]))
    save = FitRun.save

    def save_and_end(run, tensors, done):
        save(run, tensors, done)
        if run.folder and done == 2:
            raise RuntimeError("ended")

    with monkeypatch.context() as patch:
        patch.setattr(FitRun, "save", save_and_end)
        with pytest.raises(RuntimeError, match="ended"):
            fit(task, own, quiet(folders[1]))
    again = fit(task, own, quiet(folders[1]))
    assert again.figures == expected.figures
    assert all(torch.equal(again.learned[name], value) for name, value in expected.learned.items())
    assert (folders[0] / "curves.jsonl").read_bytes() == (folders[1] / "curves.jsonl").read_bytes()


def test_runs_of_other_data_are_refused_in_one_line(tmp_path):
    task = tiny_task(tmp_path)
    METHOD.check(task, options())
    with pytest.raises(RunError, match=r"other data: tiny, where split_hash and class_count differ"):
        METHOD.check(replace(task, split_hash="another", classnames=CLASSNAMES[:2]), options())
    with pytest.raises(RunError, match="Is this the folder of a finished run"):
        METHOD.uses(options(runs=[str(FINISHED), str(tmp_path / "none")]), Means())
    with pytest.raises(ConfigError, match="runs"):
        METHOD.configure("tiny", 4)
    shutil.copytree(FINISHED, tmp_path / "baseline")
    (tmp_path / "baseline/history.jsonl").unlink()
    with pytest.raises(RunError, match=r"history\.jsonl is missing"):
        fit(task, options(runs=[str(tmp_path / "baseline")]), quiet())


def test_it_has_seen_what_the_searches_saw(tmp_path):
    for folder, told in (("opro", ["labels", "llm_saw_class_names"]), ("older", None)):
        shutil.copytree(FINISHED, tmp_path / folder)
        result = json.loads((FINISHED / "result.json").read_text())
        (tmp_path / folder / "result.json").write_text(json.dumps(result | {"uses": told}))
        runs = [str(FINISHED), str(tmp_path / folder)]
        assert METHOD.uses_of(options(runs=runs), Means(), "tiny", 4) == ["labels", "llm_saw_class_names"]
    assert METHOD.uses_of(options(), Means(), "tiny", 4) == ["labels"]


def test_other_training_images_of_a_search_are_told(tmp_path):
    said: list[str] = []
    fit(replace(tiny_task(tmp_path), seed=2), options(), FitRun(report=said.append))
    assert any("12 training images of seed 1" in line for line in said)


def test_nothing_but_training_images_is_read(tmp_path):
    task = tiny_task(tmp_path)
    fit(replace(task, val=WithheldImages()), options(), quiet())


def test_rows_of_the_control_and_the_best_single_prompt_stand_beside_it(tmp_path):
    fitted = fit(tiny_task(tmp_path), options(k=3), quiet())
    assert list(fitted.predictors) == ["qpo", "best-single", "qpo-shuffled"]
    assert fitted.headline == "qpo"
    assert sum(row["images"] for row in fitted.figures["chosen"]) == 12
    assert fitted.figures["other_folds"].keys() == {"router", "best_single"}
    assert len(fitted.draws["single-prompts"].sets) == 3


def test_the_prompt_of_a_router_is_the_better_one_where_nothing_is_known(tmp_path):
    task = tiny_task(tmp_path)
    router = {"weight": torch.zeros(3, task.clip.dim), "bias": torch.zeros(3)}
    assert routed(task.clip, router, PROMPTS[:3]).choose(task.train.features) == [PROMPTS[0]] * 12
