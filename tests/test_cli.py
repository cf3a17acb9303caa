"""The command as a user meets it: help, options, errors, and one whole offline run on pictures of one's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image, ImageDraw
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from ipo.cli.main import app
from ipo.errors import IpoError
from tests.processes import Ended, run_commands

COMMANDS = (
    "optimize",
    "history",
    "evaluate",
    "baseline",
    "classify",
    "compare",
    "verify",
    "doctor",
    "datasets",
    "describe",
    "show",
    "report",
    "serve",
    "tree",
    "config",
    "export",
)
OPTIMIZE_OPTIONS = {
    "--dataset", "--target", "--llm", "--base-url", "--clip", "--captioner", "--steps", "--candidates", "--history",
    "--select", "--template", "--temperature", "--shots", "--seed", "--classes", "--domains", "--data-root", "--device",
    "--max-tokens", "--force", "--offline", "--paper", "--metric",
    "--strategy", "--strategies", "--controls", "--no-controls", "--config", "--set", "--out", "--resume", "--json",
}  # fmt: skip


def here(*arguments: str) -> Result:
    """The command in this process, where the libraries are imported already."""
    return CliRunner().invoke(app, list(arguments))


def commands_of(group: typer.Typer) -> dict[str, Any]:
    built = typer.main.get_command(group)
    assert isinstance(built, TyperGroup)
    return dict(built.commands)


def test_every_command_has_help_with_examples():
    commands = commands_of(app)
    assert set(COMMANDS) == set(commands)
    for name, command in commands.items():
        assert "xample" in (command.help or "") or name == "datasets", f"{name} shows no example"


def test_the_options_of_optimize_are_these():
    command = commands_of(app)["optimize"]
    named = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    assert {text for text in named if text.startswith("--")} == OPTIMIZE_OPTIONS


MISTAKES = [
    (["optimize", "--dataset", "caltech", "--offline"], ["unknown dataset 'caltech'", "Did you mean 'caltech101'"]),
    (["optimize", "--set", "search.stepz=3"], ["unknown key 'search.stepz'"]),
    (["optimize", "-d", "folder:.", "--llm", "local-lama", "--offline"], ["unknown language model", "local-llama"]),
    (["optimize", "--offline"], ["no dataset is named", "`ipo datasets` lists"]),
    (["optimize", "--resume", "nowhere", "--steps", "3"], ["no run here"]),
    (["optimize", "--resume", "nowhere", "--paper"], ["takes no --paper"]),
    (["optimize", "-d", ".", "--force"], ["--force is for --resume"]),
    (["optimize", "--resume", "nowhere"], ["no run here"]),
    (["history", "nowhere"], ["no history.jsonl here"]),
    (["evaluate", "--prompt", "a photo", "--offline"], ["a prompt needs <CLASS> exactly once"]),
    (["evaluate", "-p", "a <CLASS>", "-d", "folder:nowhere", "--offline"], ["nowhere"]),
]


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory) -> tuple[Path, list[Ended]]:
    """A folder, and how each command ended in it."""
    folder = tmp_path_factory.mktemp("mistakes")
    return folder, run_commands([arguments for arguments, _ in MISTAKES], folder)


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_gives_one_line_that_says_what_to_do(number, mistaken):
    folder, ended = mistaken
    done = ended[number]
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.strip().splitlines()) == 1, done.err
    for word in MISTAKES[number][1]:
        assert word in done.err
    assert list(folder.iterdir()) == [], "something was left behind"


def write_history(run: Path, reason: str) -> None:
    score = {"accuracy": 0.5, "loss": 1.0, "low": 0, "high": 1, "margin": 0, "fold_accuracy": 0.5, "fold_loss": 1}
    rows = [
        {"id": 0, "step": 0, "text": "a photo of a <CLASS>.", "score": score},
        {"id": 1, "step": 1, "text": "what came [/back] here", "parent": 0, "reason": reason},
    ]
    run.mkdir()
    (run / "config.toml").write_text("")
    (run / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize("columns", ["60", "200"])
def test_rejects_are_shown_with_their_whole_reason_and_reply(tmp_path, monkeypatch, columns):
    reason = "no reply: error 500 of the server at [/v1/chat] with :cat: and a [bold]long[/bold] explanation of it"
    write_history(tmp_path / "run", reason)
    monkeypatch.setenv("COLUMNS", columns)
    done = CliRunner().invoke(app, ["history", str(tmp_path / "run"), "--rejects"])
    assert done.exception is None, done.exception
    heading, *table = done.stdout.splitlines()[:-1]
    assert max(map(len, [heading, *table])) <= int(columns)
    starts = [heading.index(word) for word in ("reason", "reply")]
    parts = [(line[starts[0] : starts[1]], line[starts[1] :]) for line in table]
    shown = ["".join("".join(column).split()) for column in zip(*parts, strict=True)]
    assert shown == [reason.replace(" ", ""), "whatcame[/back]here"]


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Three classes of five simple drawings."""
    folder = tmp_path / "my pictures"
    for name, colour in (("apple", "red"), ("banana", "yellow"), ("pea pod", "green")):
        (folder / name).mkdir(parents=True)
        for index in range(5):
            image = Image.new("RGB", (96, 96), "white")
            draw = ImageDraw.Draw(image)
            box = (10 + index, 10, 80, 40 if name == "banana" else 80)
            draw.ellipse(box, fill=colour)
            image.save(folder / name / f"{index}.png")
    return folder


