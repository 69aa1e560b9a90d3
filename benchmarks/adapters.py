"""Ways from many channels to three: accuracy, whether order and useless channels matter, and the cost.

    python benchmarks/adapters.py INDEX.csv
    python benchmarks/adapters.py INDEX.csv --mappings nucleus-adapter runs/other/adapter mean
    python benchmarks/adapters.py INDEX.csv --large    # memory for 40 channels of 4096 x 4096, too

Panels are drawn around the nuclei of the fluorescence images of a split. INDEX.csv comes from make_index.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import _common as common
from _common import Finding, Target

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.types import Image, LabelArray

    Change = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, list[int]]]

KNOWN = "nuclear channel known"
JOINED = f"{KNOWN}, the paper's decoding"
_SHOWN = {"f1": "mean F1", "dq": "F1@0.5", "sq": "SQ", "pq": "PQ"}
_SAME_IOU = 0.9
_COST_CHANNELS, _COST_PX = 8, 512
_LARGE_CHANNELS, _LARGE_PX = 40, 4096
_MEMORY = Target("<", 3e9)


def parse() -> argparse.Namespace:
    parser = common.options("Ways from many channels to three.", rounds=15)
    common.add_model(parser)
    parser.add_argument("index", type=Path, nargs="?", help="CSV of annotated images")
    parser.add_argument("--split", default="val", help="rows that panels are drawn around")
    parser.add_argument("--seed", type=int, default=0, help="of the panels")
    parser.add_argument(
        "--mappings",
        nargs="+",
        default=["nucleus-adapter", "mean", "first"],
        metavar="MAPPING",
        help="the first is judged; NAME=MAPPING=MODEL runs another model behind it",
    )
    parser.add_argument("--images", type=common.positive, help="only so many images of each source")
    parser.add_argument("--large", action="store_true", help="measure memory with many channels, too")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.index is None:
        print("adapters: skipped, no INDEX.csv given (make one with benchmarks/make_index.py)")
        return 0
    import torch

    from napari_nucleus_kd.folders import read_rows
    from napari_nucleus_kd.train.adapting import panel_rows

    threads = arguments.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    rows = panel_rows(read_rows(arguments.index, arguments.split))
    if arguments.images:
        kept = {source: [r for r in rows if r.source == source] for source in {r.source for r in rows}}
        rows = [row for some in kept.values() for row in some[: arguments.images]]
    recipes = dict(_recipe(text, arguments.model) for text in arguments.mappings)
    findings = judge(rows, recipes, arguments.model, arguments.seed)
    first = next(iter(recipes.values()))
    findings += invariance(rows, first, arguments.seed)
    findings += cost(rows[0], recipes, arguments.model, arguments.rounds)
    if arguments.large:
        findings.append(memory(rows[0], first, threads))
    facts = common.machine(threads) | {"split": arguments.split, "images": len(rows), "seed": arguments.seed}
    return common.report("adapters", findings, facts, strict=arguments.strict)


def _recipe(text: str, model: str) -> tuple[str, Recipe]:
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Modality

    name, mapping, behind = text.split("=") if text.count("=") == 2 else (Path(text).name, text, model)
    return name, Recipe(model=behind, mapping=mapping, modality=Modality.FLUORESCENCE)


def judge(rows: Sequence[Row], recipes: dict[str, Recipe], model: str, seed: int) -> list[Finding]:
    """Score every mapping on the same panels, and on the pictures of the nuclei alone."""
    from napari_nucleus_kd.config import DecodeSettings, Recipe
    from napari_nucleus_kd.metrics import bootstrap
    from napari_nucleus_kd.types import Modality

    known = Recipe(model=model, modality=Modality.FLUORESCENCE)
    joined = known.model_copy(
        update={"decode": DecodeSettings(by="components", foreground=0.3, min_area_px=32)}
    )
    values: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number, row in enumerate(rows):
        common.say(f"{number + 1} of {len(rows)}: {row.name}")
        for what, image, nuclear in _images(row, seed + number):
            told = {
                name: recipe.model_copy(update={"channels": (nuclear,)})
                for name, recipe in {KNOWN: known, JOINED: joined}.items()
            }
            for name, recipe in {**told, **recipes}.items():
                values.setdefault((what, name), []).append(_scores(image, recipe, row))
    findings = []
    for (what, name), scores in values.items():
        means = {key: bootstrap([score[key] for score in scores]) for key in _SHOWN}
        seen = ", ".join(f"{_SHOWN[k]} {m:.3f} ({a:.3f} to {b:.3f})" for k, (m, a, b) in means.items())
        findings.append(Finding(f"pq_{what}_{name}", f"PQ, {what}: {name}", means["pq"][0], "", seen=seen))
    first = next(iter(recipes))
    for other, target in ((KNOWN, Target(">=", -0.02)), ("mean", Target(">=", 0.15))):
        if ("panels", other) in values:
            less = [
                a["pq"] - b["pq"]
                for a, b in zip(values["panels", first], values["panels", other], strict=True)
            ]
            mean, low, high = bootstrap(less)
            seen = f"95% {low:+.3f} to {high:+.3f}"
            what = f"PQ of {first} less that of {other}"
            findings.append(Finding(f"ahead_of_{other}", what, round(mean, 4), "", target, seen))
    return findings


def _images(row: Row, seed: int) -> list[tuple[str, Image, int]]:
    from napari_nucleus_kd.io import read
    from napari_nucleus_kd.train.adapting import drawn_panel
    from napari_nucleus_kd.train.data import network_input
    from napari_nucleus_kd.types import Channel, Image

    panel, nuclear = drawn_panel(row, seed)
    picture = network_input(row, read(row.image)).max(axis=0, keepdims=True)
    return [("panels", panel, nuclear), ("one channel", Image((picture,), (Channel("nuclei"),)), 0)]


def _scores(image: Image, recipe: Recipe, row: Row) -> dict[str, float]:
    from napari_nucleus_kd import metrics
    from napari_nucleus_kd.errors import NucleusKDError
    from napari_nucleus_kd.index import read_truth

    truth = read_truth(row)
    try:
        found = _labels(image, recipe)
    except NucleusKDError as error:  # counts as nothing found
        common.say(f"failed: {error}")
        found = np.zeros_like(truth.labels)
    return metrics.scores(*truth.and_found(found))


def _labels(image: Image, recipe: Recipe) -> LabelArray:
    from napari_nucleus_kd.pipeline import segment

    return segment(image, recipe).nuclei.labels


def _shuffled(pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    order = rng.permutation(len(pixels)).tolist()
    return pixels[order], order


def _with_dead(pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    noise = np.abs(rng.normal(0, 0.01, pixels[:1].shape)) * float(pixels.max())
    return np.concatenate([pixels, noise.astype(pixels.dtype)]), [*range(len(pixels)), -1]


def _with_saturated(pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    brightest = pixels[rng.integers(len(pixels))].astype(np.float64) * 50
    full = np.clip(brightest, 0, float(pixels.max())).astype(pixels.dtype)
    return np.concatenate([pixels, full[None]]), [*range(len(pixels)), -1]


def invariance(rows: Sequence[Row], recipe: Recipe, seed: int) -> list[Finding]:
    """Tell which share of the nuclei changes if channels are shuffled, or useless ones are added."""
    changes: dict[str, tuple[str, Change, Target]] = {
        "shuffled": ("channels shuffled", _shuffled, Target("<=", 0.005)),
        "dead": ("a dead channel added", _with_dead, Target("<=", 0.01)),
        "saturated": ("a saturated channel added", _with_saturated, Target("<=", 0.01)),
    }
    counts = {key: np.zeros(2) for key in changes}
    for number, row in enumerate(rows):
        common.say(f"{number + 1} of {len(rows)}: {row.name}, changed")
        _, image, _ = _images(row, seed + number)[0]
        before = _labels(image, recipe)
        for key, (_, change, _) in changes.items():
            pixels, order = change(np.asarray(image.pixels), np.random.default_rng(seed + number))
            channels = tuple(
                image.channels[i] if i >= 0 else replace(image.channels[0], name="added") for i in order
            )
            after = _labels(replace(image, levels=(pixels,), channels=channels), recipe)
            counts[key] += _kept(before, after)
    return [
        Finding(f"changed_{key}", f"nuclei that change: {what}", 1 - kept / total, "%", target)
        for (key, (what, _, target)), (kept, total) in zip(changes.items(), counts.values(), strict=True)
    ]


def _kept(before: LabelArray, after: LabelArray) -> tuple[int, int]:
    """Return how many nuclei are the same, of how many of the two results that has more."""
    from napari_nucleus_kd.metrics import match, overlap

    pairs = overlap(before, after)
    return match(pairs, _SAME_IOU).tp, max(len(np.unique(before)), len(np.unique(after))) - 1


def cost(row: Row, recipes: dict[str, Recipe], model: str, rounds: int) -> list[Finding]:
    """Time each mapping with 8 channels, beside the same image of which the nuclear channel is known."""
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.train.adapting import drawn_panel
    from napari_nucleus_kd.types import Modality

    image, nuclear = drawn_panel(row, 0, (_COST_CHANNELS, _COST_CHANNELS))
    times = [-(-_COST_PX // edge) for edge in image.shape_yx]
    pixels = np.tile(np.asarray(image.pixels), (1, *times))[:, :_COST_PX, :_COST_PX]
    image = replace(image, levels=(np.ascontiguousarray(pixels),))
    known = Recipe(model=model, modality=Modality.FLUORESCENCE, channels=(nuclear,))
    every = {KNOWN: known, **recipes}
    for recipe in every.values():
        _labels(image, recipe)
    turns = {name: common.timed(partial(_labels, image, recipe)) for name, recipe in every.items()}
    seconds = common.interleave(turns, rounds)
    first = next(iter(recipes))
    return [
        Finding(
            f"cost_{name}",
            f"{_COST_CHANNELS} channels of {_COST_PX} px, time to {KNOWN}: {name}",
            common.ratio(seconds[name], seconds[KNOWN]),
            target=Target("<=", 1.3) if name == first else None,
            seen=f"{common.in_words(seconds[name])} to {common.in_words(seconds[KNOWN])}",
        )
        for name in recipes
    ]


def memory(row: Row, recipe: Recipe, threads: int) -> Finding:
    """Measure the memory of a process that segments a large image with many channels on disk."""
    from napari_nucleus_kd.io.images import write_image
    from napari_nucleus_kd.train.adapting import drawn_panel

    panel, _ = drawn_panel(row, 0, (_LARGE_CHANNELS, _LARGE_CHANNELS))
    times = [-(-_LARGE_PX // edge) for edge in panel.shape_yx]
    part = np.asarray(panel.pixels)
    part = part if part.dtype.kind == "u" else (part.clip(0) / part.max() * 65535).astype(np.uint16)
    what = f"memory, {_LARGE_CHANNELS} channels of {_LARGE_PX} px"
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "panel.ome.tif"
        large = np.tile(part, (1, *times))[:, :_LARGE_PX, :_LARGE_PX]
        names = [channel.name for channel in panel.channels]
        write_image(place, large, rgb=False, pixel_size_um=None, channels=names)
        worker, labels = Path(__file__).with_name("_segment_file.py"), Path(scratch) / "labels.ome.zarr"
        asked = [str(place), str(labels), recipe.model_dump_json(exclude_unset=True), str(threads)]
        done = subprocess.run([sys.executable, worker, *asked], capture_output=True, text=True, check=False)
    if done.returncode:
        return common.skipped("memory", what, done.stderr.strip().splitlines()[-1])
    found = json.loads(done.stdout.splitlines()[-1])
    return Finding("memory", what, found["peak_bytes"], "GB", _MEMORY, f"{found['nuclei']} nuclei")


if __name__ == "__main__":
    common.run(main)
