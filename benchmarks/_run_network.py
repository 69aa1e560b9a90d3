"""Runs one network once in a process of its own; prints its arithmetic and the memory it took as JSON.

_run_network.py MODEL SIZE THREADS
"""

from __future__ import annotations

import json
import sys

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_nucleus_kd.apart import held_bytes
from napari_nucleus_kd.engine import open_engine
from napari_nucleus_kd.package import load_model


def main(name: str, size: str, threads: str) -> None:
    """Count the multiply-adds of a picture, and measure the memory of running the engine on it."""
    torch.set_num_threads(int(threads))
    model = load_model(name)
    picture = torch.rand(3, int(size), int(size), generator=torch.Generator().manual_seed(0))
    engine = open_engine(model, "cpu")
    me = psutil.Process()
    before = held_bytes(me)
    engine.run(picture.numpy())
    taken = held_bytes(me)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.network()(picture[None])
    print(json.dumps({"peak": taken, "before": before, "multiply_adds": counter.get_total_flops() // 2}))


if __name__ == "__main__":
    main(*sys.argv[1:])
