"""A `.gguf` file in llama.cpp, by the C interface that llama-cpp-python (extra `gguf`) exposes.

llama.cpp's own sampling writes one text at a time; here N texts grow side by side from one prefix, so the weights are
read once for all of them.
Shape legend: N texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import ctypes
import logging
import warnings
import weakref
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llguidance import LLTokenizer
from numpy.typing import NDArray

from ipo.errors import LLMError, ModelError

BATCH = 512
"""Tokens that llama.cpp is given at once."""


class LlamaFile:
    """The weights and the vocabulary of a `.gguf` file. Raises `ModelError` where llama.cpp cannot load it."""

    def __init__(self, path: Path, *, on_gpu: bool) -> None:
        self.api: Any = import_module("llama_cpp")
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # llama.cpp tells all it does
        self.api.llama_backend_init()
        params = self.api.llama_model_default_params()
        if not on_gpu:
            params.n_gpu_layers = 0
        if not path.is_file():
            raise ModelError("no such GGUF file", where=str(path), remedy="Check the path")
        self.model: Any = self.api.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise ModelError(
                "llama.cpp cannot load this file", where=str(path), remedy="Fetch it again, or update llama-cpp-python"
            )
        weakref.finalize(self, self.api.llama_model_free, self.model)
        self._vocab: Any = self.api.llama_model_get_vocab(self.model)
        self.width = int(self.api.llama_vocab_n_tokens(self._vocab))

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return int(self.api.llama_model_n_params(self.model))

    @property
    def trained_context(self) -> int:
        """Tokens of the longest texts that the model was trained on."""
        return int(self.api.llama_model_n_ctx_train(self.model))

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of a chat that the file carries."""
        found = self.api.llama_model_chat_template(self.model, None)
        return found.decode() if found else None

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token; none for a control token."""
        return [self._piece(token, special=False) for token in range(self.width)]

    @cached_property
    def control_texts(self) -> list[str]:
        """How control tokens are written."""
        control = (token for token in range(self.width) if self.api.llama_vocab_is_control(self._vocab, token))
        return [self._piece(token, special=True).decode(errors="replace") for token in control]

    @cached_property
    def token_table(self) -> LLTokenizer:
        """llguidance's view of the vocabulary. Takes about a second."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # llguidance calls a function of llama.cpp by its old name
            table: LLTokenizer = import_module("llguidance.llamacpp").lltokenizer_from_vocab(self._vocab)
        return table

    @property
    def start(self) -> tuple[int, str]:
        """The token that begins a document, and how it is written; that which ends one, for lack of such."""
        token = int(self.api.llama_vocab_bos(self._vocab))
        token = token if token >= 0 else int(self.api.llama_vocab_eos(self._vocab))
        return token, self._piece(token, special=True).decode()

    @property
    def end_text(self) -> str:
        """How the token that ends a document is written."""
        token = int(self.api.llama_vocab_eos(self._vocab))
        return self._piece(token, special=True).decode() if token >= 0 else ""

    def tokenize(self, text: str, *, start: bool, control: bool = False) -> list[int]:
        """Token ids of `text`: with a start token if the model has one, and with control tokens read as such or not."""
        raw = text.encode()
        ids = self.id_array(len(raw) + 2)
        count = self.api.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), start, control)
        return list(ids[:count])

    def id_array(self, count: int) -> Any:
        """A C array of `count` token ids, for llama.cpp to fill."""
        return (self.api.llama_token * count)()

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = self.api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(0, length)]


class Branches:
    """What a model remembers of one prefix (sequence 0) and of the texts that go on from it (sequences 1 to N)."""

    def __init__(self, file: LlamaFile, *, tokens: int, texts: int) -> None:
        self.tokens, self.texts = tokens, texts
        self._api, self._width = file.api, file.width
        params = self._api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = tokens, BATCH, BATCH
        params.n_seq_max, params.kv_unified = texts + 1, True  # one store for all, so that the prefix is kept once
        params.n_threads = params.n_threads_batch = torch.get_num_threads()
        self._context: Any = self._api.llama_init_from_model(file.model, params)
        if not self._context:
            raise LLMError(f"llama.cpp has no room for {tokens} tokens", remedy="Use a smaller model")
        weakref.finalize(self, self._api.llama_free, self._context)
        self._memory: Any = self._api.llama_get_memory(self._context)
        self._batch: Any = self._api.llama_batch_init(BATCH, 0, 1)
        weakref.finalize(self, self._api.llama_batch_free, self._batch)
        self._lengths: list[int] = []

    def read(self, prefix: Sequence[int]) -> NDArray[np.float32]:
        """Forget everything and read `prefix`: the logits (V,) of the token after it.

        Nothing of an earlier prefix is used again, since that would change the last bits of the result, and with them
        what a resumed run writes.
        """
        self._api.llama_memory_clear(self._memory, True)
        self._lengths = [len(prefix)]
        places = [(token, position, 0) for position, token in enumerate(prefix)]
        logits: NDArray[np.float32] = self._decode(places, wanted=1)[0]
        return logits

    def start(self, texts: int) -> None:
        """Begin so many texts after the prefix, in place of those before."""
        for text in range(1, len(self._lengths)):
            self._api.llama_memory_seq_rm(self._memory, text, -1, -1)
        self._lengths = self._lengths[:1] * (texts + 1)
        for text in range(1, texts + 1):
            self._api.llama_memory_seq_cp(self._memory, 0, text, -1, -1)

    def extend(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Append tokens to each text: the logits (sum of all T, V) after each of them, text after text."""
        places = []
        for text, tokens in enumerate(texts, 1):
            places += [(token, self._lengths[text] + offset, text) for offset, token in enumerate(tokens)]
            self._lengths[text] += len(tokens)
        return self._decode(places, wanted=len(places))

    def _decode(self, places: Sequence[tuple[int, int, int]], wanted: int) -> NDArray[np.float32]:
        """Run (token, position, sequence); logits (wanted, V) of the last of them."""
        logits = np.empty((wanted, self._width), dtype=np.float32)
        first = len(places) - wanted
        for begin in range(0, len(places), BATCH):
            part = places[begin : begin + BATCH]
            self._batch.n_tokens = len(part)
            for row, (token, position, sequence) in enumerate(part):
                self._batch.token[row], self._batch.pos[row] = token, position
                self._batch.seq_id[row][0], self._batch.n_seq_id[row] = sequence, 1
                self._batch.logits[row] = begin + row >= first
            status = self._api.llama_decode(self._context, self._batch)
            if status:
                raise LLMError(f"llama.cpp could not go on (status {status})", remedy="Lower search.history")
            out = range(max(begin, first) - first, begin + len(part) - first)
            if out:
                found = self._api.llama_get_logits(self._context)
                logits[out.start : out.stop] = np.ctypeslib.as_array(found, shape=(len(out), self._width))
        return logits
