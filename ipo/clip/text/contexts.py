"""Learned context vectors among token ids: which sequences a text path is asked to encode.

Shape legend: B images or samples, C classes, M context vectors, W token embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ipo.clip.text.tokens import Tokens, vector_id


def context_sequences(
    tokens: Tokens, classnames: Sequence[str], before: Tensor, after: Tensor, tail: str
) -> list[list[int]]:
    """Id sequences of B x C texts in which the negative id -1-r stands for row r of `before` then `after`, flattened.

    Equal ids mean equal vectors, so a context that all classes share is the same prefix in all of their sequences.
    """
    images, own, count, _ = before.shape
    count_after, offset = after.shape[2], images * own * count
    spans = after.shape[1]
    sequences = []
    for image in range(images):
        for index, name in enumerate(classnames):
            first = (image * own + (index if own > 1 else 0)) * count
            second = offset + (image * spans + (index if spans > 1 else 0)) * count_after
            words = tokens.words(name + tail) if not count_after else tokens.words(name)
            behind = () if not count_after else tokens.words(tail)
            left = map(vector_id, range(first, first + count))
            right = map(vector_id, range(second, second + count_after))
            sequence = [*tokens.start, *left, *words, *right, *behind, *tokens.end]
            tokens.check(len(sequence), f"{count + count_after} context vectors, {name}{tail}")
            sequences.append(sequence)
    return sequences
