from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ipo.errors import ConfigError, PromptError
from ipo.methods import FitRun, find_method
from ipo.metrics import accuracy, cross_entropy
from ipo.search.pools import read_prompts
from ipo_baselines.zero_shot import EIGHTY, SEVEN
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES

QUIET = FitRun(report=lambda _: None)


def fit(name, task, dataset="tiny", **options):
    method = find_method(name)
    fitted = method.fit(task, method.configure(dataset, task.shots, options), QUIET)
    return fitted, fitted.predictors[fitted.headline]


def test_there_are_80_and_7_prompts_as_published():
    assert (len(EIGHTY), len(set(EIGHTY)), len(SEVEN)) == (80, 80, 7)
    assert "a photo of the hard to see <CLASS>." in {prompt.text for prompt in EIGHTY}
    assert {prompt.text for prompt in SEVEN} <= {prompt.text for prompt in EIGHTY}
    assert SEVEN[0].text == "itap of a <CLASS>."


def test_zero_shot_is_the_cosine_with_the_filled_hand_crafted_prompt(task):
    fitted, predictor = fit("zero-shot", task)
    for names in (CLASSNAMES, NEW_NAMES):
        rows = [task.clip.encode_texts([f"a photo of a {name}."])[0] for name in names]
        expected = task.clip.logit_scale * task.train.features @ torch.stack(rows).T
        assert torch.allclose(predictor.logits(task.train, names), expected)
    assert fitted.prompts("zero-shot") == ["a photo of a <CLASS>."]


def test_ensemble_80_averages_unit_features_and_renormalises(task):
    _, predictor = fit("ensemble-80", task)
    rows = [
        normalize(torch.stack([task.clip.encode_texts([p.fill(name)])[0] for p in EIGHTY]).mean(dim=0), dim=0)
        for name in CLASSNAMES
    ]
    expected = task.clip.logit_scale * task.train.features @ torch.stack(rows).T
    assert torch.allclose(predictor.logits(task.train, CLASSNAMES), expected)


def test_ensemble_7_adds_the_datasets_own_prompt_but_for_imagenet(task):
    assert len(fit("ensemble-7", task)[1].prompts) == 8
    assert fit("ensemble-7", task)[1].prompts[-1].text == task.hand_crafted_prompt
    assert fit("ensemble-7", task, dataset="imagenet")[1].prompts == SEVEN


def test_select_80_takes_the_best_training_accuracy_and_then_the_lower_loss(task):
    fitted, predictor = fit("select-80", task)
    scores = []
    for prompt in EIGHTY:
        text = task.clip.encode_texts([prompt.fill(name) for name in CLASSNAMES])
        logits = task.clip.logit_scale * task.train.features @ text.T
        scores.append((-accuracy(logits, task.train.labels), cross_entropy(logits, task.train.labels)))
    assert predictor.prompts == (EIGHTY[scores.index(min(scores))],)
    assert fitted.figures["training"]["accuracy"] == pytest.approx(-min(scores)[0], abs=1e-6)


def test_a_file_of_prompts_is_used_together_or_selected_from(task, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("a photo of a <CLASS>.\n\nthe <CLASS>\n")
    assert len(fit("zero-shot", task, prompts=file)[1].prompts) == 2
    fitted, predictor = fit("select-80", task, prompts=str(file))
    assert predictor.prompts[0] in read_prompts(file)
    assert fitted.figures["prompts"] == 2


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("a <CLASS>.\nno slot\n", PromptError, "mine.txt:2"),
        ("\n\n", ConfigError, "no prompts"),
        (None, ConfigError, "cannot read"),
    ],
)
def test_a_bad_file_of_prompts_is_named(task, tmp_path, content, error, words):
    file = tmp_path / "mine.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(error, match=words):
        read_prompts(file)
