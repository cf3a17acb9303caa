"""No server holds a request up or floods it: seconds, bytes, redirects and proxies."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipo.captions.api import ApiDescriber
from ipo.errors import ConfigError, LLMError, ModelError
from ipo.llm.server.limits import MAX_BYTES
from tests.clip.picture_clip import draw_pictures
from tests.llm.raw_server import head, raw_serving
from tests.llm.server import serving
from tests.llm.test_openai_api import SIDES, client, completion, generate

GOOD = json.dumps(completion(SIDES)).encode()


def drip_body(_: int) -> Iterator[bytes]:
    yield head()
    while True:
        time.sleep(0.05)
        yield b" "


def drip_head(_: int) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX: "
    while True:
        time.sleep(0.05)
        yield b"x"


def hundred_continues(_: int) -> Iterator[bytes]:
    while True:
        time.sleep(0.05)
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def drip_error(_: int) -> Iterator[bytes]:
    yield head("500 Internal Server Error")
    while True:
        time.sleep(0.05)
        yield b" "


@pytest.mark.parametrize("answer", [drip_body, drip_head, hundred_continues, drip_error])
def test_a_server_that_drips_is_given_up_when_its_time_is_over(answer) -> None:
    with raw_serving(answer) as server, client(server.url, timeout=0.4) as llm:
        started = time.monotonic()
        with pytest.raises(LLMError, match=r"0\.4 seconds.*Raise llm\.timeout"):
            generate(llm)
        assert time.monotonic() - started < 5
    assert len(server.requests) == 1


def test_the_time_bounds_each_try_and_a_later_one_may_be_in_time() -> None:
    with (
        raw_serving(lambda number: drip_body(number) if number == 0 else [head() + GOOD]) as server,
        client(server.url, timeout=0.4, retries=1) as llm,
    ):
        assert generate(llm)[0].error is None
    assert len(server.requests) == 2


def test_a_request_that_is_given_up_leaves_no_thread_reading() -> None:
    before = threading.active_count()
    with raw_serving(drip_body) as server, client(server.url, timeout=0.2) as llm:
        with pytest.raises(LLMError):
            generate(llm)
        for _ in range(50):
            if threading.active_count() <= before + 2:  # the server's own two
                break
            time.sleep(0.02)
        assert threading.active_count() <= before + 2


def endless(_: int) -> Iterator[bytes]:
    yield head()
    while True:
        yield b" " * 65536


def bomb(_: int) -> Iterator[bytes]:
    yield head("200 OK", "Content-Encoding: gzip") + gzip.compress(bytes(50 * MAX_BYTES), 1)


def bomb_of_bombs(_: int) -> Iterator[bytes]:
    packed = gzip.compress(gzip.compress(bytes(50 * MAX_BYTES)))
    yield head("200 OK", "Content-Encoding: gzip, gzip") + packed


@pytest.mark.parametrize("answer", [endless, bomb, bomb_of_bombs])
def test_an_answer_without_end_is_not_read_to_its_end_and_not_asked_for_again(answer) -> None:
    with raw_serving(answer) as server, client(server.url, timeout=20.0, retries=3) as llm:
        started = time.process_time()
        with pytest.raises(LLMError, match=r"longer than 4 MB"):
            generate(llm)
        assert time.process_time() - started < 10
    assert len(server.requests) == 1


def test_packed_answers_are_unpacked_and_broken_ones_are_errors() -> None:
    packed = gzip.compress(GOOD)
    bodies = [packed, packed[:-20] + b"x" * 20]
    with (
        raw_serving(lambda number: [head("200 OK", "Content-Encoding: gzip") + bodies[number]]) as server,
        client(server.url) as llm,
    ):
        assert generate(llm)[0].error is None
        with pytest.raises(LLMError, match="no reply could be had"):
            generate(llm)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other"])
def test_a_redirect_that_would_turn_the_question_into_a_page_is_named_and_not_followed(status: str) -> None:
    with serving(lambda request: SIDES) as other:
        place = f"{other.url}/chat/completions"
        secret = place.replace("//", "//me:pa55word@") + "?key=pa55word"
        with (
            raw_serving(lambda _: [head(status, f"Location: {secret}", "Content-Length: 0")]) as server,
            client(server.url, retries=2) as llm,
            pytest.raises(LLMError, match=rf"redirects to '{place}'.*llm\.base_url") as caught,
        ):
            generate(llm)
        assert other.requests == []
    assert "pa55word" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_that_keeps_the_question_is_followed(status: str) -> None:
    with serving(lambda request: SIDES) as other:
        place = f"Location: {other.url}/chat/completions"
        with (
            raw_serving(lambda _: [head(status, place, "Content-Length: 0")]) as server,
            client(server.url) as llm,
        ):
            assert generate(llm)[0].error is None
        assert len(other.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        head("302 Found", "Content-Length: 0"),
        head("307 Temporary Redirect", "Location: gopher://[", "Content-Length: 0"),
        head("307 Temporary Redirect", "Location: /v1/chat/completions", "Content-Length: 0"),
        head("204 No Content"),
        head("200 OK", "Content-Length: 99") + b"{",
        head("200 OK", "Content-Encoding: nonsense, gzip") + b"{",
        head("200 OK", kind="application/json; charset=rot13") + b"{",
        head("999 \xff\xfe", kind="\xff/\xff") + b"\xff",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_what_is_hardly_http_is_an_error_in_one_line(answer: bytes) -> None:
    with raw_serving(lambda _: [answer]) as server, client(server.url) as llm, pytest.raises(LLMError) as caught:
        generate(llm)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_a_proxy_that_cannot_be_used_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    with pytest.raises(ConfigError, match="ALL_PROXY"), client("http://127.0.0.1:1/v1"):
        pass


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda request: SIDES) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("NO_PROXY", "")
        with client("http://example.invalid/v1") as llm:
            assert generate(llm)[0].text == SIDES


@pytest.mark.parametrize("body", [b'{"data": ' + b"[" * 20_000, b'{"data": [[1]]}', b'{"data": {"id": "m"}}', b"[]"])
def test_a_list_of_models_of_any_shape_is_an_error(body: bytes) -> None:
    with raw_serving(lambda _: [head() + body]) as server, pytest.raises(ModelError, match="no list of models"):
        client(server.url, model="auto").__enter__()


@pytest.mark.parametrize("name", ["", "\\ud800", "a\\u001b[31mb", "x" * 1000, "a\\nb"])
def test_a_model_whose_name_cannot_be_written_is_none(name: str) -> None:
    body = f'{{"data": [{{"id": "{name}"}}]}}'.encode()
    with raw_serving(lambda _: [head() + body]) as server, pytest.raises(ModelError, match="no list of models"):
        client(server.url, model="auto").__enter__()


@pytest.mark.parametrize("answer", [endless, drip_body])
def test_captions_have_the_same_bounds(answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipo.captions.api.TIMEOUT", 0.4)
    monkeypatch.setattr("ipo.captions.api.RETRIES", 0)
    paths = [item.path for item in draw_pictures(tmp_path, 2)]
    with raw_serving(answer) as server, pytest.raises(LLMError, match=r"0\.4 seconds|longer than 4 MB"):
        list(ApiDescriber("lmm", server.url).describe(paths))
