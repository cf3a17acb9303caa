"""Experiment trackers as an option: trackio and wandb, which share one interface."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ipo.config import TrackerName
from ipo.errors import ConfigError
from ipo.packages import is_installed

PROJECT = "ipo"


_log = logging.getLogger(__name__)


@dataclass
class Tracker:
    """A run of a tracker, or nothing at all: one that fails is left alone with a warning, and the search goes on."""

    run: Any = None

    @classmethod
    def start(cls, name: TrackerName, run: str, settings: dict[str, Any]) -> Tracker:
        """A new run of its own, so that a run of the caller's stays open."""
        tracker = cls(require_tracker(name))
        tracker._call(lambda module: setattr(tracker, "run", module.init(project=PROJECT, name=run, config=settings)))
        return tracker

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures of a step or an epoch."""
        self._call(lambda run: run.log(dict(figures), step=step))

    def finish(self) -> None:
        """Close the run."""
        self._call(lambda run: run.finish())

    def _call(self, act: Callable[[Any], object]) -> None:
        if self.run is None:
            return
        try:
            act(self.run)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises, the search is worth more
            self.run = None
            _log.warning("the tracker failed and follows no longer: %s", " ".join(str(error).split()))


def require_installed(name: TrackerName) -> None:
    """Raise `ConfigError` where a tracker is not installed; it is not imported."""
    if name != "none" and not is_installed(name):
        raise ConfigError(f"tracker '{name}' is not installed", remedy=f"pip install {name}")


def require_tracker(name: TrackerName) -> Any:
    """The module of a tracker; None for `none`. Raises `ConfigError` where it cannot be imported."""
    require_installed(name)
    try:
        return None if name == "none" else importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"tracker '{name}' cannot be imported: {error}", remedy=f"pip install {name}") from error
