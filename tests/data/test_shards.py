"""WebDataset shards: labels and splits as they come, images as files in the cache, and nothing of a bad shard."""

import io
import os
import tarfile

import pytest

from ipo.data import archives
from ipo.data.load import load_dataset
from ipo.errors import DataError
from ipo.store.cache import cache_folder
from tests.data.builders import encoded, pack_tar, text


def sample(key: str, label: str, colour: str = "red") -> dict[str, bytes]:
    return {f"{key}.jpg": encoded(colour=colour), f"{key}.cls": label.encode()}


def sizes(dataset):
    return len(dataset.train), len(dataset.val), len(dataset.test)


def test_a_folder_of_shards_with_splits_and_names(tmp_path):
    shards = tmp_path / "wds_toy"
    pack_tar(shards / "train" / "0.tar", sample("a", "0") | sample("b", "1", "blue"), "w")
    pack_tar(shards / "train" / "1.tar", sample("a", "1", "green"), "w")
    pack_tar(shards / "test" / "0.tar", sample("a", "0"), "w")
    text(shards / "classnames.txt", "grey cat", "dog")
    dataset = load_dataset(f"wds:{shards}")
    assert dataset.classnames == ("grey cat", "dog")
    assert sizes(dataset) == (3, 0, 1)
    assert [item.label for item in dataset.train] == [0, 1, 1]
    assert [item.path.read_bytes() for item in dataset.train] == [encoded(colour=c) for c in ("red", "blue", "green")]
    assert all(item.path.is_relative_to(cache_folder()) for item in dataset.train)
    assert dataset.split_source == "shards"
    assert dataset.own


def test_shards_are_copied_once_and_again_when_they_change(tmp_path):
    shard = pack_tar(tmp_path / "toy.tar", sample("a", "x") | sample("b", "y"), "w")
    first = load_dataset(f"wds:{shard}")
    assert load_dataset(f"wds:{shard}").root == first.root
    pack_tar(shard, sample("a", "x") | sample("b", "y") | sample("c", "z"), "w")
    assert load_dataset(f"wds:{shard}").classnames == ("x", "y", "z")


def test_shards_that_change_places_are_copied_again(tmp_path):
    spare, shards = tmp_path / "spare", [tmp_path / "one.tar", tmp_path / "two.tar"]
    for shard, label in zip(shards, "xz"):
        pack_tar(shard, sample("a", label) | sample("b", "y"), "w")
        os.utime(shard, ns=(1, 1))
    assert shards[0].stat().st_size == shards[1].stat().st_size
    assert load_dataset(f"wds:{shards[0]}").classnames == ("x", "y")
    for source, target in ((shards[0], spare), (shards[1], shards[0]), (spare, shards[1])):
        source.rename(target)
    assert load_dataset(f"wds:{shards[0]}").classnames == ("y", "z")


def test_names_and_splits_that_change_are_read_again(tmp_path):
    pack_tar(tmp_path / "train" / "0.tar", sample("a", "0") | sample("b", "1") | sample("c", "1"), "w")
    pack_tar(tmp_path / "test" / "0.tar", sample("a", "0"), "w")
    text(tmp_path / "classnames.txt", "cat", "dog")
    assert load_dataset(f"wds:{tmp_path}").classnames == ("cat", "dog")
    text(tmp_path / "classnames.txt", "cat", "cow")
    assert load_dataset(f"wds:{tmp_path}").classnames == ("cat", "cow")
    (tmp_path / "test" / "0.tar").unlink()
    assert sizes(load_dataset(f"wds:{tmp_path}")) == (2, 0, 1)
    assert load_dataset(f"wds:{tmp_path / 'train'}").split_source == "seeded (1)"


def test_a_shard_beside_the_folders_of_splits_is_named(tmp_path):
    for place in ("train/0.tar", "more.tar"):
        pack_tar(tmp_path / place, sample("a", "0") | sample("b", "1"), "w")
    with pytest.raises(DataError, match=r"a shard beside the folders of the splits.*more\.tar"):
        load_dataset(f"wds:{tmp_path}")


