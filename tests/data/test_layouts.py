"""Every benchmark's official folder layout in miniature, and what is read from it."""

from pathlib import Path

import pytest

from ipo.data.benchmarks.catalogue import CATALOGUE
from ipo.data.load import load_dataset
from ipo.errors import DataError, IpoError
from tests.data.builders import class_tree, picture, split_file, text


def published(root: Path, name: str, rows: list[tuple[str, int, str]]) -> None:
    """A dataset with a split file whose train, val and test part each have all `rows`, and its images."""
    entry = CATALOGUE[name]
    folder = root / entry.folder
    split_file(folder / entry.split_file, train=rows, val=rows, test=rows)
    for path, _, _ in rows:
        picture(folder / entry.images / path)


def imagenet(root: Path) -> None:
    folder = root / "imagenet"
    text(folder / "classnames.txt", "n01440764 tench", "n01443537 goldfish", "n02808440 bath_tub")
    class_tree(folder / "images" / "train", {"n01443537": 3, "n01440764": 2}, ".JPEG")
    class_tree(folder / "images" / "val", {"n01443537": 1, "n01440764": 2}, ".JPEG")


def variant(root: Path, name: str, classes: dict[str, int]) -> None:
    entry = CATALOGUE[name]
    text(root / entry.folder / "classnames.txt", "n01440764 tench", "n01443537 goldfish", "n02808440 bath_tub")
    class_tree(root / entry.folder / entry.images, classes, ".JPEG")


def fgvc(root: Path) -> None:
    folder = root / "fgvc_aircraft"
    text(folder / "variants.txt", "707-320", "Boeing 717", "")
    for split, rows in {"train": ["1 707-320", "2 Boeing 717"], "val": ["3 Boeing 717"], "test": ["4 707-320"]}.items():
        text(folder / f"images_variant_{split}.txt", *rows)
        for row in rows:
            picture(folder / "images" / f"{row.split()[0]}.jpg")


def domainnet(root: Path) -> None:
    folder = root / "domainnet"
    for domain in ("real", "sketch"):
        for split in ("train", "test"):
            rows = [f"{domain}/aircraft_carrier/{split}.jpg 0", f"{domain}/zebra/{split}.jpg 1"]
            text(folder / "splits" / f"{domain}_{split}.txt", *rows)
            for row in rows:
                picture(folder / row.split()[0])


def pacs(root: Path) -> None:
    for domain in ("photo", "art_painting"):
        class_tree(root / "pacs" / "images" / domain, {"dog": 10, "elephant": 10})


def looks(root: Path) -> None:
    for domain in ("photo", "drawing"):
        class_tree(root / "looks" / domain, {"bird": 10, "fruit": 5}, ".png")


BUILDERS = {
    "imagenet": imagenet,
    "caltech101": lambda root: published(
        root, "caltech101", [("Faces/image_1.jpg", 0, "face"), ("accordion/image_1.jpg", 1, "accordion")]
    ),
    "oxford_pets": lambda root: published(
        root, "oxford_pets", [("Abyssinian_1.jpg", 0, "abyssinian"), ("american_bulldog_1.jpg", 1, "american_bulldog")]
    ),
    "stanford_cars": lambda root: published(
        root, "stanford_cars", [("cars_train/1.jpg", 0, "2012 Acura RL Sedan"), ("cars_test/1.jpg", 1, "2012 BMW M3")]
    ),
    "oxford_flowers": lambda root: published(
        root, "oxford_flowers", [("image_1.jpg", 1, "fire lily"), ("image_2.jpg", 0, "pink primrose")]
    ),
    "food101": lambda root: published(
        root, "food101", [("apple_pie/1.jpg", 0, "apple_pie"), ("baby_back_ribs/2.jpg", 1, "baby_back_ribs")]
    ),
    "fgvc_aircraft": fgvc,
    "sun397": lambda root: published(
        root, "sun397", [("a/abbey/1.jpg", 0, "abbey"), ("a/athletic_field/outdoor/1.jpg", 1, "outdoor athletic_field")]
    ),
    "dtd": lambda root: published(root, "dtd", [("banded/1.jpg", 0, "banded"), ("zigzagged/2.jpg", 1, "zigzagged")]),
    "eurosat": lambda root: published(
        root, "eurosat", [("AnnualCrop/1.jpg", 0, "Annual Crop Land"), ("Forest/1.jpg", 1, "Forest")]
    ),
    "ucf101": lambda root: published(
        root, "ucf101", [("Yo_Yo/v_1.jpg", 1, "Yo_Yo"), ("Apply_Lipstick/v_1.jpg", 0, "Apply_Lipstick")]
    ),
    "imagenetv2": lambda root: variant(root, "imagenetv2", {"0": 1, "1": 2, "2": 1}),
    "imagenet_sketch": lambda root: variant(root, "imagenet_sketch", {"n01440764": 1, "n02808440": 2}),
    "imagenet_a": lambda root: variant(root, "imagenet_a", {"n01443537": 1, "n02808440": 2}),
    "imagenet_r": lambda root: variant(root, "imagenet_r", {"n01440764": 2, "n02808440": 1}),
    "domainnet": domainnet,
    "pacs": pacs,
    "stamps": lambda root: class_tree(root / "stamps", {"bird": 10, "road sign": 4}, ".png"),
    "looks": looks,
}

