"""One's own pictures: folders, tables, class-name maps, and every odd shape that they come in."""

import json
import os
from collections import Counter

import pytest

from ipo.data.fewshot import class_half, draw_shots
from ipo.data.formats import HEIF_INSTALLED
from ipo.data.images import unopenable
from ipo.data.load import load_dataset
from ipo.errors import DataError
from tests.data.builders import class_tree, encoded, picture, text


def sizes(dataset):
    return len(dataset.train), len(dataset.val), len(dataset.test)


def test_class_folders_are_split_by_seed(tmp_path):
    class_tree(tmp_path / "photos", {"cup": 5, "red_pen": 5, "desk": 5})
    dataset = load_dataset(f"folder:{tmp_path / 'photos'}")
    assert dataset.name == "photos"
    assert dataset.classnames == ("cup", "desk", "red pen")
    assert sizes(dataset) == (6, 3, 6)
    assert dataset.split_source == "seeded (1)"
    assert dataset.own
    assert load_dataset(f"folder:{tmp_path / 'photos'}/", seed=2).split_source == "seeded (2)"


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders_are_taken_as_they_are(val, tmp_path):
    for split, count in (("train", 3), (val, 2), ("test", 1)):
        class_tree(tmp_path / split, {"a": count, "b": count})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert sizes(dataset) == (6, 4, 2)
    assert dataset.split_source == "folders"


def test_without_test_folder_a_part_of_training_is_kept_for_testing(tmp_path):
    class_tree(tmp_path / "train", {"a": 10, "b": 10})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert sizes(dataset) == (14, 0, 6)
    assert dataset.split_source == "folders, seeded test (1)"
    assert not set(dataset.train) & set(dataset.test)


def test_a_class_may_be_called_train(tmp_path):
    class_tree(tmp_path, {"train": 4, "bus": 4, "tram": 4})
    assert load_dataset(f"folder:{tmp_path}").classnames == ("bus", "train", "tram")


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_folder_beside_split_folders_is_named_and_no_class(split, tmp_path):
    for name in ("train", split):
        class_tree(tmp_path / name, {"a": 2, "b": 2})
    (tmp_path / ".cache").mkdir()
    assert load_dataset(f"folder:{tmp_path}").classnames == ("a", "b")
    for name in ("docs", "raw"):
        (tmp_path / name).mkdir()
    splits = ", ".join(sorted(("train", split)))
    with pytest.raises(DataError, match=rf"docs, raw beside the split folders {splits} .*Move"):
        load_dataset(f"folder:{tmp_path}")


def test_a_class_called_train_may_have_folders_of_its_own(tmp_path):
    class_tree(tmp_path, {"train/steam": 4, "test": 4, "bus": 4})
    assert load_dataset(f"folder:{tmp_path}").classnames == ("bus", "test", "train")


def test_classes_that_only_one_split_has_keep_their_label(tmp_path):
    class_tree(tmp_path / "train", {"a": 2, "c": 2})
    class_tree(tmp_path / "test", {"b": 1, "c": 1})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.classnames == ("a", "b", "c")
    assert [item.label for item in dataset.test] == [1, 2]


def test_unbalanced_classes_and_one_image_in_a_class(tmp_path):
    class_tree(tmp_path, {"many": 40, "two": 2, "one": 1, "none": 0})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.classnames == ("many", "none", "one", "two")
    train, _ = draw_shots(dataset, 16, 1)
    assert Counter(dataset.classnames[item.label] for item in train) == {"many": 16, "one": 1, "two": 1}
    assert Counter(dataset.classnames[item.label] for item in dataset.test) == {"many": 12, "two": 1}


def test_hidden_files_other_files_and_deeper_folders(tmp_path):
    class_tree(tmp_path, {"a": 2, "b": 2})
    picture(tmp_path / "a" / "deep" / "er" / "9.PNG".lower())
    picture(tmp_path / ".thumbnails" / "x.jpg")
    picture(tmp_path / "a" / "._0.jpg")
    text(tmp_path / "a" / "notes.txt", "no image")
    (tmp_path / "b" / "LOUD.JPG").write_bytes(encoded())
    dataset = load_dataset(f"folder:{tmp_path}")
    paths = [item.path.relative_to(tmp_path).as_posix() for item in (*dataset.train, *dataset.val, *dataset.test)]
    assert sorted(paths) == ["a/000.jpg", "a/001.jpg", "a/deep/er/9.png", "b/000.jpg", "b/001.jpg", "b/LOUD.JPG"]


