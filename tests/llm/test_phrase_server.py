"""A server is given the grammar of phrases as a pattern in a JSON schema, and what comes back is held to it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ipo.config import LLMSettings, load_settings
from ipo.errors import ConfigError, LLMError
from ipo.llm.load import load_llm, require_llm
from ipo.llm.parse import read_prompt
from ipo.llm.phrases import content_key, pattern, word_lists
from ipo.llm.server.chat import OpenAILLM
from ipo.search.meta_prompt import build_messages
from tests.llm.server import FakeServer, serving
from tests.llm.test_local import ASK, tiny_llm

FREE = json.dumps({"phrase": "a wild dream of a <CLASS>."})


@pytest.fixture(autouse=True)
def no_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPO_PHRASES", str(tmp_path / "phrases.toml"))


def phrase_llm(server: FakeServer, **settings: Any) -> OpenAILLM:
    terms = {"spec": "openai:m", "base_url": server.url, "grammar": "phrase", "retries": 0, "timeout": 5.0}
    llm = load_llm(LLMSettings.model_validate(terms | settings), offline=False)
    assert isinstance(llm, OpenAILLM)
    return llm


def schema_of(request: dict[str, Any]) -> dict[str, Any]:
    schema = request["response_format"]["json_schema"]["schema"]
    assert isinstance(schema, dict)
    return schema


def by_schema(request: dict[str, Any]) -> str:
    """What the tiny model writes under the schema: JSON without spaces, by llguidance as vLLM runs it."""
    from llguidance import LLMatcher

    from ipo.llm.local.sampling import Sampler

    grammar = LLMatcher.grammar_from_json_schema(schema_of(request), defaults={"whitespace_flexible": False})
    return tiny_llm().write(ASK, [grammar], 400, Sampler(1.0, 1.0, request["seed"]))[0].text


def generate(llm: OpenAILLM, n: int = 1, **more: Any) -> list[Any]:
    messages = build_messages(llm.template, [], [], llm.form)
    return llm.generate(messages, n, temperature=1.0, max_tokens=96, seed=1, **more)


def test_each_reply_is_asked_for_by_a_grammar_of_its_own_and_the_same_again() -> None:
    with serving(by_schema) as server:
        llm = phrase_llm(server, concurrency=1)
        replies = generate(llm, n=4)
        again = generate(llm, n=4)
        llm.close()
    asked = [schema_of(request)["properties"]["phrase"]["pattern"] for request in server.requests]
    assert len(set(asked[:4])) == 4
    assert asked[:4] == asked[4:]
    whole = re.compile(pattern(word_lists()))
    for reply, expression in zip(replies, asked):
        assert reply.error is None
        assert reply.form == "phrase object"
        text = read_prompt(reply.text, reply.form).text
        assert whole.fullmatch(text)
        assert expression.startswith("^")
        assert expression.endswith("$")
        assert re.search(expression, text)
    assert [reply.text for reply in replies] == [reply.text for reply in again]
    assert len({content_key(read_prompt(reply.text, reply.form).text) for reply in replies}) == 4
    assert '{"phrase": "a photo of a <CLASS>."}' in server.requests[0]["messages"][0]["content"]


def test_the_grammar_that_a_server_is_given_names_no_class() -> None:
    with serving(by_schema) as server:
        llm = phrase_llm(server)
        generate(llm, n=8, unnamed=("tree", "photo"))
        llm.close()
    for request in server.requests:
        assert not re.search(r"\b(photo|tree)\b", schema_of(request)["properties"]["phrase"]["pattern"])


def test_no_grammar_is_sent_unless_it_is_asked_for() -> None:
    with serving(lambda request: json.dumps({"before": "a photo of a", "after": "."})) as server:
        for grammar in ("auto", "free"):
            llm = phrase_llm(server, grammar=grammar)
            assert llm.form == "sides"
            generate(llm)
            llm.close()
    assert not any("pattern" in json.dumps(request) for request in server.requests)


def test_a_server_that_passes_the_grammar_over_is_one_clear_error() -> None:
    with serving(lambda request: FREE, "ignores") as server:
        llm = phrase_llm(server, retries=1)
        with pytest.raises(LLMError, match=r"grammar of phrases.*wild dream") as caught:
            generate(llm, n=3)
        llm.close()
    assert "llm.grammar=free" in str(caught.value)
    assert len(server.requests) == 2, "asked once again, as for any reply that cannot be read, and then no more"


def test_a_server_that_refuses_the_schema_is_not_asked_in_another_way() -> None:
    with serving(lambda request: FREE, "rejects") as server:
        llm = phrase_llm(server)
        with pytest.raises(LLMError, match="unknown field") as caught:
            generate(llm, n=3)
        llm.close()
    assert "llm.grammar=free" in str(caught.value)
    assert len(server.requests) == 1


def test_one_reply_outside_the_grammar_is_an_error_of_its_own() -> None:
    with serving(lambda request: FREE if len(server.requests) == 2 else by_schema(request)) as server:
        llm = phrase_llm(server, concurrency=1)
        replies = generate(llm, n=3)
        llm.close()
    assert [reply.error is None for reply in replies] == [True, False, True]
    assert replies[1].text == FREE


@pytest.mark.parametrize("way", ["object", "none"])
def test_a_grammar_needs_a_schema(way: str) -> None:
    with serving(lambda request: FREE) as server, pytest.raises(ConfigError, match=r"llm.grammar is phrase.*schema"):
        phrase_llm(server, response_format=way)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "no text `phrase`"),
        ('{"phrase": 3}', "no text `phrase`"),
        ("a photo of a <CLASS>.", "no JSON object"),
        ('{"phrase": "a <CLASS>."} {"phrase": "the <CLASS>."}', "2 proposals"),
        ('{"phrase": "a photo."}', "exactly once"),
    ],
)
def test_an_object_without_one_phrase_is_no_proposal(text: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        read_prompt(text, "phrase object")
    assert (
        read_prompt('So: ```{"phrase": " a  photo of a <CLASS>."}```', "phrase object").text == "a photo of a <CLASS>."
    )


def test_the_setting_is_read_from_a_file_and_only_takes_its_names(tmp_path: Path) -> None:
    (tmp_path / "ipo.store.toml").write_text('[llm]\ngrammar = "phrase"\n')
    assert load_settings(tmp_path / "ipo.store.toml").llm.grammar == "phrase"
    with pytest.raises(ConfigError, match=r"llm\.grammar"):
        load_settings(overrides={"llm": {"grammar": "verse"}})
    require_llm(LLMSettings(spec="openai:m", base_url="http://127.0.0.1:9/v1", grammar="phrase"), offline=False)
