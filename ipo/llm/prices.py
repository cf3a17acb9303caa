"""What an LLM's tokens cost, by a table that users can extend."""

from __future__ import annotations

from pathlib import Path

from pydantic import NonNegativeFloat, ValidationError

from ipo.config import Section
from ipo.errors import ConfigError
from ipo.llm.presets import read_tables, user_file

SHIPPED = Path(__file__).parent / "prices.toml"


class Price(Section):
    """US dollars per million tokens."""

    input: NonNegativeFloat
    output: NonNegativeFloat


def require_price(model: str) -> None:
    """Raise `ConfigError` where the table lacks a model, so that a bound on the cost cannot be kept."""
    if cost(model, 1, 1) is None:
        raise ConfigError(f"search.max_cost is set, but there is no price for {model}", remedy="Add it to prices.toml")


def cost(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """US dollars for so many tokens of a model (its `LLM.name`), or None where the table does not have it."""
    row = read_tables(SHIPPED, user_file("prices")).get(model.removeprefix("openai:"))
    if row is None:
        return None
    try:
        price = Price.model_validate(row)
    except ValidationError as error:
        raise ConfigError(f"the price of '{model}' needs `input` and `output`", where="prices.toml") from error
    return (prompt_tokens * price.input + completion_tokens * price.output) / 1e6
