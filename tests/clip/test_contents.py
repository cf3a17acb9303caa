"""Content hashes: no change of a file goes unnoticed, and a known file is not read again."""

import hashlib
import os
import shutil
import threading
import time

import pytest

from ipo.clip import hashes as contents
from ipo.clip.hashes import ContentHashes, content_hash
from ipo.data.types import Item
from ipo.errors import DataError

OLD, NEW = b"a" * 100, b"b" * 100


@pytest.fixture(autouse=True)
def every_state_is_settled(monkeypatch):
    """Files of a moment ago count as old ones: what notices a change has to be something else than its recency."""
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**18))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def keep_times(source, target):
    status = source.stat()
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit_in_place(path, other):
    status = path.stat()
    with path.open("r+b") as file:
        file.write(NEW)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def move_over(path, other):
    keep_times(path, other)
    other.replace(path)


def copy_over(path, other):
    """cp -p, rsync -t, tar x: content and time of modification of another file."""
    keep_times(path, other)
    path.unlink()
    shutil.copy2(other, path)


def swap_files(path, other):
    keep_times(path, other)
    spare = path.with_name("spare")
    path.rename(spare)
    other.rename(path)
    spare.rename(other)


def swap_folders(path, other):
    keep_times(path, other)
    spare = path.parent.with_name("spare")
    path.parent.rename(spare)
    other.parent.rename(path.parent)
    spare.rename(other.parent)


def turn_a_link(path, other):
    keep_times(path, other)
    shown = path.parent / "link"
    shown.unlink()
    shown.symlink_to(other)


@pytest.mark.parametrize("change", [edit_in_place, move_over, copy_over, swap_files, swap_folders, turn_a_link])
def test_another_content_of_the_same_size_and_time_is_noticed(change, tmp_path):
    path, other = write(tmp_path / "a" / "1.png", OLD), write(tmp_path / "b" / "1.png", NEW)
    link = path.parent / "link"
    link.symlink_to(path)
    memory = ContentHashes(tmp_path / "memory.json")
    before = memory.of([path, link])[0]
    assert set(before.values()) == {contents.digest_of(OLD)}
    change(path, other)
    asked = link if change is turn_a_link else path
    assert memory.of([asked])[0][asked] == contents.digest_of(NEW)


def test_a_known_file_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path / "1.png", OLD)
    memory = ContentHashes(tmp_path / "memory.json")
    memory.of([path])
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read"))
    assert memory.of([path])[0] == {path: contents.digest_of(OLD)}


def test_a_file_of_a_moment_ago_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_NS", 3_000_000_000)
    path = write(tmp_path / "1.png", OLD)
    ContentHashes(tmp_path / "memory.json").of([path])
    assert not (tmp_path / "memory.json").exists()
    state = [*contents.state_of(path.stat()), "00"]
    assert not contents.is_settled(state, time.time_ns())
    assert contents.is_settled(state, time.time_ns() + 4_000_000_000)


def test_times_that_a_packed_file_system_made_up_are_not_believed():
    assert not contents.is_settled([1, 2, 3, 5_000_000_000, 5_000_000_000, "00"], time.time_ns())
    assert contents.is_settled([1, 2, 3, 5_000_000_000, 5_000_000_001, "00"], time.time_ns())


def test_a_memory_of_other_rows_costs_only_time(tmp_path):
    path = write(tmp_path / "1.png", OLD)
    for rows in ('{"%s": [100, 1, "00"]}', '{"%s": "text"}', '{"%s": null}', "[]"):
        (tmp_path / "memory.json").write_text(rows.replace("%s", str(path)))
        assert ContentHashes(tmp_path / "memory.json").of([path])[0] == {path: contents.digest_of(OLD)}


def test_what_is_no_file_has_a_reason_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    paths = [tmp_path / "pipe.png", tmp_path / "broken.png", tmp_path]
    found = {}
    worker = threading.Thread(target=lambda: found.update(ContentHashes(tmp_path / "m.json").of(paths)[1]), daemon=True)
    worker.start()
    worker.join(10)
    assert {path.name: reason for path, reason in found.items()} == {
        "pipe.png": "not a file",
        "broken.png": "No such file or directory",
        tmp_path.name: "not a file",
    }


def test_the_hash_of_a_set_is_that_of_contents_labels_and_order_wherever_they_lie(tmp_path):
    memory = ContentHashes(tmp_path / "memory.json")

    def hashed(folder, labels, *pictures):
        paths = [write(tmp_path / folder / f"{index}.png", data) for index, data in enumerate(pictures)]
        return content_hash([Item(path, label) for path, label in zip(paths, labels)], memory)

    first = hashed("here", (0, 1), OLD, NEW)
    assert hashed("moved", (0, 1), OLD, NEW) == first
    others = [hashed("x", (0, 1), NEW, OLD), hashed("x", (1, 0), OLD, NEW), hashed("x", (0, 1), OLD, OLD)]
    assert len({first, *others}) == 4
    with pytest.raises(DataError, match=r"cannot read image.*gone\.png"):
        content_hash([Item(tmp_path / "gone.png", 0)], memory)
