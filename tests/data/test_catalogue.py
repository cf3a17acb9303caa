"""The catalogue: names, sizes and addresses that make sense, and errors that list what is known."""

import re

import pytest

from ipo.data.benchmarks.catalogue import CATALOGUE, catalogue_entry
from ipo.data.load import load_dataset
from ipo.errors import DataError, UnknownName
from ipo.fixed_prompts import published_figures
from ipo.prompt import Prompt

BENCHMARKS = (
    "imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft sun397 dtd eurosat ucf101 "
    "imagenetv2 imagenet_sketch imagenet_a imagenet_r domainnet pacs stamps looks"
)

PUBLISHED_TOTALS = {
    "imagenet": 1_331_167, "caltech101": 8242, "oxford_pets": 7349, "stanford_cars": 16_185, "oxford_flowers": 8189,
    "food101": 101_000, "fgvc_aircraft": 10_000, "sun397": 39_700, "dtd": 5640, "eurosat": 27_000, "ucf101": 13_320,
    "imagenetv2": 10_000, "imagenet_sketch": 50_889, "imagenet_a": 7500, "imagenet_r": 30_000, "domainnet": 586_575,
}  # fmt: skip
"""From the datasets' own papers and pages, not from the split files."""


def test_all_benchmarks_are_there_in_the_order_of_tables():
    assert " ".join(CATALOGUE) == BENCHMARKS


@pytest.mark.parametrize("name", PUBLISHED_TOTALS)
def test_sizes_add_up_to_the_published_total(name):
    assert sum(CATALOGUE[name].sizes) == PUBLISHED_TOTALS[name]


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.name)
def test_a_row_is_sound(entry):
    assert Prompt(entry.prompt)
    assert entry.homepage.startswith("https://")
    assert entry.licence
    assert entry.archives or entry.by_hand
    if entry.layout == "split":
        assert re.fullmatch(r"split_zhou_\w+\.json", entry.split_file)
        assert re.fullmatch(r"[\w-]{33}", entry.split_drive_id)
    for archive in entry.archives:
        assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", archive.checksum)
        assert archive.url.startswith(("https://", "http://")) or entry.by_hand
        assert archive.checksum or not archive.url.startswith("http://") or entry.layout == "domains"


def test_the_published_figures_are_of_catalogue_datasets_and_valid_prompts():
    for name, rows in published_figures().items():
        assert name in CATALOGUE
        assert all(Prompt(row["prompt"]) and 0 < row["base"] < 100 and 0 < row["new"] < 100 for row in rows)
    assert sum(len(rows) for rows in published_figures().values()) == 24
    plain = [rows[0] for rows in published_figures().values()]
    assert {row["prompt"] for row in plain} == {"a photo of a <CLASS>."}


def test_an_unknown_name_shows_the_known_ones_and_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'caltech101'") as caught:
        catalogue_entry("caltech-101")
    assert "stamps" in str(caught.value)
    assert "folder:PATH" in str(caught.value)


def test_an_unknown_kind_of_own_data_shows_the_known_ones():
    with pytest.raises(UnknownName, match="csv, folder, hf, wds"):
        load_dataset("zip:photos.zip")


def test_a_missing_dataset_names_what_where_and_the_command(tmp_path):
    with pytest.raises(DataError) as caught:
        load_dataset("oxford_pets", tmp_path)
    message = str(caught.value)
    assert "no images" in message
    assert str(tmp_path / "oxford_pets") in message
    assert "ipo datasets prepare oxford_pets" in message


def test_the_default_root_is_ipo_data_and_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=str(tmp_path / "cache" / "datasets" / "stamps")):
        load_dataset("stamps")
    monkeypatch.setenv("IPO_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=str(tmp_path / "data" / "stamps")):
        load_dataset("stamps")
