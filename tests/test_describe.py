"""A language model is asked about classes: what is asked, how answers are read, kept, gone on with and paid for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.config import LLMSettings
from ipo.descriptions import read_descriptions
from ipo.descriptions.answers import Answers
from ipo.descriptions.ask import Describing, describe, estimate
from ipo.descriptions.kinds import kinds
from ipo.errors import IpoError, LLMError, RunError
from ipo.llm.base import Message, Reply, ReplyForm
from ipo.llm.load import load_llm
from ipo.llm.parse import read_texts
from ipo.llm.server.chat import OpenAILLM
from tests.llm.server import serving
from tests.test_fit import common, own_cache  # noqa: F401 (fixtures)

NAMES = ("red thing", "owl", "green")


class Writer:
    """Says something of its own about every question and seed, and remembers what it was asked; may break off."""

    name, template, caption_tokens = "writer", "ipo.j2", 300
    form: ReplyForm = "lines"

    def __init__(
        self, stop_after: int | None = None, say=lambda asked, seed, row: f"- has {seed + row}\n- same"
    ) -> None:
        self.stop_after, self.say = stop_after, say
        self.asked: list[str] = []

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
        unnamed: Sequence[str] = (),
    ) -> list[Reply]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        (message,) = messages
        self.asked.append(message.content)
        return [Reply(self.say(message.content, seed, row), self.form, "stop", 10, 5, 0.1) for row in range(n)]

    def token_count(self, text: str) -> int:
        return len(text.split())


def job(llm, kind="dclip", names=NAMES, **changes):
    return Describing(kind, kinds()[kind].model_copy(update=changes), llm, names, seed=1)


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        ("- long tail\n- large eyes.", False, ["long tail", "large eyes"]),
        ("Of course!\n\n* **Tail**: long\n1. four legs\n2) \"two ears\"\n\nThat is all.", False,
         ["Tail: long", "four legs", "two ears"]),
        ("- a tail\n- A tail.\n-  \n- {b}\u200b", False, ["a tail", "b"]),
        ("- a tail\n- a lon", True, ["a tail"]),
        ("long tail, large eyes", False, []),
        ("<think>\n- no\n</think>\n- yes", False, ["yes"]),
        ("<think>\n- never ends", False, []),
        ("- " + "x" * 201, False, []),
        ("- one\n" * 5000, False, []),
        ("", False, []),
    ],
)  # fmt: skip
def test_lines_are_read_as_what_stands_behind_dashes(text, cut, expected):
    assert read_texts(text, "lines", cut=cut) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("An owl is brown. It eats mice.", ["An owl is brown."]),
        ('"An owl is 2.5 feet tall."', ["An owl is 2.5 feet tall."]),
        ("**An owl** sits\non a tree! And more", ["An owl sits on a tree!"]),
        ("An owl is brown and", []),
        ("<think>An owl is fine.</think> A brown owl sits.", ["A brown owl sits."]),
        ("...", []),
        ("", []),
    ],
)
def test_a_sentence_is_read_up_to_its_stop(text, expected):
    assert read_texts(text, "sentence") == expected


def test_the_texts_of_some_replies_are_each_there_once_and_failures_say_nothing():
    replies = [
        Reply("- a\n- b", "lines", "stop"),
        Reply("- B.\n- c\n- cu", "lines", "length"),
        Reply("", "lines", "error", error="refused"),
    ]
    assert Answers("owl", "?", tuple(replies)).texts() == ["a", "b", "c"]


@pytest.mark.parametrize(("kind", "questions", "samples"), [("dclip", 1, 1), ("cupl", 5, 10), ("attributes", 1, 1)])
@pytest.mark.parametrize("chat", [True, False])
def test_every_kind_asks_about_the_class_with_its_article_and_tells_a_chat_model_what_to_do(
    kind, questions, samples, chat
):
    found = kinds()[kind]
    assert (len(found.questions), found.samples) == (questions, samples)
    for name, words in (("owl", "an owl"), ("red thing", "a red thing")):
        asked = found.asked(name, chat=chat)
        assert len(asked) == questions
        assert all(words in text and "<" not in text for text in asked)
        assert all(("Answer the last question" in text) == chat for text in asked)


def test_published_settings_are_those_of_the_kinds():
    dclip, cupl = kinds()["dclip"], kinds()["cupl"]
    assert (dclip.temperature, dclip.max_tokens, dclip.form) == (0, 100, "lines")
    assert (cupl.temperature, cupl.max_tokens, cupl.form) == (0.99, 50, "sentence")


def test_all_classes_are_described_once_and_the_folder_explains_itself(tmp_path):
    llm = Writer()
    found = describe(job(llm), tmp_path / "new")
    texts = read_descriptions(tmp_path / "new" / "descriptions.json")
    assert list(found.texts) == list(NAMES)
    assert all(texts[name] == tuple(found.texts[name]) and texts[name][1] == "same" for name in NAMES)
    assert len({texts[name][0] for name in NAMES}) == 3
    facts = json.loads((tmp_path / "new" / "describe.json").read_text())
    assert (facts["kind"], facts["llm"], facts["classes"], facts["cost"]) == ("dclip", "writer", 3, 0.0)
    assert (facts["usage"]["prompt_tokens"], facts["usage"]["completion_tokens"]) == (30, 15)
    rows = [json.loads(line) for line in (tmp_path / "new" / "answers.jsonl").read_text().splitlines()]
    assert [row["classname"] for row in rows] == list(NAMES)
    assert rows[0]["asked"] == llm.asked[0]
    before = len(llm.asked)
    assert describe(job(llm), tmp_path / "new").texts == found.texts
    assert len(llm.asked) == before


@pytest.mark.parametrize("stop", [0, 1, 2, 7, 14])
def test_what_was_ended_goes_on_to_the_same_file_and_asks_nothing_twice(tmp_path, stop):
    whole = Writer()
    describe(job(whole, "cupl", form="lines", samples=2), tmp_path / "whole")
    assert len(whole.asked) == 15
    broken = Writer(stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        describe(job(broken, "cupl", form="lines", samples=2), tmp_path / "broken")
    assert not (tmp_path / "broken" / "descriptions.json").exists()
    again = Writer()
    describe(job(again, "cupl", form="lines", samples=2), tmp_path / "broken")
    assert broken.asked + again.asked == whole.asked
    for name in ("descriptions.json", "answers.jsonl", "describe.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_answer_is_on_disk_before_the_next_is_asked(tmp_path):
    rows = []

    def say(asked, seed, row):
        path = tmp_path / "answers.jsonl"
        rows.append(len(path.read_text().splitlines()) if path.exists() else 0)
        return "- x"

    describe(job(Writer(say=say)), tmp_path)
    assert rows == [0, 1, 2]


def test_a_torn_last_line_is_asked_again(tmp_path):
    describe(job(Writer()), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    log = tmp_path / "torn" / "answers.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    (tmp_path / "torn" / "descriptions.json").unlink()
    llm = Writer()
    describe(job(llm), tmp_path / "torn")
    assert len(llm.asked) == 1
    assert (tmp_path / "torn" / "descriptions.json").read_bytes() == (
        tmp_path / "whole" / "descriptions.json"
    ).read_bytes()


def test_more_classes_may_come_and_nothing_else_may_change(tmp_path):
    describe(job(Writer()), tmp_path)
    more = Writer()
    found = describe(job(more, names=(*NAMES, "zebra")), tmp_path)
    assert (len(more.asked), list(found.texts)) == (1, [*NAMES, "zebra"])
    for changes, words in (({"samples": 2}, "samples was 1, is 2"), ({"temperature": 0.5}, r"temperature was 0\.0")):
        with pytest.raises(RunError, match=words):
            describe(job(Writer(), **changes), tmp_path)
    with pytest.raises(RunError, match="kind was dclip, is cupl"):
        describe(job(Writer(), "cupl"), tmp_path)


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    def say(asked, seed, row):
        with pytest.raises(RunError, match="another process writes descriptions here"):
            describe(job(Writer()), tmp_path)
        return "- x"

    describe(job(Writer(say=say)), tmp_path)
    describe(job(Writer(), names=("a",)), tmp_path)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "photo.png").write_text("x")
    with pytest.raises(RunError, match=r"holds other things: photo\.png"):
        describe(job(Writer()), tmp_path)


def test_a_class_without_a_text_is_empty_and_asked_again_another_time(tmp_path):
    found = describe(job(Writer(say=lambda asked, seed, row: "no idea" if "owl" in asked else "- x")), tmp_path)
    assert (found.texts["owl"], found.without) == ([], ["owl"])
    assert read_descriptions(tmp_path / "descriptions.json")["owl"] == ()
    again = Writer(say=lambda asked, seed, row: "- wings")
    assert describe(job(again), tmp_path).texts["owl"] == ["wings"]
    assert len(again.asked) == 1
    with pytest.raises(LLMError, match="no answer holds a text"):
        describe(job(Writer(say=lambda *_: "no idea")), tmp_path / "none")


def test_what_it_takes_at_most_is_told_before(tmp_path):
    llm = Writer()
    said = estimate(job(llm), tmp_path)
    assert said.startswith("3 questions to ask about 3 classes: about ")
    assert said.endswith("and up to 300 of answers")
    with pytest.raises(KeyboardInterrupt):
        describe(job(Writer(stop_after=2)), tmp_path)
    assert estimate(job(llm), tmp_path).startswith("2 questions answered, 1 question to ask about 3 classes")


def listed(request):
    """Two features about what the last question is about, in a reply with manners."""
    last = request["messages"][-1]["content"].rpartition("Q: ")[2]
    name = next(name for name in NAMES if name in last)
    return f"Here you are:\n\n- **colour**: {name} like\n- a tail.\n"


def server_job(server, kind="dclip", **changes):
    settings = LLMSettings(spec="openai:loopback", base_url=server.url, retries=1)
    llm = load_llm(settings, offline=True, form=kinds()[kind].form)
    assert isinstance(llm, OpenAILLM)
    chosen = kinds()[kind].model_copy(update=changes)
    return Describing(kind, chosen, llm, NAMES, seed=1, concurrency=2)


def test_a_server_is_asked_in_words_and_its_lists_are_read(tmp_path):
    with serving(listed) as server:
        found = describe(server_job(server), tmp_path)
    assert found.texts == {name: [f"colour: {name} like", "a tail"] for name in NAMES}
    assert len(server.requests) == 3
    assert not any("response_format" in request for request in server.requests)
    assert {request["temperature"] for request in server.requests} == {0.0}
    assert found.facts["usage"]["prompt_tokens"] > 30


def test_sentences_of_a_server_are_cut_at_their_stop_and_what_has_none_is_asked_again(tmp_path):
    def write(request):
        said = listed(request).split(": ")[-1].split(" like")[0]
        return f"A {said} is here. And more" if request["seed"] % 2 or len(server.requests) > 20 else "no stop"

    with serving(write) as server:
        found = describe(server_job(server, "cupl", samples=3), tmp_path)
    assert len(server.requests) > 45
    assert found.texts["owl"] == ["A owl is here."]


def test_a_server_that_fails_leaves_what_was_answered_and_is_gone_on_with(tmp_path):
    def fail(request):
        if "owl" in request["messages"][0]["content"]:
            raise ConnectionError
        return listed(request)

    with serving(fail) as server, pytest.raises(LLMError, match="no reply could be had"):
        describe(server_job(server), tmp_path)
    kept = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(kept) in (1, 2)
    with serving(listed) as server:
        found = describe(server_job(server), tmp_path)
    assert len(server.requests) == 3 - len(kept)
    assert list(found.texts) == list(NAMES)
    assert all(found.texts.values())


def test_the_command_writes_a_file_that_the_methods_read(common, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    with serving(lambda request: "- has a look\n- a small thing") as server:
        arguments = ["describe", *common[:2], "--llm", "openai:loopback", "--base-url", server.url]
        done = CliRunner().invoke(app, [*arguments, "--set", "llm.max_tokens=40", "--json"])
        assert done.exception is None, done.output
        assert {request["max_tokens"] for request in server.requests} == {40}
        assert {request["temperature"] for request in server.requests} == {0.0}
        again = CliRunner().invoke(app, [*arguments, "--set", "llm.max_tokens=40"])
        assert "4 questions answered, 0 questions to ask" in again.output
    file = json.loads(done.stdout)["file"]
    assert file == "descriptions/pictures-dclip-openai-loopback/descriptions.json"
    assert json.loads(Path(file).read_text()) == {
        name: ["has a look", "a small thing"] for name in ("blue", "green", "grey", "red")
    }
    for method in ("dclip", "cupl"):
        run = ["baseline", method, *map(str, common), "--set", f"descriptions={file}", "--out", method, "--json"]
        result = json.loads(CliRunner().invoke(app, run, catch_exceptions=False).stdout)
        assert list(result["predictors"]) == [method, f"{method}-swapped", f"{method}-scrambled", "waffle"]
        assert result["uses"] == ["llm_saw_class_names"]
        assert result["options"]["descriptions"] == str(tmp_path / file)
        assert result["figures"]["descriptions"]["texts"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind", "poem"], "poem"),
        (["--samples", "0"], "samples"),
        (["--shots", "3"], "shots"),
        (["--set", "search.steps=3"], "does not read"),
        (["--llm", "gtp-4o"], "unknown language model"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(common, tmp_path, monkeypatch, arguments, words):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["describe", *common[:2], "--offline", *arguments])
    assert done.exit_code != 0
    assert words in f"{done.output}{done.exception}"
    assert isinstance(done.exception, IpoError | SystemExit)
    assert not (tmp_path / "descriptions").exists()