def test_names_that_are_not_ascii(tmp_path):
    class_tree(tmp_path, {"cafe\u0301": 2, "日本犬": 2, "слон_белый": 2})
    assert load_dataset(f"folder:{tmp_path}").classnames == ("caf\u00e9", "слон белый", "日本犬")


def test_a_very_long_name_stays_whole(tmp_path):
    long = "very " * 45 + "long"
    class_tree(tmp_path, {long: 2, "short": 2})
    assert long in load_dataset(f"folder:{tmp_path}").classnames


def test_5000_classes(tmp_path):
    picture(tmp_path / "one.jpg")
    text(tmp_path / "all.csv", *(f"one.jpg,class {number:04d}" for number in range(5000) for _ in range(2)))
    dataset = load_dataset(f"csv:{tmp_path / 'all.csv'}")
    assert len(dataset.classnames) == 5000
    assert sizes(dataset) == (5000, 0, 5000)
    assert len(class_half(dataset, "new").labels) == 2500


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "0 classes found: no class folders, and 0 pictures directly inside.*cat/1.jpg"),
        ({"only": 3}, "1 class found: one class folder, only, and 0 pictures"),
        ({"a": 0, "b": 0}, "no training images found"),
    ],
)
def test_too_little_to_classify_is_an_error(classes, message, tmp_path):
    class_tree(tmp_path / "photos", classes)
    (tmp_path / "photos").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(f"folder:{tmp_path / 'photos'}")
    assert "photos" in str(caught.value)


def test_pictures_without_class_folders_are_counted(tmp_path):
    class_tree(tmp_path, {"photos": 12})
    with pytest.raises(DataError, match=r"0 classes found: no class folders, and 12 pictures directly inside"):
        load_dataset(f"folder:{tmp_path / 'photos'}")


def test_a_folder_of_unread_pictures_says_so(tmp_path):
    class_tree(tmp_path, {"a": 2, "b": 2}, ".raw")
    with pytest.raises(DataError, match=r"no training images found.*passed over 4 files .*: 4 \.raw"):
        load_dataset(f"folder:{tmp_path}")


DROPPINGS = ["__MACOSX", "lost+found", "$RECYCLE.BIN", "@eaDir", "#recycle", ".Trash-1000", ".ipynb_checkpoints"]
DROPPINGS += ["System Volume Information", "RECYCLER", "@tmp", "#snapshot", "__pycache__", ".AppleDouble"]


@pytest.mark.parametrize("name", DROPPINGS)
def test_what_archivers_and_systems_leave_is_no_class_and_no_picture(name, tmp_path):
    class_tree(tmp_path, {"a": 2, "b": 2, name: 2, f"a/{name}": 2, f"a/deep/{name}": 2})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.classnames == ("a", "b")
    assert sum(sizes(dataset)) == 4
    assert dataset.notes == ()


def test_droppings_beside_split_folders_and_in_them_are_passed_over(tmp_path):
    for split in ("train", "test"):
        class_tree(tmp_path / split, {"a": 2, "b": 2, "__MACOSX": 2})
    class_tree(tmp_path, {"__MACOSX": 1, "@eaDir": 1})
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg", "~$x.jpg"):
        text(tmp_path / "train" / "a" / name, "junk")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert (dataset.classnames, sizes(dataset), dataset.notes) == (("a", "b"), (4, 0, 4), ())


def test_what_is_passed_over_is_counted_by_ending_and_said(tmp_path, caplog):
    class_tree(tmp_path, {"a": 3, "b": 3})
    for name in ("1.HEICS", "2.svg", "3.svg", "4.psd", "none", "deep/5.jxl"):
        text(tmp_path / "a" / name, "?")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    picture(tmp_path / "loose.jpg")
    text(tmp_path / "README.txt", "about")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert sum(sizes(dataset)) == 6
    endings = "2 .svg, 1 .heics, 1 .psd, 1 .jxl, 1 without ending"
    assert dataset.notes == (
        "passed over a/pipe.jpg, which is a pipe, socket or device",
        f"passed over 6 files without the ending of an image: {endings}; the first is a/1.HEICS",
        "passed over 1 file beside the class folders; the first is loose.jpg",
    )
    assert all(note in caplog.text for note in dataset.notes)


