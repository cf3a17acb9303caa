"""`ipo serve`: what its pages show, what it refuses, and what it writes where it may."""

from __future__ import annotations

import html
import json
import os
import re

import pytest
import torch
from filelock import FileLock
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.errors import ConfigError, RunError
from ipo.methods import FitRun
from ipo.prompt import HistoryEntry, Prompt, Score
from ipo.runs.folder import RunFolder
from ipo.search.human import add_sentence
from ipo.search.record import Record
from ipo.search.stopping import stop_reason
from ipo.serve.app import make_app
from ipo.serve.guard import MOST_BYTES, access_for
from ipo.store.files import append_rows
from ipo.store.stop import STOP_FILE, ask_to_stop, stop_is_asked
from tests.test_report_page import HOSTILE, Shape, full_run
from tests.test_run import pictures, search, settings, shop  # noqa: F401  (fixtures)

HOME = "http://127.0.0.1:8421"
JSON = {"content-type": "application/json"}


@pytest.fixture
def runs(tmp_path):
    """Two runs below a folder, one of them deeper."""
    full_run(tmp_path / "runs" / "one")
    full_run(tmp_path / "runs" / "deep" / "two", said="an ink drawing")
    return tmp_path / "runs"


def client(runs, write=False, host="127.0.0.1", names=()):
    return TestClient(make_app(runs, access_for(host, names, write)), base_url=HOME, follow_redirects=False)


def test_the_list_names_every_run_and_its_best_prompt(runs):
    page = client(runs).get("/").text
    assert 'href="/run?run=one"' in page
    assert 'href="/run?run=deep/two"' in page
    assert "an ink drawing of a" in page
    assert "cut off" not in page


def test_every_page_of_a_run_opens(runs):
    served = client(runs)
    for address in ("/run?run=one", "/report?run=deep/two", "/chart?run=one", "/compare?run=one&run=deep/two"):
        answer = served.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    for name in ("page.css", "page.js", "serve.js"):
        assert served.get(f"/assets/{name}").status_code == 200
    assert "<ins>" in served.get("/compare?run=one&run=deep/two").text


def test_the_report_is_made_anew_and_a_file_in_the_folder_is_not_trusted(runs):
    (runs / "one" / "report.html").write_text("<script>alert(1)</script>")
    page = client(runs).get("/report?run=one").text
    assert "alert(1)" not in page
    assert "Every candidate" in page


def test_rows_come_from_where_the_page_has_come_to(runs):
    served = client(runs)
    told = served.get("/api/rows?run=one&from=1").json()
    assert (told["total"], len(told["rows"]), told["status"]) == (3, 2, "done")
    assert served.get("/api/rows?run=one&from=3").json()["rows"] == []
    assert served.get("/api/rows?run=one&from=-1").status_code == 409


@pytest.mark.parametrize(
    "name", ["../one", "one/../../etc", "/etc", "%2e%2e/one", "one/", "", "..", "one%00", "deep", "C:\\x", "o" * 5000]
)
def test_no_name_leaves_the_folder(runs, name):
    served = client(runs, write=True)
    for address in ("/run", "/report", "/chart", "/export", "/compare", "/api/rows"):
        assert served.get(address, params={"run": name, "to": "text"}).status_code in (404, 409), address
    assert served.post("/api/stop", params={"run": name}, headers=JSON, content="{}").status_code == 404


@pytest.mark.parametrize("path", ["/assets/../report.html.j2", "/assets/%2e%2e%2fipo.j2", "/assets/ipo.j2", "/nothing"])
def test_no_other_file_is_served(runs, path):
    assert client(runs).get(path).status_code == 404


def test_a_link_out_of_the_folder_is_not_followed(runs, tmp_path):
    full_run(tmp_path / "secret")
    (runs / "elsewhere").symlink_to(tmp_path / "secret")
    assert "elsewhere" not in client(runs).get("/").text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8421", "", "localhost@evil.example", "[::2]:1"]
)
def test_requests_for_another_name_are_refused(runs, host):
    assert client(runs).get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8421", "127.0.0.1:1", "[::1]:8421", "localhost"])
def test_this_machine_is_known_by_all_its_names(runs, host):
    assert client(runs).get("/", headers={"host": host}).status_code == 200


def test_requests_of_other_sites_are_refused(runs):
    served = client(runs, write=True)
    full = JSON | {"origin": "https://evil.example"}
    assert served.post("/api/stop?run=one", headers=full, content="{}").status_code == 403
    assert served.get("/api/rows?run=one", headers={"origin": "null"}).status_code == 403
    assert (
        served.get(
            "/api/rows?run=one", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        ).status_code
        == 403
    )
    assert served.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert served.post("/api/stop?run=one", headers=form, content="a=b").status_code == 415
    assert served.put("/api/stop?run=one", headers=JSON, content="{}").status_code == 415
    assert served.get("/", headers={"origin": HOME}).status_code == 200


