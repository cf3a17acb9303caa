"""The names of methods, found among entry points without importing a method, which takes seconds."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from ipo.errors import ConfigError, UnknownName

GROUP = "ipo.methods"
LLM_GROUP = "ipo.llm_methods"
"""Where methods are registered that ask an LLM: they are handed one, with captions of the training images."""
LOCAL_LLM_GROUP = "ipo.local_llm_methods"
"""Where methods are registered that work with the weights of an LLM: they are handed one of transformers."""
GROUPS = (GROUP, LLM_GROUP, LOCAL_LLM_GROUP)
SEARCH = "ipo"
"""The method that `ipo optimize` runs."""


def available_methods() -> list[str]:
    """Names of all registered methods."""
    return sorted(entry.name for group in GROUPS for entry in entry_points(group=group))


def require_method(name: str) -> EntryPoint:
    """The entry point of a method, not loaded. Raises `UnknownName`, and `ConfigError` for two of one name."""
    found = [entry for group in GROUPS for entry in entry_points(group=group, name=name)]
    if not found:
        raise UnknownName("method", name, available_methods())
    if len(found) > 1:
        owners = ", ".join(entry.value for entry in found)
        raise ConfigError(f"method '{name}' is registered more than once", where=owners, remedy="Uninstall one")
    return found[0]


def asks_llm(name: str) -> bool:
    """Whether a method is handed an LLM and captions. Raises as `require_method`."""
    return require_method(name).group == LLM_GROUP


def opens_llm(name: str) -> bool:
    """Whether a method is handed an LLM whose weights it works with. Raises as `require_method`."""
    return require_method(name).group == LOCAL_LLM_GROUP