EXPECTED = {
    "imagenet": (("tench", "goldfish"), (5, 0, 3), "folders"),
    "caltech101": (("face", "accordion"), (2, 2, 2), "own file (split_zhou_Caltech101.json, not the published one)"),
    "oxford_pets": (("abyssinian", "american bulldog"), (2, 2, 2), "own file"),
    "stanford_cars": (("2012 Acura RL Sedan", "2012 BMW M3"), (2, 2, 2), "own file"),
    "oxford_flowers": (("pink primrose", "fire lily"), (2, 2, 2), "own file"),
    "food101": (("apple pie", "baby back ribs"), (2, 2, 2), "published (split_zhou_Food101.json)"),
    "fgvc_aircraft": (("707-320", "Boeing 717"), (2, 1, 1), "published (images_variant_{train,val,test}.txt)"),
    "sun397": (("abbey", "outdoor athletic field"), (2, 2, 2), "published (split_zhou_SUN397.json)"),
    "dtd": (("banded", "zigzagged"), (2, 2, 2), "own file"),
    "eurosat": (("Annual Crop Land", "Forest"), (2, 2, 2), "own file"),
    "ucf101": (("Apply Lipstick", "Yo Yo"), (2, 2, 2), "own file"),
    "imagenetv2": (("tench", "goldfish", "bath tub"), (0, 0, 4), "folders"),
    "imagenet_sketch": (("tench", "bath tub"), (0, 0, 3), "folders"),
    "imagenet_a": (("goldfish", "bath tub"), (0, 0, 3), "folders"),
    "imagenet_r": (("tench", "bath tub"), (0, 0, 3), "folders"),
    "domainnet": (("aircraft carrier", "zebra"), (4, 0, 4), "published (<domain>_{train,test}.txt)"),
    "pacs": (("dog", "elephant"), (20, 8, 12), "seeded (1)"),
    "stamps": (("bird", "road sign"), (7, 3, 4), "seeded (1)"),
    "looks": (("bird", "fruit"), (12, 0, 18), "seeded (1)"),
}


