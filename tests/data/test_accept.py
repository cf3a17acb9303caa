"""What is fetched beside or without a checksum: it has to be what it claims, and is fetched where images lie too."""

import hashlib
from typing import Any

import pytest

from ipo.data.benchmarks.accept import accept
from ipo.data.benchmarks.catalogue import CATALOGUE, Archive, CatalogueEntry
from ipo.data.benchmarks.prepare import prepare, prepare_entry, split_advice
from ipo.errors import DataError
from tests.data.builders import class_tree, everything, pack_tar, pack_zip, picture, split_file, text

PAGE = b"\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>Sorry</body></html>\n"
NAMES = "n01440764 tench\nn01443537 goldfish\n"
ROWS = [("cat/000.jpg", 0, "cat"), ("dog/000.jpg", 1, "dog")]


def entry(layout="wnids", *archives: Archive, **changes) -> CatalogueEntry:
    """A dataset in the folder `toy` with two classes and two images."""
    fields: dict[str, Any] = {
        "images": "images",
        "classes": 2,
        "sizes": (0, 0, 2),
        "homepage": "https://example.org",
        "licence": "-",
    }
    return CatalogueEntry(name="toy", folder="toy", layout=layout, archives=archives, **(fields | changes))


@pytest.fixture
def serve(httpserver):
    """Puts content on a server for one request after another, and returns its address."""

    def put(name: str, *contents: bytes | str) -> str:
        for content in contents:
            httpserver.expect_ordered_request(f"/{name}").respond_with_data(content)
        return httpserver.url_for(f"/{name}")

    return put


def wnids(url: str) -> CatalogueEntry:
    return entry("wnids", Archive(file="classnames.txt", url=url))


def test_class_names_are_fetched_where_the_images_are_there(serve, tmp_path):
    class_tree(tmp_path / "toy" / "images", {"n01440764": 1, "n01443537": 1})
    dataset = prepare_entry(wnids(serve("classnames.txt", NAMES)), tmp_path)
    assert dataset.classnames == ("tench", "goldfish")
    assert (tmp_path / "toy" / "classnames.txt").read_text() == NAMES
    assert prepare_entry(wnids("http://127.0.0.1:9/never-asked"), tmp_path) == dataset


def test_class_names_of_imagenet_serve_its_variants(tmp_path):
    class_tree(tmp_path / "toy" / "images", {"n01440764": 1, "n01443537": 1})
    text(tmp_path / "imagenet" / "classnames.txt", NAMES.strip())
    assert prepare_entry(wnids("http://127.0.0.1:9/never-asked"), tmp_path).classnames == ("tench", "goldfish")
    assert not (tmp_path / "toy" / "classnames.txt").exists()


def test_lists_beside_the_source_are_taken(tmp_path):
    class_tree(tmp_path / "root" / "toy" / "images", {"n01440764": 1, "n01443537": 1})
    text(tmp_path / "shelf" / "classnames.txt", NAMES.strip())
    prepare_entry(wnids("http://127.0.0.1:9/never-asked"), tmp_path / "root", str(tmp_path / "shelf"))
    assert (tmp_path / "root" / "toy" / "classnames.txt").read_text() == NAMES


def test_a_page_instead_of_class_names_is_named_and_the_next_time_they_are_fetched(serve, tmp_path):
    class_tree(tmp_path / "toy" / "images", {"n01440764": 1, "n01443537": 1})
    before = everything(tmp_path)
    toy = wnids(serve("classnames.txt", PAGE, NAMES))
    with pytest.raises(
        DataError, match=r"a web page titled 'Google Drive - Quota exceeded' instead of 2 lines"
    ) as error:
        prepare_entry(toy, tmp_path)
    assert error.value.where == toy.archives[0].url
    assert "try again later" in str(error.value)
    assert everything(tmp_path) == before
    assert prepare_entry(toy, tmp_path).classnames == ("tench", "goldfish")


def test_a_page_that_lies_there_as_class_names_is_not_taken_for_them(tmp_path):
    class_tree(tmp_path / "toy" / "images", {"n01440764": 1, "n01443537": 1})
    (tmp_path / "toy" / "classnames.txt").write_bytes(PAGE)
    with pytest.raises(DataError, match=r"a web page .*classnames\.txt\)\. Remove the file"):
        prepare_entry(wnids("http://127.0.0.1:9/never-asked"), tmp_path)


