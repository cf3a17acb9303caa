"""Two things never have one name in a comparison, and one thing never has two."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipo.comparison.names import AVERAGE, label_notes, name_methods, name_places
from ipo.comparison.rows import catalogue_places, compare
from ipo.comparison.trials import Data, merge_twins
from ipo.errors import RunError
from tests.test_compare import names, trial


def of(data, dataset="photos", **other):
    return replace(trial(dataset=dataset, **other), data=data)


def test_two_folders_of_one_name_are_two_datasets_told_apart_by_their_paths():
    trials = [of(Data("folder:/a/photos", "1", "x"), seed=1), of(Data("folder:/b/photos", "2", "y"), seed=2)]
    rows = compare(trials)
    assert [row.dataset for row in rows] == ["a/photos", "b/photos", AVERAGE]
    assert rows[0].base == (trials[0].base, None), "the two were merged into one mean"


def test_two_folders_that_differ_in_nothing_but_the_content_of_pictures_are_two():
    trials = [of(Data("folder:/photos", "1", "x"), seed=1), of(Data("folder:/photos", "2", "x"), seed=2)]
    places = name_places(trials)
    assert len(set(places)) == 2
    assert all(place.startswith("photos #") for place in places)
    assert any("of one name" in note for note in label_notes(trials))


def test_two_splits_of_one_dataset_are_two():
    trials = [of(Data("caltech101", "1", split), "caltech101") for split in ("published", "own")]
    assert len(set(name_places(trials))) == 2


def test_seeds_that_draw_a_split_each_are_one_row():
    trials = [of(Data("folder:/a/photos", "1", ""), seed=seed) for seed in (1, 2, 3)]
    (row,) = compare(trials)
    assert row.seeds == (1, 2, 3)


def test_a_dataset_that_was_moved_or_renamed_is_one():
    trials = [of(Data("folder:/a/photos", "1"), seed=1), of(Data("folder:/b/pictures", "1"), "pictures", seed=2)]
    assert name_places(trials) == ["photos", "photos"]


def test_runs_without_a_hash_of_the_content_join_those_that_they_can_only_belong_to():
    old = of(Data("folder:/a/photos", "", "x"), seed=1)
    new = of(Data("folder:/a/photos", "1", "x"), seed=2)
    assert set(name_places([old, new])) == {"photos"}
    drawn = [of(Data("folder:/a/photos")), of(Data("folder:/b/photos")), of(Data("folder:/b/photos", "2"))]
    assert name_places(drawn) == ["a/photos", "b/photos", "b/photos"]
    assert len(set(name_places([old, of(Data("folder:/a/photos", "", "z"))]))) == 2, "another split"


def test_domains_stay_in_the_name_of_a_dataset_told_apart_by_its_path():
    trials = [of(Data(f"folder:/{place}/art", place), "art@photo") for place in "ab"]
    assert name_places(trials) == ["a/art@photo", "b/art@photo"]


def test_a_dataset_called_average_is_not_the_average():
    rows = compare([trial(dataset="average"), trial(dataset="dtd")])
    assert [row.dataset for row in rows] == ["average (dataset)", "dtd", AVERAGE]


def test_published_figures_are_not_set_beside_a_folder_of_the_same_name_or_other_classes():
    own, benchmark = of(Data("folder:/x/dtd"), "dtd"), of(Data("dtd"), "dtd")
    assert catalogue_places([own]) == []
    assert catalogue_places([benchmark]) == ["dtd"]
    assert catalogue_places([of(Data("dtd"), "dtd", classes="all")]) == []


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"model": "mini"}, {"model": "ViT-B-32/openai"}, ["coop (model=mini)", "coop (model=ViT-B-32/openai)"]),
        ({"weights": "aaa"}, {"weights": "bbb"}, ["coop (weights=aaa)", "coop (weights=bbb)"]),
        ({"precision": "float32"}, {"precision": "float16"}, ["coop (precision=float32)", "coop (precision=float16)"]),
        ({"shots": 1}, {"shots": 16}, ["coop (shots=1)", "coop (shots=16)"]),
        ({"llm": "a"}, {"llm": "b"}, ["coop (llm=a)", "coop (llm=b)"]),
        ({"search.history": 0}, {"search.history": 20}, ["coop (history=0)", "coop (history=20)"]),
        ({"init": None}, {"init": "random"}, ["coop", "coop (init=random)"]),
        ({"a.x": 1, "b.x": 1}, {"a.x": 2, "b.x": 1}, ["coop (x=1)", "coop (x=2)"]),
    ],
)
def test_what_makes_another_method_is_told(one, other, told):
    assert names([trial(seed=1, **one), trial(seed=2, **other)]) == told


def test_where_options_differ_together_one_is_told_and_all_of_them_below():
    long = "an option of very many words, more than anybody would care to read in a table"
    trials = [trial(epochs=50, text=long), trial(epochs=10, text=long.upper()), trial(epochs=10, text=long.upper())]
    assert names(trials) == ["coop (epochs=50)", "coop (epochs=10)", "coop (epochs=10)"]
    assert label_notes(trials)[0] == f"coop (epochs=50): epochs=50, text={long}."


def test_no_name_of_a_method_is_long_and_all_are_different():
    prompts = [["a photo of a <CLASS>."], ["a photo of a <CLASS>, which is the second of two very long prompts."]]
    prompts.append(["a photo of a <CLASS>, which is the second of two very long prompts indeed."])
    paths = ["/a/very/long/path/to/the/models/first.gguf", "/a/very/long/path/to/the/models/second.gguf"]
    trials = [trial("ipo", **{"search.first_prompts": p, "llm.spec": path}) for p in prompts for path in paths]
    found = names(trials)
    assert len(set(found)) == 6
    assert max(map(len, found)) <= 80
    assert "…/second.gguf" in found[1]


def test_names_hold_no_control_characters():
    trials = [of(Data("x"), "bad\x1b[31m\nname"), of(Data("y"), "b", init="\x1b]0;title\x07"), trial(init="x")]
    for text in (*names(trials), *name_places(trials), *label_notes(trials)):
        assert text.isprintable()


def test_a_control_beside_two_searches_is_one_and_any_other_double_is_refused():
    control = replace(trial("select-80"), folder="a")
    (row,) = compare([control, replace(control, folder="b")])
    assert row.seeds == (1,)
    with pytest.raises(RunError, match="a and b"):
        compare([replace(trial("coop"), folder="a"), replace(trial("coop"), folder="b")])
    with pytest.raises(RunError, match="select-80"):
        compare([control, replace(trial("select-80", base=0.3), folder="b")])


def test_the_first_prompt_and_the_hand_crafted_one_are_one_row_where_they_are_one_prompt():
    def beside(folder, first):
        said = {"first": first, "hand-crafted": "a <CLASS>.", "ipo": "b <CLASS>.", "ipo-ensemble": "b <CLASS>."}
        return [replace(trial(name), folder=folder, sentences=(text,)) for name, text in said.items()]

    assert [t.predictor for t in merge_twins(beside("x", "a <CLASS>."))] == [
        "first = hand-crafted",
        "ipo = ipo-ensemble",
    ]
    other = merge_twins([*beside("x", "a <CLASS>."), *beside("y", "c <CLASS>.")])
    assert [t.predictor for t in other] == ["first", "hand-crafted", "ipo = ipo-ensemble"] * 2
    rows = compare(merge_twins(beside("x", "a <CLASS>.")), "hand-crafted")
    assert [row.method for row in rows if not row.differences] == ["first = hand-crafted"]


def test_versions_of_the_program_are_told_where_they_differ():
    trials = [replace(trial(seed=seed), version=version) for seed, version in ((1, "0.1.0"), (2, "0.2.0"), (3, ""))]
    assert label_notes(trials) == ["The runs were made by different versions of ipo: 0.1.0, 0.2.0."]
    assert label_notes(trials[::2]) == []
    assert len({label.name for label in name_methods(trials)}) == 1
