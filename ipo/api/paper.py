"""The setting of the paper that this project is named for, as `--paper` gives it (IPO, arXiv 2410.15397, section 4)."""

from __future__ import annotations

from typing import Any

from ipo.config import CaptionSettings
from ipo.errors import ConfigError

PAPER_SETTINGS: dict[str, Any] = {
    "data": {"shots": 1},
    "captions": {"token_budget": 20_000},
    "search": {
        "steps": 100,
        "candidates": 5,
        "history": 20,
        "keep_first": True,
        "first_prompts": ("a photo of a <CLASS>",),
    },
    "llm": {"temperature": 1.0},
}
"""The paper's 1-shot setting (arXiv 2410.15397, section 4): one description of every training image, and no model.

Its longest set of descriptions has some 18,000 tokens. `require_word_on_captions` sees to it that there is a captioner.
"""


def require_word_on_captions(shots: int, captions: CaptionSettings) -> None:
    """Raise `ConfigError` where the paper's 1-shot setting is asked for and nothing is said of a captioner."""
    if shots == 1 and "captioner" not in captions.model_fields_set:
        remedy = (
            "Give --captioner (theirs was MiniCPM-V-2; hf:ORG/MODEL, openai:MODEL or describe), "
            "or --captioner none for their ablation without"
        )
        raise ConfigError(
            "the paper's setting has a description of each training image, and no captioner", remedy=remedy
        )
