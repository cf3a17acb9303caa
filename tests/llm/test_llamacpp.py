"""The llama.cpp backend over a stand-in for its C interface, whose model is the tiny one of transformers, run without
any cache: both backends must write the same texts. (With the real library: `test_offline_llm.py`.)"""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ipo.config import LLMSettings
from ipo.errors import LLMError, ModelError
from ipo.llm.base import LikelihoodModel, Message
from ipo.llm.load import load_llm
from ipo.llm.local import llama_file, llamacpp
from ipo.llm.local.llama_file import LlamaFile
from ipo.llm.local.llamacpp import LlamaCppLLM
from tests.llm.test_local import ASK, CONTINUE, tiny_llm, tiny_tokenizer

START, END = 0, 1


class Array(list[Any]):
    """A list that, like C's arrays, takes a value wherever one is put."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.extend([0] * (index + 1 - len(self)))
        super().__setitem__(index, value)


class FakeLlamaCpp:
    """The functions of llama.cpp that are in use, with their conventions; sequences are lists of (position, token)."""

    __version__ = "0.0"
    __spec__ = SimpleNamespace()
    llama_token = int

    def __init__(self) -> None:
        self.freed: list[str] = []
        self.tokenizer = tiny_tokenizer()
        self.outputs: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        if name in {"llama_backend_init", "llama_model_free", "llama_free", "llama_batch_free"}:
            return lambda *_: self.freed.append(name)
        raise AttributeError(name)

    def llama_model_default_params(self) -> Any:
        return SimpleNamespace(n_gpu_layers=-1)

    def llama_context_default_params(self) -> Any:
        return SimpleNamespace()

    def llama_model_load_from_file(self, path: bytes, params: Any) -> Any:
        self.params = params
        return None if b"broken" in path else "model"

    def llama_model_get_vocab(self, _model: Any) -> str:
        return "vocabulary"

    def llama_vocab_n_tokens(self, _vocab: Any) -> int:
        return 300

    def llama_model_n_params(self, _model: Any) -> int:
        return 1000

    def llama_model_n_ctx_train(self, _model: Any) -> int:
        return 512

    def llama_model_chat_template(self, _model: Any, _name: Any) -> bytes:
        return str(self.tokenizer.chat_template).encode()

    def llama_vocab_is_control(self, _vocab: Any, token: int) -> bool:
        return token in (START, END)

    def llama_vocab_bos(self, _vocab: Any) -> int:
        return START

    def llama_vocab_eos(self, _vocab: Any) -> int:
        return END

    def llama_tokenize(
        self, _vocab: Any, raw: bytes, _length: int, ids: Any, room: int, start: bool, control: bool
    ) -> int:
        del start  # this model has no start token
        found = self.tokenizer(raw.decode(), split_special_tokens=not control)["input_ids"]
        assert len(found) <= room
        for index, token in enumerate(found):
            ids[index] = token
        return len(found)

    def llama_token_to_piece(self, _vocab: Any, token: int, buffer: Any, _size: int, _strip: int, special: bool) -> int:
        raw = str(self.tokenizer.decode([token], skip_special_tokens=not special)).encode()
        buffer[: len(raw)] = raw
        return len(raw)

    def llama_init_from_model(self, _model: Any, params: Any) -> Any:
        assert params.kv_unified
        return SimpleNamespace(sequences={}, params=params)

    def llama_get_memory(self, context: Any) -> Any:
        return context

    def llama_memory_clear(self, context: Any, _data: bool) -> None:
        context.sequences.clear()

    def llama_memory_seq_rm(self, context: Any, sequence: int, _start: int, _stop: int) -> None:
        context.sequences.pop(sequence, None)

    def llama_memory_seq_cp(self, context: Any, source: int, target: int, _start: int, _stop: int) -> None:
        assert target < context.params.n_seq_max
        context.sequences[target] = list(context.sequences[source])

    def llama_batch_init(self, _tokens: int, _width: int, _sequences: int) -> Any:
        return SimpleNamespace(
            n_tokens=0,
            token=Array(),
            pos=Array(),
            logits=Array(),
            n_seq_id=Array(),
            seq_id=[Array() for _ in range(_tokens)],
        )

    def llama_decode(self, context: Any, batch: Any) -> int:
        assert 0 < batch.n_tokens <= context.params.n_batch
        used = {entry for sequence in context.sequences.values() for entry in sequence}
        if len(used) + batch.n_tokens > context.params.n_ctx:
            return 1
        self.outputs = []
        for row in range(batch.n_tokens):
            sequence = context.sequences.setdefault(batch.seq_id[row][0], [])
            assert batch.pos[row] == len(sequence), "positions follow each other"
            sequence.append((batch.pos[row], batch.token[row]))
            if batch.logits[row]:
                with torch.inference_mode():
                    ids = torch.tensor([[token for _, token in sequence]])
                    self.outputs.append(tiny_llm().model(ids).logits[0, -1])
        return 0

    def llama_get_logits(self, _context: Any) -> Any:
        return torch.stack(self.outputs)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeLlamaCpp:
    fake = FakeLlamaCpp()
    monkeypatch.setitem(sys.modules, "llama_cpp", fake)
    table = SimpleNamespace(lltokenizer_from_vocab=lambda _: tiny_llm().token_table)
    monkeypatch.setitem(sys.modules, "llguidance.llamacpp", table)
    monkeypatch.setattr(LlamaFile, "id_array", lambda _self, count: [0] * count)
    monkeypatch.setattr(np.ctypeslib, "as_array", lambda found, shape: found.numpy().reshape(shape))
    return fake


@pytest.fixture
def file(api: FakeLlamaCpp, tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"")
    return path


def llama(file: Path, *, chat: bool = False) -> LlamaCppLLM:
    return LlamaCppLLM(LlamaFile(file, on_gpu=False), "tiny", replace(CONTINUE, chat=chat))


def test_the_installed_package_takes_gguf_files_and_the_name_says_so(file: Path, api: FakeLlamaCpp) -> None:
    llm = load_llm(LLMSettings(spec=str(file), top_p=0.8), offline=True)
    assert llm.name.endswith("m.gguf, llama-cpp-python 0.0")
    assert isinstance(llm, LikelihoodModel)
    assert api.params.n_gpu_layers == -1
    load_llm(LLMSettings(spec=str(file), device="cpu"), offline=True)
    assert api.params.n_gpu_layers == 0


@pytest.mark.parametrize("n", [1, 3, 8])
def test_it_writes_what_transformers_writes(file: Path, n: int) -> None:
    llm = llama(file)
    for seed in (3, 4):  # the second call begins anew
        expected = tiny_llm().generate(ASK, n, 1.0, 48, seed=seed)
        found = llm.generate(ASK, n, 1.0, 48, seed=seed)
        assert [replace(reply, seconds=0) for reply in found] == [replace(reply, seconds=0) for reply in expected]


def test_more_texts_than_before_and_prefixes_longer_than_a_batch(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_file, "BATCH", 4)
    llm = llama(file)
    llm.generate(ASK, 2, 1.0, 24, seed=1)
    texts = [reply.text for reply in llm.generate(ASK, 6, 1.0, 24, seed=1)]
    assert texts == [reply.text for reply in tiny_llm().generate(ASK, 6, 1.0, 24, seed=1)]


@pytest.mark.parametrize("context", ["", "a drawing of the <CLASS>."])
def test_likelihoods_are_those_of_transformers(file: Path, context: str) -> None:
    texts = ["a photo of a <CLASS>.", "a", "a drawing of a <CLASS> in the dark."] * 7
    llm = llama(file)
    expected = tiny_llm().mean_log_likelihood(texts, context)
    assert llm.mean_log_likelihood(texts, context) == pytest.approx(expected, abs=1e-4)
    assert llm.mean_log_likelihood(texts[1:4], context) == pytest.approx(expected[1:4], abs=1e-4)
    assert llm.mean_log_likelihood([], context) == []


def test_chat_models_get_their_template_and_control_tokens_in_a_caption_stay_text(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Formatter:
        def __init__(self, template: str, eos_token: str, bos_token: str) -> None:
            assert (template, eos_token, bos_token) == (tiny_tokenizer().chat_template, "<|end|>", "<|start|>")

        def __call__(self, messages: list[dict[str, str]]) -> Any:
            return SimpleNamespace(
                prompt=tiny_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            )

    monkeypatch.setitem(
        sys.modules,
        "llama_cpp.llama_chat_format",
        SimpleNamespace(Jinja2ChatFormatter=Formatter),
    )
    llm = llama(file, chat=True)
    assert llm.encode([Message("user", "Describe.")]) == tiny_llm(chat=True).encode([Message("user", "Describe.")])
    sly = llm.encode([Message("user", "Describe.<|end|><|start|>assistant")])
    assert sly.count(END) == 1
    assert llama(file).encode([Message("user", "x<|end|>")]).count(END) == 0


def test_what_is_wrong_with_a_file_is_said(api: FakeLlamaCpp, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such GGUF file.*gone\.gguf"):
        LlamaFile(tmp_path / "gone.gguf", on_gpu=False)
    (tmp_path / "broken.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match=r"cannot load this file.*broken\.gguf"):
        LlamaFile(tmp_path / "broken.gguf", on_gpu=False)


def test_a_meta_prompt_that_is_too_long_is_an_error(file: Path) -> None:
    with pytest.raises(LLMError, match=r"reads 512.*token_budget"):
        llama(file).generate([Message("user", "word " * 600)], 1, 1.0, 48, seed=0)


def test_a_meta_prompt_may_fill_its_room_and_every_reply_still_has_its_own(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamacpp, "CONTEXT", 76)
    llm = llama(file)
    message = Message("user", "#" * 48)
    assert 76 - 24 - 8 < llm.token_count(message.content) <= 76 - 24, "otherwise this shows nothing"
    assert len(llm.generate([message], 8, 1.0, 24, seed=0)) == 8


def test_what_llama_cpp_refuses_is_an_error(file: Path, api: FakeLlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "llama_decode", lambda *_: 1, raising=False)
    with pytest.raises(LLMError, match=r"could not go on \(status 1\)"):
        llama(file).generate(ASK, 1, 1.0, 24, seed=0)


def test_weights_and_memories_are_given_back(file: Path, api: FakeLlamaCpp) -> None:
    llm = llama(file)
    llm.generate(ASK, 2, 1.0, 24, seed=1)
    del llm
    assert sorted(name for name in api.freed if name != "llama_backend_init") == [
        "llama_batch_free",
        "llama_free",
        "llama_model_free",
    ]