def test_every_row_of_the_catalogue_has_a_miniature():
    assert set(BUILDERS) == set(EXPECTED) == set(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_official_layout_is_read(name, tmp_path):
    BUILDERS[name](tmp_path)
    dataset = load_dataset(name, tmp_path)
    classnames, sizes, source = EXPECTED[name]
    assert dataset.classnames == classnames
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == sizes
    assert dataset.split_source.startswith(source)
    items = (*dataset.train, *dataset.val, *dataset.test)
    assert all(item.path.is_file() and item.path.is_relative_to(dataset.root) for item in items)
    assert {item.label for item in items} == set(range(len(classnames)))
    assert not dataset.own
    assert dataset.hand_crafted_prompt == CATALOGUE[name].prompt


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_datasets_own_folder_may_be_given_as_root(name, tmp_path):
    BUILDERS[name](tmp_path)
    within = load_dataset(name, tmp_path / CATALOGUE[name].folder)
    assert within == load_dataset(name, tmp_path)


def test_the_variants_of_imagenet_take_class_names_from_its_folder(tmp_path):
    imagenet(tmp_path)
    class_tree(tmp_path / "imagenet-adversarial" / "imagenet-a", {"n01443537": 1, "n02808440": 1})
    text(tmp_path / "imagenet-adversarial" / "imagenet-a" / "README.txt", "not a class")
    assert load_dataset("imagenet_a", tmp_path).classnames == ("goldfish", "bath tub")


def test_a_class_without_a_name_is_an_error(tmp_path):
    imagenet(tmp_path)
    class_tree(tmp_path / "imagenet" / "images" / "val", {"n09999999": 1})
    with pytest.raises(DataError, match=r"classnames.txt lacks n09999999"):
        load_dataset("imagenet", tmp_path)


def test_imagenetv2_numbers_are_positions_and_not_sorted_as_text(tmp_path):
    names = [f"n{number:08d} name{number}" for number in range(11)]
    text(tmp_path / "imagenetv2" / "classnames.txt", *names)
    class_tree(tmp_path / CATALOGUE["imagenetv2"].folder / CATALOGUE["imagenetv2"].images, {"2": 1, "10": 1})
    labels = {item.path.parent.name: item.label for item in load_dataset("imagenetv2", tmp_path).test}
    assert labels == {"2": 2, "10": 10}


@pytest.mark.parametrize("name", ["domainnet", "pacs", "looks"])
def test_domains_can_be_chosen(name, tmp_path):
    BUILDERS[name](tmp_path)
    whole = load_dataset(name, tmp_path)
    domains = {item.domain for item in whole.train}
    assert len(domains) == 2
    one = sorted(domains)[0]
    part = load_dataset(name, tmp_path, domains=(one,))
    assert part.train == tuple(item for item in whole.train if item.domain == one)
    assert part.classnames == whole.classnames
    assert part.split_hash != whole.split_hash
    assert load_dataset(name, tmp_path, domains=tuple(domains)).split_hash == whole.split_hash


def test_domains_are_split_each_by_itself(tmp_path):
    pacs(tmp_path)
    dataset = load_dataset("pacs", tmp_path)
    for domain in ("photo", "art_painting"):
        sizes = [sum(item.domain == domain for item in part) for part in (dataset.train, dataset.val, dataset.test)]
        assert sizes == [10, 4, 6]


def test_unknown_domains_are_errors(tmp_path):
    pacs(tmp_path)
    with pytest.raises(IpoError, match=r"unknown domain 'foto'.*Did you mean 'photo'"):
        load_dataset("pacs", tmp_path, domains=("foto",))
    BUILDERS["dtd"](tmp_path)
    with pytest.raises(IpoError, match="'dtd' has no domains"):
        load_dataset("dtd", tmp_path, domains=("photo",))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("real/zebra/x.jpg", "not 'domain/class/image label'"),
        ("real/zebra/x.jpg one", "not 'domain/class/image label'"),
        ("real/zebra/x.jpg 0", "label 0 is both"),
        ("real/lion/x.jpg 5", "without gaps"),
        ("real/../../x.jpg 1", "leaves the image folder|both"),
    ],
)
def test_broken_domain_lists_are_errors(line, message, tmp_path):
    domainnet(tmp_path)
    file = tmp_path / "domainnet" / "splits" / "real_train.txt"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        load_dataset("domainnet", tmp_path)


def test_a_missing_domain_list_is_named(tmp_path):
    domainnet(tmp_path)
    (tmp_path / "domainnet" / "splits" / "sketch_test.txt").unlink()
    with pytest.raises(DataError, match=r"sketch_test\.txt"):
        load_dataset("domainnet", tmp_path)


def test_an_unknown_aircraft_variant_is_named(tmp_path):
    fgvc(tmp_path)
    text(tmp_path / "fgvc_aircraft" / "images_variant_val.txt", "3 Boeing 7177")
    with pytest.raises(DataError, match=r"variant 'Boeing 7177'.*images_variant_val"):
        load_dataset("fgvc_aircraft", tmp_path)
