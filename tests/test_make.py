"""`make` finds a fit Python, says what it does, and cures an environment that is wrong or half made."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.processes import run_process

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path):
    """A copy of what `make` needs, at a path with a space, and stand-ins for Python whose pip installs nothing."""
    folder = tmp_path / "my checkout"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    fake_python(tmp_path / "python3.12", "3.12")
    fake_python(tmp_path / "python3.9", "3.9")
    return folder


def fake_python(path: Path, version: str) -> None:
    """A script that answers as a Python would: its version, `-m venv FOLDER` by a copy of itself, and pip, noted."""
    path.write_text(
        f"""#!/bin/sh
case "$*" in
-c*version_info*) echo {version} ;;
"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip"*) echo "$*" >> "$(dirname "$0")/../pip.log"; [ -z "${{BREAK:-}}" ] || exit 1 ;;
esac
"""
    )
    path.chmod(0o755)


def make(checkout: Path, python: str, **environment: str) -> CompletedProcess[str]:
    variables = {"PATH": f"{checkout.parent}:/usr/bin:/bin", **environment}
    words = ["make", "--no-print-directory", "-C", str(checkout), "venv", f"PYTHON={python}"]
    return run_process(words, env=variables)


def pip_calls(checkout: Path) -> list[str]:
    return (checkout / ".venv" / "pip.log").read_text().splitlines()


def test_it_installs_the_lock_says_what_it_does_and_then_finds_it_done(checkout):
    done = make(checkout, "python3.12")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"make: (\d)/4", done.stderr) == ["1", "2", "3", "4"]
    assert "GB" in done.stderr
    assert "minutes" in done.stderr
    lock, project, offline = pip_calls(checkout)
    assert lock.endswith("install --disable-pip-version-check -r requirements/lock.txt")
    assert "--no-build-isolation --no-deps --editable ." in project  # else pip fetches a build backend of any version
    assert offline.endswith("--no-deps -r requirements/offline.txt")
    assert not [call for call in pip_calls(checkout) if "quiet" in call]
    again = make(checkout, "python3.12")
    assert (again.returncode, again.stderr) == (0, "")
    assert len(pip_calls(checkout)) == 3


@pytest.mark.parametrize("python", ["python3.9", "no-such-python"])
def test_an_unfit_python_is_one_line_and_leaves_nothing(checkout, python):
    done = make(checkout, python)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in ("Python 3.11 to 3.14", python, "make PYTHON="):
        assert word in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_at_a_path_with_a_space_will_do(checkout):
    folder = checkout.parent / "program files"
    folder.mkdir()
    fake_python(folder / "python", "3.13")
    assert make(checkout, str(folder / "python")).returncode == 0
    assert "echo 3.13" in (checkout / ".venv" / "bin" / "python").read_text()


def test_an_unfit_python_leaves_an_environment_that_works(checkout):
    make(checkout, "python3.12")
    assert make(checkout, "python3.9").returncode == 2
    assert make(checkout, "python3.12").stderr == ""


def test_without_a_name_the_first_fit_python_is_taken(checkout):
    fake_python(checkout.parent / "python3", "3.9")
    for name in ("python3.14", "python3.13"):
        fake_python(checkout.parent / name, "3.10")  # not what it is called
    assert make(checkout, "").returncode == 0
    assert "echo 3.12" in (checkout / ".venv" / "bin" / "python").read_text()


def test_an_interrupted_installation_is_made_anew(checkout):
    assert make(checkout, "python3.12", BREAK="1").returncode != 0
    (checkout / ".venv" / "half").touch()
    done = make(checkout, "python3.12")
    assert done.returncode == 0, done.stderr
    assert "half installed" in done.stderr
    assert not (checkout / ".venv" / "half").exists()
    assert make(checkout, "python3.12").stderr == ""


@pytest.mark.parametrize("harm", ["gone", "older", "other"])
def test_an_environment_of_a_wrong_python_is_made_anew(checkout, harm):
    make(checkout, "python3.12")
    inside = checkout / ".venv" / "bin" / "python"
    inside.unlink()
    if harm != "gone":
        fake_python(inside, {"older": "3.9", "other": "3.13"}[harm])
    done = make(checkout, "python3.12")
    assert done.returncode == 0, done.stderr
    assert "making it anew" in done.stderr
    assert len(pip_calls(checkout)) == 3


def test_an_environment_of_another_fit_python_stays_where_none_is_named(checkout):
    make(checkout, "python3.12")
    fake_python(checkout.parent / "python3", "3.13")
    done = make(checkout, "")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_new_lock_is_installed_into_what_is_there(checkout):
    make(checkout, "python3.12")
    later = (checkout / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(checkout / "requirements" / "lock.txt", (later, later))
    done = make(checkout, "python3.12")
    assert "making it anew" not in done.stderr
    assert len(pip_calls(checkout)) == 6


def test_the_newest_libraries_go_beside_the_locked_ones(checkout):
    words = ["sh", "requirements/venv.sh", "newest", ".venv-newest", "python3.12"]
    for _ in range(2):  # each time it looks for newer ones
        run_process(words, cwd=checkout, env={"PATH": f"{checkout.parent}:/usr/bin:/bin"}, check=True)
    log = (checkout / ".venv-newest" / "pip.log").read_text()
    assert log.count("--upgrade --upgrade-strategy eager .[dev]") == 2
    assert "lock.txt" not in log
    assert not (checkout / ".venv").exists()


def test_entry_points_of_an_older_build_are_left_nowhere(checkout):
    """Python takes those of the folder that it stands in before those that were just installed."""
    (checkout / "ipo_prompts.egg-info").mkdir()
    (checkout / "ipo_prompts.egg-info" / "entry_points.txt").write_text("[ipo.methods]\n")
    assert make(checkout, "python3.12").returncode == 0
    assert not (checkout / "ipo_prompts.egg-info").exists()
