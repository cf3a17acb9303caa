import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipo.errors import RunError
from ipo.store.files import (
    append_rows,
    checked,
    parse_rows,
    read_rows,
    require_place,
    truncate_rows,
    write_atomic,
    write_json,
)


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=r"disk is full.*result\.json.*Free some space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    append_rows(path, [{"a": 1}, {"a": "ä"}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"a": 3')
    assert read_rows(path) == [{"a": 1}, {"a": "ä"}]
    truncate_rows(path, 2)
    assert path.read_bytes() == whole


def test_damage_before_the_last_line_is_an_error_with_its_place(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(RunError, match=r"log\.jsonl:2"):
        read_rows(path)
    path.write_text('{"a": 1}\n{"a": 2}\n[3]\n')
    with pytest.raises(RunError, match=r"not a JSON object.*log\.jsonl:3"):
        read_rows(path)


def test_rows_are_readable_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    append_rows(path, [{"text": "a ‘photo’ of a <CLASS>"}])
    assert "‘photo’" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["text"] == "a ‘photo’ of a <CLASS>"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_file_holds_a_number_that_json_does_not_have(tmp_path, number):
    path = tmp_path / "log.jsonl"
    with pytest.raises(RunError, match="no finite number"):
        append_rows(path, [{"a": 1}, {"a": {"b": [number]}}])
    with pytest.raises(RunError, match="no finite number"):
        write_json(tmp_path / "result.json", {"a": number})
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_looked_at_before_it_is_worth_the_while(tmp_path):
    (tmp_path / "file").write_text("mine")
    for free in ("file", "new", "new/below"):
        require_place(tmp_path / free)
    require_place(Path("/dev/null"))
    for name, words in (("", "a folder stands"), ("file/x", "a file stands"), ("x" * 300, "too long")):
        with pytest.raises(RunError, match=words):
            require_place(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_and_what_it_names_is_written(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": "3"}, "'a': input should be a valid integer"),
        ({"a": True}, "'a': input should be a valid integer"),
        ({}, "'a': field required"),
        ([], "input should be"),
    ],
)
def test_what_is_read_is_not_converted(value, words):
    with pytest.raises(ValueError, match=words):
        checked(Row)(value)


@dataclass(frozen=True)
class Row:
    a: int


def test_logs_of_any_damage_are_one_error(tmp_path):
    path = tmp_path / "log.jsonl"
    for damage in (b"[" * 100_000 + b"\n", b'"\xff"\n', b"\x00\x01\n", b'{"a": 1}\n{"a": "x"}\n'):
        path.write_bytes(damage)
        with pytest.raises(RunError, match=r"log\.jsonl:\d"):
            parse_rows(path, checked(Row))
    path.unlink()
    path.mkdir()
    for turn in ("a folder", "a link to itself"):
        if turn == "a link to itself":
            path.rmdir()
            path.symlink_to(path.name)
        with pytest.raises(RunError, match=r"log\.jsonl"):
            parse_rows(path, checked(Row))
