"""Make the weights of `mini` anew: `PYTHONPATH=benchmarks python -m mini_training.make FOLDER`.

It needs apt-get, npm and the package resvg-py (`pip install --no-deps resvg-py==0.5.0`).

Packages are fetched by name into FOLDER, pictures and captions are made and seen (about ten minutes on two cores), and
two seeds are trained on all names (three minutes). The same packages give the same weights on one kind of machine.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from ipo.clip.adapter import Adapter, save_adapter
from ipo.clip.mini import ADAPTER_WEIGHTS, EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS, load_efficientnet, package_file
from mini_training import captions, features
from mini_training.sources import DIGESTS, fetch, pictures, use_wordnet
from mini_training.train import Shape, read_material, sizes_of, train

SEEDS = (0, 1)
WEIGHT, SHARE = 1.0, 0.67
"""How much what was learnt counts beside ConSE, and the experts' share of that. Seeds, weight and share were chosen on
held-out names (`choose.py`)."""
PROCESSES = 2


def main(folder: Path, weights: Path) -> None:
    """Fetch, see, train, save; what is in the folder already is not made again."""
    fetch(folder / "packages")
    use_wordnet(folder / "packages")
    if not list(folder.glob("pictures*.safetensors")):
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            pool.starmap(features.main, [(folder / "packages", folder, part, PROCESSES) for part in range(PROCESSES)])
    if not (folder / "captions.json").exists():
        captions.main(folder / "packages", folder)
    network = load_efficientnet(package_file(EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS))
    material = read_material(folder, network.get_submodule("classifier"))
    sides = [train(material, seed, Shape(), everything=True) for seed in SEEDS]
    DIGESTS.write_text("".join(f"{digest}\n" for digest in sorted({p.digest for p in pictures(folder / "packages")})))
    save_adapter(weights, Adapter(sides, WEIGHT, SHARE), sizes_of(material, Shape()))
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else ADAPTER_WEIGHTS)
