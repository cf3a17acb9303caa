"""A small GPT that writes a prompt for an image, told how good it is to be (after QPO, arXiv 2408.10504).

A sequence is [return | image | prompt]: a number, the image feature as a few tokens, and the pieces of a prompt of the
search. Its vocabulary is that of the search's prompts. Written with a return of 100, greedily.
Shape legend: B pairs of image and prompt, D feature width, L longest prompt with its end, N images, Q query tokens,
V vocabulary, W width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import GPT2Config, GPT2Model

from ipo.clip.lengths import TextRoom
from ipo.config import Section
from ipo.errors import PromptError
from ipo.prompt import CLASS_PLACEHOLDER, Prompt

END, PADDING = 0, -100
BEST = 100.0
"""The return that is asked for."""
PIECE = re.compile(rf"\s*(?:{CLASS_PLACEHOLDER}|\w+|[^\w\s])")


class GPTOptions(Section):
    """Size of the GPT; the paper's is GPT-2 with 12 layers of 768, trained from scratch."""

    layers: PositiveInt = 2
    """Layers of the generator."""
    width: PositiveInt = 128
    """Width of the generator, in 4 heads."""
    query_tokens: PositiveInt = 1
    """Tokens that an image becomes."""


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of some prompts: words and marks with the space in front of them; number 0 ends a prompt."""

    pieces: tuple[str, ...]
    longest: int
    """L, pieces of the longest prompt, with its end."""

    @classmethod
    def of(cls, prompts: Sequence[Prompt]) -> Vocabulary:
        """The vocabulary of some prompts, in order of appearance."""
        rows = [PIECE.findall(prompt.text) for prompt in prompts]
        return cls(("", *dict.fromkeys(piece for row in rows for piece in row)), max(map(len, rows)) + 1)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces)}

    @cached_property
    def slots(self) -> Tensor:
        """Which pieces (V,) are the class slot."""
        return torch.tensor([CLASS_PLACEHOLDER in piece for piece in self.pieces])

    def encode(self, prompts: Sequence[Prompt]) -> Tensor:
        """Pieces (P, L) of prompts, each ended, then padded."""
        rows = torch.full((len(prompts), self.longest), PADDING)
        for row, prompt in zip(rows, prompts, strict=True):
            numbers = [self._numbers[piece] for piece in PIECE.findall(prompt.text)]
            row[: len(numbers) + 1] = torch.tensor([*numbers, END])
        return rows

    def decode(self, row: Sequence[int]) -> str:
        """The text of pieces up to the end."""
        numbers = list(row)
        return "".join(self.pieces[number] for number in numbers[: numbers.index(END)] if number >= 0)


class Generator(nn.Module):
    """GPT-2 over [return | image | prompt]."""

    def __init__(self, vocabulary: Vocabulary, feature_width: int, options: GPTOptions) -> None:
        super().__init__()
        self.vocabulary, self.query_tokens = vocabulary, options.query_tokens
        width, words = options.width, len(vocabulary.pieces)
        positions = 1 + options.query_tokens + vocabulary.longest
        config = GPT2Config(
            vocab_size=words,
            n_positions=positions,
            n_embd=width,
            n_layer=options.layers,
            n_head=4,
            bos_token_id=END,
            eos_token_id=END,
        )
        self.words, self.parts = nn.Embedding(words, width), nn.Embedding(3, width)
        self.returns, self.query = nn.Linear(1, width), nn.Linear(feature_width, options.query_tokens * width)
        self.norm, self.body = nn.LayerNorm(width), GPT2Model(config)
        self.before_head, self.head, self.told = nn.Linear(width, width), nn.Linear(width, words), nn.Linear(width, 1)

    def forward(self, returns: Tensor, features: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 1 + T, V) of each next piece after pieces (B, T), and the return (B,) that it reads from returns
        (B,); features are (B, D)."""
        query = self.query(features).view(len(features), self.query_tokens, -1)
        parts = [self.returns(returns[:, None, None]), query, self.words(pieces)]
        kinds = [part + self.parts.weight[kind] for kind, part in enumerate(parts)]
        hidden = self.body(inputs_embeds=self.norm(torch.cat(kinds, dim=1)), use_cache=False).last_hidden_state
        logits = self.head(self.before_head(hidden[:, self.query_tokens :]).relu())
        return logits, self.told(hidden[:, 0])[:, 0]

    def losses(self, returns: Tensor, features: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor, int]:
        """Cross-entropy of the pieces (B, L), squared error of the return, and how many prompts are foretold whole."""
        logits, told = self(returns, features, pieces[:, :-1].clamp(min=END))
        words = cross_entropy(logits.transpose(1, 2), pieces, ignore_index=PADDING)
        foretold = (logits.argmax(dim=-1) == pieces) | (pieces == PADDING)
        return words, mse_loss(told, returns), int(foretold.all(dim=1).sum())

    @torch.no_grad()
    def write(self, features: Tensor) -> list[str]:
        """The likeliest text for each image (N, D) at the best return; each has the class slot once.

        In double precision, so that what stands beside an image changes nothing. The generator is in evaluation mode.
        """
        count, longest = len(features), self.vocabulary.longest
        pieces = torch.empty(count, 0, dtype=torch.long)
        returns, slots = torch.full((count,), BEST, dtype=torch.double), self.vocabulary.slots
        for place in range(longest):
            logits = self(returns, features, pieces)[0][:, -1]
            slotted = slots[pieces].any(dim=1)
            ended = (pieces == END).any(dim=1)
            barred = slotted[:, None] & slots
            barred[:, END] = ~slotted
            if place == longest - 2:
                barred |= ~slotted[:, None] & ~slots
            if place == longest - 1:
                barred |= torch.arange(len(slots)) != END
            barred[ended] = torch.arange(len(slots)) != END
            best = logits.masked_fill(barred, -torch.inf).argmax(dim=-1, keepdim=True)
            pieces = torch.cat([pieces, best], dim=1)
        return [self.vocabulary.decode(row) for row in pieces.tolist()]


def combined(words: Tensor, error: Tensor) -> Tensor:
    """The loss: cross-entropy, and a half of the squared error, or a tenth where that is 10 or more."""
    return words + (0.5 if float(error.detach()) < 10 else 0.1) * error


def readable(text: str, room: TextRoom, instead: Prompt) -> Prompt:
    """The prompt that a text is; `instead` where it is none, or is too long for CLIP with some class name."""
    try:
        prompt = Prompt(text)
    except PromptError:
        return instead
    return prompt if room.prompt_excess(prompt) is None else instead
