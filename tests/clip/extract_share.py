"""What each process of a distributed extraction runs: `torchrun extract_share.py PICTURES STORE OUTPUT`."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from ipo.clip.features import ImageFeatureStore
from ipo.data.types import Item
from tests.clip.picture_clip import PictureClip

pictures, folder, output = map(Path, sys.argv[1:])
items = [Item(path, 0) for path in sorted(pictures.iterdir())]
clip = PictureClip()
kept, features = ImageFeatureStore(clip, folder, workers=0, skip_unreadable=True).load(items)
rank = torch.distributed.get_rank()
torch.save({"features": features, "kept": len(kept), "batches": len(clip.shapes)}, output / f"{rank}.pt")
torch.distributed.destroy_process_group()
