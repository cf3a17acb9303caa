"""Advice that names an option leads out when it is followed, and never back to where it came from."""

import pytest

from ipo.captions.load import require_captioner
from ipo.clip.load import load_clip, resolve_device
from ipo.clip.specs import MINI_PACKAGES
from ipo.config import CaptionSettings, ClipSettings, LLMSettings, clip_model
from ipo.data.download import download
from ipo.errors import ConfigError, IpoError, ModelError
from ipo.llm.load import require_llm
from ipo.llm.presets import presets
from ipo.llm.server.client import Server
from ipo.packages import is_installed
from tests.test_hub import use_hub

OWN_SERVER = "http://127.0.0.1:9/v1"
KEY = "0123456789abcdefghijklmnop"


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "IPO_OFFLINE", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def advice(function, *arguments, **options) -> str:
    with pytest.raises(IpoError) as caught:
        function(*arguments, **options)
    return caught.value.remedy


def llm(spec: str, *, offline: bool, **settings):
    return require_llm(LLMSettings(spec=spec, **settings), offline=offline)


def test_an_llm_of_the_hub_offline():
    remedy = advice(llm, "hf:org/model", offline=True)
    assert "--offline with --llm local-llama" in remedy
    assert presets()[presets()["local-llama"].offline or "none"].spec.startswith("package:")
    assert "fetch it once without --offline and IPO_OFFLINE" in remedy
    assert llm("hf:org/model", offline=False).spec == "hf:org/model"


def test_an_llm_of_openai_offline(monkeypatch):
    remedy = advice(llm, "gpt-4o-mini", offline=True)
    assert "--base-url" in remedy
    assert llm("gpt-4o-mini", offline=True, base_url=OWN_SERVER)
    assert "--offline and IPO_OFFLINE" in remedy
    assert "OPENAI_API_KEY" in advice(llm, "gpt-4o-mini", offline=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    assert llm("gpt-4o-mini", offline=False)


def test_an_address_with_a_key_in_it(monkeypatch):
    """The key has to go elsewhere, since settings are recorded; and there it is taken, offline too, and never shown."""
    address = f"http://127.0.0.1:9/{KEY}/v1"
    for section in (LLMSettings, CaptionSettings):
        with pytest.raises(ConfigError, match="OPENAI_BASE_URL") as caught:
            section(base_url=address)
        assert KEY not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert llm("gpt-4o-mini", offline=True)
    assert require_captioner(CaptionSettings(captioner="openai:m"), offline=True)
    server = Server("m", None, "llm.base_url", timeout=1, retries=0)
    assert server.url == address
    assert server.name_of("m") == "openai:m at http://127.0.0.1:9/***/v1"
    assert KEY not in server.reason(f"cannot reach {address}\x1b[2J")
    assert "\x1b" not in server.reason("\x1b[2J")


def test_an_address_for_a_model_that_has_none():
    assert "Leave it out, or give openai:MODEL" in advice(llm, "local-llama", offline=True, base_url=OWN_SERVER)
    assert llm("openai:m", offline=True, base_url=OWN_SERVER)
    settings = CaptionSettings(captioner="describe", base_url=OWN_SERVER)
    assert advice(require_captioner, settings, offline=True) == "Leave it out"


@pytest.mark.parametrize("captioner", ["hf:org/model", "openai:m"])
def test_a_captioner_offline(captioner):
    remedy = advice(require_captioner, CaptionSettings(captioner=captioner), offline=True)
    assert "describe" in remedy
    assert "--offline and IPO_OFFLINE" in remedy
    if all(map(is_installed, MINI_PACKAGES)):
        require_captioner(CaptionSettings(captioner="describe"), offline=True)
    require_captioner(CaptionSettings(captioner="none"), offline=True)
    require_captioner(CaptionSettings(captioner="openai:m", base_url=OWN_SERVER), offline=True)


def test_a_clip_model_offline_and_online_without_a_hub():
    offline = advice(load_clip, ClipSettings(model="ViT-B-16-quickgelu/openai", device="cpu"), offline=True)
    online = advice(load_clip, ClipSettings(model="ViT-B-16-quickgelu/openai", device="cpu"), offline=False)
    for remedy in (offline, online):
        assert "--clip mini" in remedy
    assert clip_model("auto", offline=True) == "mini"
    if all(map(is_installed, MINI_PACKAGES)):
        assert load_clip(ClipSettings(model="mini", device="cpu"), offline=False).fingerprint.name == "mini"


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"--device auto.*clip\.device and llm\.device"):
        resolve_device("cuda")
    assert resolve_device("auto")


def test_a_socks_proxy_and_a_dataset(monkeypatch, tmp_path, httpserver):
    """`pip install socksio` would be no way out here, and going past the proxy would be none either."""
    httpserver.expect_request("/file").respond_with_data(b"whole")
    monkeypatch.setenv("ALL_PROXY", "socks5://user:pass-word@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConfigError, match=r"not fetched by a SOCKS proxy.*NO_PROXY") as caught:
        download(httpserver.url_for("/file"), tmp_path / "file", lambda path: None)
    assert "pass-word" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert download(httpserver.url_for("/file"), tmp_path / "file", lambda path: None).read_bytes() == b"whole"


def test_all_proxy_is_the_proxy_of_downloads(monkeypatch, tmp_path, httpserver):
    httpserver.expect_request("/file").respond_with_data(b"by the proxy")
    monkeypatch.setenv("ALL_PROXY", httpserver.url_for(""))
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    found = download("http://site.invalid/file", tmp_path / "file", lambda path: None)
    assert found.read_bytes() == b"by the proxy"


def test_an_unknown_model_shows_the_known_ones():
    assert "Did you mean 'local-llama'" in advice(llm, "local-lama", offline=False)
    with pytest.raises(ModelError, match="no name of a hub model"):
        llm("hf:a/b/c", offline=False)
