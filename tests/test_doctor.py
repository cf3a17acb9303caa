"""`ipo doctor`: every line true, every advice a way out, and no secret of an address on the screen."""

import json
import socket
import sys

import pytest
from typer.testing import CliRunner

from ipo.cli import doctor
from ipo.cli.main import app
from tests.llm.server import serving

PASSWORD = "Hunter2-secret"
VARIABLES = [
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy",
    "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "OPENAI_API_KEY", "OPENAI_BASE_URL",
    "IPO_OFFLINE",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def told(findings) -> dict[str, tuple[str, str]]:
    return {finding.what: (finding.state, finding.remedy) for finding in findings}


SECRET_ADDRESSES = [
    f"http://user:{PASSWORD}@127.0.0.1:9",
    f"http://{PASSWORD}@127.0.0.1:9/v1",
    f"user:{PASSWORD}@127.0.0.1:9",
    f"http://user:a/{PASSWORD}@127.0.0.1:9",
    f"http://127.0.0.1:9/v1?api_key={PASSWORD}",
    f"http://127.0.0.1:9/v1?x=1&{PASSWORD}",
    f"http://127.0.0.1:9/v1#{PASSWORD}",
    f"http://127.0.0.1:9/{PASSWORD}-0123456789abcdef/v1",
    f"socks5://user:{PASSWORD}@127.0.0.1:9",
    f"garbage {PASSWORD}@ and more",
]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT", "OPENAI_BASE_URL"])
@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_no_secret_of_an_address_is_shown(monkeypatch, name, address):
    monkeypatch.setenv(name, address)
    shown = json.dumps([*told(doctor.reachable()).items()])
    assert PASSWORD not in shown
    assert "Hunter2" not in shown


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_whole_command_shows_no_secret_and_no_control(monkeypatch, tmp_path, form):
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "\x1b]0;gone\x07"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://user:{PASSWORD}@127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", PASSWORD)
    monkeypatch.setenv("OPENAI_API_KEY", PASSWORD)
    done = CliRunner().invoke(app, ["doctor", "--data-root", str(tmp_path / "my data"), *form])
    assert done.exit_code == 0, done.exception
    assert PASSWORD not in done.output
    assert "\x1b" not in done.output
    assert "user:" not in done.output


def test_a_proxy_that_cannot_be_used_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert told(doctor.reachable())["ALL_PROXY"] == (
        "socks5://127.0.0.1:9: a SOCKS proxy needs the package socksio",
        "Run: pip install socksio. Or unset the variable",
    )
    monkeypatch.setenv("NO_PROXY", "*")
    assert told(doctor.reachable())["ALL_PROXY"] == ("socks5://127.0.0.1:9", "")


def test_the_hub_is_reachable_or_why_not(monkeypatch, httpserver):
    assert "not reachable" in doctor.hub().state
    assert "refused" in doctor.hub().state
    httpserver.expect_request("/").respond_with_data("")
    monkeypatch.setenv("HF_ENDPOINT", httpserver.url_for(""))
    assert doctor.hub().state.endswith(" reachable")
    httpserver.clear()
    assert "HTTP 500" in doctor.hub().state
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.hub().remedy == "Unset HF_HUB_OFFLINE to fetch models"
    monkeypatch.setenv("IPO_OFFLINE", "1")
    assert (doctor.hub().remedy, "IPO_OFFLINE" in doctor.hub().state) == ("", True)


def test_a_hub_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr("ipo.net.addresses.SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert "not reachable" in doctor.hub().state


def test_the_server_of_openai_models(monkeypatch):
    assert told(doctor.openai_server()) == {
        "OPENAI_API_KEY": ("not set", "Needed for openai: models without --base-url")
    }
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    found = told(doctor.openai_server())
    assert found["OPENAI_API_KEY"] == ("not set", "")
    assert found["OPENAI_BASE_URL"][0] == "http://127.0.0.1:9/v1 not reachable"
    with serving(lambda request: "") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        assert told(doctor.openai_server())["OPENAI_BASE_URL"][0].endswith(" reachable")


def test_the_advice_about_a_dataset_is_about_the_root_that_was_asked_for(tmp_path):
    root = tmp_path / "my data"
    remedy = told(doctor.datasets(root))["dataset caltech101"][1]
    assert remedy == f"ipo datasets prepare caltech101 --data-root '{root}'"
    assert told(doctor.datasets(None))["dataset dtd"][1] in ("", "ipo datasets prepare dtd")


def test_without_torch_the_rest_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch cannot be imported" in doctor.gpu().state
    assert doctor.gpu().remedy.startswith("pip install 'torch")
