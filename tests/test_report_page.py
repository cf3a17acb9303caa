"""The page of a run: what stands in it, that every text in it is text alone, its size, and that it is made alike."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.report.candidates import candidate_row, json_block
from ipo.report.charts import MOST_DOTS, Dot, stepped, thinned
from ipo.report.classes import confusions, recalls
from ipo.report.lineage import word_changes
from ipo.report.pages import page_values, write_reports
from ipo.report.pictures import kinds, thumbnail
from ipo.runs.predictions import Predictions, TestSet, read_predictions, spread
from ipo.runs.result import read_result
from ipo.search.history import History
from tests.test_report import predictor, result, write_run

VOID = {"meta", "img", "br", "input", "link"}
LONG = "x" * 10_000
HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"' onmouseover='alert(1)", "<!-- ", "]]>",
    "{{ 7 * 7 }} {% raw %}", "\u202etxt.exe", "שלום مرحبا", "\U0001f408\u200d\u2b1b", "\x00\x1b[31m\x07", LONG,
    "</style><b>", "javascript:alert(1)", "a <CLASS> & <CLASS>",
]  # fmt: skip


class Shape(HTMLParser):
    """The elements of a page with the names of their attributes, and all of its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: set[str] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.links |= {value for name, value in attributes if name in ("href", "src")}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def two_classes(words="cat", other="dog", path="a.jpg"):
    """Four test images: one right in both, one put right, one put wrong, one wrong in both."""
    images = [path, f"1{path}", f"2{path}", f"3{path}"]
    own = TestSet(classnames=[words, other], images=images, labels=[0, 0, 1, 1])
    predicted = {"hand-crafted": {"base": [0, 1, 1, 0]}, "ipo": {"base": [0, 0, 0, 0]}}
    return Predictions(sets={"base": own}, predicted=predicted, before="hand-crafted", before_prompt="a <CLASS>.")


