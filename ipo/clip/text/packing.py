"""Token sequences as packed rows: each distinct prefix is one row, so that it is computed once for all who share it.

Sorted sequences form a trie: a sequence adds rows only behind what it shares with the one before it. These new rows
are its *tail*; they read the keys of its whole *path*, the shared rows and its own. Linear layers see all rows of a
pack as one matrix without padding. Attention takes tails of one length at a time (a `Group`).

Shape legend: G sequences of a group, L keys, N sequences, S new rows of a sequence, T rows of a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

KEY_STEP = 8
"""Paths of a group differ by less than this many keys, so that little of a key table is padding."""


@dataclass(frozen=True)
class Group:
    """Sequences whose tails have the same length. Tail g is the rows start + g S ... start + (g + 1) S - 1."""

    start: int
    size: int
    """S, rows of a tail."""
    keys: Tensor
    """Rows of the path (G, L), ancestors first; what is behind a path's end is padding."""
    shared: Tensor
    """Ancestors of each tail (G,): query s reads the keys 0 ... shared + s."""

    @property
    def stop(self) -> int:
        """The row behind the last tail."""
        return self.start + self.size * len(self.keys)


@dataclass(frozen=True)
class Pack:
    """Sequences that are encoded together, in the order of their groups."""

    ids: Tensor
    """Token id of each row (T,); -1-r stands for row r of given vectors."""
    positions: Tensor
    """Position of each row in its sequences (T,)."""
    ends: Tensor
    """Row of each sequence's last token (N,)."""
    members: list[int]
    """Index of each sequence among those given to `packs`."""
    groups: list[Group]

    def to(self, device: torch.device) -> Pack:
        """The pack with its tables on `device`, copied without waiting."""
        ids, positions, ends = (sent(tensor, device) for tensor in (self.ids, self.positions, self.ends))
        groups = [Group(g.start, g.size, sent(g.keys, device), sent(g.shared, device)) for g in self.groups]
        return Pack(ids, positions, ends, self.members, groups)


@dataclass(frozen=True)
class _Tail:
    """A sequence, with the number of leading tokens for which its pack holds rows already."""

    index: int
    ids: Sequence[int]
    shared: int

    @property
    def bucket(self) -> tuple[int, int]:
        return len(self.ids) - self.shared, -(-len(self.ids) // KEY_STEP)


def packs(
    sequences: Sequence[Sequence[int]], max_rows: int, share: Callable[[int, int], float] = lambda *_: 0.0
) -> Iterator[Pack]:
    """Packs over distinct `sequences`, taken in sorted order: at most `max_rows` rows, or one sequence.

    `share` says which part of a pack's memory a tail takes, from its new rows and the keys of its path.
    """
    tails: list[_Tail] = []
    rows, filled = 0, 0.0
    previous: Sequence[int] = ()
    for index in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        ids = sequences[index]
        shared = common_prefix(previous, ids)
        new = len(ids) - shared
        if tails and (rows + new > max_rows or filled + share(new, len(ids)) > 1):
            yield _pack(tails)
            tails, rows, filled, shared, new = [], 0, 0.0, 0, len(ids)
        tails.append(_Tail(index, ids, shared))
        rows, filled = rows + new, filled + share(new, len(ids))
        previous = ids
    if tails:
        yield _pack(tails)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`; the program does not wait for a CUDA copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading elements two sequences share."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def _pack(tails: list[_Tail]) -> Pack:
    """Rows for `tails`, which are in sorted order: groups one behind the other, and each path looked up once."""
    grouped = [list(members) for _, members in groupby(sorted(tails, key=lambda t: t.bucket), key=lambda t: t.bucket)]
    first: dict[int, int] = {}
    total = 0
    for members in grouped:
        for tail in members:
            first[tail.index] = total
            total += len(tail.ids) - tail.shared
    paths: dict[int, list[int]] = {}
    path: list[int] = []
    for tail in tails:
        start = first[tail.index]
        path = path[: tail.shared] + list(range(start, start + len(tail.ids) - tail.shared))
        paths[tail.index] = path
    ordered = [tail for members in grouped for tail in members]
    return Pack(
        ids=torch.tensor([i for tail in ordered for i in tail.ids[tail.shared :]]),
        positions=torch.tensor([p for tail in ordered for p in range(tail.shared, len(tail.ids))]),
        ends=torch.tensor([paths[tail.index][-1] for tail in ordered]),
        members=[tail.index for tail in ordered],
        groups=[_group(members, first, paths) for members in grouped],
    )


def _group(members: list[_Tail], first: dict[int, int], paths: dict[int, list[int]]) -> Group:
    longest = max(len(tail.ids) for tail in members)
    keys = [paths[tail.index] + [0] * (longest - len(tail.ids)) for tail in members]
    shared = torch.tensor([tail.shared for tail in members])
    return Group(first[members[0].index], members[0].bucket[0], torch.tensor(keys), shared)
