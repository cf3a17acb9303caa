"""What the end of a run keeps for its report: predictions of every image, and thumbnails where they are wanted."""

import json

from ipo.runs.predictions import read_predictions
from ipo.store.files import read_rows
from tests.test_run import pictures, search, settings, shop  # noqa: F401  (fixtures)


def test_a_run_keeps_what_each_image_was_taken_for_and_some_thumbnails(shop, pictures, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    result = search(settings(pictures), run)
    kept, correct = read_predictions(run), json.loads((run / "correct.json").read_text())
    assert kept is not None
    for name in result["predictors"]:
        assert "".join("01"[hit] for hit in kept.correct(name, "base")) == correct[name]["base"]
    assert kept.before == "hand-crafted"
    assert kept.sets["base"].images == correct["images"]["base"]
    thumbnails = json.loads((run / "pictures.json").read_text())["thumbnails"]
    assert {row["image"] for row in read_rows(run / "captions.jsonl")[:1]} <= thumbnails.keys()
    page = (run / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 2
    assert all(f"step-{step}" in page for step in (1, 2))


def test_no_picture_is_kept_where_none_is_wanted(shop, pictures, tmp_path):  # noqa: F811
    chosen = settings(pictures)
    private = chosen.model_copy(update={"report": chosen.report.model_copy(update={"pictures": 0})})
    search(private, tmp_path / "run")
    assert not (tmp_path / "run" / "pictures.json").exists()
    assert "data:image" not in (tmp_path / "run" / "report.html").read_text()
