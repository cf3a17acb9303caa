"""Experiment trackers as an option: trackio and wandb, which share one interface."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ipo.config import TrackerName
from ipo.errors import ConfigError
from ipo.record import Record

PROJECT = "ipo"


@dataclass(frozen=True)
class Tracker:
    """A run of a tracker, or nothing at all."""

    run: Any = None

    @classmethod
    def start(cls, name: TrackerName, run: str, settings: dict[str, Any]) -> Tracker:
        """A new run of its own, so that a run of the caller's stays open."""
        module = require_tracker(name)
        return cls(module.init(project=PROJECT, name=run, config=settings) if module else None)

    def log(self, record: Record) -> None:
        """Send the figures of a search after its last step."""
        if self.run is not None:
            self.run.log(step_figures(record), step=max(0, record.last_step))

    def finish(self) -> None:
        """Close the run."""
        if self.run is not None:
            self.run.finish()


def require_tracker(name: TrackerName) -> Any:
    """The module of a tracker; None for `none`. Raises `ConfigError` where it is not installed."""
    if name == "none":
        return None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"tracker '{name}' is not installed", remedy=f"pip install {name}") from error


def step_figures(record: Record) -> dict[str, float]:
    """The figures of a search after its last step."""
    history, usage, best = record.history, record.usage(), record.history.best().score
    assert best is not None
    return {
        "best_training_accuracy": best.accuracy,
        "best_training_loss": best.loss,
        "scored": len(history.scored()),
        "rejected": len(history.rejects()),
        "tokens": usage.tokens,
        "seconds": usage.seconds,
    }
