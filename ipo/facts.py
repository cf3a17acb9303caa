"""What `run.json` records of the model and the data of a run, whatever its method: what has to be the same later."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ipo.clip.contents import content_hash
from ipo.protocols import BaseToNew, Listing


def task_facts(listing: Listing, protocol: BaseToNew) -> dict[str, Any]:
    """What `run.json` records of model and data for every method."""
    source, task = protocol.source, protocol.task
    return {
        "dataset": source.name,
        "split_source": source.split_source,
        "split_hash": source.split_hash,
        "class_names": text_hash(source.classnames),
        "classes": protocol.classes,
        "training_images": len(task.train),
        "training_content": content_hash((*task.train.items, *task.val.items)),
        "clip": asdict(task.clip.fingerprint),
        "device": task.clip.device.type,
        "seed": task.seed,
        "targets": [target.dataset for target in protocol.targets],
        "target_splits": [text_hash((target.split_hash, *target.classnames)) for target in listing.targets],
    }


def text_hash(texts: Sequence[str]) -> str:
    """What tells one list of texts from another."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
