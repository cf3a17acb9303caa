"""Fit in two processes of one group; the first writes what was learned. Arguments: folder, output.

They are forked from one that has the libraries, with the variables that `torchrun` would set.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import torch
from torch.multiprocessing.spawn import start_processes

from ipo.methods import FitRun
from ipo.store.tensors import save_tensors
from ipo_baselines.finetune import LIPSUM_FT, LipsumOptions
from tests.baselines.tiny import tiny_task

OPTIONS = LipsumOptions(steps=5, batch=9, learning_rate=0.01, warmup=0, workers=0, images_at_once=2)
PROCESSES = 2


def fit(rank: int, port: int, folder: Path, output: Path) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES}
    os.environ |= {name: str(value) for name, value in (place | {"MASTER_PORT": port}).items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    run = FitRun(output, report=lambda _: None)
    fitted = LIPSUM_FT.fit(tiny_task(folder), OPTIONS, run)
    if run.writes:
        save_tensors(output / "learned.safetensors", fitted.learned)
    torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    start_processes(fit, (free_port(), folder, output), PROCESSES, start_method="fork")
