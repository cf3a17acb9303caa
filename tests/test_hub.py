"""Models of the hub, against a stand-in on loopback: each way it can go wrong is one line that leads out."""

from __future__ import annotations

import errno
import shutil
import sys
import time
from _thread import interrupt_main
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from huggingface_hub import HfApi, close_session

from ipo.errors import IpoError, ModelError
from ipo.net import hub
from ipo.net.hub import LANGUAGE_MODEL, Wanted, cached_folder, hub_folder
from tests.hub_server import Hub, serving_hub

REPO = "org/model"
INSTEAD = "Use a folder"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"
FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 400,
    "tokenizer.json": b'{"version": "1.0"}',
    "README.md": b"no part of it",
    "consolidated.safetensors": b"the same weights again",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and an empty cache."""
    folder = tmp_path / "served" / REPO
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving_hub(tmp_path / "served") as running:
        use_hub(monkeypatch, running.address, tmp_path / "cache")
        yield running


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Have the client, which read the environment when it was imported, use this hub and this cache."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(f"{constants}.HF_HUB_DOWNLOAD_TIMEOUT", 1)


def fetch(wanted: Wanted = LANGUAGE_MODEL) -> Path:
    return hub_folder(REPO, wanted, offline=False, instead=INSTEAD)


def failing(error: type[Exception] = ModelError, repo: str = REPO) -> str:
    """The one line of the error about a fetch, which names the model and holds no token."""
    with pytest.raises(error) as caught:
        hub_folder(repo, LANGUAGE_MODEL, offline=False, instead=INSTEAD)
    line = str(caught.value)
    assert "\n" not in line
    assert TOKEN not in line
    return line


def test_the_first_start_fetches_what_a_model_is_made_of_and_says_so(server: Hub, capsys) -> None:
    folder = fetch()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    shown = capsys.readouterr().err
    assert f"fetching hf:{REPO} (0 MB) from {server.address}" in shown
    assert TOKEN not in shown
    sent = [headers.get("authorization") for _, path, headers in server.asked if REPO in path]
    assert sent == [f"Bearer {TOKEN}"] * 7, server.asked


def test_the_second_start_asks_nobody(server: Hub) -> None:
    folder = fetch()
    server.asked.clear()
    assert fetch() == folder
    assert hub_folder(REPO, LANGUAGE_MODEL, offline=True, instead=INSTEAD) == folder
    assert server.asked == []


def test_a_broken_connection_is_taken_up_where_it_broke(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    server.cuts["model.safetensors"] = 50_000
    assert (fetch() / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    ranges = [headers["range"] for method, path, headers in server.asked if method == "GET" and "range" in headers]
    assert len(ranges) == 1
    assert 0 < int(ranges[0].removeprefix("bytes=").rstrip("-")) <= 50_000


def test_what_broke_off_is_no_whole_model_and_the_next_start_fetches_the_rest_only(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
    server.silent = "resolve/main/config.json"
    assert "run the command again: files that came whole are kept" in failing()
    assert cached_folder(REPO, LANGUAGE_MODEL) is None
    server.silent = ""
    server.asked.clear()
    fetch()
    assert [line for line in server.requests("resolve") if line.startswith("GET")] == [
        f"GET /{REPO}/resolve/main/config.json"
    ]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "GatedRepo", ["is gated", "Accept its licence at", f"/{REPO}", "HF_TOKEN"]),
        (403, "GatedRepo", ["is gated", "Accept its licence at", f"/{REPO}", "HF_TOKEN"]),
        (401, "RepoNotFound", ["no such model, or hides it", "HF_TOKEN", "Check the name"]),
        (401, "", ["no such model, or hides it", "HF_TOKEN"]),
        (403, "", ["no such model, or hides it", "HTTP 403"]),
        (404, "RepoNotFound", ["no such model", "Check the name"]),
        (429, "", ["HTTP 429", "later", INSTEAD]),
        (500, "", ["HTTP 500", "later", INSTEAD]),
        (503, "", ["HTTP 503", "later", INSTEAD]),
    ],
)
def test_a_refusal_is_told_with_what_to_do(server: Hub, status: int, code: str, words: list[str]) -> None:
    server.refused[REPO] = (status, code)
    line = failing()
    assert all(word in line for word in [*words, f"HTTP {status}", REPO]), line


def test_a_gated_model_opens_to_a_token_as_the_error_says(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.gated.add(REPO)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    line = failing()
    assert "no token was given" in line
    assert f"Accept its licence at {server.address}/{REPO}, then set HF_TOKEN" in line
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (fetch() / "config.json").is_file()


def test_a_gate_behind_an_open_page_is_told_as_well(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real hub describes a gated model to everyone and refuses its files only."""
    real = HfApi.model_info

    def describe_then_refuse(*arguments, **options):
        info = real(*arguments, **options)
        server.refused[REPO] = (403, "GatedRepo")
        return info

    monkeypatch.setattr(HfApi, "model_info", describe_then_refuse)
    assert "the model is gated, and the token that you gave has no access" in failing()


