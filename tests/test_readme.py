"""What the README shows exists: the files of its tree and the commands of its examples."""

import re
from pathlib import Path

from ipo.cli.main import app
from ipo.config import load_settings, parse_assignments
from ipo.methods import find_method
from ipo.registry import available_methods
from ipo.search.strategy import available_strategies, find_strategy
from tests.test_cli import commands_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_files_that_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    names = re.findall(r"([a-z_]+(?:\.py|/))\s", tree)
    assert len(names) > 20
    for name in names:
        places = (ROOT, ROOT / "ipo", *(path for path in (ROOT / "ipo").iterdir() if path.is_dir()))
        assert any((place / name).exists() for place in places), f"{name} is in the README only"


def test_every_module_is_in_the_tree():
    tree = README.split("## The tree")[1].split("```")[1]
    for path in (ROOT / "ipo").iterdir():
        named = path.name if path.suffix == ".py" else f"{path.name}/"
        if not path.name.startswith(("__", "py.typed")):
            assert named in tree, f"{named} is not in the README"


def test_the_examples_use_commands_and_options_that_exist():
    commands = commands_of(app)
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


def test_what_the_page_of_methods_says_to_set_can_be_set():
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    settings = re.findall(r"--set ((?:\w+\.)\w+=[^`\s]+)", page)
    assert len(settings) >= 5
    for assignment in settings:
        load_settings(overrides=parse_assignments([assignment]))
    rows = [row for row in page.splitlines() if row.startswith("| ")]
    assert len({row for row in rows if row.count("|") in (4, 5, 6)}) == len(rows) > 30
    options = {name for method in available_methods() for name in find_method(method).options.model_fields}
    options |= {name for strategy in available_strategies() for name in find_strategy(strategy).options.model_fields}
    for name in re.findall(r"`(\w+)=[^`]+`", page):
        assert name in options, name
    flags = {text for option in commands_of(app)["optimize"].params for text in option.opts}
    for row in rows:
        assert set(re.findall(r"`(--[a-z]+)", row)) <= flags | {"--set"}, row


def test_both_pages_have_a_row_for_each_strategy_in_alphabetical_order():
    for page in (README, (ROOT / "docs/methods.md").read_text(encoding="utf-8")):
        table = page.partition("| strategy |")[2].partition("\n\n")[0]
        names = re.findall(r"^\| `([\w-]+)` \|", table, flags=re.MULTILINE)
        assert names == available_strategies()
