"""Descriptions of classes: their texts, their means by a second way, and the controls beside them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch

from ipo.clip.lengths import TextRoom
from ipo.descriptions import Descriptions
from ipo.descriptions.clauses import clause
from ipo.errors import ConfigError, DataError
from ipo.methods import FitRun, find_method
from ipo.report.pages import legend
from ipo.runs.result import Result
from ipo.scoring import PromptPredictor
from ipo_baselines.class_texts import TextSource, cupl_texts, dclip_texts, scrambled, swapped
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, TinyClip, tiny_task

DESCRIPTIONS = {
    "red thing": ["a photo of red", "the blue of the thing"],
    "green": ["grey stone", "the red thing", "of the stone"],
    "blue stone": ["a stone"],
    "grey": ["the photo of a red stone"],
    "stone": ["blue", "a green thing"],
}


def fit(method, task, tmp_path, texts=DESCRIPTIONS, report=lambda _: None, **options):
    file = tmp_path / "descriptions.json"
    file.write_text(json.dumps(texts))
    found = find_method(method)
    chosen = found.configure("tiny", task.shots, {"descriptions": str(file), **options})
    found.check(task, chosen)
    return found.fit(task, chosen, FitRun(report=report))


def logits(fitted, task, name, names=CLASSNAMES):
    return fitted.predictors[name].logits(task.train, names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("long tail", "which has long tail"),
        ("a large screen.", "which is a large screen"),
        ("An animal", "which is An animal"),
        ("used for cutting", "which is used for cutting"),
        ("has four legs", "which has four legs"),
        ("often grey", "which often grey"),
        ("may have spots", "which may have spots"),
        ("antlers", "which has antlers"),
        ("canines", "which has canines"),
    ],
)
def test_a_description_is_hung_on_the_name_by_its_first_word(text, expected):
    assert clause(text) == expected


def test_without_a_description_dclip_is_the_name_alone(task, tmp_path):
    told: list[str] = []
    fitted = fit("dclip", task, tmp_path, {name: [] for name in DESCRIPTIONS}, told.append)
    rows = task.clip.encode_texts(CLASSNAMES)
    assert torch.allclose(logits(fitted, task, "dclip"), task.clip.logit_scale * task.train.features @ rows.T)
    assert told == ["3 classes without a description, such as 'red thing': the name stands alone"]


@pytest.mark.parametrize("names", [CLASSNAMES, NEW_NAMES])
def test_dclip_is_the_mean_of_cosines_and_cupl_the_cosine_with_the_mean(task, tmp_path, names):
    texts = {name: dclip_texts(name, DESCRIPTIONS[name]) for name in names}
    cosines = [
        sum(task.train.features @ task.clip.encode_texts([text])[0] for text in texts[name]) / len(texts[name])
        for name in names
    ]
    got = logits(fit("dclip", task, tmp_path), task, "dclip", names)
    assert torch.allclose(got, task.clip.logit_scale * torch.stack(cosines, dim=1))
    means = [sum(task.clip.encode_texts([text])[0] for text in DESCRIPTIONS[name]) for name in names]
    turned = [torch.cosine_similarity(task.train.features, mean[None]) for mean in means]
    got = logits(fit("cupl", task, tmp_path), task, "cupl", names)
    assert torch.allclose(got, task.clip.logit_scale * torch.stack(turned, dim=1))


def test_the_other_mean_can_be_asked_for(task, tmp_path):
    each = [
        logits(fit(method, task, tmp_path, aggregate=aggregate), task, method)
        for method in ("dclip", "cupl")
        for aggregate in ("score_mean", "feature_mean")
    ]
    assert not torch.allclose(each[0], each[1])
    assert not torch.allclose(each[2], each[3])


def test_one_text_a_class_equal_to_the_prompt_is_zero_shot(task, tmp_path):
    texts = {name: [f"a photo of a {name}."] for name in DESCRIPTIONS}
    method = find_method("zero-shot")
    zero_shot = method.fit(task, method.configure("tiny", 4), FitRun())
    for names in (CLASSNAMES, NEW_NAMES):
        expected = logits(zero_shot, task, "zero-shot", names)
        assert torch.allclose(logits(fit("cupl", task, tmp_path, texts), task, "cupl", names), expected)


def test_swapped_gives_every_class_the_texts_of_another_with_its_own_name():
    names = ["red thing", "green", "blue stone", "grey"]
    lists = [[f"a {name} is {index}", "no name"] for index, name in enumerate(names)]
    for seed in range(20):
        found = swapped(names, lists, random.Random(seed))
        numbers = [own[0].split()[-1] for own in found]
        assert all(own[0].startswith(f"a {name} is ") for name, own in zip(names, found))
        assert sorted(numbers) == ["0", "1", "2", "3"]
        assert all(number != str(index) for index, number in enumerate(numbers))
    assert swapped(names[:1], lists[:1], random.Random(1)) == lists[:1]


def test_swapped_texts_of_two_classes_are_those_with_the_texts_exchanged(task, tmp_path):
    names, other = ("red thing", "green"), {**DESCRIPTIONS}
    other["red thing"], other["green"] = other["green"], other["red thing"]
    got = logits(fit("dclip", task, tmp_path, aggregate="score_mean"), task, "dclip-swapped", names)
    renamed = {
        "red thing": [text.replace("green", "red thing") for text in DESCRIPTIONS["green"]],
        "green": [text.replace("red thing", "green") for text in DESCRIPTIONS["red thing"]],
    }
    assert torch.allclose(got, logits(fit("dclip", task, tmp_path, other | renamed), task, "dclip", names))


def test_scrambled_keeps_the_words_and_lengths_of_a_class_and_its_name_whole():
    (found,) = scrambled(["red thing"], [["the Red Thing is big and old.", "it has two legs"]], random.Random(3))
    assert [len(text.replace("Red Thing", "X").split()) for text in found] == [6, 4]
    words = sorted(" ".join(found).replace("Red Thing", "X").split())
    assert words == sorted(["the", "X", "is", "big", "and", "old", "it", "has", "two", "legs"])
    assert found != ["the Red Thing is big and old", "it has two legs"]


@pytest.mark.parametrize("method", ["dclip", "cupl"])
def test_the_controls_stand_beside_the_method_and_can_be_left_out(task, tmp_path, method):
    fitted = fit(method, task, tmp_path)
    assert list(fitted.predictors) == [method, f"{method}-swapped", f"{method}-scrambled", "waffle"]
    each = [logits(fitted, task, name) for name in fitted.predictors]
    assert not any(torch.allclose(each[0], other) for other in each[1:])
    waffle = find_method("waffle")
    alone = waffle.fit(task, waffle.configure("tiny", 4), FitRun()).predictors["waffle"]
    assert isinstance(alone, PromptPredictor)
    assert fitted.prompts("waffle") == [prompt.text for prompt in alone.prompts]
    again = fit(method, task, tmp_path)
    assert all(torch.equal(logits(again, task, name), logits(fitted, task, name)) for name in fitted.predictors)
    assert list(fit(method, task, tmp_path, controls=False).predictors) == [method]


def test_a_table_says_what_the_controls_are():
    names = ("dclip", "dclip-swapped", "dclip-scrambled", "waffle")
    figures = {"base": {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 4}}
    facts = {"method": "dclip", "dataset": "d", "classes": "all", "shots": 1, "seed": 1, "model": "m", "seconds": 0.0}
    result = Result.model_validate(facts | {"cost": 0.0, "predictors": dict.fromkeys(names, figures)})
    assert [line.partition(":")[0] for line in legend(result)] == ["swapped", "scrambled", "random words"]


def test_new_classes_are_looked_for_before_an_image_is(task, tmp_path):
    for missing in ("green", "stone"):
        rest = {name: own for name, own in DESCRIPTIONS.items() if name != missing}
        with pytest.raises(DataError, match=f"descriptions of 1 of . classes are missing: '{missing}'"):
            fit("dclip", task, tmp_path, rest)
        with pytest.raises(DataError, match=f"are empty: '{missing}'"):
            fit("cupl", task, tmp_path, DESCRIPTIONS | {missing: []})
    fit("dclip", task, tmp_path, DESCRIPTIONS | {"stone": []})


def test_texts_that_clip_cannot_read_are_left_out_and_a_class_of_none_else_is_named(tmp_path):
    clip = TinyClip()
    told: list[str] = []
    clip.context_length = 10
    task = tiny_task(tmp_path, clip)
    long = " ".join(["red"] * 9)
    fitted = fit("cupl", task, tmp_path, DESCRIPTIONS | {"green": ["a stone", long]}, told.append, controls=False)
    assert told == ["1 of 5 texts left out: too long for CLIP"]
    short = fit("cupl", task, tmp_path, DESCRIPTIONS | {"green": ["a stone"]}, controls=False)
    assert torch.equal(logits(fitted, task, "cupl"), logits(short, task, "cupl"))
    with pytest.raises(DataError, match="no description of 'green'"):
        fit("cupl", task, tmp_path, DESCRIPTIONS | {"green": [long]})


def test_a_control_with_too_long_texts_falls_back_on_the_name():
    clip = TinyClip()
    clip.context_length = 6
    texts = Descriptions.of({"red": ["blue"], "blue": ["red thing of the stone"]})
    source = TextSource(clip, texts, dclip_texts, swapped)
    assert source(["red", "blue"]) == [["red"], ["blue, which has blue"]]
    assert TextSource(clip, Descriptions.of({"red": []}), cupl_texts, scrambled)(["red"]) == [["red"]]


def test_without_a_file_or_with_a_wrong_one_the_fit_is_not_begun(task, tmp_path):
    with pytest.raises(ConfigError, match="'descriptions'"):
        find_method("dclip").configure("tiny", 4)
    with pytest.raises(DataError, match="no such file"):
        find_method("cupl").configure("tiny", 4, {"descriptions": "nowhere.json"})
    (tmp_path / "wrong.json").write_text('{"green": "text"}')
    chosen = find_method("cupl").configure("tiny", 4, {"descriptions": str(tmp_path / "wrong.json")})
    with pytest.raises(DataError, match="a text instead of a list"):
        find_method("cupl").check(task, chosen)


def test_the_room_shows_names_only_to_a_check_of_them():
    seen: list[Any] = []
    TextRoom.of(TinyClip(), CLASSNAMES, NEW_NAMES).require_of_names(seen.extend)
    assert set(seen) == {*CLASSNAMES, *NEW_NAMES}
