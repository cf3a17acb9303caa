"""The pages in a real browser: sort, search, open a step, compare, follow a live run, add a sentence, stop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from ipo.clip.load import load_clip  # noqa: F401  (torch is imported before threads are there)
from ipo.prompt import Score
from ipo.report.pages import write_reports
from ipo.serve.bench import Bench, Tried
from ipo.store.files import append_rows
from ipo.store.stop import stop_is_asked
from tests.test_report_page import full_run

CHROMIUM = os.environ.get("IPO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium is here; IPO_CHROMIUM may name one"),
]
SCORE = {"accuracy": 0.5, "loss": 1.0, "low": 0.1, "high": 0.9, "margin": 0.0, "fold_accuracy": 0.5, "fold_loss": 1.0}


@pytest.fixture(scope="module")
def browser():
    try:
        started = playwright.sync_playwright().start()
    except Exception as error:  # noqa: BLE001 - playwright says no more than that its Node.js program ended
        pytest.skip(f"playwright's driver does not start (Debian: apt-get install libatomic1): {error}")
    browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield browser
    browser.close()
    started.stop()


@pytest.fixture
def page(browser):
    """A page on which no script may fail."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    page, failures = context.new_page(), []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: failures.append(dialog.message))
    yield page
    context.close()
    assert not failures


def long_run(folder: Path, said: str = "b") -> Path:
    """A run with 40 candidates of which each tenth was rejected."""
    full_run(folder, said)
    rows = []
    for index in range(3, 40):
        outcome = (
            {"score": {**SCORE, "accuracy": index / 100, "low": 0.0}} if index % 10 else {"reason": "unlikely: it is"}
        )
        rows.append({"id": index, "step": 1 + index // 8, "text": f"{said} number {index} of a <CLASS>.", **outcome})
    append_rows(folder / "history.jsonl", rows)
    return folder


@pytest.fixture
def served(tmp_path):
    """A server that may write, over two runs; its address and the folder."""
    import uvicorn

    from ipo.serve.app import make_app
    from ipo.serve.guard import access_for

    for name in ("one", "two"):
        long_run(tmp_path / "runs" / name, name)
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(tmp_path / "runs", access_for("127.0.0.1", write=True))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", tmp_path / "runs"
    server.should_exit = True
    thread.join(10)
    listening.close()


def accuracies(page) -> list[str]:
    return page.locator("#candidates tbody tr td:first-child").all_inner_texts()


def test_a_report_is_sorted_searched_filtered_and_copied_from(page, tmp_path):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(write_reports(long_run(tmp_path / "run")).as_uri())
    assert accuracies(page)[0] == "50.00"
    page.click("th[data-column=accuracy] button")
    assert page.get_attribute("th[data-column=accuracy]", "aria-sort") == "ascending"
    found = [float(text) for text in accuracies(page)]
    assert found == sorted(found)
    assert len(found) == 36
    page.fill("#search", "number 17 ")
    assert accuracies(page) == ["17.00"]
    page.fill("#search", "")
    page.click('[data-kind=":unlikely"]')
    assert accuracies(page) == ["–"] * 4
    assert page.inner_text("#count") == "4 of 4 shown"
    page.click('[data-copy="best"]')
    assert page.evaluate("navigator.clipboard.readText()") == "b of a <CLASS>."


def test_a_step_is_opened_from_the_table_and_by_the_keyboard(page, tmp_path):
    page.goto(write_reports(long_run(tmp_path / "run")).as_uri())
    assert not page.is_visible("#step-1 pre")
    page.click("th[data-column=step] button")
    page.click('a[href="#step-1"] >> nth=0')
    assert page.is_visible("#step-1 pre")
    page.focus("#step-1 summary")
    page.keyboard.press("Enter")
    assert not page.is_visible("#step-1 pre")


def test_texts_run_nothing_and_the_page_asks_the_network_for_nothing(page, tmp_path):
    said = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(write_reports(long_run(tmp_path / "run", said)).as_uri())
    page.click('[data-kind="all"]')
    page.wait_for_timeout(100)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_sixteen_thousand_candidates_open_in_two_seconds(page, tmp_path):
    folder = full_run(tmp_path / "run")
    rows = [
        {"id": index, "step": 1 + index // 8, "text": f"a long description, {index}, of a <CLASS>.", "score": SCORE}
        for index in range(3, 16_000)
    ]
    append_rows(folder / "history.jsonl", rows)
    address = write_reports(folder).as_uri()
    started = time.monotonic()
    page.goto(address)
    page.fill("#search", "15999")
    assert page.inner_text("#count") == "1 of 1 shown"
    assert time.monotonic() - started < (2 if os.getloadavg()[0] < 2 else 20)


def test_runs_are_filtered_and_compared(page, served):
    home, _ = served
    page.goto(home)
    page.fill("#filter", "two")
    assert page.locator("#runs tbody tr:visible").count() == 1
    page.fill("#filter", "")
    for box in page.locator("#runs input[type=checkbox]").all():
        box.check()
    page.click("#compare")
    assert page.locator("#sides tbody tr").count() == 2
    assert page.locator("li ins").first.inner_text() == "two"


def test_a_run_is_followed_and_stopped(page, served):
    home, runs = served
    folder = runs / "one"
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"status": "running"}))
    with FileLock(folder / ".lock"):
        page.goto(f"{home}/run?run=one")
        assert page.inner_text("#status") == "running"
        new = {"id": 40, "step": 6, "text": "a new one <CLASS>.", "score": {**SCORE, "accuracy": 0.9}}
        append_rows(folder / "history.jsonl", [new])
        page.wait_for_selector("#candidates >> text=a new one")
        assert page.inner_text("#best-so-far") == "a new one <CLASS>."
        assert "90.00%" in page.inner_text("#figures")
        page.click("#stop")
        page.wait_for_selector("text=stopping after this step")
        assert stop_is_asked(folder)
    (folder / "run.json").write_text(json.dumps(facts))
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_function("document.getElementById('status').textContent === 'done'")


