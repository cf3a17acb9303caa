"""Whether texts fit CLIP with every class name that is tested, and that this is known before anything is paid for."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ipo import fixed_prompts
from ipo import run as running
from ipo.api.start import describe
from ipo.clip.lengths import TextRoom
from ipo.config import Settings, load_settings
from ipo.data.listing import read_listing
from ipo.errors import ConfigError, DataError, PromptError
from ipo.methods import FitRun, find_method
from ipo.prompt import Prompt
from ipo.runs.facts import listing_facts
from ipo.runs.folder import RunFolder
from ipo.runs.result import to_json
from ipo.runs.resume import plan_resumption
from ipo.scoring import PromptPredictor
from ipo.task import load_task
from ipo_baselines.contexts import encode_context, require_context_fits
from tests.baselines.tiny import CLASSNAMES, NEW_NAMES, TinyClip, tiny_task
from tests.clip.tiny_openclip import tiny_module, tiny_openclip
from tests.fakes import FakeClip, ScriptedLLM
from tests.test_run import resume
from tests.test_task import RecordingStore

LONG = "great white shark of the south"
FITS = "a photo of a <CLASS>."
TOO_LONG = "a bright photo of a <CLASS> in the sea."
LIMIT = 12
"""Tokens with start and end: room for `FITS` with `LONG`, and for `TOO_LONG` with any other name."""


class StrictClip(FakeClip):
    """Reads twelve tokens, and says so as the real ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.context_length = LIMIT

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        for text in texts:
            if self.token_count(text) > self.context_length:
                raise PromptError(f"text of {self.token_count(text)} tokens exceeds the {self.context_length}")
        return super().encode_texts(texts, unit)


@pytest.fixture
def llm(monkeypatch, tmp_path) -> ScriptedLLM:
    """Proposes a prompt that is too long with the long name, and one that fits."""
    script = ScriptedLLM([[TOO_LONG, "a drawing of a <CLASS>."]])
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ipo.run.load_llm", lambda *_, **__: script)
    for place in ("ipo.run", "ipo.fixed_prompts"):
        monkeypatch.setattr(f"{place}.load_clip", lambda settings, offline: StrictClip())
    return script


