"""One whole `ipo optimize`: build what the settings name, search, and report what was found.

Nothing is written before all models and data are there, so a run that cannot start leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ipo import __version__
from ipo.cache import cache_folder
from ipo.captions import make_captioner, pick_captions
from ipo.check import check, template_can_be_filled
from ipo.clip.base import ClipModel
from ipo.clip.features import ImageFeatureStore
from ipo.clip.load import load_clip
from ipo.config import Settings
from ipo.data.check import all_items, require_openable
from ipo.data.fewshot import class_half
from ipo.data.splits import relative
from ipo.errors import ConfigError, RunError
from ipo.evaluate import ImageSet, PromptPredictor
from ipo.facts import listing_facts, task_facts
from ipo.files import checked, json_lines, parse_rows
from ipo.lengths import TextRoom
from ipo.llm.base import LLM, UNPAID, Spent
from ipo.llm.load import load_llm
from ipo.llm.prices import require_price
from ipo.optimize import Search, optimize, total_cost, unusable
from ipo.prompt import Prompt
from ipo.protocols import BaseToNew, Listing, evaluate_on, load_task, named_dataset, read_listing
from ipo.record import Record
from ipo.report import report_stop, write_reports
from ipo.result_file import CORRECT_FILE
from ipo.results import data_facts, require_controls, summarize, test_hashes, with_controls
from ipo.resume import Resumption, note_resumption, require_same
from ipo.run_folder import RESULT_FILE, RunFolder
from ipo.run_path import CAPTIONS_FILE
from ipo.scope import unread
from ipo.tracker import Tracker

Split = Literal["base", "new", "all"]
Images = Literal["test", "all"]
TEXT_CACHE_FILE = "text_features.sqlite"
PAPER = "IPO: Interpretable Prompt Optimization for Vision-Language Models, arXiv 2410.15397"


@dataclass(frozen=True)
class Captions:
    """What is said of the training images, and by whom."""

    captioner: str = "none"
    texts: tuple[str, ...] = ()
    """One description an image, in the order of the training images; none without a captioner."""
    spent: Spent = UNPAID


@dataclass(frozen=True)
class Experiment:
    """The settings and all that was built from them."""

    settings: Settings
    clip: ClipModel
    llm: LLM
    listing: Listing
    protocol: BaseToNew
    captions: Captions

    @property
    def search(self) -> Search:
        """What the loop is given: the training shots, and as many captions as the token budget allows."""
        settings, task = self.settings, self.protocol.task
        budget = settings.captions.token_budget
        budget = self.llm.caption_tokens if budget is None else budget
        return Search(
            settings=settings.search,
            sampling=settings.llm,
            clip=self.clip,
            llm=self.llm,
            images=task.train,
            classnames=task.classnames,
            room=task.room,
            captions=tuple(pick_captions(self.captions.texts, budget, self.llm.token_count, settings.seed)),
            seed=settings.seed,
        )

    def facts(self) -> dict[str, Any]:
        """What `run.json` records of the models and the data."""
        return {
            "method": "ipo",
            **task_facts(self.listing, self.protocol),
            "llm": self.llm.name,
            "captioner": self.captions.captioner,
            "offline": self.settings.offline,
        }


def prepare(settings: Settings, resumption: Resumption | None = None) -> Experiment:
    """Check all that needs no model, then read listings, load models, and make image features and captions.

    Writes to the cache folder only. A run that is gone on with keeps the captions in its folder, and nobody is asked
    for any; it has to have the same listing.
    """
    check("optimize", settings, without=("captions.captioner",) if resumption else ())
    listing = read_listing(settings)
    if resumption:
        require_same(resumption, listing_facts(listing))
    listing.require_openable(skip_unreadable=settings.data.skip_unreadable)
    clip = load_clip(settings.clip, offline=settings.offline)
    certain = (*settings.search.first_prompts, listing.dataset.hand_crafted_prompt)  # these are tested in any case
    listing.room(clip).require(Prompt(text) for text in certain)
    llm = load_llm(settings.llm, offline=settings.offline)
    if settings.search.max_cost is not None:
        require_price(llm.name)  # a model that its server chose has its name only now
    template_can_be_filled(settings, llm.template, llm.form)
    protocol = load_task(settings, clip, feature_store(settings, clip), listing)
    require_controls(protocol.task, settings)
    captions = _read_captions(resumption, protocol) if resumption else _make_captions(settings, protocol)
    return Experiment(settings, clip, llm, listing, protocol, captions)


def _make_captions(settings: Settings, protocol: BaseToNew) -> Captions:
    captioner = make_captioner(settings.captions, settings.clip, offline=settings.offline)
    if captioner is None:
        return Captions()
    if settings.search.max_cost is not None and captioner.spent.model:
        require_price(captioner.spent.model)
    texts = tuple(captioner.caption([item.path for item in protocol.task.train.items]))
    return Captions(captioner.name, texts, captioner.spent)


def _read_captions(resumption: Resumption, protocol: BaseToNew) -> Captions:
    """The captions that a run was started with."""
    path, run = resumption.path / CAPTIONS_FILE, resumption.run
    rows = parse_rows(path, _caption)
    captioner = run.get("captioner", "none")
    if captioner != "none" and [image for image, _ in rows] != _training_images(protocol):
        remedy = "Restore the file or the images, or start a new run"
        raise RunError("the captions are not those of the training images", where=str(path), remedy=remedy)
    return Captions(captioner, tuple(text for _, text in rows), Spent(**run.get("caption_usage", {})))


def _caption(row: dict[str, Any]) -> tuple[str, str]:
    texts = _texts(row)
    return texts["image"], texts["caption"]


_texts = checked(dict[str, str])


def _training_images(protocol: BaseToNew) -> list[str]:
    """Where each training image lies below the folder of the dataset."""
    return [relative(item.path, protocol.source.root) for item in protocol.task.train.items]


def feature_store(settings: Settings, clip: ClipModel) -> ImageFeatureStore:
    """The image feature store that the settings describe, in the cache folder."""
    return ImageFeatureStore(
        clip,
        cache_folder() / "features",
        workers=settings.clip.workers,
        batch_size=settings.clip.image_batch,
        skip_unreadable=settings.data.skip_unreadable,
    )


def start(experiment: Experiment, path: Path) -> tuple[RunFolder, Record]:
    """A new run folder, and the empty record in it."""
    captions, texts = experiment.captions, {}
    if captions.captioner != "none":
        named = zip(_training_images(experiment.protocol), captions.texts, strict=True)
        texts[CAPTIONS_FILE] = json_lines({"image": image, "caption": text} for image, text in named)
    facts = experiment.facts() | data_facts(experiment.protocol) | {"caption_usage": asdict(captions.spent)}
    folder = RunFolder.create(path, experiment.settings, facts, texts, unread("optimize", experiment.settings))
    try:
        experiment.clip.use_text_cache(path / TEXT_CACHE_FILE)
    except RunError:
        folder.close()
        raise
    return folder, Record(experiment.settings.search.select, path, captions.spent)


def reopen(experiment: Experiment, folder: RunFolder, resumption: Resumption) -> Record:
    """The record of an existing run, to go on with it under the same models and data, with what `resumption` changes.

    Raises `RunError` where anything else is another than when the run began, and changes nothing then.
    """
    facts, search = experiment.facts(), experiment.settings.search
    require_same(resumption, facts)
    record = Record.resume(search.select, folder.path, search.first_prompts, experiment.captions.spent)
    if record.last_step > search.steps:
        what = f"search.steps is {search.steps}, but the run has done {record.last_step} steps"
        raise ConfigError(what, where=str(folder.path), remedy="Give at least as many")
    note_resumption(folder, resumption, facts)
    experiment.clip.use_text_cache(folder.path / TEXT_CACHE_FILE)
    return record


def run(experiment: Experiment, folder: RunFolder, record: Record, watch: Callable[[Record], None]) -> dict[str, Any]:
    """Search until something stops it, evaluate once on the test images, and write the results and reports."""
    settings, task = experiment.settings, experiment.protocol.task
    tracker = Tracker.start(settings.tracker, folder.path.name, settings.model_dump(mode="json"))

    def follow(state: Record) -> None:
        watch(state)
        tracker.log(state)

    try:
        reason = optimize(experiment.search, record, follow)
        figures, correct = summarize(experiment.protocol, settings.search, record.history, with_controls(settings))
    except BaseException as error:
        report_stop(folder, error)
        raise
    finally:
        tracker.finish()
    usage = record.usage()
    result = (
        experiment.facts()
        | data_facts(experiment.protocol)
        | {
            "ipo": __version__,
            "test_hashes": test_hashes(experiment.protocol),
            "paper": PAPER,
            "model": experiment.clip.fingerprint.name,
            "shots": task.shots,
            "headline": "ipo",
            "stopped": reason,
            "unusable": unusable(record.history, settings.search.give_up),
            **figures,
            "usage": asdict(usage),
            "seconds": round(usage.seconds, 1),
            "cost": total_cost(experiment.llm.name, usage),
        }
    )
    folder.write(CORRECT_FILE, correct)
    folder.write(RESULT_FILE, result)
    folder.update(status="done")
    write_reports(folder.path)
    return result


def evaluate_prompts(
    settings: Settings, texts: list[str], split: Split, ensemble: bool, images: Images = "test"
) -> list[dict[str, Any]]:
    """Accuracy of each prompt, and of their ensemble, among the classes of `split`: one row each.

    It is that on the test images, or on all `images`, training images too.
    """
    prompts = [Prompt(text) for text in texts]
    check("evaluate", settings)
    dataset = named_dataset(settings)
    half = class_half(dataset, split)
    items = half.take(all_items(dataset) if images == "all" else dataset.test)
    what = f"{'test ' if images == 'test' else ''}images ({split})"
    require_openable(items, what, skip_unreadable=settings.data.skip_unreadable)
    clip = load_clip(settings.clip, offline=settings.offline)
    TextRoom.of(clip, half.classnames).require(prompts)
    loaded = ImageSet(*feature_store(settings, clip).load(items))
    trials: list[tuple[str, tuple[Prompt, ...]]] = [
        (text, (prompt,)) for text, prompt in zip(texts, prompts, strict=True)
    ]
    if ensemble:
        trials.append((f"mean of the {len(prompts)}", tuple(prompts)))
    return [
        {"prompt": name, "split_source": dataset.split_source if images == "test" else "none, all images"}
        | evaluate_on(PromptPredictor(clip, members), loaded, half.classnames).figures()
        for name, members in trials
    ]