def full_run(folder, said="b", reason="unlikely", **more):
    """A run with everything that a page can show, whose every text holds `said`."""
    (folder.parent / "picture").mkdir(parents=True, exist_ok=True)
    text = f"{said} of a <CLASS>."
    found = {"predictors": {"hand-crafted": predictor(["a <CLASS>."]), "ipo": predictor([text])}, **more}
    gain = [{"class": said, "first": 0.5, "best": 1.0, "gain": 0.5}]
    score = {"accuracy": 0.5, "loss": 1.0, "low": 0.1, "high": 0.9}
    found |= {"best": {"id": 1, "step": 1, "text": text, "score": score}, "per_class_gain": gain, "stopped": said}
    found |= {"ensemble": {"prompts": [text, "a <CLASS>."], "score": score}, "options": {said: said}}
    write_run(folder, f"{reason}: {said}", said, **found)
    full = {**score, "margin": 0.0, "fold_accuracy": 0.5, "fold_loss": 1.0}
    rows = [
        {"id": 0, "step": 0, "text": "a <CLASS>.", "score": full},
        {"id": 1, "step": 1, "text": text, "parent": 0, "score": {**full, "loss": 0.5}},
        {"id": 2, "step": 1, "text": said, "parent": 0, "reason": f"{reason}: {said}"},
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reply = {"form": "line", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "seconds": 0.1}
    asked = {
        "step": 1, "ask": 0, "time": "now", "seconds": 1.0, "messages": [{"role": "user", "content": f"one\n{said}"}],
        "replies": [{"text": row["text"], "error": None, **reply} for row in rows[1:]],
    }  # fmt: skip
    (folder / "replies.jsonl").write_text(json.dumps(asked) + "\n")
    predictions = two_classes(said, f"{said} two", f"{said[:50]}.jpg")
    (folder / "predictions.json").write_text(json.dumps(predictions.model_dump(mode="json", by_alias=True)))
    pixels = base64.b64encode(b"jpeg").decode()
    images = [*predictions.sets["base"].images, said]
    (folder / "pictures.json").write_text(json.dumps({"thumbnails": dict.fromkeys(images, pixels)}))
    (folder / "captions.jsonl").write_text(json.dumps({"image": said, "caption": said}) + "\n")
    return folder


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_no_text_makes_an_element_or_an_attribute(place, tmp_path):
    said = HOSTILE[place]
    plain = "b" * min(len(said), 10_000) if said == LONG else "b"
    if "<CLASS>" in said:
        plain = "a <CLASS> b <CLASS>"
    tame = Shape(write_reports(full_run(tmp_path / "tame", plain)).read_text(encoding="utf-8"))
    page = write_reports(full_run(tmp_path / "wild", said)).read_text(encoding="utf-8")
    wild = Shape(page)
    assert wild.elements == tame.elements
    assert not wild.open
    assert {link for link in wild.links if not link.startswith("data:image/jpeg;base64,")} == tame.links - {
        link for link in tame.links if link.startswith("data:")
    }
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", page)
    whole = "".join(wild.text)
    if said.isprintable() and said != LONG:
        assert whole.count(said) >= 10
    if said == LONG:
        assert "9,600 more characters" in whole


def test_all_parts_of_a_page_are_there_and_in_order(tmp_path):
    page = write_reports(full_run(tmp_path / "run")).read_text(encoding="utf-8")
    places = [page.index(f'<section id="{name}"') for name in (
        "result", "course", "all", "classes", "pictures")]  # fmt: skip
    places += [page.index(text) for text in ('<section id="exchange"', '<section id="made"', '<section id="use"')]
    assert places == sorted(places)
    assert "<ins>" in page
    assert "<del>" in page
    assert page.count("data:image/jpeg;base64,") == 4  # one of each kind, and the captioned one
    assert "ipo evaluate --dataset folder:PHOTOS --clip mini --prompt &#39;b of a &lt;CLASS&gt;.&#39;" in page
    for address in re.findall(r"(?:https?:)?//[\w.]+", page):
        assert not address, "a page needs no network"


def test_the_same_folder_gives_the_same_page(tmp_path):
    folder = full_run(tmp_path / "run")
    first = write_reports(folder).read_bytes()
    assert write_reports(folder).read_bytes() == first


def test_only_the_script_of_the_page_may_run(tmp_path):
    import hashlib

    page = write_reports(full_run(tmp_path / "run")).read_text(encoding="utf-8")
    allowed = re.findall(r"script-src (?:'|&#39;)sha256-([^'&]+)", page)[0]
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed
    assert "innerHTML" not in script


def test_the_verdict_names_the_interval_and_the_controls(tmp_path):
    bits = {"hand-crafted": "0" * 40 + "1" * 20, "ipo": "1" * 60, "select-80": "1" * 60}
    images = {"base": [f"{index}.png" for index in range(60)]}
    shares = {name: own.count("1") / 60 for name, own in bits.items()}
    found = {
        name: predictor([f"{name} <CLASS>."]) | {"base": {"accuracy": share, "low": 0.0, "high": 1.0, "n": 60}}
        for name, share in shares.items()
    }
    folder = write_run(tmp_path / "run", predictors=found)
    verdicts = {"images": images, **{name: {"base": own} for name, own in bits.items()}}
    (folder / "correct.json").write_text(json.dumps(verdicts))
    better, control = page_values(folder)["measured"]
    assert (better.kind, control.kind) == ("up", "flat")
    assert (control.value, control.low, control.high) == (0, 0, 0)
    page = write_reports(folder).read_text(encoding="utf-8")
    assert "Better than the hand-crafted prompt on 60 test images" in page
    assert "No different from the best of 80 hand-made prompts" in page


def test_sixteen_thousand_candidates_fit_in_five_megabytes(tmp_path):
    folder = full_run(tmp_path / "run")
    score = {"low": 0.0, "high": 1.0, "margin": 0.0, "fold_accuracy": 0.5, "fold_loss": 1.0}
    rows = []
    for index in range(16_000):
        row = {"id": index, "step": -(-index // 8), "text": f"a {'rather long description ' * 3}{index} of a <CLASS>."}
        if index % 3 or index == 0:
            row["score"] = {"accuracy": index % 997 / 1000, "loss": 1 + index / 16_000, **score, "high": 1.0}
        else:
            row["reason"] = f"unlikely: -{index / 1000:.2f} nats a token, the bound is -2.9"
        rows.append(row)
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reply = {"form": "line", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "seconds": 0.1}
    with (folder / "replies.jsonl").open("w") as file:
        for step in range(1, 2001):
            own = [row["text"] for row in rows if row["step"] == step] if step < 3 else ["text"] * 8
            asked = {
                "step": step, "ask": 0, "time": "", "seconds": 1.0,
                "messages": [{"role": "user", "content": "x" * 3000}],
                "replies": [{"text": text, "error": None, **reply} for text in own],
            }  # fmt: skip
            file.write(json.dumps(asked) + "\n")
    page = write_reports(folder).read_text(encoding="utf-8")
    assert len(page.encode()) < 5_000_000
    block = json.loads(re.findall(r'id="rows">(.*?)</script>', page)[0])
    assert len(block) == 16_000
    assert page.count("<circle") <= 2 * (MOST_DOTS + 1) + 100
    assert page.count("<tr") < 3000
    assert "other steps would make the page too long" in page


def test_texts_are_cut_where_all_of_them_would_be_too_much(tmp_path):
    folder = full_run(tmp_path / "run", said=LONG)
    lines = (folder / "history.jsonl").read_text().splitlines()
    reject = json.loads(lines[2])
    more = [json.dumps(reject | {"id": index, "reason": "unlikely"}) for index in range(3, 600)]
    (folder / "history.jsonl").write_text("\n".join([*lines, *more]) + "\n")
    (folder / "replies.jsonl").unlink()
    assert write_reports(folder).stat().st_size < 5_000_000


def test_a_fit_by_gradients_has_curves_and_the_hand_crafted_row(tmp_path):
    folder = full_run(tmp_path / "run")
    for name in ("history.jsonl", "replies.jsonl", "captions.jsonl"):
        (folder / name).unlink()
    more = {"best": None, "ensemble": None, "method": "coop", "predictors": {"coop": predictor(None)}}
    more |= {
        "headline": "coop",
        "options": {"epochs": 2},
        "figures": {"reading": {"sentence": "an ink <CLASS>", "nearest_words": [[["ink", 0.5]]]}},
    }
    (folder / "result.json").write_text(json.dumps(result(**more)))
    stored = json.loads((folder / "predictions.json").read_text())
    stored["predicted"]["coop"] = stored["predicted"].pop("ipo")
    (folder / "predictions.json").write_text(json.dumps(stored))
    curves = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    (folder / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curves))
    page = write_reports(folder).read_text(encoding="utf-8")
    assert "Over the epochs" in page
    assert "<polyline" in page
    assert "hand-crafted prompt" in page
    assert "an ink" in page
    assert "Every candidate" not in page


def test_a_page_without_pictures_holds_none(tmp_path):
    folder = full_run(tmp_path / "run")
    out = tmp_path / "sent.html"
    done = CliRunner().invoke(app, ["report", str(folder), "--no-pictures", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "data:image" not in out.read_text(encoding="utf-8")
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    assert "data:image" in (folder / "report.html").read_text(encoding="utf-8")


def test_thumbnails_are_small_squares_without_what_the_file_tells_beside(tmp_path):
    place = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    Image.new("RGB", (600, 300), "red").save(place, exif=exif, comment=b"secret")
    data = base64.b64decode(thumbnail(place))
    assert b"where I live" not in data
    assert b"secret" not in data
    assert len(data) < 8_000


def test_pictures_take_turns_over_the_classes():
    assert spread([0, 1, 2, 3, 4], [0, 0, 0, 1, 2], 4) == [0, 3, 4, 1]
    found = kinds(two_classes(), "ipo", 8)
    assert [(kind.total, [picture.path for picture in kind.pictures]) for kind in found] == [
        (1, ["1a.jpg"]),
        (1, ["2a.jpg"]),
        (1, ["3a.jpg"]),
    ]
    right = found[0].pictures[0]
    assert (right.label, right.before, right.after) == ("cat", "dog", "cat")


def test_recall_and_confusions_are_those_of_the_predictions(tmp_path):
    folder = full_run(tmp_path / "run")
    found = recalls(read_result(folder), read_predictions(folder), "ipo")
    assert [(row.before, row.after) for row in found] == [(0.5, 1.0), (0.5, 0.0)]
    (pair,) = confusions(read_predictions(folder), "ipo")
    assert (pair.name, pair.taken_for, pair.after, pair.before) == ("b two", "b", 2, 1)


def test_damaged_predictions_are_an_error_that_names_the_file(tmp_path):
    folder = full_run(tmp_path / "run")
    stored = json.loads((folder / "predictions.json").read_text())
    stored["predicted"]["ipo"]["base"] = [0, 7, 0, 0]
    (folder / "predictions.json").write_text(json.dumps(stored))
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code != 0
    assert "predictions.json is damaged" in str(done.exception)


def test_words_that_changed_are_found_one_by_one():
    assert word_changes("a photo of a <CLASS>.", "a drawing of a <CLASS>.") == [
        ("same", "a"),
        ("left out", " photo"),
        ("added", " drawing"),
        ("same", " of a <CLASS>."),
    ]
    assert word_changes("a <CLASS>.", "a <CLASS> in ink.") == [
        ("same", "a <CLASS>"),
        ("added", " in ink"),
        ("same", "."),
    ]
    assert word_changes("a", "a") == [("same", "a")]


def test_best_so_far_goes_in_steps():
    assert stepped([(0, 1.0), (2, 3.0)], 5) == [(0, 1.0), (2, 1.0), (2, 3.0), (5, 3.0)]
    assert stepped([], 5) == []


def test_dots_that_nobody_can_tell_apart_are_one_and_the_best_stays():
    dots = [Dot(index % 700, index % 240, str(index)) for index in range(20_000)] + [Dot(0, 0, "best", hot=True)]
    kept = thinned(dots)
    assert len(kept) <= MOST_DOTS + 1
    assert kept[-1].label == "best"


def test_rows_in_a_script_element_cannot_end_it(tmp_path):
    folder = full_run(tmp_path / "run", said="</script><!--")
    history = History.read("accuracy", folder / "history.jsonl")
    text = json_block([candidate_row(entry, 100) for entry in history])
    assert "<" not in text
    assert json.loads(text)[2][3] == "</script><!--"


def test_a_report_has_the_code_that_uses_its_prompt(tmp_path):
    folder = full_run(tmp_path / "run", model="ViT-B-16-quickgelu/openai")
    facts = json.loads((folder / "run.json").read_text()) | {"classnames": ["cat", "</pre>"]}
    (folder / "run.json").write_text(json.dumps(facts))
    page = write_reports(folder).read_text(encoding="utf-8")
    assert "openai/clip-vit-base-patch16" in page
    assert "snippet-open_clip" in page
    assert "&lt;/pre&gt;" in page