@pytest.mark.skipif(HEIF_INSTALLED, reason="the extra heic is installed")
def test_pictures_of_phones_are_counted_and_the_extra_that_reads_them_named(tmp_path):
    class_tree(tmp_path, {"a": 3, "b": 3})
    for number in range(4):
        text(tmp_path / "a" / f"IMG_{number}.HEIC", "?")
    notes = load_dataset(f"folder:{tmp_path}").notes
    assert "passed over 4 files" in notes[0]
    assert "4 .heic" in notes[0]
    assert "ipo-prompts[heic]" in notes[1]


def tree(folder, links):
    """24 pictures in two classes, and links from a place below the folder to another one."""
    class_tree(folder, {"a": 12, "b": 12})
    for place, target in links.items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).symlink_to(target)
    return load_dataset(f"folder:{folder}")


@pytest.mark.parametrize(
    "links",
    [
        {"a/loop": ".."},
        {"a/loop": "..", "b/loop": ".."},
        {"a/loop": ".", "a/again": "../a"},
        {"a/x": "../b", "b/x": "../a"},
        {"a/up": "../../.."},
        {"a/top": "/"},
        {"a/deep/x": "..", "a/deep/y": "../deep"},
        {"a/self": "self", "a/gone": "nowhere"},
    ],
)
def test_each_folder_counts_once_whatever_links_lead_to_it(links, tmp_path):
    dataset = tree(tmp_path / "up" / "photos", links)
    assert sum(sizes(dataset)) == 24
    assert dataset.notes or dataset.overlaps


def test_a_folder_elsewhere_is_followed_once(tmp_path):
    class_tree(tmp_path / "store", {"more": 4})
    links = {"a/more": tmp_path / "store" / "more", "a/most": tmp_path / "store", "b/more": tmp_path / "store" / "more"}
    dataset = tree(tmp_path / "photos", links)
    assert sum(sizes(dataset)) == 28
    assert dataset.notes == ("passed over a/most/more, which is a/more again",)
    assert dataset.overlaps == ("passed over b/more, which is a/more again",)


@pytest.mark.parametrize("target", ["a", ".", "..", "/"])
def test_a_class_that_is_another_folder_again_is_an_error_naming_both(target, tmp_path):
    with pytest.raises(DataError, match=r"c is .* again, by a link.*Remove the link"):
        tree(tmp_path / "photos", {"c": target})


def test_a_broken_link_is_a_picture_that_cannot_be_read(tmp_path):
    dataset = tree(tmp_path, {"a/broken.jpg": "nowhere.jpg"})
    assert sum(sizes(dataset)) == 25
    items = [item for item in (*dataset.train, *dataset.val, *dataset.test) if item.path.name == "broken.jpg"]
    assert list(unopenable([items[0].path]).values()) == ["cannot read image: no such file"]


@pytest.mark.parametrize(("one", "two"), [("val", "valid"), ("train", "Training"), ("test", "TEST"), ("dev", "val")])
def test_two_folders_of_one_split_are_an_error_naming_both(one, two, tmp_path):
    for name in {"train", one, two}:
        class_tree(tmp_path / name, {"a": 2, "b": 2})
    with pytest.raises(DataError, match=rf"({one} and {two}|{two} and {one}) are both the \w+ split"):
        load_dataset(f"folder:{tmp_path}")


def test_split_folders_may_be_written_in_any_case(tmp_path):
    for name in ("Train", "VAL", "Testing"):
        class_tree(tmp_path / name, {"a": 2, "b": 2})
    assert sizes(load_dataset(f"folder:{tmp_path}")) == (4, 4, 4)


def test_test_alone_is_a_split_to_test_on(tmp_path):
    class_tree(tmp_path / "test", {"a": 2, "b": 3})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert (dataset.classnames, sizes(dataset)) == (("a", "b"), (0, 0, 5))


