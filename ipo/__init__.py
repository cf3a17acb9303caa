"""Human-readable prompts for CLIP-like models, found by a language model (IPO, arXiv 2410.15397)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipo.api.comparison import compare
    from ipo.api.functions import evaluate, fit, optimize, resume
    from ipo.api.loaded import Run, load

__version__ = "0.1.0"
__all__ = ["Run", "compare", "evaluate", "fit", "load", "optimize", "resume"]

_PLACES = {
    "compare": "ipo.api.comparison",
    **dict.fromkeys(("evaluate", "fit", "optimize", "resume"), "ipo.api.functions"),
    **dict.fromkeys(("Run", "load"), "ipo.api.loaded"),
}
"""The module of each name, which is imported when the name is first used: `import ipo` alone takes no time."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ipo' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
