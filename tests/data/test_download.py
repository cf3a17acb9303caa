"""Downloads over real sockets: whole, broken, resumed, wrong, and onto a full disk."""

import hashlib
from functools import partial

import pytest
from werkzeug import Request, Response

from ipo.data import download as module
from ipo.data.archives import verify
from ipo.data.download import download
from ipo.errors import DataError

BODY = bytes(range(256)) * 40
accept = partial(verify, checksum="sha256:" + hashlib.sha256(BODY).hexdigest())


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_download_is_verified_and_lands_under_its_name(httpserver, tmp_path):
    httpserver.expect_request("/a.zip").respond_with_data(BODY)
    assert download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept) == tmp_path / "a.zip"
    assert files(tmp_path) == {"a.zip": BODY}


def test_nothing_is_seen_under_the_name_before_it_is_verified(httpserver, tmp_path):
    seen = []

    def look(part):
        seen.append(files(tmp_path))
        accept(part)

    httpserver.expect_request("/a.zip").respond_with_data(BODY)
    download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", look)
    assert seen == [{"a.zip.part": BODY}]


def test_a_wrong_checksum_is_one_error_and_the_old_file_stays(httpserver, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"old")
    httpserver.expect_request("/a.zip").respond_with_data(BODY[:-1] + b"?")
    with pytest.raises(DataError, match="wrong checksum"):
        download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert files(tmp_path) == {"a.zip": b"old"}


def ranged(request: Request) -> Response:
    start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in request.headers else 0
    if start >= len(BODY):
        return Response(status=416, headers={"Content-Range": f"bytes */{len(BODY)}"})
    status = 206 if start else 200
    headers = {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
    return Response(BODY[start:], status=status, headers=headers)


def test_a_part_is_resumed_where_it_ended(httpserver, tmp_path):
    asked = []

    def serve(request):
        asked.append(request.headers.get("Range"))
        return ranged(request)

    httpserver.expect_request("/a.zip").respond_with_handler(serve)
    (tmp_path / "a.zip.part").write_bytes(BODY[:4000])
    download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert files(tmp_path) == {"a.zip": BODY}
    assert asked == ["bytes=4000-"]


def test_a_server_that_cannot_resume_sends_all_again(httpserver, tmp_path):
    httpserver.expect_request("/a.zip").respond_with_data(BODY)
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert files(tmp_path) == {"a.zip": BODY}


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_too_long_is_fetched_anew(extra, httpserver, tmp_path):
    httpserver.expect_request("/a.zip").respond_with_handler(ranged)
    (tmp_path / "a.zip.part").write_bytes(BODY + extra)
    download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert files(tmp_path) == {"a.zip": BODY}


def test_a_truncated_download_is_taken_up_again(httpserver, tmp_path):
    asked = []

    def serve(request):
        asked.append(request.headers.get("Range"))
        whole = ranged(request)
        if len(asked) == 1:
            whole.response = [BODY[:3000]]
            whole.headers["Content-Length"] = str(len(BODY))
        return whole

    httpserver.expect_request("/a.zip").respond_with_handler(serve)
    download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert asked == [None, "bytes=3000-"]
    assert files(tmp_path) == {"a.zip": BODY}


def test_a_download_that_always_ends_early_is_one_error_and_can_go_on(httpserver, tmp_path):
    def serve(_):
        response = Response(BODY[:3000])
        response.headers["Content-Length"] = str(len(BODY))
        return response

    (tmp_path / "a.zip").write_bytes(b"old")
    httpserver.expect_request("/a.zip").respond_with_handler(serve)
    with pytest.raises(DataError, match=r"cannot download .*a\.zip.*again"):
        download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert files(tmp_path) == {"a.zip": b"old", "a.zip.part": BODY[:3000]}
    assert len(httpserver.log) == module.ATTEMPTS


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_refusal_is_one_error_and_leaves_nothing(status, httpserver, tmp_path):
    httpserver.expect_request("/a.zip").respond_with_data(b"gone", status=status)
    with pytest.raises(DataError, match="cannot download"):
        download(httpserver.url_for("/a.zip"), tmp_path / "sub" / "a.zip", accept)
    assert not list(tmp_path.rglob("*.zip*"))


def test_an_unreachable_site_is_one_error(tmp_path):
    with pytest.raises(DataError, match="cannot download http://127"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", accept)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("url", ["http://[bad/a.zip", "http://host:port/a.zip", "http://a b/a.zip"])
def test_an_address_that_is_none_is_one_error(url, tmp_path):
    with pytest.raises(DataError, match="cannot download http://"):
        download(url, tmp_path / "a.zip", accept)
    assert files(tmp_path) == {}


def test_too_little_room_is_found_before_the_transfer(httpserver, tmp_path, monkeypatch):
    httpserver.expect_request("/a.zip").respond_with_data(BODY)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(DataError, match="the disk is full: 10,240 bytes are needed, 100 are free"):
        download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert files(tmp_path) == {}


def test_a_disk_that_fills_up_meanwhile_is_one_error(httpserver, tmp_path):
    httpserver.expect_request("/a.zip").respond_with_data(BODY)
    (tmp_path / "a.zip").write_bytes(b"old")
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"the disk is full.*Free some space"):
        download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert (tmp_path / "a.zip").read_bytes() == b"old"


def test_nothing_is_fetched_offline(httpserver, tmp_path, monkeypatch):
    monkeypatch.setenv("IPO_OFFLINE", "1")
    with pytest.raises(DataError, match="IPO_OFFLINE is set"):
        download(httpserver.url_for("/a.zip"), tmp_path / "a.zip", accept)
    assert httpserver.log == []
