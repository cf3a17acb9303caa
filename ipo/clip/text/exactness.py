"""Which text path a model takes: its structure chooses, and a comparison with `model.encode_text` confirms."""

from __future__ import annotations

from typing import Any

import torch

from ipo.clip.text.engine import TextEngine
from ipo.clip.text.plain import PlainText, TextPath, token_embedding
from ipo.clip.text.tokens import Tokens
from ipo.clip.text.tower import read_tower
from ipo.errors import ModelError

TOLERANCE = 1e-5
"""Largest absolute difference of unit-length features, in float32."""
PROBES = (
    "a",
    "a photo of a cat.",
    "a photo of a dog house in the snow.",
    "a photo of an accordion, one of the many things that stand, lie or hang around in the world, seen on a bright day "
    "by somebody who takes pictures of whatever comes along and then looks at them once more at home.",
)
"""Texts of different lengths, some with a shared beginning, the last one almost as long as a context."""
ODD_PROBE = " A  Photo of_two CAFÉS &amp; a T-shirt, 25% off! "
"""Spaces, capitals, accents, an entity and signs: what tokenizers clean each in their way."""


def choose_text_path(model: Any, tokens: Tokens, dtype: torch.dtype, memory_mb: int) -> TextPath:
    """The engine for towers that it can read, else the plain path.

    Raises `ModelError` where the engine's features or our token ids differ from the model's own.
    """
    _check_ids(tokens)
    own = token_embedding(model).weight.dtype
    dtype = own if dtype == torch.float32 else dtype
    tower = read_tower(model, dtype)
    if tower is None:
        return PlainText(model, tokens, dtype)
    exact = tower if dtype == own else read_tower(model, own)
    assert exact is not None
    difference = largest_difference(TextEngine(exact, memory_mb), PlainText(model, tokens, own), tokens)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the text engine differs from the model's encode_text by {difference:.1e} (at most {TOLERANCE:.0e})",
            remedy="This model cannot be used; please report it",
        )
    return TextEngine(tower, memory_mb)


def _check_ids(tokens: Tokens) -> None:
    """Compare the ids of all probes that fit with those of the model's own tokenizer."""
    for text in (*PROBES, ODD_PROBE):
        count = len(tokens.start) + len(tokens.words(text)) + len(tokens.end)
        if count <= tokens.context_length and tokens.padded([tokens.sequence(text)]).tolist() != tokens.own(text):
            raise ModelError(
                f"the token ids of {text!r} differ from those of the model's own tokenizer",
                remedy="This model cannot be used; please report it",
            )


@torch.no_grad()
def largest_difference(left: TextPath, right: TextPath, tokens: Tokens) -> float:
    """Largest absolute difference between two paths' features of the probes, cut to the context; NaN counts."""
    room = tokens.context_length - len(tokens.start) - len(tokens.end)
    sequences = [[*tokens.start, *tokens.words(text)[:room], *tokens.end] for text in PROBES]
    return float((left.encode(sequences) - right.encode(sequences)).abs().max())
