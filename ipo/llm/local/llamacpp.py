"""Language models in `.gguf` files, run as they are by llama.cpp under the grammar of every local model.

Shape legend: N texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module

import numpy as np
import torch
from llguidance import LLTokenizer
from numpy.typing import NDArray
from torch import Tensor

from ipo.llm.base import Message, Style
from ipo.llm.local.base import LocalLLM
from ipo.llm.local.llama_file import Branches, LlamaFile
from ipo.llm.local.sampling import Step

CONTEXT = 8192
"""Most tokens of a meta-prompt: about 1 GB of memory for a model of 8 billion parameters."""
_JUDGED_AT_ONCE = 16
_JUDGE_CONTEXT = 4096


class LlamaCppLLM(LocalLLM):
    """A `.gguf` file run as it is."""

    def __init__(self, file: LlamaFile, label: str, style: Style) -> None:
        room = min(file.trained_context, CONTEXT)
        super().__init__(f"{label}, llama-cpp-python {file.api.__version__}", style, room)
        self._file = file
        self._writer: Branches | None = None
        self._context: tuple[str, NDArray[np.float32]] | None = None

    @cached_property
    def token_table(self) -> LLTokenizer:
        """llguidance's view of the tokenizer."""
        return self._file.token_table

    def pieces(self) -> Sequence[str]:
        """The text of each token."""
        return [piece.decode(errors="replace") for piece in self._file.pieces]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the messages; see `LocalLLM`."""
        if not self.style.chat:
            return self._file.tokenize("\n\n".join(message.content for message in messages), start=True)
        formatter = import_module("llama_cpp.llama_chat_format").Jinja2ChatFormatter(
            template=self._file.chat_template or "", eos_token=self._file.end_text, bos_token=self._file.start[1]
        )
        chat = [{"role": message.role, "content": self._harmless(message.content)} for message in messages]
        return self._file.tokenize(formatter(messages=chat).prompt, start=False, control=True)

    def _harmless(self, text: str) -> str:
        """The text with a space in whatever would be read as a control token."""
        for control in self._file.control_texts:
            if len(control) > 1:
                text = text.replace(control, f"{control[0]} {control[1:]}")
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without control tokens."""
        return b"".join(self._file.pieces[token] for token in ids).decode(errors="replace")

    def branch(self, prefix: Sequence[int], n: int, max_tokens: int) -> tuple[Tensor, Step]:
        """Logits (N, V) after `prefix`, and how to go on; see `LocalLLM`."""
        tokens = CONTEXT + n * max_tokens
        writer = self._writer
        if writer is None or writer.tokens < tokens or writer.texts < n:
            writer = self._writer = Branches(self._file, tokens=tokens, texts=n)
        first = torch.from_numpy(writer.read(prefix)).expand(n, -1)
        writer.start(n)
        return first, lambda tokens: torch.from_numpy(writer.extend([[token] for token in tokens]))

    def token_count(self, text: str) -> int:
        """Tokens of `text`, without start and end tokens."""
        return len(self._file.tokenize(text, start=False))

    @cached_property
    def _judge(self) -> Branches:
        return Branches(self._file, tokens=_JUDGE_CONTEXT, texts=_JUDGED_AT_ONCE)

    def mean_log_likelihood(self, texts: Sequence[str], context: str = "") -> list[float]:
        """Mean log-likelihood a token (nats) of each text after `context`; see `LocalLLM`."""
        if not texts:
            return []
        if self._context is None or self._context[0] != context:
            ids = self._file.tokenize(context, start=True) or [self._file.start[0]]
            self._context = (context, self._judge.read(ids))
        glue = " " if context else ""
        rows = [self._file.tokenize(glue + text, start=False) for text in texts]
        groups = (rows[start : start + _JUDGED_AT_ONCE] for start in range(0, len(rows), _JUDGED_AT_ONCE))
        return [value for group in groups for value in self._likelihoods(group, self._context[1])]

    def _likelihoods(self, rows: Sequence[Sequence[int]], first: NDArray[np.float32]) -> list[float]:
        """Mean log-likelihoods of texts after the context, whose next token has the logits `first` (V,)."""
        self._judge.start(len(rows))
        rest = np.split(self._judge.extend([row[:-1] for row in rows]), np.cumsum([len(row) - 1 for row in rows])[:-1])
        shares = [torch.from_numpy(np.vstack([first, after])).double().log_softmax(-1) for after in rest]
        return [float(share[range(len(row)), row].mean()) for share, row in zip(shares, rows, strict=True)]
