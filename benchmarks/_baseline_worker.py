"""Runs StarDist or Cellpose in their own environment: python _baseline_worker.py NAME WEIGHTS THREADS.

Needs nothing but numpy and the baseline. Answers each line on standard input, a JSON object
{"image": file.npy, "labels": file.npy}, with {"seconds": ...} once the labels are written. The
first line it writes, {"description": ...}, says that it is ready.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Prepare = Callable[[np.ndarray], Any]
    Segment = Callable[[Any], np.ndarray]


def stardist(weights: Path, threads: int) -> tuple[str, Prepare, Segment]:
    """Open a StarDist model folder."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from csbdeep.utils import normalize
    from stardist.models import StarDist2D

    model = StarDist2D(None, name=weights.name, basedir=str(weights.parent))
    about = f"StarDist {version('stardist')}, TensorFlow {version('tensorflow-cpu')}"
    return about, lambda image: normalize(image, 1, 99.8), lambda image: model.predict_instances(image)[0]


def cellpose(weights: Path, threads: int) -> tuple[str, Prepare, Segment]:
    """Open a Cellpose 3 weights file."""
    import torch

    torch.set_num_threads(threads)
    from cellpose.models import CellposeModel

    model = CellposeModel(gpu=False, pretrained_model=str(weights))
    about = f"Cellpose {version('cellpose')}, torch {version('torch')}"
    return about, lambda image: image, lambda image: model.eval(image, channels=[0, 0])[0]


BASELINES = {"stardist": stardist, "cellpose": cellpose}


def main(name: str, weights: str, threads: str) -> None:
    """Answer until standard input ends."""
    # The baselines print as they like; only answers may go where the benchmark listens.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**message: object) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    if not Path(weights).exists():  # Cellpose would quietly take, or download, others
        raise SystemExit(f"{weights} does not exist")
    about, prepare, segment = BASELINES[name](Path(weights), int(threads))
    answer(description=about)
    for line in sys.stdin:
        order = json.loads(line)
        image = prepare(np.load(order["image"], allow_pickle=False))
        began = time.perf_counter()
        labels = segment(image)
        seconds = time.perf_counter() - began
        np.save(order["labels"], np.asarray(labels).astype(np.int32), allow_pickle=False)
        answer(seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
