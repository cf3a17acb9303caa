"""The nouns of the search: a prompt with a class slot, its score, and one line of the history."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from ipo.config import MetricName
from ipo.errors import PromptError
from ipo.store.files import EXACT, checked

CLASS_PLACEHOLDER = "<CLASS>"
PLAIN_PROMPT = "a photo of a <CLASS>."
"""What everyone tries first: a search has to be better than this."""
ScoreName = MetricName | Literal["confidence"]
"""What prompts are ranked by."""
_ROUNDING = 1e-6
_INVISIBLE = (
    r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Control characters that are no space, and what Unicode lets a renderer pass over (Default_Ignorable_Code_Point)."""
_UNSEEN = re.compile(f"[{_INVISIBLE}]")
_ODD_CHARACTERS = re.compile(rf"[{_INVISIBLE}\t-\r\x1c-\x1f\x85\u2028\u2029\ud800-\udfff<>{{}}]")


def visible(text: str) -> str:
    """The text without characters that nobody sees, such as a zero-width space or a change of direction."""
    return _UNSEEN.sub("", text)


def one_line(text: str) -> str:
    """The visible text with brackets and all that is white as single spaces."""
    return re.sub(r"[\s<>{}]+", " ", visible(text))


def unescaped(text: str) -> str:
    """The visible text with what HTML entities stand for, as CLIP's tokenizer reads them: `&amp;` is `&`."""
    while (shorter := html.unescape(visible(text))) != text:
        text = shorter
    return text


def text_key(text: str) -> str:
    """Normal form under which texts that differ only in case, spaces, invisible characters or a final stop are one."""
    return re.sub(r"\s+", " ", visible(text)).strip().rstrip(".").rstrip().casefold()


@dataclass(frozen=True)
class Prompt:
    """A sentence with exactly one class slot, such as "a photo of a <CLASS>." (CLIP papers call it a template)."""

    text: str

    def __post_init__(self) -> None:
        if self.text.count(CLASS_PLACEHOLDER) != 1:
            raise PromptError(
                f"a prompt needs {CLASS_PLACEHOLDER} exactly once",
                where=repr(self.text),
                remedy=f'Write it like "a photo of a {CLASS_PLACEHOLDER}."',
            )
        if _ODD_CHARACTERS.search(self.before + self.after):
            raise PromptError(
                "a prompt holds no angle brackets, braces, line breaks or invisible characters", where=repr(self.text)
            )
        if html.unescape(self.text) != self.text:
            remedy = "Write the character itself, such as &"
            raise PromptError("a prompt holds no HTML entities", where=repr(self.text), remedy=remedy)

    @classmethod
    def from_sides(cls, before: str, after: str) -> Prompt:
        """The prompt with `before` and `after` around the slot, each `unescaped` and made `one_line`."""
        left, right = (one_line(unescaped(side)).replace(" .", ".") for side in (before, after))
        return cls(f"{left}{CLASS_PLACEHOLDER}{right}".strip())

    @property
    def before(self) -> str:
        """The words in front of the slot."""
        return self.text.partition(CLASS_PLACEHOLDER)[0]

    @property
    def after(self) -> str:
        """The words behind the slot."""
        return self.text.partition(CLASS_PLACEHOLDER)[2]

    def fill(self, classname: str) -> str:
        """The text that the text encoder is given for one class."""
        return self.text.replace(CLASS_PLACEHOLDER, classname)

    def key(self) -> str:
        """What two prompts share that differ only in case, spaces, invisible characters or a final stop."""
        return text_key(self.text)


@dataclass(frozen=True)
class Score:
    """How a prompt did on the training shots. Accuracies are fractions in 0..1; a loss is a mean cross-entropy in nats.

    `low` and `high` bound `accuracy` (95%, Wilson). `margin` is the mean of the true class's logit minus the best
    other one. The `fold_*` figures let each class compete only inside its fold of classes. All are finite: NaN compares
    as neither better nor worse than anything, and could win.
    """

    accuracy: float
    loss: float
    low: float
    high: float
    margin: float
    fold_accuracy: float
    fold_loss: float

    __pydantic_config__: ClassVar = EXACT
    metric: ClassVar[ScoreName] = "accuracy"

    @property
    def value(self) -> float:
        """The accuracy: what prompts are ranked by."""
        return self.accuracy

    def require_possible(self) -> None:
        """Raise `ValueError` for figures that no images can give."""
        shares = (0.0, self.low, self.accuracy, self.high, 1.0)
        ordered = all(below <= above + _ROUNDING for below, above in pairwise(shares))
        if not ordered or not -_ROUNDING <= self.fold_accuracy <= 1 + _ROUNDING:
            raise ValueError("an accuracy of a score is none, or outside its interval")
        if min(self.loss, self.fold_loss) < 0:
            raise ValueError("a loss of a score is negative")

    def __post_init__(self) -> None:
        _require_finite(vars(self))


