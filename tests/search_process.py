"""A search against a server, in a process that can be killed. Arguments: address, run folder."""

from __future__ import annotations

import sys
from pathlib import Path

from ipo.clip.lengths import TextRoom
from ipo.config import LLMSettings, SearchSettings
from ipo.llm.server.chat import OpenAILLM
from ipo.search.loop import Search, optimize
from ipo.search.record import Record
from tests.fakes import FakeClip, image_set

CLASSNAMES = ("cat", "dog", "house", "tree", "boat")
CANDIDATES = 8


def run(address: str, folder: Path, steps: int = 2) -> str:
    """Begin or go on with a search; why it ended."""
    sampling = LLMSettings(base_url=address, timeout=20.0, retries=0, concurrency=CANDIDATES)
    llm, clip = OpenAILLM("m", sampling), FakeClip()
    settings = SearchSettings(steps=steps, candidates=CANDIDATES, english_only=False, class_names_allowed=True)
    search = Search(
        settings=settings,
        sampling=sampling,
        clip=clip,
        llm=llm,
        images=image_set(clip, CLASSNAMES),
        classnames=CLASSNAMES,
        room=TextRoom.of(clip, CLASSNAMES),
        captions=(),
        seed=1,
    )
    record = Record.resume("accuracy", folder, settings.first_prompts)
    try:
        return optimize(search, record)
    finally:
        llm.close()


if __name__ == "__main__":
    print(run(sys.argv[1], Path(sys.argv[2])))