def test_large_bodies_are_refused_with_and_without_their_length(runs):
    served = client(runs, write=True)
    large = json.dumps({"text": "x" * MOST_BYTES})
    assert served.post("/api/add?run=one", headers=JSON, content=large).status_code == 413
    parts = iter([b"x" * MOST_BYTES, b"x"])
    assert served.post("/api/add?run=one", headers=JSON, content=parts).status_code == 413
    assert served.post("/api/add?run=one", headers=JSON | {"content-length": "nine"}, content="").status_code == 413


@pytest.mark.parametrize("body", ["", "[]", '{"text": 3}', "{", '{"other": "x"}', "[" * 30_000])
def test_a_body_that_is_no_sentence_is_an_error_in_one_line(runs, body):
    answer = client(runs, write=True).post("/api/add?run=one", headers=JSON, content=body)
    assert answer.status_code == 409
    assert "text" in answer.json()["error"]


def test_a_server_that_only_shows_changes_nothing(runs):
    served = client(runs)
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    for name in ("stop", "add"):
        answer = served.post(f"/api/{name}?run=one", headers=JSON, content='{"text": "the <CLASS>."}')
        assert answer.status_code == 403
        assert "--write" in answer.json()["error"]
    for address in ("/", "/run?run=one", "/report?run=one"):
        assert "add to the history" not in served.get(address).text
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path in before} == before


def test_others_need_the_token(runs):
    access = access_for("0.0.0.0", ("workstation.lan",))
    served = TestClient(make_app(runs, access), base_url="http://workstation.lan", follow_redirects=False)
    assert served.get("/").status_code == 401
    assert served.get("/?token=wrong").status_code == 401
    assert served.get("/api/rows?run=one", headers={"cookie": "ipo-token=wrong"}).status_code == 401
    answer = served.get(f"/?token={access.token}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert served.get("/").status_code == 200
    assert served.get("/", headers={"host": "evil.example"}).status_code == 421
    assert len(access.token) >= 32


def test_no_text_makes_an_element_of_a_served_page(tmp_path):
    full_run(tmp_path / "tame" / "run", "b")
    tame = client(tmp_path / "tame")
    for place, said in enumerate(HOSTILE):
        if len(said) < 1000 and "<CLASS>" not in said:
            root = tmp_path / f"wild{place}"
            full_run(root / "run", said)
            wild = client(root)
            for address in ("/", "/run?run=run", "/chart?run=run"):
                assert Shape(wild.get(address).text).elements == Shape(tame.get(address).text).elements, said


def test_what_a_run_found_can_be_taken_along(runs):
    answer = client(runs).get("/export?run=deep/two&to=text")
    assert answer.text == "an ink drawing of a <CLASS>.\n"
    assert answer.headers["content-disposition"] == 'attachment; filename="prompt.txt"'
    assert client(runs).get("/export?run=one&to=exe").status_code == 404
    assert client(runs).get("/export?run=one&to=open_clip").status_code == 409


def test_names_that_are_no_text_are_shown_and_open(runs):
    (runs / "one").rename(runs / os.fsdecode(b"\xff<b>\x1b"))
    served = client(runs)
    (address,) = re.findall(r'href="(/run\?run=[^"]*udcff[^"]*)"', served.get("/").text)
    assert served.get(html.unescape(address)).status_code == 200


def test_a_list_shows_what_has_changed(runs):
    served = client(runs)
    assert "b of a" in served.get("/").text
    score = {
        "accuracy": 0.9,
        "loss": 1.0,
        "low": 0.1,
        "high": 0.9,
        "margin": 0.0,
        "fold_accuracy": 0.5,
        "fold_loss": 1.0,
    }
    append_rows(runs / "one" / "history.jsonl", [{"id": 3, "step": 2, "text": "better <CLASS>.", "score": score}])
    assert "better" in served.get("/").text


def test_a_damaged_run_is_named_and_the_others_are_shown(runs):
    (runs / "one" / "history.jsonl").write_text("{}\n")
    page = client(runs).get("/").text
    assert "damaged" in page
    assert "an ink drawing" in page
    assert client(runs).get("/run?run=one").status_code == 409


def test_a_running_run_can_be_stopped_and_another_cannot(runs):
    served = client(runs, write=True)
    assert served.post("/api/stop?run=one", headers=JSON, content="{}").status_code == 409
    facts = json.loads((runs / "one" / "run.json").read_text())
    (runs / "one" / "run.json").write_text(json.dumps(facts | {"status": "running"}))
    assert served.get("/api/rows?run=one").json()["status"] == "cut off"
    with FileLock(runs / "one" / ".lock"):
        assert served.get("/api/rows?run=one").json()["status"] == "running"
        assert served.post("/api/stop?run=one", headers=JSON, content="{}").json() == {"asked": True}
    assert stop_is_asked(runs / "one")


def test_a_search_ends_where_a_stop_is_asked_for_and_goes_on_when_it_is_resumed(shop, pictures, tmp_path):  # noqa: F811
    from ipo import run as running

    job = running.prepare("ipo", settings(pictures))
    with running.start(job, tmp_path / "run") as folder:
        result = running.run(job, folder, lambda record: ask_to_stop(folder.path) if record.last_step == 1 else None)
    assert result.stopped == "a stop was asked for"
    assert result.usage is not None
    assert result.usage.steps == 1
    RunFolder.open(tmp_path / "run").close()
    assert not (tmp_path / "run" / STOP_FILE).exists()


SCORE = Score(0.5, 1.0, 0.1, 0.9, 0.0, 0.5, 1.0)


def test_a_sentence_of_a_person_is_marked_and_the_search_goes_on_with_it(shop, pictures, tmp_path):  # noqa: F811
    from tests.test_run import resume

    with pytest.raises(KeyboardInterrupt):
        search(settings(pictures), tmp_path / "run", stop_after=1)
    served = client(tmp_path, write=True)
    from tests.fakes import FakeClip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipo.serve.bench.load_clip", lambda settings, offline: FakeClip())
        sentence = '{"text": "my own <CLASS>."}'
        tried = served.post("/api/try?run=run", headers=JSON, content=sentence).json()
        assert set(tried) == {"text", "loss", "value", "low", "high", "ahead"}
        added = served.post("/api/add?run=run", headers=JSON, content=sentence)
        assert added.status_code == 200, added.text
        again = served.post("/api/add?run=run", headers=JSON, content=sentence)
        assert again.status_code == 409
        assert "already" in again.json()["error"]
        for wrong in ("no slot", "a <CLASS> and <CLASS>"):
            assert served.post("/api/try?run=run", headers=JSON, content=json.dumps({"text": wrong})).status_code == 409
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows if row.get("by") == "human"] == ["my own <CLASS>."]
    resume(tmp_path / "run")
    assert "my own" in shop.asked[-1][0][0].content
    page = (tmp_path / "run" / "report.html").read_text()
    assert re.search(r"my own.*human", page)


