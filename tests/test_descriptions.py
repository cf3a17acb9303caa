"""The file of class texts: what is read, and what is told in one line where it is none."""

import json

import pytest

from ipo.descriptions import Descriptions, read_descriptions, write_descriptions
from ipo.errors import DataError
from ipo.screen import printable


def test_what_is_written_is_read_again(tmp_path):
    texts = {"red thing": ["it is red", "ein Ding für Leser"], "green": []}
    write_descriptions(tmp_path / "d.json", texts)
    found = read_descriptions(tmp_path / "d.json")
    assert (found["red thing"], found["green"]) == (("it is red", "ein Ding für Leser"), ())
    assert json.loads((tmp_path / "d.json").read_text("utf-8")) == texts
    assert found.digest == Descriptions.of(texts).digest != Descriptions.of({**texts, "green": ["new"]}).digest


@pytest.mark.parametrize("name", ["Red_Thing", "red thing", " RED  thing "])
def test_a_class_is_found_in_any_spelling_of_case_and_spaces(tmp_path, name):
    (tmp_path / "d.json").write_text(json.dumps({"red_Thing": ["x"]}))
    assert read_descriptions(tmp_path / "d.json")[name] == ("x",)
    assert name in read_descriptions(tmp_path / "d.json")


def test_a_text_is_one_visible_line(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({"a": ["two\nlines\u200b {x}", " ", "\ud800"]}))
    assert read_descriptions(tmp_path / "d.json")["a"] == ("two lines x", "?")


def test_a_level_for_datasets_is_read_as_in_clip_benchmark(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"pets": {"cat": ["c"]}, "food": {"pie": ["p"]}}))
    assert read_descriptions(path, "food")["pie"] == ("p",)
    with pytest.raises(DataError, match="'pets', 'food', and not of 'cars'"):
        read_descriptions(path, "cars")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "a list instead of an object"),
        ("3", "a number instead of an object"),
        ("{}", "no class in it"),
        ("{", "cannot read descriptions"),
        ('{"a": "text"}', "'a' has a text instead of a list of texts"),
        ('{"a": ["x"], "b": {"c": 1}}', "'b' has an object instead of a list of texts"),
        ('{"a": ["x", 3]}', "'a' has a number among its texts"),
        ('{"a": ["x", null]}', "'a' has null among its texts"),
        ('{"a": ["x"], "b": [true]}', "'b' has a truth value among its texts"),
        ('{"a": null}', "'a' has null instead"),
        ('{" ": ["x"]}', "a class without a name"),
        ('{"a b": ["x"], "A_b": ["y"]}', "two classes are named 'a b'"),
    ],
)
def test_another_shape_is_told_in_one_line(tmp_path, content, words):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        read_descriptions(tmp_path / "d.json")
    assert str(tmp_path / "d.json") in str(caught.value)
    assert printable(str(caught.value)) == str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such file.*d\.json"):
        read_descriptions(tmp_path / "d.json")


def test_classes_without_texts_are_named_those_that_are_missing_first(tmp_path):
    found = Descriptions.of({"a": ["x"], "b": [], "c": [" "]}, "there.json")
    found.require(["a"])
    found.require(["a", "b"], may_be_empty=True)
    with pytest.raises(DataError, match=r"descriptions of 2 of 3 classes are empty: 'b', 'c' \(there.json\)"):
        found.require(["a", "b", "c"])
    with pytest.raises(DataError, match="of 7 of 8 classes are missing: 'k0', 'k1', 'k2', 'k3', 'k4' and 2 more"):
        found.require(["b", *(f"k{n}" for n in range(7))])
    with pytest.raises(DataError, match="'lion'"):
        found["lion"]
