"""Whether a server answers: every answer is a status or a reason, never a traceback."""

import socket
import threading

import pytest

from ipo.net.addresses import probe


def test_the_status_is_given_whatever_it_is(httpserver):
    httpserver.expect_request("/there").respond_with_data("")
    assert probe(httpserver.url_for("/there")) == 200
    assert probe(httpserver.url_for("/none")) == 500


MALFORMED = ["", "foo", "http://", "http://[bad", "http://a:port", "http://a b", "http://" + "a" * 70]


@pytest.mark.parametrize("url", [*MALFORMED, "file:///etc/hostname", "ftp://127.0.0.1:9"])
def test_what_is_no_address_of_a_server_is_not_reachable(url):
    assert isinstance(probe(url), str)


def test_nobody_there_is_a_reason():
    assert "refused" in str(probe("http://127.0.0.1:9"))


def test_a_server_of_another_kind_is_not_reachable():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.org\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert isinstance(probe(f"http://127.0.0.1:{server.getsockname()[1]}"), str)
        thread.join(10)
