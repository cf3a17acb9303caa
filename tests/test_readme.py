"""What the README shows exists: the files of its tree and the commands of its examples."""

import re
from pathlib import Path

import typer

from ipo.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_files_that_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    names = re.findall(r"([a-z_]+(?:\.py|/))\s", tree)
    assert len(names) > 20
    for name in names:
        assert (ROOT / name).exists() or (ROOT / "ipo" / name).exists(), f"{name} is in the README only"


def test_every_module_is_in_the_tree():
    tree = README.split("## The tree")[1].split("```")[1]
    for path in (ROOT / "ipo").iterdir():
        if path.suffix == ".py" and not path.name.startswith("__"):
            assert path.name in tree, f"{path.name} is not in the README"


def test_the_examples_use_commands_and_options_that_exist():
    commands = typer.main.get_command(app).commands
    lines = re.findall(r"^ipo (\w+)(.*)$", README, flags=re.MULTILINE)
    assert len(lines) >= 8
    for name, rest in lines:
        assert name in commands, f"ipo {name}"
        known = {text for option in commands[name].params for text in (*option.opts, *option.secondary_opts)}
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", rest.split("#")[0]):
            assert option in known, f"ipo {name} {option}"


def test_the_makefile_has_the_two_commands():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
