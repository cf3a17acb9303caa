"""A whole search with a tiny CLIP and a scripted LLM: what is found before it, what it leaves, how it goes on."""

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ipo import run as running
from ipo.api import start as command
from ipo.api.settings import template_place
from ipo.cli.main import app
from ipo.cli.running import print_result
from ipo.config import Settings, StrategySettings, load_settings
from ipo.errors import ConfigError, DataError, IpoError, RunError
from ipo.llm.base import UNPAID, Spent
from ipo.llm.prices import cost
from ipo.runs.folder import RunFolder
from ipo.runs.result import to_json
from ipo.runs.resume import plan_resumption
from tests.fakes import FakeClip, ScriptedLLM

SCRIPT = [["a drawing of a <CLASS>.", "a `red|blue` <CLASS>"], ["a very old <CLASS>.", "no slot | here"]]


class Shop(ScriptedLLM):
    """Everything that is paid for: an LLM, and a captioner that says something about each image."""

    name, spent = "scripted", UNPAID

    def __init__(self) -> None:
        super().__init__(SCRIPT)
        self.described: list[Path] = []
        self.refusals: dict[Path, str] = {}

    def caption(self, paths: list[Path]) -> list[str]:
        self.described += paths
        return [f"caption {len(self.described) - index}" for index in range(len(paths))]


