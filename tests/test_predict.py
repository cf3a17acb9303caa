"""A run predicts any pictures as it predicted its test images, with nothing but its folder and its model."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ipo
from ipo.cli.main import app
from ipo.errors import ConfigError, DataError, IpoError, ModelError, RunError
from ipo.export.classifier import make_classifier
from ipo.export.source import read_exported
from ipo.runs.restore import restore_model, restore_predictor
from ipo.runs.result import Calibrated
from ipo.scoring import PromptPredictor
from tests.export.twins import save_twins
from tests.fakes import ScriptedLLM

COLOURS = {"blue cup": (40, 40, 200), "pen": (200, 40, 40), "écharpe": (40, 200, 40)}
pytestmark = pytest.mark.slow
SCRIPT = [["a drawing of a <CLASS>.", "the “<CLASS>” of O'Neil"]]
METHODS = {
    "coop": {"epochs": 2},
    "cocoop": {"epochs": 1},
    "bayesian": {"epochs": 1, "samples": 2},
    "linear-probe": {"epochs": 5},
    "ensemble-7": {},
    "waffle": {"reps": 1},
    "ft": {"steps": 2, "batch": 2},
}
"""Fits that take moments: each learns something, or predicts by several prompts."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, pictures of three classes, and a run of each method."""
    place = tmp_path_factory.mktemp("predict")
    (place / "model").mkdir()
    save_twins(place / "model")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 6)):
        for name, colour in COLOURS.items():
            folder = place / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noisy = np.clip(random.normal(colour, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / f"{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPO_CACHE", str(place / "cache"))
        patch.setattr("ipo.run.load_llm", lambda *_, **__: ScriptedLLM(SCRIPT))
        common = {"dataset": place / "pictures", "shots": 12, "clip": f"local-dir:{place / 'model'}"}
        small = {"clip.workers": 0}
        search = small | {"search.english_only": False, "search.class_names_allowed": True}
        ipo.optimize(**common, steps=1, settings=search | {"search.candidates": 2}, out=place / "ipo", controls=False)
        for method, options in METHODS.items():
            ipo.fit(method, **common, options=options, settings=small, out=place / method)
    return place


def calibration(run: Path) -> Calibrated:
    found = ipo.load(run).result.calibration
    assert found is not None
    return found


def now_and_then(place, run):
    """The paths of the test images below their folder, the verdicts on them, and the predictions now."""
    name = run.result.headline
    correct = json.loads((run.path / "correct.json").read_text())
    paths = correct["images"]["base"]
    return paths, correct[name]["base"], run.predict([place / "pictures" / path for path in paths])


@pytest.mark.parametrize("method", ["ipo", *(method for method in METHODS if method != "ft")])
def test_predictions_are_those_of_the_test(place, method, capsys):
    run = ipo.load(place / method)
    paths, verdicts, rows = now_and_then(place, run)
    found = "".join(str(int(row.classname == path.split("/")[1])) for path, row in zip(paths, rows, strict=True))
    assert found == verdicts
    assert found.count("1") / len(found) == run.result.predictors[run.result.headline].base.value
    for row in rows:
        assert sum(row.probabilities) == pytest.approx(1)
        assert row.confidence == max(row.probabilities) == row.top(1)[0][1]
        assert row.top(3)[0][0] == row.classname
    assert capsys.readouterr() == ("", "")


def test_prompts_are_put_together_as_the_method_did_it(place):
    """Waffle takes the mean of cosines: its class features are shorter than a direction."""
    run = ipo.load(place / "waffle")
    clip = restore_model(run.path, run.settings, run.result)
    found = restore_predictor(run.path, clip, run.result, "waffle", run.classnames, run.classnames)
    assert isinstance(found, PromptPredictor)
    assert found.aggregate == "score_mean"
    assert (make_classifier(read_exported(run.path), clip).matrix.norm(dim=0) < 0.999).all()


def test_the_dataset_is_not_needed(place, tmp_path):
    shutil.copytree(place / "pictures" / "test", tmp_path / "new")
    before = [row.probabilities for row in ipo.load(place / "ipo").predict(tmp_path / "new")]
    (place / "pictures").rename(place / "gone")
    try:
        assert [row.probabilities for row in ipo.load(place / "ipo").predict(tmp_path / "new")] == before
        assert [row.probabilities for row in ipo.load(place / "coop").predict(tmp_path / "new")]
    finally:
        (place / "gone").rename(place / "pictures")


def test_paths_folders_and_pictures_are_classified_alike(place):
    run, path = ipo.load(place / "ipo"), place / "pictures/test/pen"
    by_folder = run.predict(path)
    files = sorted(path.iterdir())
    assert [row.image for row in by_folder] == [str(file) for file in files]
    opened = [Image.open(file) for file in files]
    by_picture = run.predict(opened)
    assert [row.probabilities for row in by_picture] == [row.probabilities for row in by_folder]
    assert [row.image for row in by_picture] == [f"image {place}" for place in range(6)]
    assert run.predict(str(files[0]))[0].probabilities == pytest.approx(by_folder[0].probabilities, abs=1e-6)
    grey = run.predict(Image.new("LA", (40, 30), (128, 7)))
    assert grey[0].error is None


def test_what_cannot_be_read_has_a_row_that_says_why(place, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    good = place / "pictures/test/pen/0.png"
    rows = ipo.load(place / "ipo").predict([tmp_path / "bad.png", good, tmp_path / "missing.jpg"])
    assert [row.error is None for row in rows] == [False, True, False]
    assert "no known image format" in (rows[0].error or "")
    assert "no such file" in (rows[2].error or "")
    assert (rows[0].classname, rows[0].confidence, rows[0].top(3)) == (None, None, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture in the folder"):
        ipo.load(place / "ipo").predict(tmp_path / "empty")


def test_the_calibration_is_stored_with_the_shots_that_it_is_from(place):
    search, coop = (calibration(place / name) for name in ("ipo", "coop"))
    assert (search.shots, coop.shots) == ("training", "validation")
    assert len(search.thresholds) == 3
    assert 0 <= search.kept <= 1
    assert search.level == 0.1


def test_none_of_these_is_said_below_the_threshold_of_the_class_and_nowhere_else(place):
    run = ipo.load(place / "ipo")
    rows, limits = run.predict(place / "pictures/train"), calibration(run.path).thresholds
    with_none = run.predict(place / "pictures/train", none=True)
    names = list(run.classnames)
    for row, other in zip(rows, with_none, strict=True):
        assert row.classname is not None
        assert row.confidence is not None
        below = row.confidence < limits[names.index(row.classname)]
        assert other.classname == (None if below else row.classname)
        assert other.confidence == row.confidence
    share = sum(row.classname is not None for row in with_none) / len(with_none)
    assert share == pytest.approx(calibration(run.path).kept)


def test_other_class_names_compete_where_the_method_knows_others(place):
    run, path = ipo.load(place / "ipo"), place / "pictures/test/pen"
    rows = run.predict(path, classnames=["a pen", "a cup"])
    assert len(rows[0].probabilities) == 2
    with pytest.raises(ConfigError, match="those of the run only"):
        run.predict(path, classnames=["a pen", "a cup"], none=True)
    with pytest.raises(ConfigError, match="class name is empty"):
        run.predict(path, classnames=["a pen", " "])
    assert ipo.load(place / "cocoop").predict(path, classnames=["a pen", "cup"])[0].classname in ("a pen", "cup")
    with pytest.raises(IpoError):
        ipo.load(place / "linear-probe").predict(path, classnames=["a pen", "a cup"])


def test_a_run_that_cannot_predict_says_so(place, tmp_path):
    with pytest.raises(RunError, match="'ft' learned cannot be read back"):
        ipo.load(place / "ft").predict(place / "pictures/test/pen")
    old = shutil.copytree(place / "ipo", tmp_path / "old")
    content = json.loads((old / "result.json").read_text())
    del content["calibration"]
    (old / "result.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"kept no confidences here.*--resume"):
        ipo.load(old).predict(place / "pictures/test/pen")
    content["calibration"] = calibration(place / "ipo").model_dump()
    content["clip"]["weights"] = "others"
    (old / "result.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="weights was 'others'"):
        ipo.load(old).predict(place / "pictures/test/pen")
    (old / "result.json").unlink()
    with pytest.raises(RunError, match=r"no result yet.*ipo\.resume"):
        ipo.load(old).predict(place / "pictures/test/pen")


def classify(*arguments, **options):
    return CliRunner().invoke(app, ["classify", *map(str, arguments)], catch_exceptions=False, **options)


def test_the_command_prints_csv_with_the_accuracy_of_the_run(place):
    done = classify("--run", place / "ipo", place / "pictures/test", "--top", 2)
    assert done.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["image", "class", "confidence", "class_2", "confidence_2", "error"]
    right = sum(row["image"].split("/")[-2] == row["class"] for row in rows)
    assert right / len(rows) == ipo.load(place / "ipo").result.predictors["ipo"].base.value
    assert all(float(row["confidence"]) >= float(row["confidence_2"]) for row in rows)
    assert done.stderr == ""


def test_the_command_reads_paths_on_standard_input_and_names_what_is_unreadable(place, tmp_path):
    good = place / "pictures/test/pen/0.png"
    done = classify("--run", place / "ipo", "-", "--json", "--top", 2, input=f"{good}\n\n{tmp_path / 'no, such.png'}\n")
    assert done.exit_code == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["image"], first["error"]) == (str(good), None)
    assert first["top"][0]["class"] == first["class"]
    assert len(first["top"]) == 2
    assert second["class"] is None
    assert "no such file" in second["error"]
    table = classify("--run", place / "ipo", tmp_path / "no, such.png", good)
    assert table.exit_code == 1
    assert next(csv.reader([table.stdout.splitlines()[1]]))[0] == str(tmp_path / "no, such.png")


def test_the_command_says_none_of_these(place, tmp_path):
    run = shutil.copytree(place / "ipo", tmp_path / "run")
    content = json.loads((run / "result.json").read_text())
    content["calibration"]["thresholds"] = [1.0, 1.0, 1.0]
    (run / "result.json").write_text(json.dumps(content))
    good = place / "pictures/test/pen/0.png"
    done = classify("--run", run, good, "--none", "--top", 2)
    assert done.exit_code == 0
    row = next(csv.DictReader(io.StringIO(done.stdout)))
    assert (row["class"], row["confidence"]) == ("none of these", "")
    assert row["class_2"] in COLOURS
    assert json.loads(classify("--run", run, good, "--none", "--json").stdout)["class"] is None
    assert "none" not in classify("--run", run, good).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--run", "nowhere", "x.png"), "no run here"), (("--run", "{place}/ipo", "-"), "no picture is named")],
)
def test_mistakes_are_one_line(place, arguments, words):
    with pytest.raises(IpoError, match=words):
        classify(*(argument.format(place=place) for argument in arguments), input="")
