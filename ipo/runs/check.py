"""Everything about a run that can be refused before data are read and a model is loaded or fetched, as one list.

The same list serves every command: a check is made where the command reads the setting that it is about. What takes no
time comes first; then what needs torch or open_clip, which take seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ipo.captions.load import require_captioner
from ipo.clip.specs import LOCAL, require_clip_spec
from ipo.config import (
    STAND_INS,
    CaptionSettings,
    DataSettings,
    Device,
    LLMSettings,
    SearchOptions,
    SearchSettings,
    Settings,
)
from ipo.data.folders import is_dropping
from ipo.data.load import require_known, require_multi_label, require_there, target_parts
from ipo.data.own.classnames import read_map
from ipo.errors import ConfigError, RunError
from ipo.llm.load import remote_name, reply_form, require_llm
from ipo.llm.prices import require_price
from ipo.prompt import Prompt
from ipo.runs.path import require_free
from ipo.runs.readers import Reader
from ipo.runs.tracker import require_installed
from ipo.search.history import FOR_ANY_METRIC, is_label_free
from ipo.search.strategy import choose, try_out
from ipo.store.cache import cache_folder

Check = Callable[[Settings], object]


def dataset_is_there(data: DataSettings) -> None:
    """The dataset is named and known, and so are the domains; there is something at its place."""
    require_there(data.dataset, data.root, data.domains)


def targets_are_there(data: DataSettings) -> None:
    """The same for each target."""
    for target in data.targets:
        name, domain = target_parts(target)
        require_there(name, data.root, (domain,) if domain else ())


def require_run_place(run: Path, data: DataSettings) -> None:
    """Raise `RunError` unless a run can be created at `run`, which may not be among the pictures of its datasets.

    There it would be a class of them from now on, and the run could not be gone on with.
    """
    names = (data.dataset, *(target_parts(target)[0] for target in data.targets))
    places = [spec.partition(":")[2] for spec in map(require_known, filter(None, names)) if spec.startswith("folder:")]
    for place in places:
        root, path = Path(place).expanduser().resolve(), run.expanduser().resolve()
        if path.is_relative_to(root) and not any(map(is_dropping, path.relative_to(root).parts)):
            remedy = "Give --out a folder elsewhere, or a hidden one, such as .runs/1"
            raise RunError(f"the run would lie among the pictures of {place}", where=str(run), remedy=remedy)
    require_free(run)


def metric_fits(data: DataSettings, options: SearchOptions) -> None:
    """Mean average precision is asked for of datasets with several labels an image, by what can use them."""
    if data.metric != "map":
        return
    for spec in (data.dataset, *(target_parts(target)[0] for target in data.targets)):
        require_multi_label(spec)
    if options.search.select not in FOR_ANY_METRIC:
        what = f"search.select={options.search.select} needs one label an image, not data.metric=map"
        raise ConfigError(what, remedy=f"Use --select {' or '.join(FOR_ANY_METRIC)}")
    if choose(options.strategy).one_label:
        what = f"strategy '{options.strategy.name}' with these options needs one label an image, not data.metric=map"
        raise ConfigError(what, remedy="Use another --strategy, such as ipo")


def labels_are_wanted(options: SearchOptions) -> None:
    """A selection rule without labels goes with a strategy that needs none."""
    if is_label_free(options.search.select) and choose(options.strategy).one_label:
        what = f"strategy '{options.strategy.name}' with these options needs labels"
        raise ConfigError(f"{what}, which search.select={options.search.select} hides", remedy="Use another --strategy")


def names_can_be_read(data: DataSettings) -> None:
    """The map of class names is one."""
    if data.names is not None:
        read_map(data.names)


def first_prompts_are_prompts(search: SearchSettings) -> None:
    """There is a first prompt, and each has its class slot."""
    if not search.first_prompts:
        raise ConfigError("search.first_prompts is empty", remedy='Give at least one, such as "a photo of a <CLASS>."')
    for text in search.first_prompts:
        Prompt(text)


def llm_is_known(llm: LLMSettings, options: SearchOptions, *, captioned: bool, offline: bool) -> None:
    """The LLM has a name, files or a key, and the strategy can ask it: its template fits."""
    if not choose(options.strategy).asks_llm:
        return
    preset = require_llm(llm, offline=offline)
    try_out(options, captioned, preset.template or "ipo.j2", reply_form(preset, llm))


def prices_are_known(llm: LLMSettings, captions: CaptionSettings, *, offline: bool) -> None:
    """What answers and what describes can be paid for: a bound on the cost has prices to count with."""
    if not require_llm(llm, offline=offline).spec.startswith("openai:"):
        what = f"search.max_cost is set, but {llm.spec} runs on this machine and has no price"
        raise ConfigError(what, remedy="Use search.max_minutes or search.max_tokens")
    for name in (remote_name(llm, offline=offline), require_captioner(captions, offline=offline)):
        if name is not None:
            require_price(name)


def devices_are_there(devices: Collection[Device]) -> None:
    """Each device that is named is there. Imports torch only where one is."""
    for device in set(devices) - {"auto", "cpu"}:
        from ipo.clip.load import resolve_device

        resolve_device(device)


def weights_are_known(model: str, *, offline: bool) -> None:
    """open_clip knows the tag, and offline the weights are here. It is imported for that, as it is for the model."""
    if model not in STAND_INS and not model.startswith(LOCAL):
        from ipo.clip.sources import require_source

        require_source(model, offline=offline)


def _llm_and_strategy(of: Settings) -> None:
    options = SearchOptions(search=of.search, strategy=of.strategy)
    llm_is_known(of.llm, options, captioned=of.captions.captioner != "none", offline=of.offline)


def _bound_on_the_cost(of: Settings) -> None:
    if of.search.max_cost is not None:
        prices_are_known(of.llm, of.captions, offline=of.offline)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("data.dataset", lambda of: dataset_is_there(of.data)),
    ("data.targets", lambda of: targets_are_there(of.data)),
    ("data.metric", lambda of: metric_fits(of.data, SearchOptions(search=of.search, strategy=of.strategy))),
    ("data.names", lambda of: names_can_be_read(of.data)),
    ("clip.model", lambda of: require_clip_spec(of.clip.model)),
    ("search.first_prompts", lambda of: first_prompts_are_prompts(of.search)),
    ("strategy.name", lambda of: choose(of.strategy)),
    ("search.select", lambda of: labels_are_wanted(SearchOptions(search=of.search, strategy=of.strategy))),
    ("llm.spec", _llm_and_strategy),
    ("captions.captioner", lambda of: require_captioner(of.captions, offline=of.offline)),
    ("search.max_cost", _bound_on_the_cost),
    ("tracker", lambda of: require_installed(of.tracker)),
    ("offline", lambda _: cache_folder()),
    ("clip.device", lambda of: devices_are_there((of.clip.device, of.llm.device))),
    ("clip.model", lambda of: weights_are_known(of.clip.model, offline=of.offline)),
)
"""Each check with the setting that it is about, and what of the settings it is handed."""


def check(reader: Reader, settings: Settings, without: Collection[str] = ()) -> None:
    """Make every check of what is read but those about settings `without`; the first to fail raises an `IpoError`."""
    for key, make in CHECKS:
        if reader.reads(key) and key not in without:
            make(settings)