@pytest.mark.offline_models
@pytest.mark.slow
def test_a_whole_offline_run_on_own_pictures_and_its_resume(pictures, tmp_path):
    run = tmp_path / "run"
    arguments = ["optimize", "--dataset", f"folder:{pictures}", "--offline", "--steps", "2", "--candidates", "3"]
    target = f"folder:{pictures}"
    arguments += ["--shots", "2", "--captioner", "describe", "--no-controls", "--target", target]
    done = here(*arguments, "--out", str(run), "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(result["predictors"]) == {"first", "hand-crafted", "ipo", "ipo-ensemble"}
    assert result["predictors"]["ipo"]["targets"][target] == result["predictors"]["ipo"]["base"]
    names = {path.name for path in run.iterdir()}
    files = {"config.toml", "run.json", "captions.jsonl", "replies.jsonl", "history.jsonl", "history.md", "result.json"}
    assert files | {"report.html", "correct.json"} <= names
    history = (run / "history.jsonl").read_bytes()
    assert len(history.splitlines()) == 1 + 2 * 3
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "&lt;CLASS&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    captions = (run / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(captions) == json.loads((run / "run.json").read_text())["training_images"]

    (run / "history.jsonl").write_bytes(history[: len(history) - 40])
    done = here("optimize", "--resume", str(run), "--json")
    assert done.exit_code == 0, done.stderr
    assert (run / "history.jsonl").read_bytes() == history
    assert json.loads(done.stdout)["predictors"] == result["predictors"]

    done = here("history", str(run), "--json", "--by", "step")
    assert json.loads(done.stdout.splitlines()[0])["step"] == 0


@pytest.mark.offline_models
def test_own_class_names_come_from_a_map(pictures, tmp_path):
    (tmp_path / "names.json").write_text(
        '{"apple": "red fruit", "banana": "yellow fruit", "pea pod": "green vegetable"}'
    )
    done = here(
        "evaluate", "-p", "a <CLASS>", "-d", f"folder:{pictures}", "--offline", "--json",
        "--set", f"data.names={tmp_path / 'names.json'}",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["n"] > 0
    done = here("evaluate", "-p", "a <CLASS>", "-d", f"folder:{pictures}", "--offline", "--set", "data.names=gone.json")
    assert isinstance(done.exception, IpoError)
    assert "gone.json" in str(done.exception)
