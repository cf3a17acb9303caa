"""The cache: where it is, switched off, not to be written, not to be read, shared."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from ipo.captions.base import Captioner
from ipo.cli.doctor import cache_state
from ipo.data.benchmarks.locate import data_root
from ipo.errors import ConfigError, RunError
from ipo.store.cache import cache_folder, cache_place, cached_files, scratch_folder, write_cache
from ipo.store.folders import made_once
from ipo.store.table import Table
from tests.clip.picture_clip import draw_pictures
from tests.processes import run_process
from tests.test_captions import ScriptedDescriber


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def refused(monkeypatch):
    """A cache folder that is there, but in which nothing can be made."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    cache_folder().mkdir()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(
        "ipo.store.cache.write_atomic", lambda path, data: (_ for _ in ()).throw(RunError("cannot write: no"))
    )


def test_off_is_a_folder_that_goes_with_the_process(tmp_path):
    code = (
        "from ipo.store.cache import cache_folder, write_cache; f = cache_folder(); write_cache(f / 'a', 'b'); print(f)"
    )
    environment = os.environ | {"IPO_CACHE": "off", "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = run_process([sys.executable, "-c", code], env=environment, check=True)
    assert Path(done.stdout.strip()).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_datasets_are_fetched_to_stay_where_the_cache_is_off(tmp_path, monkeypatch):
    monkeypatch.delenv("IPO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("IPO_CACHE", "off")
    assert data_root() == tmp_path / "ipo" / "datasets"


def test_doctor_says_what_the_cache_is(tmp_path, monkeypatch):
    assert "GiB free" in cache_state().state
    monkeypatch.setenv("IPO_CACHE", "OFF")
    assert cache_state().state.startswith("off:")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "file" / "below"))
    assert "not a folder" in cache_state().state
    assert "off" in cache_state().remedy


def test_doctor_says_that_a_cache_cannot_be_written(refused):
    assert "cannot be written: Permission denied" in cache_state().state
    assert "IPO_CACHE" in cache_state().remedy


def test_what_is_in_a_cache_that_cannot_be_written_is_used_and_what_is_new_goes_elsewhere(refused, caplog):
    there = cache_folder() / "models" / "known"
    there.mkdir(parents=True)
    assert made_once(cache_place("models", "known"), lambda _: pytest.fail("made again")) == there
    assert caplog.records == []

    def make(folder: Path) -> None:
        (folder / "a").write_text("b")

    new = made_once(cache_place("models", "new"), make)
    assert new.is_relative_to(scratch_folder())
    assert not write_cache(cache_folder() / "a", "b")
    assert cache_place("another").is_relative_to(scratch_folder())
    assert len(caplog.records) == 1


def test_captions_go_on_where_none_can_be_kept(tmp_path, caplog):
    pictures = [item.path for item in draw_pictures(tmp_path / "pictures", 3)]
    Captioner(ScriptedDescriber(), tmp_path / "captions").caption(pictures[:1])
    (tmp_path / "captions" / "captions.sqlite").chmod(0o444)
    captioner = Captioner(ScriptedDescriber(), tmp_path / "captions")
    expected = Captioner(ScriptedDescriber(), tmp_path / "other").caption(pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sqlite3.connect", read_only(sqlite3.connect))
        assert captioner.caption(pictures) == expected
    assert len([record for record in caplog.records if "readonly" in record.getMessage()]) == 1


def read_only(connect):
    def connected(path, **options):
        return connect(f"file:{path}?mode=ro", uri=True, **options)

    return connected


@pytest.mark.parametrize("content", [b"no database, but as long as the head of one" * 20, None])
def test_a_damaged_database_is_one_error_with_its_path(tmp_path, content):
    path = tmp_path / "a.sqlite"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(RunError, match=r"cannot use the text cache: .*a\.sqlite.*Delete it"):
        Table(path, "text cache", "a", ("b TEXT", "c TEXT", "d BLOB")).opened().__enter__()


def test_a_folder_that_cannot_be_looked_into_is_an_empty_one(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", refuse)
    assert cached_files(tmp_path, "*.safetensors") == []
    assert "Permission denied" in caplog.text


def test_litter_of_killed_processes_is_swept_when_it_is_old(tmp_path):
    for name, hours in ((".ipo-old.tmp", 30), (".ipo-new.tmp", 1), ("mine.tmp", 30)):
        (tmp_path / name).write_text("")
        changed = (tmp_path / name).stat().st_mtime - hours * 3600
        os.utime(tmp_path / name, (changed, changed))
    cached_files(tmp_path, "*.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ipo-new.tmp", "mine.tmp"]


def test_a_cache_below_a_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ConfigError, match=r"not a folder.*or to off"):
        cache_folder()
