"""The OpenAI-compatible client against real sockets: what servers know, refuse, break, and how often it asks again."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from ipo.config import LLMSettings
from ipo.errors import ConfigError, LLMError, ModelError
from ipo.llm.base import Message
from ipo.llm.parse import read_prompt
from ipo.llm.server.chat import OpenAILLM
from tests.llm.server import FakeServer, Interrupting, serving

ASK = [Message("user", "Write a prompt. Answer in JSON.")]
SIDES = json.dumps({"before": "a photo of a", "after": "."})


@contextmanager
def client(url: str, **settings: Any) -> Iterator[OpenAILLM]:
    form, model = settings.pop("form", "sides"), settings.pop("model", "m")
    llm = OpenAILLM(model, LLMSettings(base_url=url, **{"retries": 0, "timeout": 5.0} | settings), form)
    try:
        yield llm
    finally:
        llm.close()


def completion(content: Any, reason: str = "stop", **usage: int) -> dict[str, Any]:
    counts = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15} | usage
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": reason, "message": message}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": counts}


def generate(llm: OpenAILLM, n: int = 1, seed: int = 1) -> list[Any]:
    return llm.generate(ASK, n, temperature=1.0, max_tokens=96, seed=seed)


@pytest.fixture
def httpserver(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    monkeypatch.setattr("time.sleep", lambda _: None)
    return httpserver


def test_server_that_honours_the_schema_is_asked_for_the_two_sides() -> None:
    with serving(lambda request: SIDES) as server, client(server.url) as llm:
        replies = generate(llm, n=3)
    assert [read_prompt(reply.text, reply.form).text for reply in replies] == ["a photo of a <CLASS>."] * 3
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert sorted(schema["required"]) == ["after", "before"]
    assert [reply.prompt_tokens for reply in replies] == [10, 10, 10]


def test_server_that_ignores_the_format_still_gives_checked_replies() -> None:
    texts = iter(["Sure! A photo of a cat.", f"Here you are:\n```json\n{SIDES}\n```"])
    with serving(lambda request: next(texts), "ignores") as server, client(server.url, retries=1) as llm:
        reply = generate(llm)[0]
    assert read_prompt(reply.text, reply.form).text == "a photo of a <CLASS>."
    assert reply.prompt_tokens == 20, "both tries were paid for"


def test_server_that_rejects_the_format_is_asked_in_words_and_that_is_remembered() -> None:
    with serving(lambda request: SIDES, "rejects") as server, client(server.url) as llm:
        generate(llm)
        assert ["response_format" in request for request in server.requests] == [True, True, False]
        generate(llm, n=4)
        assert not any("response_format" in request for request in server.requests[3:])
        assert len(server.requests) == 7


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        ({"message": "maximum context length is 10 tokens: 'max_tokens' or 'max_completion_tokens' is too large"}, 1),
        ({"message": "too many tokens", "code": "context_length_exceeded"}, 1),
        ({"message": "Invalid prompt: it was flagged"}, 2),
        ({"message": "it was flagged", "param": "messages"}, 2),
    ],
)
def test_a_refusal_that_is_not_about_the_format_changes_no_later_request(
    httpserver: HTTPServer, error: dict[str, Any], asked: int
) -> None:
    refused = json.dumps({"error": error})
    answers = iter([None, refused, *[None] * 5])
    got: list[dict[str, Any]] = []

    def handle(request: Request) -> Response:
        got.append(json.loads(request.data))
        answer = next(answers)
        return Response(
            answer or json.dumps(completion(SIDES)), 400 if answer else 200, content_type="application/json"
        )

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(handle)
    with client(httpserver.url_for("/v1"), concurrency=1) as llm:
        replies = generate(llm, n=4)
    assert [bool(reply.error) for reply in replies] == [False, asked == 1, False, False]
    formats = [request["response_format"]["type"] for request in got]
    assert formats == ["json_schema", "json_schema", *["json_object"] * (asked - 1), "json_schema", "json_schema"]
    assert all("max_tokens" in request for request in got)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "'response_format.type' must be 'json_object' or 'text'"}},
        {"error": {"message": "unsupported", "param": "response_format"}},
        {"detail": [{"loc": ["body", "response_format", "json_schema"], "msg": "extra fields"}]},
    ],
)
def test_a_refusal_that_names_the_format_is_remembered(httpserver: HTTPServer, body: dict[str, Any]) -> None:
    got: list[str] = []

    def handle(request: Request) -> Response:
        got.append(json.loads(request.data)["response_format"]["type"])
        status, answer = (400, body) if got[-1] == "json_schema" else (200, completion(SIDES))
        return Response(json.dumps(answer), status, content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(handle)
    with client(httpserver.url_for("/v1")) as llm:
        generate(llm, n=3)
    assert got == ["json_schema", *["json_object"] * 3]


def test_requests_of_a_step_have_seeds_of_their_own() -> None:
    with serving(lambda request: SIDES) as server, client(server.url) as llm:
        generate(llm, n=4, seed=2**31 - 2)
    assert len({request["seed"] for request in server.requests}) == 4
    assert all(0 <= request["seed"] < 2**31 for request in server.requests)


def refuse_option(httpserver: HTTPServer, option: str, message: str) -> list[dict[str, Any]]:
    """A server that refuses one option with HTTP 400, and the requests it got."""
    got: list[dict[str, Any]] = []

    def handle(request: Request) -> Response:
        got.append(json.loads(request.data))
        if option in got[-1]:
            return Response(json.dumps({"error": {"message": message}}), 400, content_type="application/json")
        return Response(json.dumps(completion(SIDES)), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(handle)
    return got


def test_reasoning_models_get_max_completion_tokens_with_room_to_think(httpserver: HTTPServer) -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    got = refuse_option(httpserver, "max_tokens", message)
    with client(httpserver.url_for("/v1")) as llm:
        assert generate(llm)[0].error is None
    assert got[-1]["max_completion_tokens"] > 1000
    assert "response_format" in got[-1]


@pytest.mark.parametrize("option", ["temperature", "seed", "top_p"])
def test_an_option_that_the_server_refuses_is_left_out(httpserver: HTTPServer, option: str) -> None:
    got = refuse_option(httpserver, option, f"Unsupported value: '{option}' does not support this")
    with client(httpserver.url_for("/v1"), top_p=0.9) as llm:
        assert generate(llm)[0].error is None
    assert "response_format" in got[-1]


BROKEN = {
    "html": ("<html>busy</html>", "text/html"),
    "choices null": (json.dumps(completion("x") | {"choices": None}), "application/json"),
    "choices empty": (json.dumps(completion("x") | {"choices": []}), "application/json"),
    "broken json": ('{"id": "1", "choices": [', "application/json"),
    "content null": (json.dumps(completion(None)), "application/json"),
    "content list": (json.dumps(completion([{"type": "text"}])), "application/json"),
    "message null": (json.dumps(completion("") | {"choices": [{"index": 0, "message": None}]}), "application/json"),
    "a list": ("[]", "application/json"),
    "null": ("null", "application/json"),
    "lone surrogate": ('{"choices": [{"message": {"content": "\\ud800"}}]', "application/json"),
    "filtered": (json.dumps(completion("x", "content_filter")), "application/json"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_a_recorded_error_and_never_a_crash(httpserver: HTTPServer, name: str) -> None:
    body, kind = BROKEN[name]
    good = json.dumps(completion(SIDES))
    httpserver.expect_ordered_request("/v1/chat/completions").respond_with_data(good, content_type="application/json")
    httpserver.expect_ordered_request("/v1/chat/completions").respond_with_data(body, content_type=kind)
    httpserver.expect_ordered_request("/v1/chat/completions").respond_with_data(good, content_type="application/json")
    with client(httpserver.url_for("/v1"), concurrency=1) as llm:
        first, broken, last = generate(llm, n=3)
    assert broken.error
    assert broken.text == ""
    assert (first.error, last.error) == (None, None)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": "9"}])
def test_tokens_that_the_server_does_not_count_are_estimated_and_told_once(
    httpserver: HTTPServer, caplog: pytest.LogCaptureFixture, usage: Any
) -> None:
    httpserver.expect_request("/v1/chat/completions").respond_with_json(completion(SIDES) | {"usage": usage})
    with client(httpserver.url_for("/v1")) as llm:
        replies = generate(llm, n=2)
        expected = (llm.token_count(ASK[0].content), llm.token_count(SIDES))
    assert [(reply.prompt_tokens, reply.completion_tokens) for reply in replies] == [expected] * 2
    assert all(expected)
    assert caplog.text.count("estimated") == 1


def test_a_cut_reply_says_so(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/chat/completions").respond_with_json(completion('{"before": "a ph', "length"))
    with client(httpserver.url_for("/v1")) as llm:
        assert generate(llm)[0].finish_reason == "length"


def test_busy_server_is_asked_again_by_the_transport(httpserver: HTTPServer) -> None:
    for status in (429, 503):
        httpserver.expect_ordered_request("/v1/chat/completions").respond_with_data("busy", status)
    httpserver.expect_ordered_request("/v1/chat/completions").respond_with_json(completion(SIDES))
    with client(httpserver.url_for("/v1"), retries=2) as llm:
        assert generate(llm)[0].error is None
    assert len(httpserver.log) == 3


@pytest.mark.parametrize(("retries", "requests"), [(0, 1), (2, 3)])
def test_replies_that_never_parse_are_asked_for_a_bounded_number_of_times(retries: int, requests: int) -> None:
    with serving(lambda request: "no idea") as server, client(server.url, retries=retries) as llm:
        reply = generate(llm)[0]
    assert (len(server.requests), reply.text) == (requests, "no idea")


def test_an_interrupt_does_not_wait_for_requests_in_flight() -> None:
    """It comes while the server still writes; no thread that is left over keeps the process alive."""
    write, before = Interrupting(SIDES), set(threading.enumerate())
    with serving(write) as server, client(server.url, timeout=30.0) as llm:
        generate(llm)
        with pytest.raises(KeyboardInterrupt):
            generate(llm, n=6)
        assert write.answered == 0
        assert all(thread.daemon for thread in set(threading.enumerate()) - before if thread.name != "server")
        write.release.set()


def test_forgotten_model_on_retry() -> None:
    """The reference falls back to a default model when it repeats a request."""
    with serving(lambda request: "no idea", "rejects") as server, client(server.url, retries=2) as llm:
        generate(llm, n=2)
    assert len(server.requests) > 4
    assert {request["model"] for request in server.requests} == {"m"}
    assert {request["temperature"] for request in server.requests} == {1.0}


def test_no_reply_at_all_is_an_error_with_a_remedy() -> None:
    with FakeServer(lambda request: SIDES) as server:
        closed = server.url
    with client(closed) as llm, pytest.raises(LLMError, match=r"no reply could be had: .*refused.*base_url"):
        generate(llm, n=2)


def test_a_server_that_dies_later_stops_the_step_and_a_single_failure_does_not(httpserver: HTTPServer) -> None:
    bodies = iter([200, 200, 500, 500, 500])
    httpserver.expect_request("/v1/chat/completions").respond_with_handler(
        lambda _: Response(json.dumps(completion(SIDES)), next(bodies), content_type="application/json")
    )
    with client(httpserver.url_for("/v1"), concurrency=1) as llm:
        assert [bool(reply.error) for reply in generate(llm, n=3)] == [False, False, True]
        with pytest.raises(LLMError):
            generate(llm, n=2)


def test_key_comes_from_the_environment_and_stays_out_of_messages(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    body = {"error": {"message": "Incorrect API key provided: sk-secret"}}
    httpserver.expect_request("/v1/chat/completions", headers={"Authorization": "Bearer sk-secret"}).respond_with_json(
        body, status=401
    )
    with client(httpserver.url_for("/v1")) as llm, pytest.raises(LLMError) as caught:
        generate(llm)
    assert "401" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " "])
def test_a_line_end_is_no_part_of_the_key(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-secret{end}")
    httpserver.expect_request("/v1/chat/completions", headers={"Authorization": "Bearer sk-secret"}).respond_with_json(
        completion(SIDES)
    )
    with client(httpserver.url_for("/v1")) as llm:
        assert generate(llm)[0].error is None


@pytest.mark.parametrize("key", ["sk–secret", "sk secret", "sk\nsecret"])
def test_a_key_that_no_header_can_hold_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds") as caught:
        OpenAILLM("m", LLMSettings(base_url="http://127.0.0.1:1/v1"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("by", ["settings", "environment"])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost:8000/v1", r"begins with http:// or https://.*localhost:8000/v1.*Write it like"),
        ("http://localhost:port/v1", "begins with http"),
        ("http://user:pa55word@localhost:1/v1", r"no user, password or key.*localhost:1.*OPENAI_API_KEY"),
        ("http://localhost:1/v1?key=pa55word", r"no user, password or key.*localhost:1.*OPENAI_API_KEY"),
        ("user:pa55word@localhost/v1", "begins with http"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_an_error_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, by: str, address: str, words: str
) -> None:
    if by == "environment":
        monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(ConfigError, match=words) as caught:
        OpenAILLM("m", LLMSettings(base_url=address) if by == "settings" else LLMSettings())
    assert "pa55word" not in str(caught.value)


def test_without_key_and_server_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        OpenAILLM("gpt-4o-mini", LLMSettings())


def test_name_tells_model_and_server_and_auto_takes_the_servers_own_model() -> None:
    with serving(lambda request: SIDES) as server:
        llm = OpenAILLM("auto", LLMSettings(base_url=server.url))
        llm.close()
    assert llm.name == f"openai:loopback at {server.url}"


def test_auto_without_a_server_fails_at_once_and_says_what_to_do() -> None:
    with FakeServer(lambda request: SIDES) as server:
        closed = server.url
    with pytest.raises(ModelError, match="Start it"):
        OpenAILLM("auto", LLMSettings(base_url=closed, retries=0))
