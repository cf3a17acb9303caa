"""How a description such as `long tail` is hung on a class name: `lemur, which has long tail`."""

from __future__ import annotations

import re

_IS = re.compile(r"(?:an?|used)\b", re.IGNORECASE)
_AS_IT_STANDS = re.compile(r"(?:has|have|is|are|often|typically|may|can)\b", re.IGNORECASE)


def clause(description: str) -> str:
    """`which has ...`, `which is ...` for what begins with `a`, `an` or `used`, or `which` before a verb."""
    text = description.strip().rstrip(".").rstrip()
    if _IS.match(text):
        return f"which is {text}"
    return f"which {text}" if _AS_IT_STANDS.match(text) else f"which has {text}"
