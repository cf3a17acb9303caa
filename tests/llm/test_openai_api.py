"""The OpenAI-compatible client against real sockets: what servers know, refuse, break, and how often it asks again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from ipo.config import LLMSettings
from ipo.errors import LLMError, ModelError
from ipo.llm.base import Message
from ipo.llm.openai_api import OpenAILLM
from ipo.llm.parse import read_prompt
from tests.llm.server import FakeServer, serving

ASK = [Message("user", "Write a prompt. Answer in JSON.")]
SIDES = json.dumps({"before": "a photo of a", "after": "."})


@contextmanager
def client(url: str, **settings: Any) -> Iterator[OpenAILLM]:
    form = settings.pop("form", "sides")
    llm = OpenAILLM("m", LLMSettings(base_url=url, **{"retries": 0, "timeout": 5.0} | settings), form)
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


def test_usage_may_be_missing(httpserver: HTTPServer) -> None:
    body = completion(SIDES) | {"usage": None}
    httpserver.expect_request("/v1/chat/completions").respond_with_json(body)
    with client(httpserver.url_for("/v1")) as llm:
        reply = generate(llm)[0]
    assert (reply.error, reply.prompt_tokens, reply.completion_tokens) == (None, 0, 0)


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
    with client(closed) as llm, pytest.raises(LLMError, match=r"no reply could be had.*base_url"):
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