@dataclass(frozen=True)
class MapScore:
    """How a prompt did on training shots with several labels each: mean average precision over classes, in 0..1.

    `loss` is the mean cross-entropy in nats of images whose labels have an equal share each; `low` and `high` bound
    `map` (95%, by the standard error over resamplings of the images). `classes` of them have images, and count.
    """

    map: float
    loss: float
    low: float
    high: float
    classes: int

    __pydantic_config__: ClassVar = EXACT
    metric: ClassVar[ScoreName] = "map"

    @property
    def value(self) -> float:
        """The mean average precision: what prompts are ranked by."""
        return self.map

    def require_possible(self) -> None:
        """Raise `ValueError` for figures that no images can give."""
        shares = (0.0, self.low, self.map, self.high, 1.0)
        if not all(below <= above + _ROUNDING for below, above in pairwise(shares)) or self.classes < 1:
            raise ValueError("a mean average precision is none, outside its interval, or of no class")
        if self.loss < 0:
            raise ValueError("a loss of a score is negative")

    def __post_init__(self) -> None:
        _require_finite(vars(self))


@dataclass(frozen=True)
class ConfidenceScore:
    """How clearly images without labels fall into classes under a prompt: the confidence of CARPRT or ZPE, as a cosine.

    `loss` is the mean entropy in nats of their class probabilities; `low` and `high` bound `confidence` (95%, by the
    standard error over the images).
    """

    confidence: float
    loss: float
    low: float
    high: float

    __pydantic_config__: ClassVar = EXACT
    metric: ClassVar[ScoreName] = "confidence"

    @property
    def value(self) -> float:
        """The confidence: what prompts are ranked by."""
        return self.confidence

    def require_possible(self) -> None:
        """Raise `ValueError` for figures that no images can give."""
        if not all(below <= above + _ROUNDING for below, above in pairwise((self.low, self.confidence, self.high))):
            raise ValueError("a confidence is outside its interval")
        if abs(self.confidence) > 2 + _ROUNDING or self.loss < -_ROUNDING:
            raise ValueError("a confidence of a score is none, or its loss is negative")

    def __post_init__(self) -> None:
        _require_finite(vars(self))


METRIC_WORDS: Mapping[ScoreName, str] = {"accuracy": "accuracy", "map": "mAP", "confidence": "confidence"}
"""What tables call the figure that prompts are ranked by."""

AnyScore = Score | MapScore | ConfidenceScore
"""What a prompt is ranked by is its `value`; `metric` says what that is."""


def _require_finite(figures: dict[str, float]) -> None:
    for name, value in figures.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} of a score is {value}")


@dataclass(frozen=True)
class HistoryEntry:
    """One candidate of a run: scored, or rejected with a reason.

    `parent` is the id of the entry that it descends from, for IPO the best prompt shown; `parents` are the ids of all,
    where there are several. A set of prompts has the ids of its `members`, entries before it with one prompt each.
    """

    id: int
    step: int
    text: str
    parent: int | None = None
    score: AnyScore | None = None
    reason: str | None = None
    parents: tuple[int, ...] | None = None
    members: tuple[int, ...] | None = None
    by: Literal["human"] | None = None
    """Who proposed it, where that was not the search."""

    __pydantic_config__: ClassVar = EXACT

    @classmethod
    def child(
        cls, index: int, step: int, text: str, lineage: Sequence[int], score: AnyScore | None, reason: str | None
    ) -> HistoryEntry:
        """The entry of a candidate that descends from the entries with the ids of `lineage`, the nearest first."""
        parent = lineage[0] if lineage else None
        return cls(index, step, text, parent, score, reason, tuple(lineage) if len(lineage) > 1 else None)

    def to_json(self) -> dict[str, Any]:
        """The entry as one line of `history.jsonl`, without the fields that it lacks."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> HistoryEntry:
        """The entry that `to_json` wrote. Raises `ValueError` for another one."""
        entry = _entry(row)
        if (entry.score is None) == (entry.reason is None):
            raise ValueError("it needs either a score or a reason")
        if entry.parent is not None and not 0 <= entry.parent < entry.id:
            raise ValueError(f"'parent': {entry.parent} is no entry before this one")
        if entry.parents is not None and (len(entry.parents) < 2 or entry.parents[0] != entry.parent):
            raise ValueError("'parents' are several, and the first is 'parent'")
        if any(not 0 <= parent < entry.id for parent in entry.parents or ()):
            raise ValueError("'parents' holds an id of no entry before this one")
        members = entry.members
        if members is not None and (len(members) < 2 or list(members) != sorted({*members})):
            raise ValueError("'members' are several, each once and in order")
        if any(not 0 <= member < entry.id for member in members or ()):
            raise ValueError("'members' holds an id of no entry before this one")
        if entry.score is not None:
            entry.score.require_possible()
        if None in row.values():
            raise ValueError("what it lacks is left out, and not null")
        return entry


_entry = checked(HistoryEntry)
