"""Starts: cut off and repeated, two at once, and where no run can be."""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from types import SimpleNamespace

import pytest

from ipo.config import load_settings
from ipo.errors import DivergedError, RunError
from ipo.runs.folder import RunFolder
from ipo.runs.path import claim_run_path, require_free
from tests.processes import run_process

KILLED = """
import os, sys
from pathlib import Path
from ipo.store import files
from ipo.runs import folder as run_folder
from ipo.config import load_settings
left = int(sys.argv[2])
replace = Path.replace
def change(self, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return replace(self, target)
Path.replace = change
run_folder.RunFolder.create(Path(sys.argv[1]), load_settings(), {"method": "ipo"}, {"captions.jsonl": "{}\\n"})
"""


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_start_that_was_killed_can_be_repeated(tmp_path, written):
    run = tmp_path / "run"
    done = run_process([sys.executable, "-c", KILLED, str(run), str(written)])
    assert done.returncode == -9
    assert len([path for path in run.iterdir() if not path.name.startswith(".")]) == written
    assert list(run.glob(".ipo-*.tmp"))
    require_free(run)
    with RunFolder.create(run, load_settings(), {"method": "ipo"}) as folder:
        assert folder.read("run.json")["status"] == "running"
        assert not list(run.glob(".ipo-*.tmp"))


def test_a_folder_of_ones_own_is_no_start_that_was_cut_off(tmp_path):
    (tmp_path / "config.toml").write_text("seed = 3\n")
    for attempt in (require_free, lambda path: RunFolder.create(path, load_settings(), {})):
        with pytest.raises(RunError, match="not empty"):
            attempt(tmp_path)
    assert (tmp_path / "config.toml").read_text() == "seed = 3\n"


def test_a_start_that_was_killed_beside_a_file_of_ones_own_is_left_alone(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        RunFolder.create(tmp_path, load_settings(), {})


def test_runs_that_are_started_together_get_names_of_their_own(tmp_path):
    names, barrier = [], threading.Barrier(8, timeout=60)

    def claim():
        barrier.wait()
        names.append(claim_run_path(tmp_path / "runs", "stamps", "seed1").name)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(names) == sorted(["stamps-seed1", *(f"stamps-seed1-{number}" for number in range(2, 9))])


def test_two_starts_in_one_folder_make_one_run(tmp_path):
    with RunFolder.create(tmp_path / "run", load_settings(), {}):
        with pytest.raises(RunError, match="--resume"):
            RunFolder.create(tmp_path / "run", load_settings(), {})
        (tmp_path / "run" / "run.json").unlink()
        with pytest.raises(RunError, match="another process"):
            RunFolder.create(tmp_path / "run", load_settings(), {})


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a\nb", "line break"), ("a\x1b[31m", "control character"), ("x" * 300, "too long"), ("file", "a file stands")],
)
def test_a_name_that_no_run_can_have_is_one_line(tmp_path, name, reason):
    (tmp_path / "file").write_text("")
    for attempt in (require_free, lambda path: RunFolder.create(path, load_settings(), {})):
        with pytest.raises(RunError, match=reason) as caught:
            attempt(tmp_path / name)
        assert str(caught.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    RunFolder.create(tmp_path / "run", load_settings(), {}).close()

    def refuse(*_, **__):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for attempt in (partial(RunFolder.open, tmp_path / "run"), partial(require_free, tmp_path / "new")):
        with pytest.raises(RunError, match="no run can be written here: Read-only file system"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["datasets"], "cannot write the output: No space left on device"),
        (["--help"], "cannot write the output: No space left on device"),
    ],
)
def test_a_standard_output_that_is_full_is_one_line(command, words):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        run = [sys.executable, "-m", "ipo", *command]
        done = run_process(run, stdout=full)
    assert (done.returncode, done.stderr) == (1, f"ipo: {words}\n")


def test_a_standard_output_that_is_closed_is_one_line():
    run = f"{sys.executable} -m ipo datasets >&-"
    done = run_process(["bash", "-c", run])
    assert (done.returncode, done.stderr) == (2, "ipo: standard output is closed. Redirect it: > /dev/null\n")


INTERRUPTED = """
import os, signal, sys
from ipo.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
command = main.app.registered_commands[-1]
command.name, command.callback = "doctor", lambda: os.kill(os.getpid(), signal.SIGINT) or signal.pause()
sys.argv = ["ipo", "doctor"]
main.main()
"""
INTERRUPTED_IMPORTS = """
import sys
from types import SimpleNamespace
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "ipo.cli.options":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from ipo.__main__ import main
main()
"""


@pytest.mark.parametrize("code", [INTERRUPTED, INTERRUPTED_IMPORTS])
def test_ctrl_c_is_one_line_at_any_moment(code):
    done = run_process([sys.executable, "-c", code])
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "ipo: interrupted")


def test_a_fit_that_diverged_is_not_to_be_gone_on_with(monkeypatch, tmp_path, capsys):
    from ipo import run
    from ipo.api import start as running
    from ipo.config import Section

    def diverge(*_):
        raise DivergedError("the loss became nan")

    monkeypatch.setattr(run, "run", diverge)
    monkeypatch.setattr(running, "describe", lambda _: "a fit")
    with RunFolder.create(tmp_path / "run", load_settings(), {}) as folder, pytest.raises(DivergedError):
        running.carry_out(SimpleNamespace(options=Section()), folder)  # type: ignore[arg-type]
    assert "--resume" not in capsys.readouterr().err
