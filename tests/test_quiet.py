"""No library's warning or log line reaches the screen; our own do, as one line each, above a progress bar."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from tests.processes import run_process

START = """
import logging, sys, warnings
from ipo.cli import main
def work():
    from ipo.progress import progress_bar
{}
main.app = lambda **_: work()
main.main()
"""
TRANSFORMERS = """
    from transformers.utils import logging as transformers_logging
    transformers_logging.get_logger("transformers.modeling_utils").warning("NOISE of transformers")
    transformers_logging.get_logger("transformers.modeling_utils").warning_once("NOISE of transformers")
    logging.getLogger("ipo.llm.server").warning("one of ours\\x1b[2J\\nand more")
    logging.getLogger("ipo_baselines.coop").warning("another of ours")
"""
LIBRARIES = """
    import huggingface_hub, open_clip, openai, torch, transformers
    from PIL import Image
    huggingface_hub.logging.get_logger("huggingface_hub.file_download").warning("NOISE of huggingface_hub")
    for name in ("torch", "torch._dynamo", "openai", "httpx2", "PIL.Image", "open_clip", "timm", "accelerate"):
        logging.getLogger(name).error("NOISE of %s", name)
    handled = logging.getLogger("a_library")
    handled.addHandler(logging.StreamHandler())
    handled.critical("NOISE with a handler of its own")
    logging.warning("NOISE of the root logger, as open_clip does it")
    for kind in (UserWarning, FutureWarning, DeprecationWarning, RuntimeWarning, Image.DecompressionBombWarning):
        warnings.warn("NOISE", kind)
    torch.nn.functional.softmax(torch.ones(2, 2), _stacklevel=1)  # warns of its missing dimension
"""
BAR = """
    with progress_bar() as bar:
        task = bar.add_task("encoding", total=9)
        bar.refresh()
        logging.getLogger("transformers").warning("NOISE")
        warnings.warn("NOISE")
        logging.getLogger("ipo.clip.features").warning("left out: a picture")
        bar.update(task, completed=9, refresh=True)
"""


# Under CI transformers sends its records on to the root logger.
@pytest.mark.parametrize(("ci", "noise"), [("", LIBRARIES + TRANSFORMERS), ("true", TRANSFORMERS)], ids=["", "ci"])
def test_libraries_are_silent_and_we_are_not(ci, noise):
    code = START.format(noise)
    environment = {**os.environ, "CI": ci, "PYTHONWARNINGS": "default"}
    done = run_process([sys.executable, "-c", code], env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["ipo: one of ours\\x1b[2J and more", "ipo: another of ours"]
    assert done.stdout == ""


def test_libraries_speak_where_they_are_asked_to():
    code = START.format('    logging.getLogger("a_library").warning("heard"); warnings.warn("heard too")')
    environment = {**os.environ, "IPO_LIBRARY_LOGS": "1"}
    done = run_process([sys.executable, "-c", code], env=environment)
    assert "heard\n" in done.stderr
    assert "heard too" in done.stderr


def test_a_warning_stands_above_the_bar_and_does_not_tear_it():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}
    done = run_process([sys.executable, "-c", START.format(BAR)], stderr=theirs, env=environment)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0, shown
    assert "encoding" in shown
    assert "NOISE" not in shown
    before = shown.split("ipo: left out: a picture")[0]
    assert before.endswith("\x1b[2K"), repr(before[-80:])  # the bar's line was cleared, and is drawn again below
    assert "ipo: left out: a picture\r\n" in shown
