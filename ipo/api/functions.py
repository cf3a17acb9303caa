"""`ipo.optimize`, `fit`, `resume` and `evaluate`: the commands of the same names as functions.

They check what the commands check, with the same messages, and say nothing unless `progress` asks for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from ipo.api import start
from ipo.api.arguments import DataArguments, Place, SearchArguments, folder, given_settings, plain
from ipo.api.loaded import Run
from ipo.api.settings import make_settings, resumed_settings
from ipo.api.table import Table
from ipo.config import Settings
from ipo.errors import RunError
from ipo.prompt import Prompt
from ipo.registry import SEARCH
from ipo.runs.check import check
from ipo.runs.folder import is_first_process
from ipo.runs.readers import EVALUATE, Reader, method_reader
from ipo.runs.result import Result
from ipo.screen import silence

if TYPE_CHECKING:
    from ipo.fixed_prompts import TestedPrompt

Named = Mapping[str, Any]
"""Values by their names, such as `{"search.patience": 10}`."""


def optimize(
    *,
    out: Place | None = None,
    settings: Named | None = None,
    config: Place | None = None,
    paper: bool = False,
    progress: bool = False,
    **arguments: Unpack[SearchArguments],
) -> Run:
    """Search for a prompt, as `ipo optimize` does: `ipo.optimize(dataset="photos/", llm="openai:gpt-4o-mini")`.

    The keyword arguments are the options of the command (`ipo optimize --help`), and `settings` gives any setting by
    its name (`ipo config`): `settings={"strategy.start": "prompts.txt"}`. They win over the file `config`. `paper` asks
    for the paper's setting, `progress` for progress on standard error, or below the cell of a notebook. The run folder
    is `out`, or a new one under `runs/`. Raises an `IpoError` for whatever the command would end with.
    """
    chosen = _settings(method_reader(SEARCH), arguments, settings, config, paper)
    return _run(lambda: start.start_run(SEARCH, chosen, {}, _place(out)), progress)


def fit(
    method: str,
    *,
    options: Named | None = None,
    out: Place | None = None,
    settings: Named | None = None,
    config: Place | None = None,
    progress: bool = False,
    **arguments: Unpack[SearchArguments],
) -> Run:
    """Fit another method, as `ipo baseline` does: `ipo.fit("coop", dataset="photos/", options={"epochs": 50})`.

    `options` are those of the method (`ipo baseline METHOD --list`); all else as for `optimize`.
    """
    chosen = _settings(method_reader(method), arguments, settings, config)
    own = plain(options or {})
    return _run(lambda: start.start_run(method, chosen, own, _place(out)), progress)


def resume(
    path: Place,
    *,
    options: Named | None = None,
    settings: Named | None = None,
    force: bool = False,
    progress: bool = False,
    **arguments: Unpack[SearchArguments],
) -> Run:
    """Go on with a run of any method, as `--resume` does; beside it goes what changes no result, as more `steps`."""
    run = folder(path)
    reader = start.reader_of(run)
    chosen = resumed_settings(reader, run, plain(settings or {}), given_settings(reader, arguments))
    return _run(lambda: start.resume_run(run, chosen, plain(options or {}), force), progress)


def evaluate(
    prompts: str | Sequence[str],
    *,
    split: Literal["base", "new", "all"] = "all",
    images: Literal["test", "all"] = "test",
    ensemble: bool = False,
    settings: Named | None = None,
    config: Place | None = None,
    progress: bool = False,
    **arguments: Unpack[DataArguments],
) -> Table[TestedPrompt]:
    """Test prompts of one's own, as `ipo evaluate` does: `ipo.evaluate("a photo of a <CLASS>.", dataset="photos/")`.

    A row for each prompt, and with `ensemble` one for all of them together: accuracy on `n` images and its interval.
    """
    chosen = _settings(EVALUATE, arguments, settings, config)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    for text in texts:
        Prompt(text)
    with silence(not progress):
        check(EVALUATE, chosen)
        from ipo.fixed_prompts import evaluate_prompts  # it imports torch

        rows = evaluate_prompts(chosen, texts, split, ensemble, images)
    return Table(rows, lambda row: row.to_json(), "prompt")


def _settings(
    reader: Reader, arguments: Named, settings: Named | None, config: Place | None, paper: bool = False
) -> Settings:
    given = given_settings(reader, arguments)
    return make_settings(reader, _place(config), plain(settings or {}), given, paper)


def _place(place: Place | None) -> Path | None:
    return None if place is None else folder(place)


def _run(work: Callable[[], tuple[Path, Result | None]], progress: bool) -> Run:
    if not is_first_process():
        remedy = "Use the command there, such as: torchrun --nproc-per-node 2 -m ipo baseline METHOD"
        raise RunError("the Python API is for one process, and this is one of several", remedy=remedy)
    with silence(not progress), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # a bar of others; ours need no widgets
        path, result = work()
        assert result is not None  # this is the first process
        start.complain(result, path)
    return Run(path)