@pytest.mark.parametrize(
    "names", [{"test": 4}, {"train": 4}, {"train": 4, "test": 4}, {"train": 4, "val": 2, "test": 2}]
)
def test_split_folders_without_class_folders_are_no_classes(names, tmp_path):
    class_tree(tmp_path, names)
    with pytest.raises(DataError, match=r"no class folders in .*Make a folder of each class"):
        load_dataset(f"folder:{tmp_path}")


def test_validation_alone_is_nothing_to_fit_or_test_on(tmp_path):
    class_tree(tmp_path / "val", {"a": 2, "b": 3})
    with pytest.raises(DataError, match="no training images found"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Anchor", "anchor"),
        ("a_b", "a  b"),
        ("A_b", "a B"),
        ("caf\u00e9", "Cafe\u0301"),
        ("a &amp; b", "a & b"),
        ("rock\u2019n", "rock'n"),
        ("\uff21\uff22", "ab"),
        ("x\u200by", "xy"),
        ("\ufb01sh", "fish"),
    ],
)
def test_names_that_are_one_to_clip_are_an_error_naming_both(one, two, tmp_path):
    class_tree(tmp_path, {one: 2, two: 2, "other": 2})
    with pytest.raises(DataError, match=r"classnames\.json.*data\.names") as caught:
        load_dataset(f"folder:{tmp_path}")
    assert all(name in str(caught.value) for name in {one, two} if name.isascii())
    text(tmp_path / "classnames.json", json.dumps({one: "first", two: "second"}))
    assert set(load_dataset(f"folder:{tmp_path}").classnames) == {"first", "second", "other"}


@pytest.mark.parametrize("name", ["_", "&nbsp;", "\u200b", "__ _"])
def test_a_name_that_is_nothing_to_clip_is_an_error(name, tmp_path):
    class_tree(tmp_path, {name: 2, "b": 2, "c": 2})
    with pytest.raises(DataError, match="a class has no name"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize("name", ["a\x1b[31m", "b\x07ell", "c\u202eexe"])
def test_a_class_name_with_control_characters_is_refused_and_written_out(name, tmp_path):
    class_tree(tmp_path, {name: 2, "b": 2, "line\nbreak": 2})
    with pytest.raises(DataError, match=r"holds a control character") as caught:
        load_dataset(f"folder:{tmp_path}")
    assert str(caught.value).isprintable()
    text(tmp_path / "classnames.json", json.dumps({name: "plain"}))
    assert set(load_dataset(f"folder:{tmp_path}").classnames) == {"plain", "b", "line break"}


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such folder.*nowhere"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_a_map_beside_the_data_names_the_classes(kind, tmp_path):
    class_tree(tmp_path, {"n01": 2, "n02": 2, "other_thing": 2})
    names = {"n01": "tabby cat", "n02": "grey_wolf"}
    content = json.dumps(names) if kind == "json" else "".join(f'{key} = "{name}"\n' for key, name in names.items())
    text(tmp_path / f"classnames.{kind}", content)
    assert load_dataset(f"folder:{tmp_path}").classnames == ("tabby cat", "grey wolf", "other thing")


def test_a_map_can_be_given(tmp_path):
    class_tree(tmp_path / "photos", {"a": 2, "b": 2})
    names = text(tmp_path / "names.json", '{"a": "apple"}')
    assert load_dataset(f"folder:{tmp_path / 'photos'}", names_file=names).classnames == ("apple", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read class names"),
        ("[]", "not a map"),
        ('{"a": 1}', "not a map"),
        ('{"apple": "a"}', "no class 'apple'.*Classes: a, b"),
        ('{"a": "b"}', "2 classes are named 'b'"),
        ('{"a": "_ "}', "a class has no name"),
    ],
)
def test_a_broken_map_is_an_error(content, message, tmp_path):
    class_tree(tmp_path, {"a": 2, "b": 2})
    text(tmp_path / "classnames.json", content)
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tmp_path}")


def test_folders_that_read_alike_are_an_error(tmp_path):
    class_tree(tmp_path, {"red pen": 2, "red_pen": 2})
    with pytest.raises(DataError, match=r"2 classes are named 'red pen'.*classnames\.json"):
        load_dataset(f"folder:{tmp_path}")


