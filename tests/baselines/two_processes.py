"""Fit in each of several processes, with torchrun; the first writes what was learned. Arguments: folder, output."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ipo.methods import FitRun, save_tensors
from ipo_baselines.finetune import LIPSUM_FT, LipsumOptions
from tests.baselines.tiny import tiny_task

OPTIONS = LipsumOptions(steps=5, batch=9, learning_rate=0.01, warmup=0, workers=0, images_at_once=2)

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    run = FitRun(output, report=lambda _: None)
    fitted = LIPSUM_FT.fit(tiny_task(folder), OPTIONS, run)
    if run.writes:
        save_tensors(output / "learned.safetensors", fitted.learned)
    torch.distributed.destroy_process_group()