def test_without_its_images_imagenet_says_that_they_are_fetched_by_hand(tmp_path):
    (tmp_path / "imagenet" / "images").mkdir(parents=True)
    (tmp_path / "imagenet" / "images" / "ILSVRC2012_img_val.tar").write_bytes(b"not sorted yet")
    with pytest.raises(
        DataError, match=r"images of 'imagenet' have to be fetched and unpacked by hand: .*_train\.tar"
    ) as caught:
        prepare("imagenet", tmp_path)
    assert f"folder is {tmp_path / 'imagenet'}; then run" in str(caught.value)
    assert "--from" not in str(caught.value)


@pytest.mark.parametrize("way", ["download", "beside the source"])
def test_the_split_file_is_fetched_where_the_images_are_there(way, serve, tmp_path, monkeypatch):
    class_tree(tmp_path / "root" / "toy" / "images", {"cat": 1, "dog": 1})
    published = split_file(tmp_path / "shelf" / "split_toy.json", train=ROWS)
    toy = entry("split", sizes=(2, 0, 0), split_file="split_toy.json", split_drive_id="ID")
    monkeypatch.setattr("ipo.data.benchmarks.prepare.DRIVE_URL", "http://127.0.0.1:9/")
    seeded = prepare_entry(toy, tmp_path / "root")
    assert seeded.split_source == "seeded (1)"
    assert "Get split_toy.json" in split_advice(toy, seeded)
    source: str | None = str(tmp_path / "shelf")
    if way == "download":
        monkeypatch.setattr(
            "ipo.data.benchmarks.prepare.DRIVE_URL", serve("ID", published.read_bytes()).removesuffix("ID")
        )
        source = None
    dataset = prepare_entry(toy, tmp_path / "root", source)
    assert dataset.split_source == "published (split_toy.json)"
    assert (tmp_path / "root" / "toy" / "split_toy.json").read_bytes() == published.read_bytes()
    assert prepare_entry(toy, tmp_path / "root") == dataset


def test_a_split_file_that_does_not_fit_the_images_does_not_land(tmp_path):
    class_tree(tmp_path / "root" / "toy" / "images", {"cat": 1, "dog": 1})
    split_file(tmp_path / "shelf" / "split_toy.json", train=[("cow/1.jpg", 0, "cow"), *ROWS[1:]])
    before = everything(tmp_path)
    with pytest.raises(DataError, match="1 of 2 listed images are missing"):
        prepare_entry(
            entry("split", sizes=(2, 0, 0), split_file="split_toy.json"), tmp_path / "root", str(tmp_path / "shelf")
        )
    assert everything(tmp_path) == before


def domains(url: str) -> CatalogueEntry:
    lists = [
        Archive(file=f"{domain}_{split}.txt", into="splits", url=url)
        for domain in ("real", "sketch")
        for split in ("train", "test")
    ]
    names = ("real", "sketch")
    return entry("domains", *lists, domains=names, markers=names, images="", sizes=(2, 0, 2))


def test_lists_of_domains_are_fetched_for_those_that_are_there(serve, tmp_path):
    picture(tmp_path / "toy" / "real" / "cat" / "1.jpg")
    picture(tmp_path / "toy" / "real" / "dog" / "1.jpg")
    both = "real/cat/1.jpg 0\nreal/dog/1.jpg 1\n"
    toy = domains(serve("list", PAGE, both, both))
    with pytest.raises(DataError, match=r"a web page .* instead of lines like 'real/zebra/1.jpg 344'"):
        prepare_entry(toy, tmp_path)
    assert not (tmp_path / "toy" / "splits" / "real_train.txt").exists()
    assert prepare_entry(toy, tmp_path).classnames == ("cat", "dog")
    assert sorted(path.name for path in (tmp_path / "toy" / "splits").iterdir()) == ["real_test.txt", "real_train.txt"]


