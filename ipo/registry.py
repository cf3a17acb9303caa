"""The names of methods, found among entry points without importing a method, which takes seconds."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from ipo.errors import ConfigError, UnknownName

GROUP = "ipo.methods"


def available_methods() -> list[str]:
    """Names of all registered methods."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def require_method(name: str) -> EntryPoint:
    """The entry point of a method, not loaded. Raises `UnknownName`, and `ConfigError` for two of one name."""
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise UnknownName("method", name, available_methods())
    if len(found) > 1:
        owners = ", ".join(entry.value for entry in found)
        raise ConfigError(f"method '{name}' is registered more than once", where=owners, remedy="Uninstall one")
    return found[0]
