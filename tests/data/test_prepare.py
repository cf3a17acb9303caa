"""Preparing a dataset: from archives at hand, named or downloaded; checked before it lands; safe for two at once."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ipo.data.benchmarks.catalogue import CATALOGUE, Archive, CatalogueEntry
from ipo.data.benchmarks.locate import locate
from ipo.data.benchmarks.prepare import manual_steps, prepare, prepare_entry, split_advice
from ipo.data.benchmarks.stamps import CLASSES, build_stamps, class_pictures
from ipo.data.load import read_entry
from ipo.errors import DataError
from tests.data.builders import encoded, everything, pack_tar, pack_zip, picture, split_file

ROWS = [("cat/1.jpg", 0, "cat"), ("dog/1.jpg", 1, "dog")]
IMAGES = {"images/cat/1.jpg": encoded(), "images/dog/1.jpg": encoded(colour="blue")}


def toy(archive: Archive | None = None, **changes) -> CatalogueEntry:
    row = CatalogueEntry(
        name="toy", folder="toy", images="images", layout="split", classes=2, sizes=(2, 0, 0),
        homepage="https://example.org/toy", licence="none", split_file="split_toy.json",
        archives=(archive or Archive(file="toy.tar.gz"),),
    )  # fmt: skip
    return row.model_copy(update=changes)


@pytest.fixture
def shelf(tmp_path) -> Path:
    """A folder with the archive and the split file of `toy`."""
    pack_tar(tmp_path / "shelf" / "toy.tar.gz", IMAGES)
    split_file(tmp_path / "shelf" / "split_toy.json", train=ROWS)
    return tmp_path / "shelf"


def paths(dataset):
    return [item.path.relative_to(dataset.root).as_posix() for item in dataset.train]


@pytest.mark.parametrize("form", ["folder", "file", "file:", "other-name"])
def test_an_archive_can_be_named_in_every_form(form, shelf, tmp_path):
    sources = {
        "folder": str(shelf),
        "file": str(shelf / "toy.tar.gz"),
        "file:": (shelf / "toy.tar.gz").as_uri(),
        "other-name": str((shelf / "toy.tar.gz").rename(shelf / "download (1).tgz")),
    }
    if form != "other-name":
        (shelf / "download (1).tgz").rename(shelf / "toy.tar.gz")
    dataset = prepare_entry(toy(), tmp_path / "root", sources[form])
    assert paths(dataset) == ["cat/1.jpg", "dog/1.jpg"]
    assert dataset.split_source == "published (split_toy.json)"
    assert set(everything(tmp_path / "root")) == {f"toy/{name}" for name in (*IMAGES, "split_toy.json")}
    assert read_entry(toy(), locate(toy(), tmp_path / "root"), 1) == dataset


def test_an_archive_lying_in_the_data_root_is_used_and_kept(shelf, tmp_path):
    shelf.rename(tmp_path / "toy")
    dataset = prepare_entry(toy(), tmp_path)
    assert paths(dataset) == ["cat/1.jpg", "dog/1.jpg"]
    assert (tmp_path / "toy" / "toy.tar.gz").is_file()


def test_loading_unpacks_in_the_cache_and_only_reads_the_data_root(shelf, tmp_path, monkeypatch):
    shelf.rename(tmp_path / "toy")
    before = everything(tmp_path)
    first = read_entry(toy(), locate(toy(), tmp_path), 1)
    assert everything(tmp_path) == before
    assert [item.path.read_bytes() for item in first.train] == list(IMAGES.values())
    monkeypatch.setattr("ipo.data.benchmarks.locate.unpack_bundle", lambda *_: pytest.fail("unpacked twice"))
    assert read_entry(toy(), locate(toy(), tmp_path), 1) == first


def test_what_is_there_is_only_checked(shelf, tmp_path):
    prepare_entry(toy(), tmp_path, str(shelf))
    before = everything(tmp_path)
    prepare_entry(toy(), tmp_path, "/nowhere")
    assert everything(tmp_path) == before
    (tmp_path / "toy" / "images" / "cat" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 listed images are missing, such as cat/1\.jpg"):
        prepare_entry(toy(), tmp_path)


def test_without_the_split_file_the_split_is_seeded_and_says_where_the_file_is(shelf, tmp_path):
    (shelf / "split_toy.json").unlink()
    dataset = prepare_entry(toy(), tmp_path / "root", str(shelf))
    assert dataset.split_source == "seeded (1)"
    assert "Get split_toy.json" in split_advice(toy(), dataset)


def test_archives_inside_archives_and_top_folders_are_unpacked(tmp_path):
    inner = pack_tar(tmp_path / "inner.tar.gz", IMAGES).read_bytes()
    pack_zip(tmp_path / "toy.zip", {"top/toy/inner.tar.gz": inner, "top/toy/read.me": b"?", "__MACOSX/x": b""})
    split_file(tmp_path / "split_toy.json", train=ROWS)
    entry = toy(Archive(file="toy.zip", strip="top/toy", inner=("inner.tar.gz",)))
    prepare_entry(entry, tmp_path / "root", str(tmp_path / "toy.zip"))
    expected = {*IMAGES, "split_toy.json", "read.me", "__MACOSX/x"}
    assert set(everything(tmp_path / "root" / "toy")) == expected


def test_a_top_folder_may_hold_one_of_its_own_name(tmp_path):
    pack_tar(tmp_path / "toy.tar.gz", {f"images/{name}": content for name, content in IMAGES.items()})
    split_file(tmp_path / "split_toy.json", train=ROWS)
    entry = toy(Archive(file="toy.tar.gz", strip="images"))
    assert paths(prepare_entry(entry, tmp_path / "root", str(tmp_path))) == ["cat/1.jpg", "dog/1.jpg"]


def served(httpserver, shelf, checksum="") -> CatalogueEntry:
    httpserver.expect_request("/toy.tar.gz").respond_with_data((shelf / "toy.tar.gz").read_bytes())
    return toy(Archive(file="toy.tar.gz", url=httpserver.url_for("/toy.tar.gz"), checksum=checksum))


def test_a_download_is_verified_unpacked_and_removed(httpserver, shelf, tmp_path):
    digest = hashlib.md5((shelf / "toy.tar.gz").read_bytes()).hexdigest()
    root = tmp_path / "root"
    split_file(root / "toy" / "split_toy.json", train=ROWS)
    prepare_entry(served(httpserver, shelf, f"md5:{digest}"), root)
    assert set(everything(root)) == {f"toy/{name}" for name in (*IMAGES, "split_toy.json")}


def test_an_address_can_be_named(httpserver, shelf, tmp_path):
    split_file(tmp_path / "root" / "toy" / "split_toy.json", train=ROWS)
    entry = served(httpserver, shelf)
    prepare_entry(toy(), tmp_path / "root", entry.archives[0].url)
    assert (tmp_path / "root" / "toy" / "images" / "dog" / "1.jpg").is_file()


def test_a_wrong_checksum_leaves_what_was_there_and_gives_the_manual_steps(httpserver, shelf, tmp_path):
    root = tmp_path / "root"
    split_file(root / "toy" / "split_toy.json", train=ROWS)
    before = everything(root)
    with pytest.raises(DataError, match="wrong checksum") as caught:
        prepare_entry(served(httpserver, shelf, "md5:" + "0" * 32), root)
    assert "https://example.org/toy" in str(caught.value)
    assert everything(root) == before


def test_the_checksum_of_an_archive_at_hand_is_compared_too(shelf, tmp_path):
    entry = toy(Archive(file="toy.tar.gz", checksum="md5:" + "0" * 32))
    with pytest.raises(DataError, match="wrong checksum"):
        prepare_entry(entry, tmp_path / "root", str(shelf))
    assert everything(tmp_path / "root") == {}
    assert not (tmp_path / "root" / "toy").exists()


def test_too_few_images_do_not_land(shelf, tmp_path):
    for sizes, message in (((3, 0, 0), "train/val/test 2/0/0, published 3/0/0"), ((2, 0, 0), "1 of 2 listed images")):
        pack_tar(shelf / "toy.tar.gz", dict(list(IMAGES.items())[: sizes[0] - 1]))
        with pytest.raises(DataError, match=message):
            prepare_entry(toy(sizes=sizes), tmp_path / "root", str(shelf))
        assert everything(tmp_path / "root") == {}


def test_a_malicious_archive_leaves_nothing(tmp_path):
    pack_tar(tmp_path / "shelf" / "toy.tar.gz", IMAGES | {"../../escaped": b"x"})
    with pytest.raises(DataError, match="outside its folder"):
        prepare_entry(toy(), tmp_path / "root", str(tmp_path / "shelf"))
    assert everything(tmp_path / "root") == {}
    assert not list(tmp_path.rglob("escaped"))


def test_a_full_disk_is_one_error_and_leaves_nothing(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(DataError, match="more than the disk has room for"):
        prepare_entry(toy(), tmp_path / "root", str(shelf))
    assert everything(tmp_path / "root") == {}


def test_what_a_killed_process_left_is_cleared(shelf, tmp_path):
    picture(tmp_path / "root" / ".toy.staged-dead" / "images" / "cat" / "1.jpg")
    prepare_entry(toy(), tmp_path / "root", str(shelf))
    assert not list((tmp_path / "root").glob(".toy.staged*"))


def test_files_of_ones_own_in_the_folder_stay(shelf, tmp_path):
    own = tmp_path / "root" / "toy" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    pack_tar(shelf / "toy.tar.gz", IMAGES | {"notes.txt": b"theirs"})
    prepare_entry(toy(), tmp_path / "root", str(shelf))
    assert own.read_text() == "mine"


def test_a_file_without_an_address_gives_exact_steps(tmp_path):
    with pytest.raises(DataError) as caught:
        prepare_entry(toy(by_hand="ask the authors"), tmp_path)
    message = str(caught.value)
    for word in ("toy.tar.gz", "https://example.org/toy", "ask the authors", str(tmp_path / "toy"), "--from"):
        assert word in message
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.name)
def test_the_manual_steps_of_every_dataset_name_its_files_and_its_place(entry, tmp_path):
    steps = manual_steps(entry, tmp_path / entry.folder)
    assert f"ipo datasets prepare {entry.name}" in steps
    assert all(archive.file in steps for archive in entry.archives if not archive.optional)


def test_a_foreign_archive_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'photos\.zip' is no archive of 'oxford_pets'.*images\.tar\.gz"):
        prepare("oxford_pets", tmp_path, str(pack_zip(tmp_path / "photos.zip", {"a.jpg": b""})))
    with pytest.raises(DataError, match="no archive of 'dtd' here"):
        prepare("dtd", tmp_path, str(tmp_path / "none.tar.gz"))


BOTH = """
import json, sys
from pathlib import Path
from ipo.data.benchmarks.catalogue import CatalogueEntry
from ipo.data.benchmarks.prepare import prepare_entry
entry = CatalogueEntry.model_validate(json.loads(sys.argv[1]))
print(len(prepare_entry(entry, Path(sys.argv[2]), sys.argv[3]).train))
"""


def test_two_processes_may_prepare_at_once(tmp_path):
    rows = [(f"cat/{index}.jpg", 0, "cat") for index in range(300)] + [("dog/1.jpg", 1, "dog")]
    pack_tar(tmp_path / "toy.tar.gz", {f"images/{path}": encoded() for path, _, _ in rows})
    split_file(tmp_path / "split_toy.json", train=rows)
    entry = toy(sizes=(301, 0, 0)).model_dump_json()
    command = [sys.executable, "-c", BOTH, entry, str(tmp_path / "root"), str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == ["301", "301"]
    found = everything(tmp_path / "root")
    assert set(found) == {f"toy/images/{path}" for path, _, _ in rows} | {"toy/split_toy.json"}
    assert json.loads(found["toy/split_toy.json"])["train"][0] == ["cat/0.jpg", 0, "cat"]


def package(folder: Path) -> Path:
    """The content of the package with the stamps, with two pictures for each pattern of the table."""
    for patterns in CLASSES.values():
        for pattern in patterns:
            for number in range(2 if pattern.endswith("*") else 1):
                name = pattern if pattern.endswith(".png") else pattern.replace("*", f"item{number}")
                picture(folder / "usr/share/tuxpaint/stamps" / Path(name).with_suffix(".png"))
    picture(folder / "usr/share/tuxpaint/stamps/animals/birds/crow_mirror.png")
    (folder / "usr/share/doc/tuxpaint-stamps-default").mkdir(parents=True)
    (folder / "usr/share/doc/tuxpaint-stamps-default/copyright").write_text("GPL")
    return folder


def test_stamps_are_built_from_the_packages_content(tmp_path):
    dataset = prepare("stamps", tmp_path / "root", str(package(tmp_path / "package")))
    assert dataset.classnames == tuple(sorted(CLASSES))
    assert len(dataset.classnames) == 18
    assert (tmp_path / "root" / "stamps" / "COPYRIGHT").read_text() == "GPL"
    birds = [path.name for path in (tmp_path / "root" / "stamps" / "bird").iterdir()]
    assert sorted(birds) == ["animals-birds-item0.png", "animals-birds-item1.png"]
    assert dataset.split_source == "seeded (1)"


def test_no_picture_of_stamps_has_two_classes(tmp_path):
    stamps = package(tmp_path) / "usr/share/tuxpaint/stamps"
    pictures = [path for name in CLASSES for path in class_pictures(stamps, name)]
    assert len(pictures) == len(set(pictures))


def test_stamps_without_apt_give_the_manual_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("ipo.data.benchmarks.stamps.SYSTEM", tmp_path)
    with pytest.raises(DataError, match=r"'apt-get' is not installed here.*apt-get download tuxpaint-stamps-default"):
        prepare("stamps", tmp_path / "root")
    assert everything(tmp_path / "root") == {}


def fake_tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_stamps_are_fetched_by_apt_after_an_update_if_the_package_is_unknown(tmp_path, monkeypatch):
    package(tmp_path / "package")
    tools = tmp_path / "tools"
    fake_tool(
        tools,
        "apt-get",
        f'echo "$@" >> {tmp_path}/log\n'
        f'if [ "$1" = update ]; then touch {tmp_path}/updated; exit 0; fi\n'
        f'if [ -f {tmp_path}/updated ]; then touch "$2_1_all.deb"; else echo "E: no such package" >&2; exit 100; fi',
    )
    fake_tool(tools, "dpkg-deb", f'cp -r {tmp_path}/package "$3"')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr("ipo.data.benchmarks.stamps.SYSTEM", tmp_path / "none")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    build = tmp_path / "stamps"
    build.mkdir()
    build_stamps(build)
    assert len([path for path in build.iterdir() if path.is_dir()]) == 18
    assert (tmp_path / "log").read_text().split("\n")[:3] == [
        "download tuxpaint-stamps-default",
        "update",
        "download tuxpaint-stamps-default",
    ]
    (tmp_path / "updated").unlink()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(DataError, match=r"failed: E: no such package"):
        build_stamps(build)
