"""The pages of `docs/`: commands, options and settings that they name exist, and so do the messages that they quote."""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer
from typer._click import Command
from typer.core import TyperGroup

from ipo.cli.main import app
from ipo.config.fields import setting_fields
from tests.processes import run_process

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SITE = DOCS / "site/mkdocs.yml"


def command_lines(page: str) -> list[str]:
    """What stands after `ipo ` on lines of code blocks, and in code within a sentence, where words follow it."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```\w*\n.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    lines = [*(line for block in blocks for line in block.splitlines()), *spans]
    return [line.partition("ipo ")[2] for line in lines if re.match(r"(python -m )?ipo [a-z-]", line)]


def what_is_wrong(line: str) -> str:
    """The first word of a line of `ipo` that is no command or option; nothing where all is well."""
    words = shlex.split(re.split(r" [|>] | && | # ", line)[0].replace("...", ""), comments=True)
    command: Command = typer.main.get_command(app)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return name if command.name is None or name.islower() else ""
        command = command.commands[name]
    known = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    known |= {"--help", "-h"} | {"--install-completion", "--show-completion"}
    return next((word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    lines = command_lines(page.read_text(encoding="utf-8"))
    assert {line: wrong for line in lines if (wrong := what_is_wrong(line))} == {}


@pytest.mark.parametrize("line", ["optimise", "optimize --steeps 3", "datasets fetch", "history RUN --tsv | less"])
def test_a_command_or_option_that_is_not_there_is_noticed(line):
    assert what_is_wrong(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page):
    fields = setting_fields()
    sections = {key.partition(".")[0] for key in fields} - {"strategy"}
    text = page.read_text(encoding="utf-8").replace("search.stepz", "")  # the example of a wrong one
    named = re.findall(r"(?:`|--set |\")((?:" + "|".join(sections) + r")\.[a-z_]+)(?=[`=\":])", text)
    assert [name for name in named if name not in fields and not name.endswith((".html", ".jsonl"))] == []


def messages() -> list[str]:
    """A pattern for each text of the package that is long enough to be a message; a value may be anything."""
    found = []
    for file in (ROOT / "ipo").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node] if isinstance(node, ast.Constant) else []
            words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            if sum(len(word) for word in words if isinstance(word, str)) >= 8:
                found.append("".join(re.escape(word) if isinstance(word, str) else ".+" for word in words))
    return found


def test_each_message_of_the_page_of_errors_is_one_of_the_program():
    quoted = re.findall(r"^> `(.+)`$", (DOCS / "errors.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(quoted) >= 12
    patterns = messages()
    assert not any(re.fullmatch(pattern, "a message that nobody wrote") for pattern in patterns)
    assert [text for text in quoted if not any(re.fullmatch(pattern, text) for pattern in patterns)] == []


def test_the_colours_of_the_site_are_those_of_the_report():
    colours = set(re.findall(r"#[0-9a-f]{3,6}\b", (ROOT / "templates/page.css").read_text(encoding="utf-8")))
    css = (DOCS / "site/extra.css").read_text(encoding="utf-8")
    main = re.findall(r"--md-(?:default-bg|default-fg|typeset-a|code-bg|accent-fg)(?:-color): (#[0-9a-f]+)", css)
    assert len(main) == 10
    assert set(main) <= colours


def test_every_page_is_on_the_site():
    text = SITE.read_text(encoding="utf-8")
    assert sorted(re.findall(r": ([\w-]+\.md)$", text, flags=re.MULTILINE)) == sorted(p.name for p in DOCS.glob("*.md"))


def test_the_site_builds_and_asks_no_other_host(tmp_path):
    pytest.importorskip("material", reason="needs mkdocs-material")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", str(SITE), "-d", str(tmp_path)]
    run_process(words, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) > 10
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe|link)[^>]+?(?:src|href)=\"?([^\s\">]+)", page.read_text("utf-8"))
        assert loaded
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == [], page.name
