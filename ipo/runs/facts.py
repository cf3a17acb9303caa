"""What `run.json` records of the model and the data of a run, whatever its method: what has to be the same later."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ipo.clip.hashes import content_hash
from ipo.data.listing import Listing
from ipo.task import BaseToNew, HeldOut


def listing_facts(listing: Listing) -> dict[str, Any]:
    """What `run.json` records of the listings of the data, for every method."""
    dataset = listing.dataset
    return {
        "dataset": dataset.name,
        **({"metric": "map"} if any(item.labels for item in listing.train) else {}),
        "split_source": dataset.split_source,
        "split_hash": dataset.split_hash,
        "class_names": text_hash(dataset.classnames),
        "classes": "base" if listing.new else "all",
        "targets": [target.name for target in listing.targets],
        "target_splits": [text_hash((target.split_hash, *target.classnames)) for target in listing.targets],
    }


def task_facts(listing: Listing, protocol: BaseToNew) -> dict[str, Any]:
    """What `run.json` records of the model and the data for every method."""
    task = protocol.task
    return {
        **listing_facts(listing),
        "training_images": len(task.train),
        "training_content": content_hash((*task.train.items, *task.val.items)),
        "clip": asdict(task.clip.fingerprint),
        "device": task.clip.device.type,
        "seed": task.seed,
    }


def test_hashes(protocol: BaseToNew) -> dict[str, str]:
    """For each test set, a hash of its class names and of the content of its images; they are read by then."""
    return {name: _content(held_out) for name, held_out in protocol.test_sets().items()}


def _content(held_out: HeldOut) -> str:
    names = "\n".join((*held_out.classnames, content_hash(held_out.images.items)))
    return hashlib.sha256(names.encode()).hexdigest()


def text_hash(texts: Sequence[str]) -> str:
    """What tells one list of texts from another."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
