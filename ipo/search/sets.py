"""Sets of prompts that are candidates as single prompts are: the renormalised mean of their features classifies.

In the history a set names its members by the ids of entries that hold one prompt each, and were scored before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipo.clip.base import ClipModel
from ipo.errors import RunError
from ipo.llm.base import Reply
from ipo.prompt import AnyScore, Prompt
from ipo.scoring import ImageSet, ensemble_classifier, score_classifier, text_features
from ipo.search.history import History
from ipo.search.propose import Reject

JOINT = " + "
"""Between the prompts of a set, where it is shown."""


@dataclass(frozen=True)
class PromptSet:
    """Two prompts or more, with their ids in order."""

    members: tuple[int, ...]
    prompts: tuple[Prompt, ...]

    @property
    def text(self) -> str:
        """The set for people to read."""
        return JOINT.join(prompt.text for prompt in self.prompts)


def as_reply(members: Sequence[int]) -> Reply:
    """A set as it is kept in the log: the ids of its members."""
    return Reply(" ".join(map(str, members)), "set", "stop")


def read_sets(replies: Sequence[Reply], history: History) -> list[PromptSet | Reject]:
    """The sets that replies of the form `set` name; a reject for one that is there already.

    Raises `RunError` for an id that is that of no single prompt before it, as a damaged log may have.
    """
    known = {entry.members for entry in history}
    single = {entry.id for entry in history.scored() if entry.members is None}
    verdicts: list[PromptSet | Reject] = []
    for reply in replies:
        members = tuple(map(int, reply.text.split()))
        if not single.issuperset(members):
            what = "a set of prompts names another entry than a scored prompt"
            raise RunError(what, where=str(history.path or "history"), remedy="Restore the files, or start a new run")
        found = PromptSet(members, tuple(Prompt(history.entries[place].text) for place in members))
        verdicts.append(Reject(found.text, "duplicate") if members in known else found)
        known.add(members)
    return verdicts


def score_sets(
    clip: ClipModel, sets: Sequence[PromptSet], images: ImageSet, classnames: Sequence[str]
) -> list[AnyScore | None]:
    """The score of each set on all `images`; None where its logits are not finite."""
    prompts = list(dict.fromkeys(prompt for one in sets for prompt in one.prompts))
    if not prompts:
        return []
    features = text_features(clip, prompts, classnames)  # (P, C, D)
    rows = {prompt: row for row, prompt in enumerate(prompts)}
    classifiers = (ensemble_classifier(features[[rows[prompt] for prompt in one.prompts]]) for one in sets)
    return [score_classifier(clip, one, images) if bool(one.isfinite().all()) else None for one in classifiers]