def make_pictures(folder: Path, **names: str) -> Path:
    """Four classes, `a` and `b` of them base, in the splits train and test; `names` renames some."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "abcd":
            (folder / split / name).mkdir(parents=True)
            for index in range(2):
                pixels = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    (folder / "classnames.json").write_text(json.dumps({name: f"class{name}" for name in "abcd"} | names))
    return folder


def settings(pictures: Path, targets: tuple[str, ...] = (), **search: object) -> Settings:
    return load_settings(
        None,
        {
            "data": {"dataset": f"folder:{pictures}", "shots": 2, "classes": "base", "targets": targets},
            "clip": {"workers": 0},
            "search": {"steps": 1, "candidates": 2, **search},
        },
    )


def run(chosen: Settings, path: Path) -> dict[str, Any]:
    job = running.prepare("ipo", chosen)
    with running.start(job, path) as folder:
        return to_json(running.run(job, folder))


@pytest.mark.parametrize("place", ["base", "new", "target"])
def test_a_proposal_is_measured_with_every_name_that_is_tested_not_only_those_of_the_fit(llm, tmp_path, place):
    names = {"base": {"a": LONG}, "new": {"d": LONG}, "target": {}}[place]
    pictures = make_pictures(tmp_path / "own", **names)
    targets = (f"folder:{make_pictures(tmp_path / 'other', d=LONG)}",) if place == "target" else ()
    result = run(settings(pictures, targets), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert {row["text"]: row.get("reason") for row in rows} == {
        FITS: None,
        TOO_LONG: f"too long: 16 tokens with '{LONG}', and CLIP reads {LIMIT}",
        "a drawing of a <CLASS>.": None,
    }
    assert result["predictors"]["ipo"]["new"]["n"] == 4
    assert LONG not in "".join(message.content for messages, _ in llm.asked for message in messages)


def test_a_run_of_an_earlier_version_whose_winner_is_too_long_ends_with_the_next_best(llm, tmp_path, monkeypatch):
    pictures, path = make_pictures(tmp_path / "own", d=LONG), tmp_path / "run"
    with monkeypatch.context() as earlier:
        earlier.setattr(TextRoom, "prompt_excess", lambda *_: None)
        with pytest.raises(PromptError, match="exceeds the 12"):
            run(settings(pictures), path)
    rows = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    assert rows[1]["text"] == TOO_LONG
    rows[1]["score"] |= {"accuracy": 1.0, "high": 1.0}
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = resume(path)
    others = [row for row in rows if row["text"] != TOO_LONG]
    best = max(others, key=lambda row: (row["score"]["accuracy"], -row["score"]["loss"]))
    assert result["best"]["text"] == best["text"]
    assert result["untestable"] == [TOO_LONG]
    assert TOO_LONG not in result["ensemble"]["prompts"]
    page = (path / "history.md").read_text()
    assert best["text"] in page.split("## Best prompt")[1].split("Passed over")[0]
    assert TOO_LONG in page.split("Passed over")[1].split("\n")[0]


@pytest.mark.parametrize(
    ("search", "names", "error", "words"),
    [
        ({"first_prompts": [FITS, TOO_LONG]}, {"d": LONG}, PromptError, rf"too long: 16 tokens with '{LONG}'.*bright"),
        ({"first_prompts": ["<CLASS>"]}, {"d": LONG + " and of"}, PromptError, "14 tokens.*photo of a <CLASS>"),
        ({}, {"d": " ".join(["long"] * 11)}, DataError, "class name is too long: 13 tokens with 'long long"),
    ],
)
def test_what_is_tested_for_sure_is_measured_before_the_llm_and_pictures(
    llm, tmp_path, monkeypatch, search, names, error, words
):
    monkeypatch.setattr("ipo.run.load_llm", lambda *_, **__: pytest.fail("too late"))
    monkeypatch.setattr("ipo.run.feature_store", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(error, match=words):
        running.prepare("ipo", settings(make_pictures(tmp_path / "own", **names), **search))


def test_names_are_measured_before_a_single_picture_is_read(tmp_path):
    pictures = make_pictures(tmp_path / "own", d=" ".join(["long"] * 11))
    with pytest.raises(DataError, match="class name is too long"):
        load_task(read_listing(settings(pictures).data, seed=1), StrictClip(), RecordingStore(StrictClip()))


def test_controls_that_do_not_fit_are_left_out_and_refused_where_none_is_left(llm, tmp_path, capsys):
    pictures = make_pictures(tmp_path / "own", d=LONG)
    result = run(settings(pictures, controls=True), tmp_path / "run")
    kept = result["predictors"]["ensemble-80"]["prompts"]
    assert 0 < len(kept) < 80
    assert f"{80 - len(kept)} of 80 prompts left out" in capsys.readouterr().err
    assert result["predictors"]["select-80"]["prompts"][0] in kept
    other = make_pictures(tmp_path / "other", d=LONG + " and far")
    with pytest.raises(PromptError, match="too long"):
        running.prepare("ipo", settings(other, controls=True, first_prompts=["<CLASS>"]))


def test_one_long_prompt_of_an_evaluation_is_named_before_a_picture_is_read(llm, tmp_path, monkeypatch):
    chosen = settings(make_pictures(tmp_path / "own", d=LONG))
    monkeypatch.setattr("ipo.fixed_prompts.feature_store", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(PromptError, match=r"too long: 16 tokens.*a bright photo"):
        fixed_prompts.evaluate_prompts(chosen, [FITS, TOO_LONG, "a <CLASS>."], "all", False)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("coop", {"init": "random", "n_ctx": 6}, "6 context vectors are too many: 14 tokens"),
        ("coop", {"init": "random", "n_ctx": 6, "position": "front"}, "6 context vectors"),
        ("coop", {"init": "a very long beginning of all texts"}, "7 context vectors"),
        ("cocoop", {"init": "random", "n_ctx": 6}, "6 context vectors"),
        ("bayesian", {"init": "random", "n_ctx": 6}, "6 context vectors"),
        ("lipsum-ft", {"length": 11}, "random texts of 11 tokens, and CLIP reads 12"),
    ],
)
def test_a_context_too_long_for_a_tested_name_is_refused_at_start_and_resume(llm, tmp_path, method, options, words):
    class Words(StrictClip):
        def embed_words(self, text):
            return self.encode_texts([text])[:, :1].expand(len(text.split()), self.width)

        def vocabulary(self):
            return [], self.encode_texts(["a"])

    chosen = settings(make_pictures(tmp_path / "own", d=LONG))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipo.run.load_clip", lambda settings, offline: Words())
        with pytest.raises(ConfigError, match=words):
            running.prepare(method, chosen, options)
        (tmp_path / "run").mkdir()
        facts = {"method": method, "options": options, **listing_facts(read_listing(chosen.data, chosen.seed))}
        RunFolder.create(tmp_path / "run", chosen, facts)
        with pytest.raises(ConfigError, match=words):
            running.plan(plan_resumption(tmp_path / "run"))


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_the_longest_context_that_passes_is_the_longest_that_can_be_encoded(tmp_path, position):
    coop, clip = find_method("coop"), TinyClip()
    task = tiny_task(tmp_path, clip)
    longest = max((clip.token_count(f"{name}."), name) for name in CLASSNAMES + NEW_NAMES)[0]
    for count, fits in ((clip.context_length - longest, True), (clip.context_length - longest + 1, False)):
        options = coop.configure("tiny", 4, {"init": "random", "n_ctx": count, "position": position})
        if fits:
            coop.check(task, options)
        else:
            with pytest.raises(ConfigError, match=f"{count} context vectors"):
                coop.check(task, options)


def test_a_class_specific_context_is_measured_with_its_own_classes(tmp_path):
    coop, clip = find_method("coop"), TinyClip()
    task = tiny_task(tmp_path, clip)
    long = TextRoom.of(clip, CLASSNAMES, ["stone of the red thing of the blue stone"])
    task = type(task)(**{**vars(task), "room": long})
    chosen = {"init": "random", "n_ctx": clip.context_length - clip.token_count("red thing.")}
    coop.check(task, coop.configure("tiny", 4, {**chosen, "class_specific": True}))
    with pytest.raises(ConfigError, match="stone of the red thing"):
        coop.check(task, coop.configure("tiny", 4, chosen))


def test_methods_of_80_prompts_use_those_that_fit(tmp_path):
    clip = TinyClip()
    clip.context_length = 9
    task = tiny_task(tmp_path, clip)
    told: list[str] = []
    for name in ("ensemble-7", "ensemble-80", "select-80"):
        method = find_method(name)
        fitted = method.fit(task, method.configure("tiny", 4), FitRun(report=told.append))
        predictor = fitted.predictors[name]
        assert isinstance(predictor, PromptPredictor)
        assert all(task.room.prompt_excess(prompt) is None for prompt in predictor.prompts)
        assert "prompts left out: too long with some class name" in told.pop(0)
        told.clear()
    clip.context_length = 3
    short = type(task)(**{**vars(task), "room": TextRoom.of(clip, CLASSNAMES)})
    for name in ("zero-shot", "ensemble-7", "ensemble-80", "select-80", "ft", "car-ft", "lipsum-ft"):
        method = find_method(name)
        with pytest.raises((PromptError, DataError, ConfigError), match=r"too long|random texts"):
            method.check(short, method.configure("tiny", 4))


def test_the_room_is_exact_where_words_grow_together():
    clip = FakeClip()
    clip.context_length = 5
    room = TextRoom.of(clip, ["cat", "sea lion", "dog"], ["cat"])
    assert room.prompt_excess(Prompt("a<CLASS>")) is None
    assert room.prompt_excess(Prompt("the a <CLASS>")) == "6 tokens with 'sea lion', and CLIP reads 5"
    assert room.fitting([Prompt("a <CLASS>"), Prompt("the a <CLASS>")]) == (Prompt("a <CLASS>"),)
    assert "sea lion" not in repr(room)


def test_a_class_that_a_first_prompt_names_is_said_before_the_search(llm, tmp_path):
    told = {}
    for name in ("photo", "cat"):
        job = running.prepare("ipo", settings(make_pictures(tmp_path / name, a=name)))
        told[name] = "a first prompt names a class, and so may proposals: photo" in describe(job)
    assert told == {"photo": True, "cat": False}


NAMES = ["cat", "pets (dog)", "sea-lion", "St. Bernard's", "a" * 9, "x.", "naïve café"]


@pytest.mark.parametrize("length", [6, 9, 16, 64])
def test_with_a_real_tokenizer_a_text_passes_if_and_only_if_it_can_be_encoded(length):
    clip = tiny_openclip(tiny_module(context_length=length))
    assert clip.context_length == length
    room = TextRoom.of(clip, NAMES)
    for text in (
        "<CLASS>",
        "a <CLASS>.",
        "the photo of<CLASS>s)",
        "a <CLASS>'s (very) old face",
        "-<CLASS>-" + "." * 9,
    ):
        prompt, encoded = Prompt(text), True
        try:
            clip.encode_texts([prompt.fill(name) for name in NAMES])
        except PromptError:
            encoded = False
        assert (room.prompt_excess(prompt) is None) is encoded, text


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("count", [2, 4, 5, 6, 7, 8, 9])
def test_with_a_real_tokenizer_a_context_passes_if_and_only_if_it_can_be_encoded(position, count):
    clip = tiny_openclip(tiny_module(context_length=16))
    context, encoded = torch.zeros(1, 1, count, clip.width), True
    try:
        encode_context(clip, NAMES, context, position)
    except PromptError:
        encoded = False
    task = SimpleNamespace(clip=clip, room=TextRoom.of(clip, NAMES), seed=1, classnames=tuple(NAMES))
    options = find_method("coop").configure("own", 1, {"init": "random", "n_ctx": count})
    with nullcontext() if encoded else pytest.raises(ConfigError, match=f"{count} context vectors"):
        require_context_fits(task, options, position)
