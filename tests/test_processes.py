"""No test stands still for ever: what it starts is waited for with a bound, and what it interrupts is interrupted."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from tests.processes import run_process

ROOT = Path(__file__).parents[1]
UNBOUNDED = {"run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
IN_THE_BACKGROUND = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_process_that_stands_still_is_given_up():
    with pytest.raises(TimeoutExpired):
        run_process([sys.executable, "-c", "import time; time.sleep(100)"], timeout=0.2)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_processes_are_started_by_the_helper_that_bounds_them(path):
    called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    found = {f"{ast.unparse(one.value)}.{one.attr}" for one in called if isinstance(one, ast.Attribute)}
    unbounded = {f"subprocess.{name}" for name in UNBOUNDED} | {"os.system"}
    assert path.name == "processes.py" or not found & unbounded


def test_an_interrupt_reaches_tests_that_a_script_started_in_the_background():
    done = run_process([sys.executable, "-c", IN_THE_BACKGROUND], cwd=ROOT, timeout=60)
    assert "KeyboardInterrupt" in done.stderr
