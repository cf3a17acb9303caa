"""Each answer is on disk as it comes: what was paid for is never asked for again, whenever the process is killed."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ipo.captions import Captioner
from ipo.captions.api import ApiDescriber
from ipo.errors import LLMError, RunError
from ipo.llm.base import Message, Reply
from ipo.search.record import PENDING_FILE, Record
from ipo.store.files import append_rows, read_rows
from tests.clip.picture_clip import draw_pictures
from tests.llm.server import FakeServer, serving
from tests.search_process import CANDIDATES, run

WORDS = ("red", "old", "small", "dark", "wide", "round", "wet", "quiet", "soft", "tall", "deep", "cold", "new")
FIRST = ("a photo of a <CLASS>.",)
ASK = [Message("user", "Write a prompt.")]


def written(request: dict[str, Any]) -> str:
    """A prompt that the seed decides."""
    seed = request["seed"]
    words = " ".join(WORDS[seed // len(WORDS) ** place % len(WORDS)] for place in range(4))
    return json.dumps({"before": f"a {words}", "after": "."})


class Holding:
    """Answers `free` requests of the step number `step` (from 1), and holds the others back until it is released."""

    def __init__(self, step: int, free: int) -> None:
        self.free = (step - 1) * CANDIDATES + free
        self.release = threading.Event()
        self.answered: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any]) -> str:
        with self._lock:
            free = len(self.answered) < self.free
            if free:
                self.answered.append(request["seed"])
        if not free:
            self.release.wait(30)
        return written(request)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came")


def kept_of(folder: Path, step: int) -> int:
    """How many replies of a step that is under way are on disk."""
    with suppress(FileNotFoundError):
        whole = (folder / PENDING_FILE).read_bytes().split(b"\n")[:-1]
        if whole and json.loads(whole[0])["step"] == step:
            return len(whole) - 1
    return 0


def kill_in(folder: Path, server: FakeServer, step: int, kept: int) -> None:
    """Search in a process of its own, and kill it when `kept` replies of a step are on disk."""
    command = [sys.executable, "-m", "tests.search_process", server.url, str(folder)]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: kept_of(folder, step) == kept or process.poll() is not None)
        finally:
            process.kill()


@pytest.mark.parametrize(("step", "kept"), [(1, 7), (2, 5)])
def test_a_killed_step_asks_only_for_what_is_missing_and_ends_as_the_unbroken_one(
    tmp_path: Path, step: int, kept: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    with serving(written) as server:
        run(server.url, whole)
        unbroken = Counter(request["seed"] for request in server.requests)
    assert set(unbroken.values()) == {1}
    write = Holding(step, kept)
    with serving(write) as server:
        kill_in(broken, server, step, kept)
        assert len(write.answered) == (step - 1) * CANDIDATES + kept
        before = len(server.requests)
        write.free = 10**6
        write.release.set()
        assert run(server.url, broken) == "all 2 steps done"
        asked = Counter(request["seed"] for request in server.requests)
        again = [request["seed"] for request in server.requests[before:]]
    assert set(asked) == set(unbroken)
    assert not set(again) & set(write.answered[: (step - 1) * CANDIDATES + kept]), "an answer was asked for twice"
    assert len(again) == 2 * CANDIDATES - (step - 1) * CANDIDATES - kept
    assert (broken / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    assert [one["text"] for row in read_rows(broken / "replies.jsonl") for one in row["replies"]] == [
        one["text"] for row in read_rows(whole / "replies.jsonl") for one in row["replies"]
    ]
    assert not (broken / PENDING_FILE).exists()


def reply(text: str) -> Reply:
    return Reply(text, "line", "stop", 10, 5, 0.5)


def begun(folder: Path, places: tuple[int, ...] = (2, 0)) -> Record:
    """A record whose first step has got the replies of some places."""
    record = Record.resume("accuracy", folder, FIRST)
    record.begin(1, 0, ASK)
    for place in places:
        record.keep(place, reply(f"reply {place}"), 1.5)
    return record


def test_replies_are_kept_by_their_place_with_what_was_asked(tmp_path: Path) -> None:
    begun(tmp_path)
    question, *replies = read_rows(tmp_path / PENDING_FILE)
    assert (question["step"], question["messages"]) == (1, [{"role": "user", "content": "Write a prompt."}])
    assert [row["index"] for row in replies] == [2, 0]
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert again.begin(1, 0, ASK) == {2: reply("reply 2"), 0: reply("reply 0")}


def test_a_step_that_is_whole_leaves_one_line_and_the_seconds_of_both_processes(tmp_path: Path) -> None:
    begun(tmp_path)
    again = Record.resume("accuracy", tmp_path, FIRST)
    again.begin(1, 0, ASK)
    again.keep(1, reply("reply 1"), 0.5)
    again.log_replies(1, 0, ASK, [reply(f"reply {place}") for place in range(3)], 0.5)
    assert not (tmp_path / PENDING_FILE).exists()
    (row,) = read_rows(tmp_path / "replies.jsonl")
    assert row["seconds"] == 2.0
    assert set(row) == {"step", "ask", "time", "seconds", "messages", "replies"}


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_reply_is_asked_for_again_and_the_file_goes_on(tmp_path: Path, cut: int) -> None:
    begun(tmp_path)
    path = tmp_path / PENDING_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert set(again.begin(1, 0, ASK)) == {2}
    again.keep(0, reply("reply 0"), 1.0)
    assert set(Record.resume("accuracy", tmp_path, FIRST).begin(1, 0, ASK)) == {0, 2}


@pytest.mark.parametrize("keep", [0, 10, None])
def test_a_torn_question_is_as_if_nothing_had_come(tmp_path: Path, keep: int | None) -> None:
    begun(tmp_path)
    path = tmp_path / PENDING_FILE
    path.write_bytes(path.read_bytes()[:keep] if keep is not None else path.read_bytes().splitlines(keepends=True)[0])
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert again.begin(1, 0, ASK) == {}
    again.keep(0, reply("reply 0"), 1.0)
    assert set(Record.resume("accuracy", tmp_path, FIRST).begin(1, 0, ASK)) == {0}


@pytest.mark.parametrize("other", [(2, 0, ASK), (1, 1, ASK), (1, 0, [Message("user", "Something else.")])])
def test_replies_to_another_question_are_none(tmp_path: Path, other: tuple[int, int, list[Message]]) -> None:
    begun(tmp_path)
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert again.begin(*other) == {}
    assert not (tmp_path / PENDING_FILE).exists()


def test_what_a_kill_left_behind_a_whole_step_is_removed(tmp_path: Path) -> None:
    record = begun(tmp_path)
    left = (tmp_path / PENDING_FILE).read_bytes()
    record.log_replies(1, 0, ASK, [reply("reply")] * 3, 1.0)
    (tmp_path / PENDING_FILE).write_bytes(left)
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert len(again.replies(1, 0) or []) == 3
    assert not (tmp_path / PENDING_FILE).exists()


def test_a_failure_to_answer_is_not_kept(tmp_path: Path) -> None:
    record = begun(tmp_path)
    record.keep(1, Reply("", "line", "error", error="gone"), 2.0)
    assert set(Record.resume("accuracy", tmp_path, FIRST).begin(1, 0, ASK)) == {0, 2}


@pytest.mark.parametrize(
    "row",
    [
        [1],
        {"index": -1, "seconds": 1.0, "reply": {"text": "x", "form": "line", "finish_reason": "stop"}},
        {"index": "1", "seconds": 1.0, "reply": {"text": "x", "form": "line", "finish_reason": "stop"}},
        {"index": 0, "seconds": 1.0, "reply": {"text": "x", "form": "line", "finish_reason": "stop"}},
        {"index": 1, "seconds": 1.0, "reply": {"text": 5, "form": "line", "finish_reason": "stop"}},
        {"index": 1, "seconds": None, "reply": {"text": "x", "form": "line", "finish_reason": "stop"}},
        {"index": 1, "reply": {"text": "x", "form": "line", "finish_reason": "stop"}},
        {"index": 1, "seconds": 1.0, "reply": None},
        {},
    ],
)
def test_damage_is_an_error_and_nothing_is_cut(tmp_path: Path, row: Any) -> None:
    begun(tmp_path)
    append_rows(tmp_path / PENDING_FILE, [row])
    before = (tmp_path / PENDING_FILE).read_bytes()
    with pytest.raises(RunError, match=rf"{PENDING_FILE}:4"):
        Record.resume("accuracy", tmp_path, FIRST)
    assert (tmp_path / PENDING_FILE).read_bytes() == before


def test_replies_to_a_step_whose_forerunners_are_missing_are_an_error(tmp_path: Path) -> None:
    append_rows(tmp_path / PENDING_FILE, [{"step": 3, "time": "", "messages": []}])
    with pytest.raises(RunError, match="misses steps"):
        Record.resume("accuracy", tmp_path, FIRST)


def test_captions_that_came_beside_a_slow_one_or_a_failure_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second image is answered last, and with an error."""
    paths = [item.path for item in draw_pictures(tmp_path / "pictures", 6)]
    pictures: list[str] = []
    lock, others = threading.Lock(), threading.Event()

    def write(request: dict[str, Any]) -> str:
        picture = request["messages"][0]["content"][1]["image_url"]["url"]
        with lock:
            pictures.append(picture)
            number = len(pictures)
            if number == 6:
                others.set()
        if number == 2:
            others.wait(10)
            time.sleep(0.2)
            raise ConnectionError
        return f"picture {number}"

    with serving(write) as server:
        monkeypatch.setattr("ipo.captions.api.RETRIES", 0)
        captioner = Captioner(ApiDescriber("lmm", server.url), tmp_path / "cache")
        with pytest.raises(LLMError):
            captioner.caption(paths)
        assert len(pictures) == 6
        assert len(Captioner(ApiDescriber("lmm", server.url), tmp_path / "cache").caption(paths)) == 6
    assert len(pictures) == 7, "one image was asked about again"