def table(folder, *lines, name="data.csv"):
    for number in range(4):
        picture(folder / "pics" / f"{number}.jpg")
    return f"csv:{text(folder / name, *lines)}"


def test_a_table_with_splits(tmp_path):
    rows = ["cat,pics/0.jpg,train", "dog,pics/1.jpg,TRAIN", '"dog",pics/2.jpg,valid', "", "cat,pics/3.jpg,test"]
    spec = table(tmp_path, "label,path,split", *rows)
    dataset = load_dataset(spec)
    assert dataset.name == "data"
    assert dataset.classnames == ("cat", "dog")
    assert sizes(dataset) == (2, 1, 1)
    assert dataset.split_source == "table (data.csv)"
    assert dataset.val[0].path == tmp_path / "pics" / "2.jpg"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_without_headings_and_with_other_delimiters(delimiter, tmp_path):
    rows = [delimiter.join((f"pics/{number}.jpg", "ab"[number % 2])) for number in range(4)]
    dataset = load_dataset(table(tmp_path, *rows))
    assert sizes(dataset) == (2, 0, 2)
    assert dataset.split_source == "seeded (1)"


def test_absolute_paths_byte_order_mark_and_quoted_commas(tmp_path):
    spec = table(tmp_path, "\ufeffimage,class", f'{tmp_path}/pics/0.jpg,"pen, red"', "pics/1.jpg,cup")
    assert load_dataset(spec).classnames == ("cup", "pen, red")


def test_integer_labels_are_ordered_as_numbers_and_named_by_the_map(tmp_path):
    rows = [f"pics/0.jpg,{label}" for label in ("10", "9", "2")]
    text(tmp_path / "classnames.json", '{"9": "nine"}')
    assert load_dataset(table(tmp_path, *rows)).classnames == ("2", "nine", "10")


def test_a_table_may_have_domains(tmp_path):
    rows = [f"pics/{number}.jpg,{'ab'[number % 2]},train,{'xy'[number // 2]}" for number in range(4)]
    dataset = load_dataset(table(tmp_path, "path,label,split,domain", *rows), domains=("x",))
    assert [item.domain for item in dataset.train + dataset.test] == ["x", "x"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "pics/0.jpg,a", "pics/9.jpg,b"], r"no image 'pics/9.jpg' \(.*data.csv:3\)"),
        (["path,label", "pics/0.jpg,"], r"needs a path and a label \(.*:2\)"),
        (["path,label", "pics/0.jpg"], r"needs a path and a label \(.*:2\)"),
        (["path,label,split", "pics/0.jpg,a,train", "pics/1.jpg,b,tset"], r"no split 'tset' \(.*:3\)"),
        (["path,label,split", "pics/0.jpg,a,train", "pics/1.jpg,b,"], r"no split '' \(.*:3\)"),
        (['path,label', 'pics/0.jpg,"a'], "not a table"),
        ([""], "0 classes found"),
    ],
)  # fmt: skip
def test_a_broken_table_names_the_line(lines, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_dataset(table(tmp_path, *lines))


def test_a_picture_in_two_lines_of_a_table_is_said(tmp_path, caplog):
    rows = ("pics/0.jpg,a,train", "pics/1.jpg,b,train", "./pics/0.jpg,a,test")
    load_dataset(table(tmp_path, "path,label,split", *rows))
    assert "1 line lists a picture again, such as ./pics/0.jpg in lines 2 and 4" in caplog.text


def test_a_missing_or_binary_table_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read table"):
        load_dataset(f"csv:{tmp_path / 'none.csv'}")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match="cannot read table"):
        load_dataset(f"csv:{tmp_path / 'binary.csv'}")


@pytest.mark.parametrize("name", [b"train/a/caf\xe9-p0.jpg", b"test/caf\xe9/0.jpg"])
def test_a_name_in_another_encoding_is_shown_and_to_be_renamed(tmp_path, name):
    for split in ("train", "test"):
        class_tree(tmp_path / split, {"a": 2, "b": 2})
    odd = tmp_path / os.fsdecode(name)
    picture(odd)
    with pytest.raises(DataError, match=r"not UTF-8.*caf\\xe9.*Rename it") as caught:
        load_dataset(f"folder:{tmp_path}")
    str(caught.value).encode()
