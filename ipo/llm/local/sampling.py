"""Sampling several texts side by side, whatever runs the model.

Shape legend: N texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ipo.llm.local.grammar import GrammarMask

Step = Callable[[Sequence[int]], Tensor]
"""Appends one token to each of N texts and returns the logits (N, V) of the next one."""


_LIKELIEST = 512
"""So many tokens nearly always hold the nucleus, and picking them takes a tenth of the time of sorting them all."""


@dataclass(frozen=True)
class SampledText:
    """The token ids of one text, and whether the grammar let it end (else the token limit cut it)."""

    ids: list[int]
    complete: bool


@dataclass(frozen=True)
class Sampler:
    """How the next token is drawn: `temperature` 0 takes the likeliest, `top_p` keeps that much probability."""

    temperature: float
    top_p: float
    seed: int

    def draws(self) -> torch.Generator:
        """A fresh generator on the CPU, so that a seed gives the same draws on every device."""
        return torch.Generator().manual_seed(self.seed)

    def pick(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """One token (N, 1) a row of logits (N, V)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1, keepdim=True)
        shares = (logits / self.temperature).softmax(dim=-1)
        return torch.multinomial(nucleus(shares, self.top_p), 1, generator=generator)


def nucleus(shares: Tensor, top_p: float) -> Tensor:
    """Probabilities (N, V) with all but the smallest set of tokens that reaches `top_p` set to 0 (not renormalised)."""
    if top_p >= 1:
        return shares
    ordered, index = shares.topk(min(_LIKELIEST, shares.shape[-1]), dim=-1)
    if bool((ordered.sum(dim=-1) < top_p).any()):
        ordered, index = shares.sort(dim=-1, descending=True)
    inside = ordered.cumsum(dim=-1) - ordered < top_p
    return torch.zeros_like(shares).scatter(-1, index, ordered * inside)


@torch.inference_mode()
def sample(logits: Tensor, step: Step, mask: GrammarMask, max_tokens: int, sampler: Sampler) -> list[SampledText]:
    """N texts inside the grammar from the logits (N, V) of their first tokens.

    Equal arguments give equal texts on one machine.
    """
    generator = sampler.draws()
    texts: list[list[int]] = [[] for _ in logits]
    done = [False] * len(texts)
    for position in range(max_tokens):
        logits = logits.float().cpu()
        allowed = mask.allowed(logits.shape[-1])
        tokens = sampler.pick(logits.masked_fill(~allowed, -torch.inf), generator)[:, 0].tolist()
        for text, ended, token in zip(texts, done, tokens, strict=True):
            if not ended:
                text.append(token)
        done = mask.advance(tokens)
        if all(done) or position + 1 == max_tokens:
            break
        logits = step(tokens)
    return [SampledText(ids, ended) for ids, ended in zip(texts, done, strict=True)]
