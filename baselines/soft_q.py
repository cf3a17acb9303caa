"""Soft Q-learning of a few words: the policy, what it learns from, and its losses (RLPrompt, arXiv 2205.12548).

A small net between the last hidden states of a frozen language model and its head gives the soft Q-values of the next
token. Q is the value of the token taken, V the log-sum-exp over all tokens, A = Q - V the advantage.
Shape legend: H hidden width, N prompts, T tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ipo.llm.local.huggingface import HuggingFaceLLM

CANDIDATES = 256
"""So many of the likeliest tokens are drawn from; the losses count all."""


def soft_q_losses(advantages: Tensor, targets: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Single-step and multi-step path consistency losses (N,), each summed over the tokens.

    `advantages` (N, T) are those of the policy, `targets` (N, T) the values V of the target policy before each token,
    `rewards` (N,) come with the last token.
    """
    ends = torch.cat([targets[:, 1:], rewards[:, None]], dim=1)
    single = (advantages - (ends - targets)).square().sum(dim=1)
    onward = advantages.flip(1).cumsum(dim=1).flip(1)
    multi = (onward - (rewards[:, None] - targets)).square().sum(dim=1)
    return single, multi


def soft_q_loss(logits: Tensor, target_logits: Tensor, tokens: Tensor, rewards: Tensor) -> Tensor:
    """Mean over prompts of half the sum of both losses, of logits (N, T, V) and the tokens (N, T) taken."""
    taken = logits.gather(2, tokens[:, :, None])[:, :, 0]
    single, multi = soft_q_losses(taken - logits.logsumexp(dim=-1), target_logits.logsumexp(dim=-1), rewards)
    return (single + multi).mean() / 2


@torch.no_grad()
def follow(target: nn.Module, policy: nn.Module, rate: float) -> None:
    """Move the target's parameters towards the policy's by `rate` of the way (Polyak averaging)."""
    for slow, fast in zip(target.parameters(), policy.parameters(), strict=True):
        slow.lerp_(fast, rate)


def value_net(width: int, hidden: int, generator: torch.Generator) -> nn.Sequential:
    """Hidden states (..., H) to such, all but 0 at the start, so that every token is about as likely as any other."""
    layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=1e-4, generator=generator)
            nn.init.constant_(layer.bias, -1e-4)
    return layers


@dataclass(frozen=True)
class Writer:
    """The frozen language model: hidden states of what was written so far, and the head that gives logits."""

    llm: HuggingFaceLLM
    allowed: Tensor
    """Which tokens (V,) may be written."""
    fluency: int | None = None
    """Write only tokens among so many that the language model itself finds likeliest; None for any."""

    @classmethod
    def of(cls, llm: HuggingFaceLLM, fluency: int | None) -> Writer:
        """The writer of a model, which is frozen; control tokens and numbers without a token are never written."""
        llm.model.requires_grad_(False)
        head = llm.model.get_output_embeddings()
        allowed = torch.zeros(len(head.weight), dtype=torch.bool)
        allowed[: len(llm.tokenizer)] = True
        allowed[[token for token in llm.tokenizer.all_special_ids if token < len(allowed)]] = False
        return cls(llm, allowed.to(head.weight.device), fluency)

    @property
    def width(self) -> int:
        """H, the hidden width."""
        return int(self.llm.model.get_output_embeddings().weight.shape[1])

    def only(self, tokens: Sequence[int]) -> Writer:
        """The same, restricted to some tokens."""
        allowed = torch.zeros_like(self.allowed)
        allowed[list(tokens)] = True
        return replace(self, allowed=allowed)

    def logits(self, net: nn.Module, states: Tensor) -> Tensor:
        """Q-values (..., V) after hidden states (..., H), float32; minus infinity for tokens that are not written."""
        head = self.llm.model.get_output_embeddings()
        values: Tensor = head(net(states).to(head.weight.dtype)).float()
        if self.fluency is not None:
            own = self._fluency_logits(states)
            least = own.topk(min(self.fluency, int(self.allowed.sum())), dim=-1).values[..., -1:]
            values = values.masked_fill(own < least, -torch.inf)
        return values.masked_fill(~self.allowed, -torch.inf)

    @torch.no_grad()
    def _fluency_logits(self, states: Tensor) -> Tensor:
        head = self.llm.model.get_output_embeddings()
        return torch.as_tensor(head(states.to(head.weight.dtype))).float().masked_fill(~self.allowed, -torch.inf)

    @torch.no_grad()
    def write(self, net: nn.Module, shape: tuple[int, int], generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Tokens (N, T) drawn from the policy, and the hidden states (N, T, H) before each; the likeliest without a
        generator."""
        count, length = shape
        tokenizer, device = self.llm.tokenizer, self.allowed.device
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        ids, cache = torch.full((count, 1), start, device=device), None
        tokens, states = list[Tensor](), list[Tensor]()
        for _ in range(length):
            output = self.llm.model.base_model(ids, cache=cache, use_cache=True)
            cache = output.cache
            states.append(output.last_hidden_state[:, -1].float())
            ids = pick(self.logits(net, states[-1]), generator)
            tokens.append(ids)
        return torch.cat(tokens, dim=1), torch.stack(states, dim=1)


def pick(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """One token (N, 1) a row of logits (N, V): drawn among the 256 likeliest on the CPU, or the likeliest itself."""
    if generator is None:
        return logits.argmax(dim=-1, keepdim=True)
    values, indices = logits.topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    drawn = torch.multinomial(values.softmax(dim=-1).cpu(), 1, generator=generator)
    return indices.gather(1, drawn.to(indices.device))
