"""What servers answer: odd shapes, their own words, thoughts that take all the room, counts that cannot be."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from ipo.captions.api import ApiDescriber
from ipo.config import LLMSettings
from ipo.errors import ConfigError, LLMError
from ipo.llm.base import Message
from ipo.llm.load import load_llm
from ipo.llm.parse import read_prompt
from ipo.llm.server.answer import own_words, read_answer
from ipo.llm.server.chat import OpenAILLM
from ipo.llm.server.dialect import THINKING_TOKENS
from ipo.store.files import append_rows, read_rows
from tests.clip.picture_clip import draw_pictures
from tests.llm.raw_server import RawServer, head, raw_serving
from tests.llm.server import serving
from tests.llm.test_openai_api import SIDES, client, completion, generate


def with_choices(choices: Any) -> bytes:
    return json.dumps(completion("") | {"choices": choices}).encode()


def with_message(message: Any) -> bytes:
    return with_choices([{"index": 0, "finish_reason": "stop", "message": message}])


NO_COMPLETIONS = {
    "choices a dict": with_choices({"0": {"message": {"content": SIDES}}}),
    "choices a text": with_choices(SIDES),
    "choices a number": with_choices(1),
    "choices true": with_choices(True),
    "a choice that is a text": with_choices([SIDES]),
    "a choice that is none": with_choices([None]),
    "a choice that is a list": with_choices([[{"message": {"content": SIDES}}]]),
    "a message that is a text": with_message(SIDES),
    "a message that is a list": with_message([{"content": SIDES}]),
    "a message that is a number": with_message(0),
    "nested 10,000 deep": b'{"choices": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "objects 10,000 deep": b'{"choices": ' * 10_000,
    "a text": json.dumps(SIDES).encode(),
    "a number without end": b"1" * 10_000,
    "not a number": b"NaN",
    "nothing": b"",
    "bytes": bytes(range(256)),
    "utf-16": json.dumps(completion(SIDES)).encode("utf-16"),
}
NO_TEXTS = {
    "too long": with_message({"content": "<think>" * 50_000}),
    "message none": with_message(None),
    "content none": with_message({"content": None}),
    "content a number": with_message({"content": 5}),
    "content an object": with_message({"content": {"text": SIDES}}),
    "content of pictures": with_message({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
    "content nested": with_message({"content": [[[[SIDES]]]]}),
    "content deep": b'{"choices": [{"message": {"content": ' + b"[" * 900 + b"]" * 900 + b"}}]}",
    "reason deep": b'{"choices": [{"finish_reason": ' + b"[" * 900 + b"]" * 900 + b"}]}",
    "a tool": with_message({"content": None, "tool_calls": [{"function": {"arguments": SIDES}}]}),
    "thoughts alone": with_message({"content": None, "reasoning_content": f"Perhaps {SIDES}"}),
    "refusal": with_message({"content": None, "refusal": "I cannot help\nwith that."}),
    "lone surrogate in a refusal": b'{"choices": [{"message": {"content": null, "refusal": "No \\ud83d that."}}]}',
    "refusal a list": with_message({"content": None, "refusal": [1]}),
}


@pytest.mark.parametrize("name", [*NO_COMPLETIONS, *NO_TEXTS])
def test_an_answer_of_an_odd_shape_is_one_failed_reply_that_can_be_written(name: str, tmp_path: Path) -> None:
    odd = (NO_COMPLETIONS | NO_TEXTS)[name]
    good = json.dumps(completion(SIDES)).encode()
    bodies = [good, odd, good]
    with raw_serving(lambda number: [head() + bodies[number]]) as server, client(server.url, concurrency=1) as llm:
        replies = generate(llm, n=3)
    assert [reply.error is None for reply in replies] == [True, False, True]
    assert replies[1].text == ""
    assert "\n" not in replies[1].error
    append_rows(tmp_path / "log", [{"error": reply.error} for reply in replies])
    assert read_rows(tmp_path / "log")[1]["error"] == replies[1].error


@pytest.mark.parametrize("name", [*NO_COMPLETIONS, *NO_TEXTS])
def test_captions_of_an_odd_shape_are_none_or_an_error(name: str, tmp_path: Path) -> None:
    paths = [item.path for item in draw_pictures(tmp_path, 1)]
    with raw_serving(lambda _: [head() + (NO_COMPLETIONS | NO_TEXTS)[name]]) as server:
        describer = ApiDescriber("lmm", server.url)
        if name in NO_COMPLETIONS:
            with pytest.raises(LLMError, match="no chat completion"):
                list(describer.describe(paths))
        else:
            ((_, said),) = describer.describe(paths)
            assert said == "" or isinstance(said, LLMError)


PARTS = {
    "text parts": [{"type": "text", "text": SIDES[:9]}, {"type": "text", "text": SIDES[9:]}],
    "texts": [SIDES[:9], SIDES[9:]],
    "without a type": [{"text": SIDES}],
    "after thoughts": [
        {"type": "thinking", "thinking": [{"type": "text", "text": f"Perhaps {SIDES.replace('photo', 'drawing')}"}]},
        {"type": "text", "text": SIDES},
    ],
    "after reasoning": [{"type": "reasoning", "text": "{"}, {"type": "output_text", "text": SIDES}],
    "among others": [None, 5, {"type": "image"}, {"type": "text", "text": None}, {"type": "text", "text": SIDES}],
}


@pytest.mark.parametrize("name", PARTS)
def test_content_in_parts_is_read_and_thoughts_are_no_part_of_it(name: str) -> None:
    with raw_serving(lambda _: [head() + with_message({"content": PARTS[name]})]) as server, client(server.url) as llm:
        reply = generate(llm)[0]
    assert read_prompt(reply.text, reply.form).text == "a photo of a <CLASS>."


def test_a_raw_line_break_inside_the_json_of_a_server_or_a_reply_does_no_harm() -> None:
    body = json.dumps(completion('{"before": "a photo\nof a", "after": "."}')).replace("\\n", "\n").encode()
    with raw_serving(lambda _: [head() + body]) as server, client(server.url) as llm:
        reply = generate(llm)[0]
    assert read_prompt(reply.text, reply.form).text == "a photo of a <CLASS>."


OWN_WORDS = {
    "error": (json.dumps({"error": {"message": "the model is loading", "code": 7}}), "the model is loading"),
    "error a text": (json.dumps({"error": "the model is loading"}), "the model is loading"),
    "detail": (json.dumps({"detail": [{"loc": ["body"], "msg": "the model is loading"}]}), "the model is loading"),
    "message": (json.dumps({"object": "error", "message": "the model is loading"}), "the model is loading"),
    "a list": (json.dumps([{"error": {"message": "the model is loading"}}]), "the model is loading"),
    "events": ('data: {"error": {"message": "the model is loading"}}\n\n', "event stream.*the model is loading"),
    "chunks": (f"data: {json.dumps({'choices': [{'delta': {'content': 'the'}}]})}\n\ndata: [DONE]\n", "event stream"),
    "html": ("<html><head><title>Bad\ngateway</title><body>x", "page of HTML: Bad gateway"),
    "html without a title": ("<html><body><h1>Please log in</h1>", "page of HTML: Please log in"),
    "text": ("upstream\nis\x1b[31m gone", re.escape("upstream is[31m gone")),
    "nothing": ("", "empty"),
    "other json": (json.dumps({"status": "busy"}), '"status": "busy"'),
    "surrogates": ('{"error": "lone \\ud800 one"}', "lone . one"),
    "deep": ('{"error": ' + "[" * 500 + "]" * 500 + "}", "error"),
    "very deep": ('{"error": ' * 9000, "error"),
}


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Internal Server Error", "418 Teapot"])
@pytest.mark.parametrize("name", OWN_WORDS)
def test_a_servers_own_words_are_in_the_message(name: str, status: str) -> None:
    body, words = OWN_WORDS[name]
    with (
        raw_serving(lambda _: [head(status, kind="text/plain; charset=idna") + body.encode()]) as server,
        client(server.url, response_format="none") as llm,
        pytest.raises(LLMError, match=words) as caught,
    ):
        generate(llm)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 700
    if status[0] != "2":
        assert f"HTTP {status[:3]}" in str(caught.value)


@pytest.mark.parametrize("place", [0, 270, 297])
def test_no_part_of_a_key_is_shown_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-some-length")
    words = f"{'x' * place}a-key-of-some-length"
    for body in (json.dumps({"error": words}), words, f"<title>{words}</title>", f"data: {words}"):
        answer = [head() + body.encode()]
        with (
            raw_serving(lambda _, answer=answer: answer) as server,  # type: ignore[misc]
            client(server.url) as llm,
            pytest.raises(LLMError) as caught,
        ):
            generate(llm)
        assert "a-k" not in str(caught.value)


def test_a_key_that_is_a_common_word_garbles_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "photo")
    with serving(lambda request: SIDES) as server, client(server.url) as llm:
        assert generate(llm)[0].text == SIDES


@pytest.mark.parametrize("size", [256_000, 3_000_000])
def test_reading_a_body_takes_no_time_that_grows_faster_than_the_body(size: int) -> None:
    for piece in ("<", "<a", "data:", "data: {", '{"error":', "[", '"', "\\", "<title>", " ", "\n", "\ud7ff"):
        body = (piece * (size // len(piece))).encode()
        started = time.process_time()
        read_answer(body)
        own_words(body)
        assert time.process_time() - started < 2, piece


# Thoughts that take the room.


class Thinker:
    """A reasoning model: thinks for so many tokens, then answers; cut where the limit is lower."""

    def __init__(self, tokens: int, shown: str, name: str = "max_tokens") -> None:
        self.tokens, self.shown, self.name = tokens, shown, name
        self.server: RawServer

    def __call__(self, number: int) -> list[bytes]:
        limit = self.server.requests[number][self.name]
        cut, thoughts = limit < self.tokens, f"Perhaps {SIDES.replace('photo', 'drawing')}"
        message: dict[str, Any] = {"content": None if cut else SIDES}
        if self.shown == "field":
            message["reasoning_content"] = thoughts
        elif self.shown == "text":
            message["content"] = f"<think>{thoughts}" + ("" if cut else f"</think>{SIDES}")
        elif self.shown == "harmony":
            end = f"<|end|><|start|>assistant<|channel|>final<|message|>{SIDES}"
            message["content"] = f"<|channel|>analysis<|message|>{thoughts}" + ("" if cut else end)
        elif self.shown == "unmarked":
            message["content"] = "Okay, let me think." + ("" if cut else f" {thoughts}</think>{SIDES}")
        elif self.shown == "half an answer":
            message["content"] = f"<think>{thoughts}</think>" + (SIDES[:9] if cut else SIDES)
        reason, said = "length" if cut else "stop", min(limit, self.tokens)
        choice = {"index": 0, "finish_reason": reason, "message": message}
        usage = {"prompt_tokens": 8, "completion_tokens": said}
        return [head() + json.dumps({"choices": [choice], "usage": usage}).encode()]


def asked_for(thinker: Thinker, n: int, **settings: Any) -> tuple[list[Any], list[int]]:
    """The replies, and the token limits of the requests."""
    with raw_serving(thinker) as server, client(server.url, concurrency=1, **settings) as llm:
        thinker.server = server
        return generate(llm, n=n), [request[thinker.name] for request in server.requests]


@pytest.mark.parametrize("shown", ["field", "text", "harmony", "hidden", "half an answer"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_model_that_thinks_is_given_room_and_the_room_is_remembered(shown: str, level: int) -> None:
    replies, limits = asked_for(Thinker(THINKING_TOKENS[level], shown), 3)
    assert [read_prompt(reply.text, reply.form).text for reply in replies] == ["a photo of a <CLASS>."] * 3
    assert limits == [96 + tokens for tokens in (*THINKING_TOKENS[: level + 1], *[THINKING_TOKENS[level]] * 2)]
    assert replies[0].completion_tokens == sum(limits[:level]) + THINKING_TOKENS[level], "all tries were paid for"


def test_thoughts_whose_first_mark_the_template_took_are_found_out() -> None:
    replies, limits = asked_for(Thinker(3000, "unmarked"), 3)
    assert [read_prompt(reply.text, reply.form).text for reply in replies] == ["a photo of a <CLASS>."] * 3
    assert limits == [96, 4192, 4192, 4192]


def test_a_model_that_rambles_is_given_room_once_and_never_again() -> None:
    def ramble(_: int) -> list[bytes]:
        return [head() + json.dumps(completion("Well, photos are nice, and", "length")).encode()]

    with raw_serving(ramble) as server, client(server.url, concurrency=1) as llm:
        assert [reply.finish_reason for reply in generate(llm, n=4)] == ["length"] * 4
    assert [request["max_tokens"] for request in server.requests] == [96, 4192, 96, 96, 96]


@pytest.mark.parametrize("shown", ["field", "text", "harmony", "hidden"])
def test_thoughts_without_end_are_an_error_with_the_setting_that_helps(shown: str) -> None:
    thinker = Thinker(10**6, shown)
    with pytest.raises(LLMError, match=r"thoughts took all 16480 tokens.*--set llm\.max_tokens") as caught:
        asked_for(thinker, 2, retries=2)
    assert "OPENAI_API_KEY" not in str(caught.value)
    assert len(thinker.server.requests) == len(THINKING_TOKENS)


def test_a_server_that_allows_less_room_is_not_asked_for_it_again() -> None:
    thinker = Thinker(10**6, "field")

    def answer(number: int) -> list[bytes]:
        if thinker.server.requests[number]["max_tokens"] > 2000:
            refusal = {"error": {"message": "This model's maximum context length is 2048 tokens"}}
            return [head("400 Bad Request") + json.dumps(refusal).encode()]
        return thinker(number)

    with raw_serving(answer) as server, client(server.url, concurrency=1) as llm:
        thinker.server = server
        with pytest.raises(LLMError, match=r"thoughts took all 1120 tokens"):
            generate(llm)
        limits = [request["max_tokens"] for request in server.requests]
        assert limits == [96, 1120, 4192, 1120]


def test_a_model_whose_thoughts_the_first_dialect_knows_is_given_more_room_too() -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    thinker = Thinker(10_000, "hidden", "max_completion_tokens")

    def answer(number: int) -> list[bytes]:
        if "max_tokens" in thinker.server.requests[number]:
            return [head("400 Bad Request") + json.dumps({"error": {"message": message}}).encode()]
        return thinker(number)

    with raw_serving(answer) as server, client(server.url) as llm:
        thinker.server = server
        assert read_prompt(generate(llm)[0].text, "sides").text == "a photo of a <CLASS>."
    assert [request.get("max_completion_tokens") for request in server.requests] == [None, 4192, 16480]


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_a_cut_is_known_by_every_name(reason: str) -> None:
    body = json.dumps(completion('{"before": "a ph', reason)).encode()
    with raw_serving(lambda _: [head() + body]) as server, client(server.url) as llm:
        assert generate(llm)[0].finish_reason == "length"


def test_captions_are_told_from_thoughts(tmp_path: Path) -> None:
    paths = [item.path for item in draw_pictures(tmp_path, 3)]
    texts = ["<think>What is it?</think>A cat.", "<think>What is", ""]
    answers: list[dict[str, Any]] = [{"content": text} for text in texts]
    answers[2] = {"content": None, "reasoning": "What is it?"}
    with raw_serving(lambda number: [head() + with_message(answers[number])]) as server:
        describer = ApiDescriber("lmm", server.url)
        said = [next(iter(describer.describe([path])))[1] for path in paths]
    assert said[0] == "A cat."
    assert all(isinstance(one, LLMError) and "thoughts" in str(one) for one in said[1:])


# Formats that break a server.


@pytest.mark.parametrize(("breaks", "formats"), [(("json_schema",), 2), (("json_schema", "json_object"), 3)])
def test_a_server_that_breaks_down_at_a_format_is_asked_without_it(
    breaks: tuple[str, ...], formats: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server: RawServer

    def answer(number: int) -> list[bytes]:
        kind = server.requests[number].get("response_format", {}).get("type")
        if kind in breaks:
            return [head("500 Internal Server Error") + b'{"error": "EngineCore died"}']
        return [head() + json.dumps(completion(SIDES)).encode()]

    with raw_serving(answer) as server, client(server.url, retries=1, concurrency=1) as llm:
        assert [reply.error for reply in generate(llm, n=3)] == [None] * 3
        kinds = [request.get("response_format", {}).get("type") for request in server.requests]
    left = ["json_schema", "json_object", None][formats - 1]
    assert kinds == [kind for kind in ("json_schema", "json_object")[: formats - 1] for _ in range(2)] + [
        left,
        *["json_schema"] * 2,
        left,
        left,
    ]
    assert "breaks down where JSON is asked for" in caplog.text


def test_a_server_that_breaks_down_whatever_it_is_asked_is_an_error_with_its_words() -> None:
    with (
        raw_serving(lambda _: [head("500 Internal Server Error") + b'{"error": "out of memory"}']) as server,
        client(server.url) as llm,
        pytest.raises(LLMError, match="HTTP 500: out of memory"),
    ):
        generate(llm)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("setting", "sent"), [("schema", "json_schema"), ("object", "json_object"), ("none", None), ("auto", "json_schema")]
)
def test_the_format_can_be_set(setting: str, sent: str | None) -> None:
    with serving(lambda request: SIDES) as server, client(server.url, response_format=setting) as llm:
        generate(llm)
    assert server.requests[0].get("response_format", {}).get("type") == sent


def test_a_format_that_is_set_is_not_given_up() -> None:
    with (
        serving(lambda request: SIDES, "rejects") as server,
        client(server.url, response_format="schema") as llm,
        pytest.raises(LLMError, match="HTTP 400"),
    ):
        generate(llm)
    assert len(server.requests) == 1


def test_a_format_where_there_is_none_is_an_error() -> None:
    with (
        pytest.raises(ConfigError, match="form 'free'"),
        client("http://127.0.0.1:1/v1", form="free", response_format="schema"),
    ):
        pass
    with pytest.raises(ConfigError, match=r"llm\.response_format"):
        load_llm(LLMSettings(spec="local-llama", response_format="none"), offline=True)


# Counts that cannot be.

LONG_ASK = [Message("user", "Write a prompt for CLIP. " * 100)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (-5, 5), (1, 10), (10**9, 10), (10**40, 10), (600, -1), (600, 0), (600, 10**6), (True, True), (600.5, 10),
        ("600", "10"), (float("nan"), 10), (float("inf"), 10), (None, 10), ([600], 10), (600, {"a": 1}),
    ],
)  # fmt: skip
def test_counts_that_cannot_be_are_estimated(asked: Any, said: Any, caplog: pytest.LogCaptureFixture) -> None:
    body = completion(SIDES) | {"usage": {"prompt_tokens": asked, "completion_tokens": said}}
    with raw_serving(lambda _: [head() + json.dumps(body).encode()]) as server, client(server.url) as llm:
        (reply,) = llm.generate(LONG_ASK, 1, 1.0, 96, 1)
        assert reply.prompt_tokens == llm.token_count(LONG_ASK[0].content) == 625
        assert reply.completion_tokens == llm.token_count(SIDES)
    assert caplog.text.count("estimated") == 1


@pytest.mark.parametrize(("asked", "said"), [(500, 11), (700, 9), (4000, 96), (625, 3)])
def test_counts_that_can_be_are_believed(asked: int, said: int) -> None:
    body = completion(SIDES) | {"usage": {"prompt_tokens": asked, "completion_tokens": said}}
    with raw_serving(lambda _: [head() + json.dumps(body).encode()]) as server, client(server.url) as llm:
        (reply,) = llm.generate(LONG_ASK, 1, 1.0, 96, 1)
    assert (reply.prompt_tokens, reply.completion_tokens) == (asked, said)


@pytest.mark.parametrize("usage", [5, "x", [1], {"prompt_tokens": {}}, {"prompt_tokens": 10}])
def test_usage_of_an_odd_shape_is_none(usage: Any) -> None:
    body = completion(SIDES) | {"usage": usage}
    with raw_serving(lambda _: [head() + json.dumps(body).encode()]) as server, client(server.url) as llm:
        assert generate(llm)[0].prompt_tokens == llm.token_count("Write a prompt. Answer in JSON.")


def test_captions_cannot_be_counted_away(tmp_path: Path) -> None:
    paths = [item.path for item in draw_pictures(tmp_path, 1)]
    body = completion("a cat") | {"usage": {"prompt_tokens": -1000, "completion_tokens": -1000}}
    with raw_serving(lambda _: [head() + json.dumps(body).encode()]) as server:
        describer = ApiDescriber("lmm", server.url)
        list(describer.describe(paths))
    assert describer.spent.prompt_tokens > 255
    assert describer.spent.completion_tokens == 2


@pytest.mark.parametrize("text", ["\\ud800", 'a \\udfff {\\"before\\": \\"a\\", \\"after\\": \\".\\"}'])
def test_halves_of_characters_in_a_reply_are_question_marks(text: str, tmp_path: Path) -> None:
    body = f'{{"choices": [{{"message": {{"content": "{text}"}}}}]}}'.encode()
    with raw_serving(lambda _: [head() + body]) as server, client(server.url) as llm:
        reply = generate(llm)[0]
    assert reply.text.startswith(("?", "a ?"))
    append_rows(tmp_path / "log", [{"text": reply.text}])


def test_the_real_client_is_the_sdks() -> None:
    import openai

    with serving(lambda request: SIDES) as server, client(server.url) as llm:
        assert isinstance(llm, OpenAILLM)
        assert isinstance(llm.client, openai.OpenAI)


# What goes wrong on the way, and what to do about it.


def failure_of(status: str, body: bytes = b"{}", retries: int = 0) -> str:
    """What is said where a server always answers so."""
    with (
        raw_serving(lambda _: [head(status, "X-Should-Retry: false") + body]) as server,
        client(server.url, response_format="none", retries=retries) as llm,
        pytest.raises(LLMError) as caught,
    ):
        generate(llm)
    return str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("401 Unauthorized", "Check OPENAI_API_KEY"),
        ("402 Payment Required", "balance of the account"),
        ("404 Not Found", "ends in /v1"),
        ("408 Request Timeout", "Wait a while"),
        ("429 Too Many Requests", "limits and the balance"),
        ("500 Internal Server Error", "server's log"),
        ("503 Service Unavailable", "Wait a while"),
        ("529 Overloaded", "Wait a while"),
    ],
)
def test_the_advice_fits_what_a_server_refuses_for(status: str, advice: str) -> None:
    said = failure_of(status)
    assert advice in said
    assert ("OPENAI_API_KEY" in said) == status.startswith("401"), "the key is not at fault"


def test_where_nobody_answers_the_advice_is_about_the_server_and_not_the_key() -> None:
    with client("http://127.0.0.1:1/v1") as llm, pytest.raises(LLMError, match="whether the server runs") as caught:
        generate(llm)
    assert "OPENAI_API_KEY" not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "I cannot help."},
        {"content": None, "tool_calls": [{"function": {"arguments": SIDES}}]},
    ],
)
def test_a_model_that_gives_no_text_is_not_a_wrong_address(message: Any) -> None:
    said = failure_of("200 OK", with_message(message))
    assert "/v1," not in said
    assert "Ask another model" in said


@pytest.mark.parametrize("text", ["", '{"before": "a photo', SIDES])
@pytest.mark.parametrize("inside", [True, False])
def test_an_error_beside_a_text_is_an_error_in_the_servers_words(text: str, inside: bool) -> None:
    error = {"error": {"message": "the provider died", "code": 502}}
    choice = {"finish_reason": "error", "message": {"content": text}} | (error if inside else {})
    said = failure_of("200 OK", json.dumps({"choices": [choice]} | ({} if inside else error)).encode())
    assert "broke off: the provider died" in said


@pytest.mark.parametrize("place", [0, 270, 290, 297])
def test_no_part_of_a_key_is_shown_or_kept_where_a_completion_holds_it(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-some-length")
    words = f"{'x' * place}a-key-of-some-length"
    assert "a-k" not in failure_of("200 OK", with_message({"content": None, "refusal": words}))
    assert "a-k" not in failure_of("200 OK", with_choices([{"error": words, "message": {}}]))
    body = with_message({"content": words})
    with raw_serving(lambda _: [head() + body]) as server, client(server.url) as llm:
        assert generate(llm)[0].text == "x" * place + "***"


def test_a_page_of_html_is_no_server_that_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    failure_of("200 OK", b"<title>Log in</title>")
    assert "count" not in caplog.text


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "529 Overloaded"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_server_that_breaks_down_for_a_moment_is_asked_by_schema_all_the_same(
    status: str, retries: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    def answer(number: int) -> list[bytes]:
        return [head(status) + b"busy" if number <= retries else head() + json.dumps(completion(SIDES)).encode()]

    with raw_serving(answer) as server, client(server.url, retries=retries, concurrency=1) as llm:
        replies = generate(llm, n=3)
        kinds = [request.get("response_format", {}).get("type") for request in server.requests]
    assert [(reply.error, reply.text) for reply in replies] == [(None, SIDES)] * 3
    assert kinds == ["json_schema"] * (retries + 1) + ["json_object"] + ["json_schema"] * 3
    assert replies[0].completion_tokens == 2 * replies[1].completion_tokens, "the answer that was asked for to be sure"
    assert "breaks down" not in caplog.text


def test_a_server_that_says_that_it_breaks_down_at_the_schema_is_believed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    def answer(number: int) -> list[bytes]:
        if server.requests[number].get("response_format", {}).get("type") == "json_schema":
            return [head("500 Internal Server Error") + b'{"error": "no grammar for this json_schema"}']
        return [head() + json.dumps(completion(SIDES)).encode()]

    with raw_serving(answer) as server, client(server.url, retries=0, concurrency=1) as llm:
        generate(llm, n=2)
        kinds = [request.get("response_format", {}).get("type") for request in server.requests]
    assert kinds == ["json_schema", "json_object", "json_object"]


def test_a_server_that_is_busy_when_it_is_asked_again_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    bodies = [head("503 Busy"), head() + json.dumps(completion(SIDES)).encode(), head("429 Too Many Requests")]

    def answer(number: int) -> list[bytes]:
        return [bodies[number] if number < 3 else bodies[1]]

    with raw_serving(answer) as server, client(server.url, retries=0, concurrency=1) as llm:
        assert [reply.error for reply in generate(llm, n=2)] == [None, None]
        kinds = [request.get("response_format", {}).get("type") for request in server.requests]
    assert kinds == ["json_schema", "json_object", "json_schema", "json_schema"]


LONG = "9" * 5000


@pytest.mark.parametrize("more", [f'"created": {LONG}', f'"n": -{LONG}', f'"x": {{"y": [{LONG}]}}', f'"z": 1e{LONG}'])
def test_a_number_of_thousands_of_digits_loses_no_answer(more: str) -> None:
    body = f"{json.dumps(completion(SIDES))[:-1]}, {more}}}"
    assert read_answer(body.encode()).text == SIDES
    assert own_words(f'{{"error": "no room", {more}}}'.encode()) == "no room"
    assert read_prompt(f"{SIDES[:-1]}, {more}}}", "sides") == read_prompt(SIDES, "sides")


def test_tokens_of_thousands_of_digits_are_not_believed() -> None:
    body = json.dumps(completion(SIDES, prompt_tokens=7, completion_tokens=8)).replace("7", LONG).encode()
    with raw_serving(lambda _: [head() + body]) as server, client(server.url) as llm:
        [reply] = generate(llm)
    assert reply.text == SIDES
    assert 0 < reply.prompt_tokens < 10**6