@pytest.mark.parametrize("name", ["toy.zip", "toy.tar.gz"])
@pytest.mark.parametrize("address", ["catalogue", "source"])
def test_a_page_instead_of_an_archive_is_not_kept_and_the_next_time_it_is_fetched(address, name, serve, tmp_path):
    images = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in (
        picture(tmp_path / "images" / "n01440764" / "1.jpg"), picture(tmp_path / "images" / "n01443537" / "2.jpg")
    )}  # fmt: skip
    archive = (pack_zip if name == "toy.zip" else pack_tar)(tmp_path / name, images)
    text(tmp_path / "root" / "imagenet" / "classnames.txt", NAMES.strip())
    url = serve(name, PAGE, archive.read_bytes())
    toy = entry("wnids", Archive(file="classnames.txt"), Archive(file=name, url=url))
    source = url if address == "source" else None
    with pytest.raises(DataError, match=r"a web page .* instead of a whole archive"):
        prepare_entry(toy, tmp_path / "root", source)
    assert list(everything(tmp_path / "root")) == ["imagenet/classnames.txt"]
    assert len(prepare_entry(toy, tmp_path / "root", source).test) == 2


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("packed")
    members = {"a": bytes(range(256)) * 9, "b": bytes(999)}
    return {
        "tar": pack_tar(folder / "1", members, "w").read_bytes(),
        "tar.gz": pack_tar(folder / "2", members).read_bytes(),
        "zip": pack_zip(folder / "3", members).read_bytes(),
        "empty.tar": pack_tar(folder / "4", {}, "w").read_bytes(),
    }


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_has_to_be_whole(kind, packed, tmp_path):
    row = Archive(file=f"toy.{kind}")
    file = tmp_path / "fetched.part"
    file.write_bytes(packed[kind])
    accept(entry(), row, file)
    for wrong in (b"", PAGE, packed[kind][: len(packed[kind]) // 4], packed["empty.tar"]):
        file.write_bytes(wrong)
        with pytest.raises(DataError, match=" instead of "):
            accept(entry(), row, file)


@pytest.mark.parametrize(
    ("name", "content", "good"),
    [
        ("classnames.txt", NAMES, True),
        ("classnames.txt", NAMES + "\r\nn02808440 bath tub\n", True),
        ("classnames.txt", "n01440764 tench\n", False),
        ("classnames.txt", NAMES + "<p>\n", False),
        ("classnames.txt", "tench\ngoldfish\n", False),
        ("classnames.txt", "\x00\xff", False),
        ("real_test.txt", "real/cat/1.jpg 0\n\nreal/The Eiffel Tower/2.jpg 1", True),
        ("real_test.txt", "", False),
        ("real_test.txt", "real/cat/1.jpg 0\nreal/cat/2.jpg\n", False),
        ("real_test.txt", "1.jpg 0\n", False),
    ],
)
def test_a_list_has_to_have_lines_of_its_kind_alone(name, content, good, tmp_path):
    file = tmp_path / "fetched.part"
    file.write_bytes(content.encode("latin-1"))
    if good:
        accept(entry(), Archive(file=name), file)
        return
    with pytest.raises(DataError, match=f"{len(content)} bytes that begin with .* instead of .*lines like"):
        accept(entry(), Archive(file=name), file)


def test_what_has_a_checksum_is_known_by_it_alone(tmp_path):
    (tmp_path / "classnames.txt").write_bytes(PAGE)
    row = Archive(file="classnames.txt", checksum=f"md5:{hashlib.md5(PAGE).hexdigest()}")
    accept(entry(), row, tmp_path / "classnames.txt")


def test_every_file_of_the_catalogue_without_a_checksum_has_a_check_of_its_kind(tmp_path):
    (tmp_path / "page").write_bytes(PAGE)
    rows = [(row, archive) for row in CATALOGUE.values() for archive in row.archives if not archive.checksum]
    assert {archive.file.rpartition(".")[2] for _, archive in rows} == {"zip", "gz", "txt"}
    for row, archive in rows:
        if archive.file.endswith(".txt"):
            assert archive.file == "classnames.txt" or row.layout == "domains"
        with pytest.raises(DataError, match="a web page"):
            accept(row, archive, tmp_path / "page")
