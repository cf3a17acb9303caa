import json

import pytest

from ipo.errors import RunError
from ipo.files import append_rows, read_rows, truncate_rows, write_atomic, write_json


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