@pytest.fixture
def shop(monkeypatch, tmp_path) -> Shop:
    """Stands in for all models of a run but CLIP."""
    shop = Shop()
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ipo.run.load_llm", lambda *_, **__: shop)
    for place in ("ipo.run", "ipo.fixed_prompts"):
        monkeypatch.setattr(f"{place}.load_clip", lambda settings, offline: FakeClip())
    monkeypatch.setattr(
        "ipo.run.make_captioner",
        lambda settings, clip, offline: shop if settings.captioner != "none" else None,
    )
    return shop


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Three classes with three pictures to learn from and two to test on."""
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("blue", "green", "red"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "pictures"


def settings(pictures: Path, **search: object) -> Settings:
    values = {
        "data": {"dataset": f"folder:{pictures}", "shots": 2},
        "captions": {"captioner": "describe"},
        "clip": {"workers": 0},
        "search": {"steps": 2, "candidates": 2, "english_only": False, "class_names_allowed": True, **search},
    }
    return load_settings(None, values)


def search(chosen: Settings, path: Path, stop_after: int | None = None) -> dict[str, Any]:
    """Start a run; with `stop_after` it is interrupted after so many steps."""

    def watch(record):
        if record.last_step == stop_after:
            raise KeyboardInterrupt

    job = running.prepare("ipo", chosen)
    with running.start(job, path) as folder:
        return to_json(running.run(job, folder, watch))


def resume(path: Path) -> dict[str, Any]:
    with RunFolder.open(path) as folder:
        job, resumption = running.plan(plan_resumption(path))
        running.reopen(job, folder, resumption)
        return to_json(running.run(job, folder))


def test_a_resumed_run_keeps_its_captions_and_asks_for_none(shop, pictures, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=1)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["captioner"] == "scripted"
    asked = len(shop.described)
    assert asked == 6
    result = resume(tmp_path / "run")
    assert len(shop.described) == asked
    assert result["captioner"] == "scripted"
    contents = [messages[0].content for messages, _ in shop.asked]
    assert len(contents) == 2
    assert all(f"caption {number}" in content for content in contents for number in range(1, 7))


def test_the_words_of_a_refused_caption_stand_in_the_run_which_can_be_gone_on_with(shop, pictures, tmp_path):
    shop.refusals = {pictures / "train" / "blue" / "0.png": "I see a person.", Path("another.png"): "no"}
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=1)
    rows = [json.loads(line) for line in (tmp_path / "run" / "captions.jsonl").read_text().splitlines()]
    assert [row["refusal"] for row in rows if "refusal" in row] == ["I see a person."]
    assert resume(tmp_path / "run")["captioner"] == "scripted"


def test_what_captions_took_is_part_of_the_usage_and_cost_of_a_resumed_run_too(shop, pictures, tmp_path):
    shop.spent = Spent("openai:gpt-4o", 3000, 200)
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=1)
    shop.spent = UNPAID
    result = resume(tmp_path / "run")
    assert result["usage"]["captions"] == {"model": "openai:gpt-4o", "prompt_tokens": 3000, "completion_tokens": 200}
    assert result["cost"] == pytest.approx(cost("gpt-4o", 3000, 200))
    assert "3,200 tokens for captions" in (tmp_path / "run" / "report.html").read_text()


def test_a_bound_on_the_cost_needs_the_price_of_the_captioner_before_it_is_asked(shop, pictures, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    shop.name, shop.spent = "openai:gpt-4o", Spent("openai:nobody")
    values = settings(pictures, max_cost=1.0).model_dump() | {"llm": {"spec": "gpt-4o"}}
    for captioner in ("describe", "openai:nobody"):  # found when it says what it took, and before
        with pytest.raises(ConfigError, match="no price for openai:nobody"):
            running.prepare("ipo", load_settings(None, values | {"captions": {"captioner": captioner}}))
    assert shop.described == []


@pytest.mark.parametrize("rows", [[], ['{"image": "train/a.png", "caption": "another"}'], ['{"image": 1}'], ["[]"]])
def test_captions_that_are_damaged_are_an_error(shop, pictures, tmp_path, rows):
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=0)
    (tmp_path / "run" / "captions.jsonl").write_text("".join(f"{row}\n" for row in rows))
    with pytest.raises(RunError, match=r"captions\.jsonl"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_unreadable_test_image_is_found_before_anything_is_asked(shop, pictures, tmp_path, content):
    broken = pictures / "test" / "red" / "0.png"
    chosen = settings(pictures)
    if content is None:
        broken.unlink()
        broken.symlink_to("gone.png")
    else:
        broken.write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 6 test images.*red/0\.png.*skip_unreadable"):
        running.prepare("ipo", chosen)
    assert (shop.described, shop.asked) == ([], [])
    skipping = chosen.model_copy(update={"data": chosen.data.model_copy(update={"skip_unreadable": True})})
    result = search(skipping, tmp_path / "run")
    assert result["predictors"]["ipo"]["base"]["n"] == 5


def test_a_run_whose_test_image_proves_damaged_at_the_end_can_be_brought_to_its_end(shop, pictures, tmp_path):
    broken, run = pictures / "test" / "red" / "0.png", tmp_path / "run"
    broken.write_bytes(broken.read_bytes()[:60])  # the header is whole
    with pytest.raises(DataError, match=r"1 of 6 images.*replace them, or set it in the run's config\.toml"):
        search(settings(pictures), run)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("skip_unreadable = false", "skip_unreadable = true"))
    assert resume(run)["predictors"]["ipo"]["base"]["n"] == 5
    assert len(shop.asked) == 2, "the search was done again"


def test_test_images_of_which_none_can_be_read_are_an_error_all_the_same(shop, pictures):
    for path in (pictures / "test").rglob("*.png"):
        path.write_bytes(b"")
    chosen = settings(pictures)
    skipping = chosen.model_copy(update={"data": chosen.data.model_copy(update={"skip_unreadable": True})})
    with pytest.raises(DataError, match=r"none of the 6 test images \(base\) can be read"):
        running.prepare("ipo", skipping)


@pytest.mark.parametrize("text", [None, "{{ history + 1 }}", "{{ 1 / 0 }}", "{{ histroy }}", "{% for %}", b"caf\xe9"])
def test_a_template_that_cannot_be_used_is_found_before_any_model_is_asked(shop, pictures, tmp_path, monkeypatch, text):
    template = tmp_path / "own.j2"
    if text is not None:
        template.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setattr("ipo.run.load_clip", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(ConfigError, match=r"own\.j2"):
        running.prepare("ipo", settings(pictures, template=str(template)))


def test_a_template_may_count_on_the_first_prompt_and_a_caption(shop, pictures, tmp_path):
    template = tmp_path / "own.j2"
    template.write_text("{{ history[-1].accuracy }} {{ captions[0] }}")
    running.prepare("ipo", settings(pictures, template=str(template)))
    with pytest.raises(ConfigError, match=r"own\.j2"):
        running.prepare("ipo", settings(pictures, template=str(template), history=0))


def test_a_run_that_stops_early_can_be_read(shop, pictures, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), run, stop_after=1)
    for page in ("history.md", "report.html"):
        text = (run / page).read_text()
        assert "stopped: KeyboardInterrupt" in text
        assert "a drawing of a" in text


def test_the_reason_of_a_stop_is_kept_where_its_pages_cannot_be_written(shop, pictures, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ipo.report.pages.write_reports", full)
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=1)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped: KeyboardInterrupt"


def test_pages_name_the_best_prompt_by_the_rule_of_the_run(shop, pictures, tmp_path):
    found = {}
    for rule in ("accuracy", "loss"):
        shop.asked.clear()
        found[rule] = search(settings(pictures, select=rule), tmp_path / rule)["best"]["text"]
        page = (tmp_path / rule / "history.md").read_text()
        assert found[rule] in page.split("## Best prompt")[1].split("Ensemble")[0]
        html = (tmp_path / rule / "report.html").read_text()
        assert escape(found[rule]) in html.split('<div id="best" hidden>')[1].split("</div>")[0]
    assert found["accuracy"] != found["loss"], "the rules agree here, so nothing was tested"


def test_tables_show_pipes_and_backticks_of_prompts_and_reasons(shop, pictures, tmp_path):
    search(settings(pictures), tmp_path / "run")
    rows = [line for line in (tmp_path / "run" / "history.md").read_text().splitlines() if "|" in line]
    assert any("``a `red\\|blue` <CLASS>``" in row for row in rows)
    assert any("`no slot \\| here`" in row for row in rows)
    assert all(row.replace("\\|", "").count("|") in (3, 4, 5) for row in rows)


def test_a_damaged_run_is_left_as_it_is(shop, pictures, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), run, stop_after=1)
    (run / "replies.jsonl").unlink()
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".json", ".jsonl")}
    with pytest.raises(IpoError, match="does not fit the reply log"):
        resume(run)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".json", ".jsonl")} == before


@pytest.mark.parametrize("place", ["file", "file/run", "full"])
def test_a_place_for_the_run_is_looked_at_before_anything_is_asked(shop, pictures, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"no run can be written|not empty"):
        command.start_run("ipo", settings(pictures), {}, tmp_path / place)
    assert (shop.described, shop.asked) == ([], [])


def test_paths_are_printed_as_they_are(shop, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path, result = command.start_run("ipo", settings(pictures), {}, Path("run[old]"))
    assert result is not None
    print_result(result, path)
    shown = capsys.readouterr().out
    assert "run[old]/history.md" in shown
    assert f"Report: {(tmp_path / 'run[old]' / 'report.html').as_uri()}" in shown
    shop.asked.clear()
    shop.steps = [SCRIPT[0], []]
    with pytest.raises(AssertionError):
        command.start_run("ipo", settings(pictures), {}, Path("new[old]"))
    assert "ipo optimize --resume 'new[old]'" in capsys.readouterr().err


def test_a_shipped_template_is_taken_by_its_name_and_ones_own_by_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert template_place(None) is None
    assert template_place(Path("ipo.j2")) == "ipo.j2"
    assert template_place(Path("own.j2")) == str(tmp_path / "own.j2")
    assert template_place(Path("./sub/ipo.j2")) == str(tmp_path / "sub" / "ipo.j2")


def evaluate(dataset: object, *options: object) -> str:
    """What `ipo evaluate` prints of one prompt."""
    arguments = ["evaluate", "-p", "a <CLASS>", "--dataset", dataset, "--set", "clip.workers=0", *options]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_an_evaluation_names_the_split_that_it_tests_on(shop, pictures):
    for seed in (1, 3):
        (row,) = json.loads(evaluate(f"folder:{pictures / 'train'}", "--seed", seed, "--json"))
        assert row["split_source"] == f"seeded ({seed})"
    (pictures / "train").rename(pictures / "photos[old]")
    place = f"folder:{pictures / 'photos[old]'}"
    shown = evaluate(place, "--seed", 3)
    assert f"{place}, all classes" in shown
    assert "3 test images, split seeded (3)" in shown


def test_an_evaluation_may_use_all_images_and_a_folder_of_test_images_alone(shop, pictures):
    def images(place, which):
        (row,) = json.loads(evaluate(f"folder:{place}", "--images", which, "--json"))
        return row["n"], row["split_source"]

    count = len(list((pictures / "train").rglob("*.*")))
    assert images(pictures / "train", "all") == (count, "none, all images")
    assert images(pictures / "train", "test")[0] < count
    (pictures / "train").rename(pictures.parent / "elsewhere")
    assert images(pictures, "test") == (len(list((pictures / "test").rglob("*.*"))), "folders")


@pytest.mark.parametrize(("split", "domain"), [("val", "y"), ("test", "x"), ("test", "y")])
def test_an_evaluation_without_a_test_image_is_an_error_before_any_model(split, domain, shop, tmp_path, monkeypatch):
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    rows = [f"damaged.png,{name},{part},{place}" for name in "ab" for part, place in (("train", "x"), (split, "y"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split,domain", *rows]))
    monkeypatch.setattr("ipo.fixed_prompts.load_clip", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(DataError, match=r"(there are no|none of the \d+) test images \(all\)"):
        evaluate(f"csv:{tmp_path / 't.csv'}", "--domains", domain)


def test_a_search_without_an_llm_is_a_whole_run(shop, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("ipo.run.load_llm", lambda *_, **__: pytest.fail("nobody is asked"))
    chosen = settings(pictures)
    chosen = chosen.model_copy(update={"strategy": StrategySettings(name="random")})
    result = search(chosen, tmp_path / "run")
    assert (result["headline"], result["strategy"], result["usage"]["proposals"]) == ("random", "random", 4)
    assert "llm" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert shop.described == []
    for page in ("report.html", "history.md"):
        assert "strategy random" in (tmp_path / "run" / page).read_text()
    assert resume(tmp_path / "run")["predictors"] == result["predictors"]
