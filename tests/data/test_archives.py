"""Archives that attack, archives that are broken, and folders that land whole or not at all."""

import errno
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ipo.data import archives
from ipo.data.archives import members, unpack, verify
from ipo.errors import DataError
from ipo.store.folders import made_once, staging
from tests.data.builders import everything, pack_tar, pack_zip


def header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    return path


MALICIOUS = {
    "tar-parent": lambda path: pack_tar(path, {"ok.txt": b"1", "../escaped.txt": b"x"}),
    "tar-deep-parent": lambda path: pack_tar(path, {"a/b/../../../escaped.txt": b"x"}),
    "tar-absolute": lambda path: pack_tar(path, {"/tmp/ipo-escaped.txt": b"x"}),
    "tar-backslash": lambda path: pack_tar(path, {"..\\escaped.txt": b"x"}),
    "tar-drive": lambda path: pack_tar(path, {"C:\\escaped.txt": b"x"}),
    "tar-symlink": lambda path: pack_tar(path, {"s": header("s", tarfile.SYMTYPE, "/etc"), "s/passwd": b"x"}),
    "tar-hardlink": lambda path: pack_tar(path, {"h": header("h", tarfile.LNKTYPE, "/etc/passwd")}),
    "tar-device": lambda path: pack_tar(path, {"d": header("d", tarfile.CHRTYPE)}),
    "tar-fifo": lambda path: pack_tar(path, {"f": header("f", tarfile.FIFOTYPE)}),
    "zip-parent": lambda path: pack_zip(path, {"../escaped.txt": b"x"}),
    "zip-absolute": lambda path: pack_zip(path, {"/tmp/ipo-escaped.txt": b"x"}),
    "zip-symlink": zip_link,
}


@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_malicious_archive_is_refused_and_nothing_escapes(kind, tmp_path):
    archive = MALICIOUS[kind](tmp_path / "in" / "evil.tar.gz" if kind != "zip-symlink" else tmp_path / "evil.zip")
    (tmp_path / "out").mkdir()
    before = everything(tmp_path)
    with (
        pytest.raises(DataError, match=r"outside its folder|a link or a device") as caught,
        staging(tmp_path / "out" / "data") as staged,
    ):
        unpack(archive, staged)
    assert str(archive) in str(caught.value)
    assert everything(tmp_path) == before
    assert list((tmp_path / "out").iterdir()) == []
    assert not Path("/tmp/ipo-escaped.txt").exists()


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_a_good_archive_is_unpacked_as_the_standard_library_would(pack, tmp_path):
    members = {"a/b/1.jpg": b"one", "a/ünï.txt": b"two", "top": b"", "./dot/x": b"3"}
    archive = pack(tmp_path / "good", members)
    (tmp_path / "ours").mkdir()
    unpack(archive, tmp_path / "ours")
    if pack is pack_tar:
        with tarfile.open(archive) as tar:
            safely: dict[str, Any] = (
                {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            )  # older patch releases lack it
            tar.extractall(tmp_path / "theirs", **safely)
    else:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(tmp_path / "theirs")
    assert everything(tmp_path / "ours") == everything(tmp_path / "theirs")
    assert len(everything(tmp_path / "ours")) == 4


def test_an_archive_cannot_grow_beyond_its_bound(tmp_path, monkeypatch):
    archive = pack_tar(tmp_path / "bomb.tar.gz", {"zeros": bytes(200_000)})
    assert archive.stat().st_size < 2000
    monkeypatch.setattr(archives, "MIN_ALLOWANCE", 1000)
    monkeypatch.setattr(archives, "CHUNK", 4096)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="takes more than 20 times its size"):
        unpack(archive, tmp_path / "out")
    assert sum(map(len, everything(tmp_path / "out").values())) <= 20 * archive.stat().st_size


def test_an_archive_cannot_hold_endless_members(tmp_path, monkeypatch):
    archive = pack_tar(tmp_path / "many.tar", {f"{index}": b"x" for index in range(20)}, "w")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="more than 10 files and folders"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["folders", "empty files"])
@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_empty_files_and_folders_are_counted_too(pack, kind, tmp_path, monkeypatch):
    folders = kind == "folders"
    tar_folder = {f"{index}": header(f"{index}", tarfile.DIRTYPE) for index in range(11)}
    empty = {f"{index}{'/' if folders else ''}": b"" for index in range(11)}
    archive = pack(tmp_path / "many", tar_folder if folders and pack is pack_tar else empty)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(archives, "MAX_MEMBERS", 11)
    assert [is_folder for _, is_folder, _ in members(archive)] == [folders] * 11
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    with pytest.raises(DataError, match=r"more than 10 files and folders \(.*many"):
        unpack(archive, tmp_path / "out")


def test_an_archive_larger_than_the_free_disk_is_stopped(tmp_path, monkeypatch):
    archive = pack_tar(tmp_path / "a.tar", {"data": bytes(5000)}, "w")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="more than the disk has room for"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["cut.tar.gz", "cut.zip", "junk.tar.gz", "empty.tar"])
def test_a_broken_archive_is_named_and_nothing_lands(name, tmp_path):
    archive = tmp_path / name
    whole = pack_zip(archive, {"a": bytes(range(256)) * 99}) if "zip" in name else pack_tar(archive, {"a": bytes(999)})
    content = {"cut": whole.read_bytes()[:-60], "junk": b"no archive at all" * 50, "empty": b""}[name.split(".")[0]]
    archive.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="archive is broken") as caught, staging(tmp_path / "out" / "data") as staged:
        unpack(archive, staged)
    assert name in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_encrypted_zip_is_an_error(tmp_path):
    archive = pack_zip(tmp_path / "locked.zip", {"a": b"secret"})
    raw = bytearray(archive.read_bytes())
    raw[6] |= 1  # general purpose flag of the local header: encrypted
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="archive is broken"):
        unpack(archive, tmp_path / "out")


def test_a_full_disk_is_one_error_and_nothing_stays(tmp_path):
    def fill(staged: Path) -> None:
        (staged / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"the disk is full.*Free some space"):
        made_once(tmp_path / "data", fill)
    assert everything(tmp_path) == {}
    assert not (tmp_path / "data").exists()


def test_a_folder_is_filled_once_and_seen_only_when_it_is_whole(tmp_path):
    folder = tmp_path / "data"

    def fill(staged: Path) -> None:
        (staged / "new").write_text("new")
        assert not folder.exists()

    assert made_once(folder, fill) == made_once(folder, lambda _: pytest.fail("filled twice")) == folder
    assert everything(tmp_path) == {"data/new": b"new"}


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_checksum_is_compared_with_the_files(kind, tmp_path):
    import hashlib

    file = tmp_path / "a.bin"
    file.write_bytes(b"content")
    verify(file, f"{kind}:{hashlib.new(kind, b'content').hexdigest()}")
    verify(file, "")
    with pytest.raises(DataError, match=rf"wrong checksum: {kind} is .*a\.bin"):
        verify(file, f"{kind}:{hashlib.new(kind, b'other').hexdigest()}")


def test_members_are_streamed_and_not_held_in_memory(tmp_path):
    class Endless(io.BytesIO):
        served = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= 1 << 20
            self.served += size
            return bytes(size)

    archive = pack_tar(tmp_path / "a.tar", {"a": b"x"}, "w")
    budget = archives.Budget([archive], tmp_path)
    budget.limit = 3 << 20
    source = Endless()
    with pytest.raises(DataError), (tmp_path / "out").open("wb") as output:
        budget.copy(source, output)
    assert source.served == 4 << 20
