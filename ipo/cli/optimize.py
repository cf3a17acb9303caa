"""`ipo optimize`: the search, from options to the result on the screen."""

from __future__ import annotations

from rich.table import Table

from ipo.cli import options
from ipo.cli.console import output
from ipo.runs.readers import OPTIMIZE


@options.for_settings(OPTIMIZE)
def optimize(
    given: options.Given,
    paper: options.Paper = False,
    config: options.Config = None,
    assignments: options.Assignments = None,
    out: options.Out = None,
    resume: options.Resume = None,
    force: options.Force = False,
    list_strategies: options.Strategies = False,
    as_json: options.AsJson = False,
) -> None:
    """Search for a prompt: an LLM proposes, CLIP scores, the scored history goes back to the LLM.

    Examples:

      ipo optimize --dataset folder:photos/ --llm openai:gpt-4o-mini

      ipo optimize --dataset caltech101 --llm local-llama --steps 40

      ipo optimize --dataset looks --domains drawing --classes all --offline

      ipo optimize --dataset stamps --offline --strategy random --set strategy.source=words

      ipo optimize --resume runs/caltech101-local-llama-16shot-seed1

      ipo optimize --resume runs/caltech101-local-llama-16shot-seed1 --steps 200
    """
    if list_strategies:
        print_strategies()
        return
    options.check_resumption(resume, force, {"--config": config, "--paper": paper, "--out": out})

    from ipo.api import start
    from ipo.api.settings import make_settings, resumed_settings
    from ipo.cli import running
    from ipo.registry import SEARCH

    if resume is not None:
        start.require_search(resume)
        settings = resumed_settings(OPTIMIZE, resume, assignments, given)
        folder, result = start.resume_run(resume, settings, {}, force)
    else:
        settings = make_settings(OPTIMIZE, config, assignments, given, paper)
        folder, result = start.start_run(SEARCH, settings, {}, out)
    running.show(result, folder, as_json)


def print_strategies() -> None:
    """All strategies with what they are and where they are from, and then their options."""
    from ipo.cli.config import print_tables, strategy_groups
    from ipo.search.strategy import available_strategies, find_strategy

    table = Table()
    for heading in ("strategy", "what it is", "paper"):
        table.add_column(heading, no_wrap=heading == "strategy")
    for name in available_strategies():
        strategy = find_strategy(name)
        table.add_row(name, strategy.summary, strategy.paper or "")
    output().print(table)
    print_tables({name: rows for name, rows in strategy_groups().items() if rows})