def test_a_model_that_is_not_there_or_is_of_another_kind(server: Hub) -> None:
    assert "no such model" in failing(repo="org/other")
    (server.root / REPO / "model.safetensors").unlink()
    assert "holds no model.safetensors or model.safetensors.index.json" in failing()
    assert server.requests("resolve") == []


@pytest.mark.parametrize("fault", ["silent", "dripping"])
@pytest.mark.parametrize("part", ["api/models", "resolve/main/model.safetensors"])
def test_a_hub_that_stalls_is_given_up(server: Hub, monkeypatch: pytest.MonkeyPatch, fault: str, part: str) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(hub, "STALL_SECONDS", 0.7)
    setattr(server, fault, part)
    started = time.monotonic()
    line = failing()
    assert time.monotonic() - started < 8
    assert "cannot be fetched" in line
    assert INSTEAD in line


def test_an_interrupt_leaves_no_part_of_a_file_behind(server: Hub, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1)
    server.dripping = "resolve/main/model.safetensors"
    parts: list[Path] = []
    pause = Event()  # a sleep takes no time here

    def interrupt() -> None:
        while not (server.requests(server.dripping) and parts):
            pause.wait(0.02)
            parts[:] = (tmp_path / "cache").rglob("*.incomplete")
        interrupt_main()

    thread = Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fetch()
    thread.join(10)
    assert len(parts) == 1
    assert list((tmp_path / "cache").rglob("*.incomplete")) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://user:pass-word@127.0.0.1:9", "http://[bad", "foo"])
def test_a_hub_out_of_reach_is_told_in_seconds(server, monkeypatch, tmp_path, address: str) -> None:
    use_hub(monkeypatch, address, tmp_path / "cache")
    line = failing()
    assert "cannot be fetched" in line
    assert INSTEAD in line
    assert "pass-word" not in line
    assert not (tmp_path / "cache").exists(), "something was left behind"


ODD_ANSWERS = [
    "<html>Welcome</html>",
    "[]",
    "null",
    "{}",
    '{"id": 3, "sha": []}',
    '{"id": "a", "siblings": [3]}',
    "[" * 9999,
]


@pytest.mark.parametrize("answer", ODD_ANSWERS, ids=lambda answer: answer[:12])
def test_what_is_no_hub_is_told(server, monkeypatch, httpserver, tmp_path: Path, answer: str) -> None:
    httpserver.expect_request(f"/api/models/{REPO}").respond_with_data(answer)
    use_hub(monkeypatch, httpserver.url_for("").rstrip("/"), tmp_path / "cache")
    line = failing()
    assert "cannot be fetched" in line or "holds no config.json" in line


def test_an_environment_without_a_hub_is_respected(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in failing()
    assert server.asked == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5://me:pass-word@127.0.0.1:9", "pip install socksio"),
        ("gopher://me:pass-word@127.0.0.1:9", "address of a proxy cannot be read"),
        ("http://me:pass-word@host:port", "address of a proxy cannot be read"),
        ("http://me:pass-word@127.0.0.1:9", "by ALL_PROXY=http://***@127.0.0.1:9"),
    ],
)
def test_a_proxy_of_no_use_is_named_without_its_password(server, monkeypatch, value: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", value)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    close_session()
    line = failing(IpoError)
    assert words in line
    assert "ALL_PROXY" in line
    assert "pass-word" not in line


def test_a_full_disk_is_told_before_the_first_byte_and_at_any_later_one(server, monkeypatch, tmp_path) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
        line = failing()
    assert "the disk is full" in line
    assert "HF_HOME" in line
    assert server.requests("resolve") == []

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    line = failing()
    assert "No space left on device" in line
    assert "HF_HOME" in line


def test_a_cache_that_cannot_be_written_is_told(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    line = failing()
    assert "cannot keep the model" in line
    assert "HF_HOME" in line


def test_an_index_of_weights_whose_parts_are_not_all_there_is_no_whole_model(server: Hub) -> None:
    served = server.root / REPO
    (served / "model.safetensors").rename(served / "model-00001-of-00001.safetensors")
    (served / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    folder = fetch()
    assert cached_folder(REPO, LANGUAGE_MODEL) == folder
    (folder / "model-00001-of-00001.safetensors").unlink()
    assert cached_folder(REPO, LANGUAGE_MODEL) is None
    fetch()
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors.index.json").write_text("[]")
    assert cached_folder(REPO, LANGUAGE_MODEL) is None


def test_offline_the_remedy_leads_out(server: Hub) -> None:
    with pytest.raises(ModelError, match=f"--offline forbids.*hf:{REPO}.*{INSTEAD}.*once without --offline"):
        hub_folder(REPO, LANGUAGE_MODEL, offline=True, instead=INSTEAD)
