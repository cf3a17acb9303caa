"""Models of transformers, loaded whole: none with weights made up for those that a file lacks."""

from __future__ import annotations

from typing import Any

from ipo.errors import ModelError


def whole_model(kind: Any, source: str, **options: Any) -> Any:
    """What `kind.from_pretrained(source, ...)` gives, where `kind` is one of transformers' automatic classes.

    Raises `ModelError` where the file lacks weights, which transformers would make up at random, with a warning only.
    """
    model, info = kind.from_pretrained(source, output_loading_info=True, **options)
    lacking = sorted(map(str, info["missing_keys"]))
    if lacking:
        raise ModelError(f"the file lacks {len(lacking)} of the model's weights, such as {lacking[0]}", where=source)
    return model
