"""Nothing that comes from elsewhere reaches a terminal raw, and no secret is ever shown."""

import io
import logging
import sys
import time

import pytest

from ipo.errors import ConfigError, UnknownName
from ipo.screen import (
    SafeFormatter,
    encodable,
    printable,
    safe_line,
    say,
    shown_address,
    without_secrets,
    write_plainly,
)
from tests.processes import run_commands

PASSWORD = "Hunter2/s3same"
CONTROLS = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\ud800\udcff\udfff",
]


@pytest.mark.parametrize("character", CONTROLS, ids=lambda text: f"U+{ord(text):04X}")
def test_no_control_character_is_left(character):
    shown = printable(f"a{character}b")
    assert character not in shown
    assert shown.isprintable()
    assert shown[0] + shown[-1] == "ab"
    shown.encode()


def test_a_control_is_written_out_a_break_is_a_space_and_the_rest_stays():
    assert printable("\x1b]0;title\x07 \udcff\u202e") == "\\x1b]0;title\\x07 \\udcff\\u202e"
    assert printable("one\r\n\ttwo\u2028three") == "one two three"
    plain = "Zürich, 東京, می‌خواهم, 👩‍🔬 <CLASS> [bold]"
    assert printable(plain) == plain


ADDRESSES = [
    f"http://user:{PASSWORD}@host:3128",
    "http://user:Hunter2@host:3128/v1",
    "socks5://Hunter2@host",
    "user:Hunter2@host:3128",
    "https://host/v1?api_key=Hunter2&b=1",
    "https://host/v1#Hunter2",
    "https://host/Hunter2aaaaaaaaaaaaaaa/v1",
    " 'http://user:Hunter2@host' ",
    "http://user:pa@Hunter2@host",
    "http://user:Hunter2@[bad",
    "Hunter2:Hunter2:@host",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_its_secrets(address):
    shown = shown_address(address)
    assert "Hunter2" not in shown
    assert "s3same" not in shown
    assert "host" in shown or "[bad" in shown


def test_an_address_without_a_secret_is_shown_whole():
    for address in ("http://localhost:8000/v1", "https://huggingface.co", "http://[::1]:80/a@b", "host:3128", ""):
        assert shown_address(address) == address


def test_secrets_inside_any_text_are_hidden():
    text = f"cannot connect to 'http://user:{PASSWORD}@host:3128' (https://cdn/x?Signature=Hunter2&part=1)"
    assert without_secrets(text) == "cannot connect to 'http://***@host:3128' (https://cdn/x?Signature=***&part=1)"
    assert without_secrets("Incorrect key provided: sk-proj-0123456789abcdef.") == "Incorrect key provided: ***."
    assert without_secrets("hf:org/model@01234567, a@b, http://host/org/name@main") == (
        "hf:org/model@01234567, a@b, http://host/org/name@main"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPENAI_API_KEY", "my-very-own"),
        ("HF_TOKEN", "my-very-own"),
        ("https_proxy", "http://me:my-very-own@host:1"),
        ("ALL_PROXY", "me:my-very-own@host:1"),
        ("https_proxy", "http://me:my%2Dvery%2Down@host:1"),
        ("OPENAI_BASE_URL", "http://host/v1?token=my-very-own"),
    ],
)
def test_what_the_environment_holds_is_hidden_wherever_it_turns_up(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert without_secrets("the server says: 'my-very-own' is no key") == "the server says: '***' is no key"


def test_errors_logs_and_notes_are_safe_lines(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "my-very-own")
    raw = "\x1b[2J\u202e my-very-own\nnext"
    safe = "\\x1b[2J\\u202e *** next"
    assert str(ConfigError(raw, where=raw, remedy=raw)) == f"{safe} ({safe}). {safe}"
    assert str(UnknownName("model", "\x1b", ["\x07"])) == "unknown model '\\x1b'. Known: \\x07."
    record = logging.makeLogRecord({"msg": "%s", "args": (raw,)})
    assert SafeFormatter().format(record) == safe
    say(raw)
    assert capsys.readouterr().err == "\\x1b[2J\\u202e ***\nnext\n"
    assert safe_line(safe) == safe


COMMANDS = [
    ["evaluate", "-p", "a <CLASS>", "-d", "folder:\x1b]0;gone\x07", "--offline"],
    ["optimize", "--llm", "\x1b[31mred", "--offline", "-d", "stamps"],
    ["history", "\x9b31m\u202e"],
    ["compare", "\x1b[2J"],
]


def test_the_command_shows_no_raw_control_of_a_name(tmp_path):
    for done in run_commands(COMMANDS, tmp_path):
        assert (done.code, done.out) == (2, "")
        assert done.err
        assert all(line.isprintable() for line in done.err.splitlines()), done.err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_streams_write_near_alike_characters_for_what_their_encoding_lacks(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    write_plainly()
    print("Δ ± é 山 ━┃┼ \udc80")
    stream.flush()
    written = stream.buffer.getvalue().decode(encoding)
    assert written.split()[0] == ("Δ" if encoding == "utf-8" else "diff")
    assert written.split()[1] == ("+-" if encoding == "ascii" else "±")
    assert written.split()[2] == ("e" if encoding == "ascii" else "é")
    assert written.split()[3:] == (["山", "━┃┼", "?"] if encoding == "utf-8" else ["?", "-|+", "?"])


def test_all_that_is_read_of_an_encoding_comes_back_as_it_was():
    assert encodable("50.0 ± 0.1 Δ†", "utf-8") == "50.0 ± 0.1 Δ†"
    assert encodable("50.0 ± 0.1 Δ† — ＡＢ", "ascii") == "50.0 +- 0.1 diff* - AB"


@pytest.mark.parametrize("piece", ["a.a", "xsk-a", "a-", "a+", "a://", "a:", "http://a@", "hf_a", "/", "%41"])
def test_no_text_takes_long_to_be_made_safe(piece):
    started = time.process_time()
    safe_line(piece * (300_000 // len(piece)))
    assert time.process_time() - started < 2


def test_an_address_is_found_wherever_it_begins():
    assert without_secrets("x" * 50 + "http://me:pa55word@host/a") == "x" * 50 + "http://***@host/a"
    assert without_secrets("a.http://me:pa55word@host") == "a.http://***@host"
