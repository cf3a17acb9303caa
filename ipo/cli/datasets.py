"""`ipo datasets`: what there is, what is here, how to get the rest, and a look at it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.errors import ConfigError
from ipo.screen import counted, printable

if TYPE_CHECKING:
    from ipo.data.types import Dataset

app = typer.Typer(help="Datasets: what there is, what is here, how to get the rest.", invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="A catalogue name, folder:PATH, csv:FILE, hf:NAME or wds:SHARDS.")]


@app.callback()
def table(context: typer.Context, data_root: options.DataRoot = None, as_json: options.AsJson = False) -> None:
    """List the datasets: classes, published sizes, and whether they are here or what is missing (licences: --json).

    Examples:

      ipo datasets

      ipo datasets prepare caltech101

      ipo datasets draw caltech101 --shots 1 --seed 1
    """
    if context.invoked_subcommand:
        if data_root is not None:
            context.default_map = {context.invoked_subcommand: {"data_root": data_root}}
        return
    from ipo.data.benchmarks.locate import data_root as resolve

    root, rows = resolve(data_root), _rows(data_root)
    if as_json:
        print_json(rows)
        return
    view = Table(title=f"datasets in {root}")
    for heading in ("name", "classes", "train/val/test"):
        view.add_column(heading, no_wrap=True, justify="left" if heading == "name" else "right")
    view.add_column("state", overflow="fold")
    for row in rows:
        sizes = "/".join(f"{size:,}" if size else "-" for size in row["sizes"])
        view.add_row(*(Text(text) for text in (row["name"], str(row["classes"]), sizes, row["state"])))
    console = output()
    console.print(view)
    console.print("Get one with: ipo datasets prepare NAME. One's own: folder:PATH, csv:FILE, hf:NAME, wds:SHARDS.")


def _rows(root: Path | None) -> list[dict[str, Any]]:
    from ipo.data.benchmarks.catalogue import CATALOGUE
    from ipo.data.benchmarks.locate import data_root, find_split_file
    from ipo.data.load import dataset_states

    place, states = data_root(root), dataset_states(root)
    rows = []
    for name, entry in CATALOGUE.items():
        unsplit = entry.split_file and not find_split_file(entry, place)
        present = f"present, but no {entry.split_file}: seeded split" if unsplit else "present"
        rows.append(
            {
                "name": name,
                "classes": entry.classes,
                "sizes": entry.sizes,
                "domains": entry.domains,
                "state": states[name] or present,
                "present": not states[name],
                "licence": entry.licence,
                "homepage": entry.homepage,
            }
        )
    return rows


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="A name of the catalogue.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Archive, or folder with the archives: a path, file: or https: address."),
    ] = None,
    data_root: options.DataRoot = None,
) -> None:
    """Bring a dataset into its folder: download with resume, verify, unpack, count.

    Images that are there are only checked; a missing split file or list is fetched.

    Examples:

      ipo datasets prepare stamps

      ipo datasets prepare caltech101 --from ~/Downloads/caltech-101.zip
    """
    from ipo.data.benchmarks.catalogue import catalogue_entry
    from ipo.data.benchmarks.prepare import prepare as bring
    from ipo.data.benchmarks.prepare import split_advice
    from ipo.data.check import missing_domains
    from ipo.data.load import with_kind

    if ":" in with_kind(name):
        remedy = "Give it to --dataset as it is, or look at it: ipo datasets check"
        raise ConfigError(f"'{name}' is your own data: there is nothing to prepare", remedy=remedy)
    dataset = bring(name, data_root, source)
    entry = catalogue_entry(name)
    print(printable(summary(dataset)))
    for domain in missing_domains(entry, dataset):
        print(f"not there: domain {domain}")
    if advice := split_advice(entry, dataset):
        print(advice)


@app.command()
def check(name: Name, data_root: options.DataRoot = None, metric: options.Metric = None) -> None:
    """Check a dataset: every listed image exists and opens, no picture is in two splits or classes, counts are right.

    What was passed over is noted. Problems are listed, and the exit status is 1.

    Examples:

      ipo datasets check caltech101

      ipo datasets check folder:photos/

      ipo datasets check csv:photos.csv --metric map
    """
    from ipo.config import load_settings
    from ipo.data.check import problems
    from ipo.data.load import read_dataset

    data = load_settings(None, {"data": {"metric": metric}} if metric else {}).data
    dataset = read_dataset(name, data_root, multi_label=data.metric == "map")
    print(printable(summary(dataset)))
    for note in dataset.notes:
        print(f"note: {printable(note)}")
    found = 0
    for problem in problems(dataset, workers=os.cpu_count() or 1):
        print(f"problem: {printable(problem)}")
        found += 1
    print(counted(found, "problem") if found else "no problems")
    raise typer.Exit(1 if found else 0)


@app.command()
def show(
    name: Name,
    out: Annotated[Path | None, typer.Option("--out", help="The PNG file. Default: NAME.png.")] = None,
    each: Annotated[int, typer.Option("--each", min=1, max=50, help="Images a class.")] = 8,
    classes: Annotated[int, typer.Option("--classes", min=1, max=500, help="Most classes shown.")] = 50,
    domains: options.Domains = None,
    data_root: options.DataRoot = None,
) -> None:
    """Make a contact sheet: one row a class, with its name and some of its images.

    Examples:

      ipo datasets show stamps

      ipo datasets show pacs --domains photo --out photo.png
    """
    from ipo.data.load import load_dataset
    from ipo.data.sheet import contact_sheet, save_sheet

    dataset = load_dataset(name, data_root, domains=options.split_commas(domains) or ())
    print(printable(str(save_sheet(contact_sheet(dataset, each, classes), out or Path(f"{dataset.name}.png")))))


@app.command()
def draw(
    name: Name,
    shots: Annotated[int, typer.Option("--shots", min=1, help="Training images a class.")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 1,
    classes: Annotated[Literal["base", "new", "all"], typer.Option("--classes", help="Which half of them.")] = "all",
    split_file: Annotated[Path | None, typer.Option("--split-file", help="Split file in CoOp's format.")] = None,
    domains: options.Domains = None,
    data_root: options.DataRoot = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the few-shot draw, image for image that of CoOp: path, label and class name, in order.

    Where a dataset has a split file the images need not be there. Labels of a half count from 0.

    Examples:

      ipo datasets draw caltech101 --shots 1 --seed 1

      ipo datasets draw oxford_pets --split-file split_zhou_OxfordPets.json --classes base --json
    """
    from ipo.data.fewshot import class_half, draw_shots
    from ipo.data.load import in_domains, load_listing
    from ipo.data.splits import relative

    dataset = load_listing(name, data_root, split_file, seed=seed)
    if domains:
        dataset = in_domains(dataset, options.split_commas(domains) or ())
    half = class_half(dataset, classes)
    drawn = dict(zip(("train", "val"), map(half.take, draw_shots(dataset, shots, seed)), strict=True))
    rows = {
        split: [
            {"path": relative(item.path, dataset.root), "label": item.label, "class": half.classnames[item.label]}
            for item in items
        ]
        for split, items in drawn.items()
    }
    if as_json:
        head = {"dataset": dataset.name, "split_source": dataset.split_source, "shots": shots, "seed": seed}
        print_json({**head, "classes": classes, **rows})
        return
    for split, items in rows.items():
        for row in items:
            print(split, printable(str(row["path"])), row["label"], printable(str(row["class"])), sep="\t")


def summary(dataset: Dataset) -> str:
    """One line about a dataset: sizes, classes, split source and place."""
    sizes = "/".join(str(len(items)) for items in (dataset.train, dataset.val, dataset.test))
    return (
        f"{dataset.name}: {sizes} train/val/test images, {counted(len(dataset.classnames), 'class')}, "
        f"split {dataset.split_source}, in {dataset.root}"
    )
