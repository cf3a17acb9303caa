"""The llama.cpp backend against a stand-in for its Python package, which is an extra and takes minutes to build."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ipo.config import LLMSettings
from ipo.errors import LLMError
from ipo.llm.base import LikelihoodModel, Message
from ipo.llm.load import load_llm

TEXT = "score 40: a photo of a <CLASS>.\nscore 41:"


class FakeLlama:
    """A model over bytes to which the byte 97 is as likely as all others together."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.calls: list[tuple[list[int], dict[str, Any]]] = []
        self.scores = np.zeros((options["n_ctx"], 256), dtype=np.float32)
        self.scores[:, 97] = math.log(255)

    def tokenize(self, text: bytes, add_bos: bool = True) -> list[int]:
        assert not add_bos
        return list(text)

    def token_bos(self) -> int:
        return 0

    def reset(self) -> None:
        self.read: list[int] = []

    def eval(self, tokens: list[int]) -> None:
        self.read += tokens

    def create_completion(self, prompt: list[int], **options: Any) -> dict[str, Any]:
        if len(prompt) > 1000:
            raise ValueError("Requested tokens exceed context window")
        self.calls.append((prompt, options))
        choice = {"text": f" a photo number {'x' * options['seed']} of a <CLASS>.", "finish_reason": "stop"}
        return {"choices": [choice], "usage": {"prompt_tokens": len(prompt), "completion_tokens": 8}}


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    package = SimpleNamespace(
        Llama=FakeLlama,
        LlamaGrammar=SimpleNamespace(from_string=lambda text, verbose: text),
        __version__="0.0",
        __spec__=SimpleNamespace(),
    )
    monkeypatch.setitem(sys.modules, "llama_cpp", package)
    (tmp_path / "m.gguf").write_bytes(b"")
    return load_llm(LLMSettings(spec=str(tmp_path / "m.gguf"), top_p=0.8), offline=True)


def test_the_installed_package_takes_gguf_files_and_the_name_says_so(llm: Any) -> None:
    assert llm.name.endswith("m.gguf, llama-cpp-python 0.0")
    assert isinstance(llm, LikelihoodModel)


def test_each_reply_has_its_seed_and_the_grammar_and_the_prefix_is_counted_once(llm: Any) -> None:
    replies = llm.generate([Message("user", TEXT)], 3, 0.7, 96, seed=5)
    assert [reply.text for reply in replies] == [f"a photo number {'x' * seed} of a <CLASS>." for seed in (5, 6, 7)]
    assert [reply.prompt_tokens for reply in replies] == [len(TEXT), 0, 0]
    prompt, options = llm._model.calls[0]
    assert bytes(prompt).decode() == TEXT
    assert (options["temperature"], options["top_p"], options["max_tokens"]) == (0.7, 0.8, 96)
    assert "<CLASS>" in options["grammar"]


def test_likelihood_is_the_mean_over_the_texts_own_tokens(llm: Any) -> None:
    assert llm.mean_log_likelihood(["aaaa"]) == pytest.approx([math.log(0.5)])
    expected = (math.log(0.5) + math.log(0.5 / 255)) / 2
    assert llm.mean_log_likelihood(["a"], "some context") == pytest.approx([expected]), "a space stands before the text"
    assert bytes(llm._judge.read) == b"some context a"


def test_a_meta_prompt_that_is_too_long_is_an_error(llm: Any) -> None:
    with pytest.raises(LLMError, match="context window"):
        llm.generate([Message("user", "x" * 2000)], 1, 1.0, 96, seed=0)