@pytest.mark.parametrize("pattern", ["s-*.tar", "s-{008..010}.tar"])
def test_patterns_of_shards(pattern, tmp_path):
    for number in range(8, 11):
        pack_tar(tmp_path / f"s-{number:03d}.tar", sample("a", str(number)) | sample("b", str(number)), "w")
    dataset = load_dataset(f"wds:{tmp_path / pattern}")
    assert dataset.classnames == ("8", "9", "10")
    assert sizes(dataset) == (3, 0, 3)
    assert dataset.split_source == "seeded (1)"


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ({"a.json": b'{"label": 3, "caption": "a cat"}'}, "3"),
        ({"a.json": b'{"cls": "cat"}'}, "cat"),
        ({"a.txt": b"cat\n"}, "cat"),
        ({"a.txt": b"a caption", "a.cls": b"7"}, "7"),
        ({"a.cls": b"7", "a.txt": b"a caption"}, "7"),
    ],
)
def test_labels_are_found_where_they_are(files, label, tmp_path):
    shard = pack_tar(tmp_path / "toy.tar", files | {"a.jpg": encoded()} | sample("b", "other"), "w")
    assert label in load_dataset(f"wds:{shard}").classnames


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": encoded()}, "sample 'a' has no label"),
        ({"a.jpg": encoded(), "a.json": b"{"}, "sample 'a' has no label"),
        ({"a.jpg": encoded(), "a.json": b"[1]"}, "sample 'a' has no label"),
        ({"a.jpg": link("a.jpg"), "a.cls": b"1"}, "a link or a device"),
        (sample("a", "1") | {"a.png": encoded("PNG")}, "sample 'a' occurs twice"),
        (sample("a", "1") | {"a.JPG": encoded()}, "sample 'a' occurs twice"),
        ({"a.cls": b"1"}, "sample 'a' has no image, but .cls"),
        ({"a.heics": b"1", "a.cls": b"1"}, "sample 'a' has no image, but .cls"),
        ({"a.1.jpg": encoded(), "a.1.cls": b"1"}, "sample 'a' has no image, but .1.jpg.*a key without dots"),
    ],
)
def test_a_bad_shard_is_an_error_and_leaves_nothing(members, message, tmp_path):
    shard = pack_tar(tmp_path / "toy.tar", sample("good", "1") | members, "w")
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(f"wds:{shard}")
    assert "toy.tar" in str(caught.value)
    assert [path.name for path in (cache_folder() / "wds").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("again", [{"a.cls": b"2"}, {"a.jpg": encoded()}, {"a.jpg": encoded(), "a.cls": b"2"}])
def test_a_key_that_occurs_twice_is_an_error_that_names_shard_and_key(again, tmp_path):
    shard = pack_tar(tmp_path / "toy.tar", sample("a", "1") | sample("b", "2"), "w")
    with tarfile.open(shard, "a") as tar:
        for name, content in again.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(DataError, match=r"sample 'a' occurs twice.*toy\.tar"):
        load_dataset(f"wds:{shard}")


def test_further_files_of_a_sample_and_droppings_are_passed_over(tmp_path):
    more = {
        "a.seg.png": encoded("PNG"),
        "a.npy": b"1",
        "__MACOSX/._a.jpg": b"junk",
        "._a.cls": b"junk",
        "n.json": b"{}",
    }
    shard = pack_tar(tmp_path / "toy.tar", sample("a", "1") | sample("b", "2") | more, "w")
    (tmp_path / "._toy.tar").write_bytes(b"junk")
    dataset = load_dataset(f"wds:{tmp_path}")
    assert sum(sizes(dataset)) == 2
    assert dataset.name == shard.parent.name


def test_names_in_a_shard_cannot_lead_out_of_the_cache(tmp_path):
    shard = pack_tar(tmp_path / "toy.tar", sample("../../../escaped", "1") | sample("/tmp/ipo-escaped", "2"), "w")
    dataset = load_dataset(f"wds:{shard}")
    assert {item.path.name for item in dataset.train} == {"0000000.jpg", "0000001.jpg"}
    assert not list(tmp_path.parent.rglob("*escaped*"))


def test_a_broken_shard_and_no_shard_are_errors(tmp_path):
    shard = pack_tar(tmp_path / "toy.tar.gz", sample("a", "1"))
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(DataError, match="shard is broken"):
        load_dataset(f"wds:{shard}")
    with pytest.raises(DataError, match="no shards found"):
        load_dataset(f"wds:{tmp_path / 'none-*.tar'}")


def test_a_shard_cannot_fill_the_disk(tmp_path, monkeypatch):
    shard = pack_tar(tmp_path / "toy.tar.gz", {"a.jpg": bytes(300_000), "a.cls": b"1"})
    monkeypatch.setattr(archives, "MIN_ALLOWANCE", 1000)
    with pytest.raises(DataError, match="takes more than"):
        load_dataset(f"wds:{shard}")
