"""The kinds of texts that a language model can be asked for about a class, by `templates/describe.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pydantic import NonNegativeFloat, PositiveInt

from ipo.config import Section
from ipo.llm.base import TextForm
from ipo.render import render, templates_folder
from ipo.store.toml import read_toml

FILE = "describe.toml"
_VOWELS = "aeiouAEIOU"


class Kind(Section):
    """What is asked about each class, and how; `templates/describe.toml` explains the fields."""

    template: str
    questions: tuple[str, ...]
    form: TextForm
    samples: PositiveInt
    temperature: NonNegativeFloat
    max_tokens: PositiveInt

    def asked(self, classname: str, *, chat: bool) -> list[str]:
        """What the model is shown for each question; without `chat` it is a text to go on with."""
        article = "an" if classname[:1] in _VOWELS else "a"
        names = {"<A CLASS>": f"{article} {classname}", "<CLASS>": classname}
        return [render(self.template, question=_filled(question, names), chat=chat) for question in self.questions]


def _filled(question: str, names: Mapping[str, str]) -> str:
    for slot, name in names.items():
        question = question.replace(slot, name)
    return question


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by their names."""
    tables = read_toml(templates_folder() / FILE, "the kinds of descriptions")
    return {name: Kind.model_validate(table) for name, table in tables.items()}