def test_a_sentence_is_tried_and_added(page, served, monkeypatch):
    home, runs = served
    facts = json.loads((runs / "one" / "history.jsonl").read_text().splitlines()[0])
    score = Score(**{**facts["score"], "accuracy": 0.75})
    monkeypatch.setattr(Bench, "tried", lambda bench, folder, prompt: Tried(prompt.text, score, 25.0))
    answered = runs / "one" / "replies.jsonl"
    first = json.loads(answered.read_text())
    replies = [{**first["replies"][0], "text": "x"}]
    steps = [json.loads(line)["step"] for line in (runs / "one" / "history.jsonl").read_text().splitlines()]
    lines = [{**first, "step": step, "replies": replies * steps.count(step)} for step in sorted({*steps} - {0})]
    answered.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (runs / "one" / "config.toml").write_text('[search]\nfirst_prompts = ["a <CLASS>."]\n')
    page.goto(f"{home}/run?run=one")
    page.fill("#sentence", "without a slot")
    page.click("text=try >> nth=-1")
    page.wait_for_selector("#problem:visible")
    page.fill("#sentence", "my own <CLASS>.")
    page.click("#try button >> nth=0")
    page.wait_for_selector("#tried:has-text('+25.00 points')")
    page.click("#add")
    page.wait_for_selector("#candidates >> text=my own")
    assert page.inner_text("#candidates tbody tr:has-text('my own') .by") == "human"
    assert json.loads((runs / "one" / "history.jsonl").read_text().splitlines()[-1])["by"] == "human"


def test_a_report_is_readable_in_the_dark_on_a_small_screen_and_on_paper(browser, tmp_path):
    address = write_reports(long_run(tmp_path / "run")).as_uri()
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing is cut off at the side"
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert abs(brightness(ink) - brightness(paper)) > 150
        page.close()
    page = browser.new_page(color_scheme="dark")
    page.goto(address)
    page.emulate_media(media="print")
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 255
    assert page.is_visible("text=first_prompts") or page.is_visible("#made pre >> nth=0")
    assert not page.is_visible("#search")
    assert len(page.pdf()) > 10_000
    page.close()


def brightness(colour: str) -> float:
    return sum(int(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]) / 3
