"""Whether a text names a class: as whole words in any case and number, over the names of real datasets too."""

import json
import os
from pathlib import Path

import pytest

from ipo.data.benchmarks.catalogue import CATALOGUE
from ipo.data.benchmarks.looks import GLYPHS
from ipo.data.benchmarks.stamps import CLASSES
from ipo.naming import named_classes

PACS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
CALTECH = """face leopard motorbike accordion airplane anchor ant barrel bass beaver binocular bonsai brain brontosaurus
buddha butterfly camera cannon car_side ceiling_fan cellphone chair chandelier cougar_body cougar_face crab crayfish
crocodile crocodile_head cup dalmatian dollar_bill dolphin dragonfly electric_guitar elephant emu euphonium ewer ferry
flamingo flamingo_head garfield gerenuk gramophone grand_piano hawksbill headphone hedgehog helicopter ibis inline_skate
joshua_tree kangaroo ketch lamp laptop llama lobster lotus mandolin mayfly menorah metronome minaret nautilus octopus
okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster saxophone schooner scissors scorpion sea_horse
snoopy soccer_ball stapler starfish stegosaurus stop_sign strawberry sunflower tick trilobite umbrella watch water_lilly
wheelchair wild_cat windsor_chair wrench yin_yang"""
DATASETS = {
    "caltech101": tuple(name.replace("_", " ") for name in CALTECH.split()),
    "pacs": PACS,
    "stamps": tuple(CLASSES),
    "looks": tuple(GLYPHS),
}
"""Class names as the datasets are read; those of Caltech101 are compared with its files where these are here."""

PLURALS = {
    "person": "people", "butterfly": "butterflies", "octopus": "octopuses", "scissors": "scissors", "bass": "basses",
    "crayfish": "crayfishes", "wrench": "wrenches", "watch": "watches", "ibis": "ibises",
    "cougar body": "cougar bodies",
    "strawberry": "strawberries", "water lilly": "water lillies", "dragonfly": "dragonflies", "mayfly": "mayflies",
    "ferry": "ferries", "starfish": "starfishes", "windsor chair": "windsor chairs", "furry animal": "furry animals",
    "tomato": "tomatoes", "leaf": "leaves", "knife": "knives", "mouse": "mice", "policeman": "policemen",
    "cactus": "cacti",
    "potato": "potatoes", "bus": "buses", "box": "boxes", "wolf": "wolves", "foot": "feet", "child": "children",
    "euphonium": "euphoniums", "lotus": "lotuses", "nautilus": "nautili", "platypus": "platypuses",
    "clothing": "clothing",
    "dalmatian": "dalmatians", "stegosaurus": "stegosauruses", "brontosaurus": "brontosauruses",
}  # fmt: skip


def plural(name: str) -> str:
    return PLURALS.get(name, f"{name}s")


def test_the_names_are_those_of_the_dataset():
    assert len(DATASETS["caltech101"]) == CATALOGUE["caltech101"].classes
    file = Path(os.environ.get("IPO_TEST_DATA", "-")) / "caltech-101" / "split_zhou_Caltech101.json"
    if not file.is_file():
        pytest.skip("IPO_TEST_DATA has no split file of Caltech101")
    rows = json.loads(file.read_text())["train"]
    assert {name.replace("_", " ") for _, _, name in rows} == set(DATASETS["caltech101"])


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_class_is_found_in_any_case_number_and_spelling_and_no_other_class(dataset):
    names = DATASETS[dataset]
    for name in names:
        for form in (name, name.upper(), name.title(), plural(name), f"{name}'s", f"{plural(name)}’"):
            for spelled in (form, form.replace(" ", "-"), form.replace(" ", "_"), form.replace(" ", "")):
                found = named_classes(f"A photo of the {spelled}, next to a", names)
                assert name in found, (spelled, found)
                parts = [other for other in names if other in name.split() or other in name]
                assert set(found) <= {name, *parts}, (spelled, found)


@pytest.mark.parametrize(("singular", "form"), PLURALS.items())
def test_a_plural_names_the_singular_and_the_other_way_round(singular, form):
    assert named_classes(f"many {form}.", [singular]) == [singular]
    assert named_classes(f"one {singular}.", [form]) == [form]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("the anatomy of a plant pot, carefully", "ant"),
        ("a carpet", "car"),
        ("a seahorse race", "sea"),
        ("a watchful eye", "watch"),
        ("cupboard light", "cup"),
        ("a business", "bus"),
        ("the sea and a lion", "sea lion"),
        ("a lion of the sea", "sea lion"),
        ("a photo of a glassy", "glass"),
        ("", "cat"),
        ("...", "cat"),
        ("a cat", ""),
        ("a cat", "!"),
        ("a butter", "butterfly"),
    ],
)
def test_a_part_of_a_word_or_of_a_name_names_nothing(text, name):
    assert named_classes(text, [name]) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a crane", "crane (bird)"),
        ("a crane bird", "crane (bird)"),
        ("on the sofa", "couch, sofa"),
        ("a t shirt", "T-shirt"),
        ("tshirts", "T-shirt"),
        ("annual crops", "AnnualCrop"),
        ("in a cafe", "café"),
        ("un CAFÉ", "cafe"),
        ("a photo of 707-320 jets", "707-320"),
        ("queen anne's lace", "Queen Anne’s lace"),
        ("a traffic light", "traffic_light"),
    ],
)
def test_other_spellings_and_each_part_of_a_name_with_alternatives_are_found(text, name):
    assert named_classes(text, [name]) == [name]


def test_prompts_that_people_write_for_caltech101_name_none_of_its_classes():
    for text in (
        "Categorize the shown in the image.",
        "a centered photo of a large, in bright light, seen from above.",
        "Take an awe-inspiring photograph of that beautifully captures its essence with exceptional clarity.",
    ):
        assert named_classes(text, DATASETS["caltech101"]) == []
