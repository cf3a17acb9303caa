"""The curve of a fit on disk: a row of figures an epoch."""

from __future__ import annotations

from typing import Any

from pydantic import FiniteFloat

from ipo.store.files import checked

CURVES_FILE = "curves.jsonl"


def curve_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `curves.jsonl`: finite numbers by name, among them the epoch. Raises `ValueError` or `KeyError`."""
    return {"epoch": row["epoch"], **_curve_row(row)}


_curve_row = checked(dict[str, FiniteFloat])