def test_no_sentence_is_added_in_the_midst_of_a_step(tmp_path):
    record = Record("accuracy", tmp_path)
    with pytest.raises(RunError, match="under way"):
        add_sentence(record, Prompt("my <CLASS>."), SCORE)
    record.history.append([HistoryEntry(0, 0, "a <CLASS>.", score=SCORE)])
    add_sentence(record, Prompt("my <CLASS>."), SCORE)
    with pytest.raises(ConfigError, match="already"):
        add_sentence(record, Prompt("My <CLASS>"), SCORE)
    read = Record.read("accuracy", tmp_path, ["a <CLASS>."])
    assert [(entry.step, entry.by) for entry in read.history] == [(0, None), (1, "human")]
    record.log_replies(2, 0, [], [], 0.0)
    with pytest.raises(RunError, match="under way"):
        add_sentence(record, Prompt("another <CLASS>."), SCORE)
    assert stop_reason(settings_of_a_search(), record, "") is None
    ask_to_stop(tmp_path)
    assert stop_reason(settings_of_a_search(), record, "") == "a stop was asked for"


def test_a_fit_by_gradients_stops_after_its_checkpoint(tmp_path):
    fit = FitRun(tmp_path)
    fit.save({"context": torch.zeros(1)}, 1)
    ask_to_stop(tmp_path)
    with pytest.raises(RunError, match="asked to stop"):
        fit.save({"context": torch.ones(1)}, 2)
    assert FitRun(tmp_path).restore()[1] == 2


def settings_of_a_search():
    from ipo.config import SearchSettings

    return SearchSettings(steps=5)


def test_a_place_that_cannot_be_served_is_one_line(tmp_path, monkeypatch):
    done = CliRunner().invoke(app, ["serve", str(tmp_path / "nowhere")])
    assert "not there" in str(done.exception)
    monkeypatch.setattr("ipo.cli.serve.is_installed", lambda name: name != "starlette")
    done = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert "[serve]" in str(done.exception)
