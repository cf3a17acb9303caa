"""Everything about a run that can be refused before data are read and a model is loaded or fetched, as one list.

The same list serves every command: a check is made where the command reads the setting that it is about. What takes no
time comes first; then what needs torch or open_clip, which take seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ipo.captions.load import require_captioner
from ipo.clip.specs import LOCAL, require_clip_spec
from ipo.config import STAND_INS, SearchOptions, Settings
from ipo.data.folders import is_dropping
from ipo.data.load import require_known, require_there, target_parts
from ipo.data.own.classnames import read_map
from ipo.errors import ConfigError, RunError
from ipo.llm.load import remote_name, reply_form, require_llm
from ipo.llm.prices import require_price
from ipo.prompt import Prompt
from ipo.runs.path import require_free
from ipo.runs.readers import Reader
from ipo.runs.tracker import require_installed
from ipo.search.strategy import choose, try_out
from ipo.store.cache import cache_folder

Check = Callable[[Settings], object]


def dataset_is_there(settings: Settings) -> None:
    """The dataset is named and known, and so are the domains; there is something at its place."""
    require_there(settings.data.dataset, settings.data.root, settings.data.domains)


def targets_are_there(settings: Settings) -> None:
    """The same for each target."""
    for target in settings.data.targets:
        name, domain = target_parts(target)
        require_there(name, settings.data.root, (domain,) if domain else ())


def require_run_place(run: Path, settings: Settings) -> None:
    """Raise `RunError` unless a run can be created at `run`, which may not be among the pictures of its datasets.

    There it would be a class of them from now on, and the run could not be gone on with.
    """
    names = (settings.data.dataset, *(target_parts(target)[0] for target in settings.data.targets))
    places = [spec.partition(":")[2] for spec in map(require_known, filter(None, names)) if spec.startswith("folder:")]
    for place in places:
        root, path = Path(place).expanduser().resolve(), run.expanduser().resolve()
        if path.is_relative_to(root) and not any(map(is_dropping, path.relative_to(root).parts)):
            remedy = "Give --out a folder elsewhere, or a hidden one, such as .runs/1"
            raise RunError(f"the run would lie among the pictures of {place}", where=str(run), remedy=remedy)
    require_free(run)


def names_can_be_read(settings: Settings) -> None:
    """The map of class names is one."""
    if settings.data.names is not None:
        read_map(settings.data.names)


def first_prompts_are_prompts(settings: Settings) -> None:
    """There is a first prompt, and each has its class slot."""
    if not settings.search.first_prompts:
        raise ConfigError("search.first_prompts is empty", remedy='Give at least one, such as "a photo of a <CLASS>."')
    for text in settings.search.first_prompts:
        Prompt(text)


def clip_is_known(settings: Settings) -> None:
    """The CLIP model has an architecture, a folder or packages."""
    require_clip_spec(settings.clip.model)


def llm_is_known(settings: Settings) -> None:
    """The LLM has a name, files or a key, and the strategy can ask it: its template fits."""
    options = SearchOptions(search=settings.search, strategy=settings.strategy)
    if not choose(settings.strategy).asks_llm:
        return
    preset = require_llm(settings.llm, offline=settings.offline)
    form = reply_form(preset, settings.llm)
    try_out(options, settings.captions.captioner != "none", preset.template or "ipo.j2", form)


def strategy_is_known(settings: Settings) -> None:
    """There is such a strategy, and it has such options."""
    choose(settings.strategy)


def captioner_is_known(settings: Settings) -> None:
    """The captioner has a name, files, packages or a key."""
    require_captioner(settings.captions, offline=settings.offline)


def prices_are_known(settings: Settings) -> None:
    """A bound on the cost has prices to count with."""
    if settings.search.max_cost is None:
        return
    if not require_llm(settings.llm, offline=settings.offline).spec.startswith("openai:"):
        what = f"search.max_cost is set, but {settings.llm.spec} runs on this machine and has no price"
        raise ConfigError(what, remedy="Use search.max_minutes or search.max_tokens")
    names = (
        remote_name(settings.llm, offline=settings.offline),
        require_captioner(settings.captions, offline=settings.offline),
    )
    for name in names:
        if name is not None:
            require_price(name)


def tracker_is_installed(settings: Settings) -> None:
    """The tracker can be imported."""
    require_installed(settings.tracker)


def cache_is_a_folder(_: Settings) -> None:
    """Nothing else stands where the cache has to be."""
    cache_folder()


def devices_are_there(settings: Settings) -> None:
    """A device that is named is there. Imports torch only where one is."""
    for device in {settings.clip.device, settings.llm.device} - {"auto", "cpu"}:
        from ipo.clip.load import resolve_device

        resolve_device(device)


def weights_are_known(settings: Settings) -> None:
    """open_clip knows the tag, and offline the weights are here. It is imported for that, as it is for the model."""
    model = settings.clip.model
    if model not in STAND_INS and not model.startswith(LOCAL):
        from ipo.clip.sources import require_source

        require_source(model, offline=settings.offline)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("data.dataset", dataset_is_there),
    ("data.targets", targets_are_there),
    ("data.names", names_can_be_read),
    ("clip.model", clip_is_known),
    ("search.first_prompts", first_prompts_are_prompts),
    ("strategy.name", strategy_is_known),
    ("llm.spec", llm_is_known),
    ("captions.captioner", captioner_is_known),
    ("search.max_cost", prices_are_known),
    ("tracker", tracker_is_installed),
    ("offline", cache_is_a_folder),
    ("clip.device", devices_are_there),
    ("clip.model", weights_are_known),
)
"""Each check with the setting that it is about."""


def check(reader: Reader, settings: Settings, without: Collection[str] = ()) -> None:
    """Make every check of what is read but those about settings `without`; the first to fail raises an `IpoError`."""
    for key, make in CHECKS:
        if reader.reads(key) and key not in without:
            make(settings)
