"""Time, memory and result over image size, from a file on disk to labels on disk.

    python benchmarks/scaling.py                   # 512 to 4096 pixels
    python benchmarks/scaling.py --full            # up to 16384
    python benchmarks/scaling.py --sizes 2048 8192 --formats tiff

Each run is a process of its own. A ratio is one median of this run over another.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import _common as common
from _common import BenchmarkError, Finding, Target
from _mosaic import WRITERS, Mosaic

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import numpy as np

REFERENCE_PX = 2048
_SIZES = (512, 1024, 2048, 4096)
_FULL = (*_SIZES, 8192, 16384)
_TILES = (512, 1024)  # compared with each other
_SAME_IOU = 0.99
_SLOWER = Target("<=", 1.2)
_MEMORY = Target("<", 2e9)
_SAME = Target(">=", 0.995)
_WORKER = Path(__file__).with_name("_segment_file.py")


@dataclass
class Runs:
    """All runs of one size and format: an entry a round, as _segment_file.py prints it."""

    size: int
    kind: str
    found: list[dict[str, Any]] = field(default_factory=list)

    @property
    def per_pixel(self) -> list[float]:
        """Seconds a pixel, every round."""
        return [run["seconds"] / self.size**2 for run in self.found]


def parse() -> argparse.Namespace:
    parser = common.options("Time a pixel and memory over image size, on disk.", rounds=3)
    common.add_model(parser)
    parser.add_argument(
        "--sizes", nargs="+", type=common.positive, default=_SIZES, metavar="PX", help="edges of the images"
    )
    parser.add_argument("--full", action="store_true", help="sizes up to 16384")
    parser.add_argument(
        "--formats", nargs="+", choices=list(WRITERS), default=list(WRITERS), help="of the images"
    )
    parser.add_argument(
        "--agreement", type=common.positive, default=4096, metavar="PX", help="size for tile sizes"
    )
    parser.add_argument(
        "--reference", type=common.positive, default=REFERENCE_PX, help="size others are compared to"
    )
    parser.add_argument("--tile", type=common.positive, help="edge of a tile (default: as a recipe has it)")
    parser.add_argument("--device", default="auto", help="engine")
    parser.add_argument(
        "--folder", type=Path, help="where to put images and labels (default: a temporary one)"
    )
    arguments = parser.parse_args()
    sizes = {*(_FULL if arguments.full else arguments.sizes), arguments.reference}
    arguments.sizes = sorted(sizes)
    return arguments


def main() -> int:
    arguments = parse()
    import torch

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.engine import check_device
    from napari_nucleus_kd.package import load_model

    model = load_model(arguments.model)
    check_device(arguments.device)
    threads = arguments.threads or torch.get_num_threads()
    tile = arguments.tile or Recipe().tile_px
    with tempfile.TemporaryDirectory(prefix="nucleus-kd-scaling-", dir=arguments.folder) as name:
        folder = Path(name)
        recipe = {"model": str(model.folder.resolve()), "device": arguments.device}
        lab = _Lab(folder, recipe, threads)
        runs = measure_sizes(lab, arguments, tile)
        findings = judge_sizes(runs, arguments.reference)
        findings.append(measure_agreement(lab, arguments.agreement))
    facts = common.machine(threads) | {
        "model": f"{model.spec.name} {model.spec.version} {model.hash[:12]}",
        "engine": runs[0].found[0]["engine"],
        "tile_px": tile,
        "rounds": arguments.rounds,
    }
    return common.report("scaling", findings, facts, strict=arguments.strict)


class _Lab:
    """Makes images once and segments them, each time in a new process."""

    def __init__(self, folder: Path, recipe: dict[str, Any], threads: int):
        self._folder = folder
        self._recipe = recipe
        self._threads = threads

    def image(self, size: int, kind: str) -> Path:
        """Return an image file, made if it is not there."""
        suffix, write = WRITERS[kind]
        path = self._folder / f"mosaic_{size}{suffix}"
        if not path.exists():
            common.say(f"drawing {path.name}")
            write(Mosaic(size), path)
        return path

    def segment(self, image: Path, tile: int, look: Callable[[Path], Any] | None = None) -> dict[str, Any]:
        """Segment an image and return what the process found; the labels are looked at and removed."""
        labels = image.with_name(f"labels_{tile}.ome.zarr")
        recipe = json.dumps(self._recipe | {"tile_px": tile})
        common.say(f"segmenting {image.name}, tiles of {tile} px")
        command = [sys.executable, str(_WORKER), str(image), str(labels), recipe, str(self._threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"{image.name} failed: {done.stderr.strip()[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if look is not None:
            found["look"] = look(labels)
        shutil.rmtree(labels)
        return found


def measure_sizes(lab: _Lab, arguments: argparse.Namespace, tile: int) -> list[Runs]:
    """Segment every size in every format, in rounds that go up and down in size in turn."""
    plan = [Runs(size, kind) for size in arguments.sizes for kind in arguments.formats]
    for number in range(arguments.rounds):
        for runs in plan if number % 2 == 0 else reversed(plan):
            runs.found.append(lab.segment(lab.image(runs.size, runs.kind), tile))
    return plan


def judge_sizes(plan: list[Runs], reference_px: int) -> list[Finding]:
    """Compare each size's time a pixel with the reference's; larger sizes have a target."""
    findings = []
    references = {runs.kind: runs for runs in plan if runs.size == reference_px}
    for runs in plan:
        slower = common.ratio(runs.per_pixel, references[runs.kind].per_pixel)
        seconds = [run["seconds"] for run in runs.found]
        found = runs.found[0]
        seen = (
            f"{common.in_words(seconds)}, {1e6 * median(runs.per_pixel):.3g} s a megapixel, "
            f"{found['nuclei']} nuclei of {found['diameter_px']:.3g} px"
        )
        what = f"{runs.size} px {runs.kind}: time a pixel to {reference_px} px"
        target = _SLOWER if runs.size > reference_px else None
        findings.append(Finding(f"{runs.kind}_{runs.size}_time", what, slower, target=target, seen=seen))
        peak = max(run["peak_bytes"] for run in runs.found)
        what = f"{runs.size} px {runs.kind}: peak memory"
        findings.append(Finding(f"{runs.kind}_{runs.size}_memory", what, peak, "GB", _MEMORY))
    return findings


def measure_agreement(lab: _Lab, size: int) -> Finding:
    """Say which share of nuclei is the same whatever the tile size."""
    image = lab.image(size, "tiff")
    small, large = (lab.segment(image, tile, look=load_labels)["look"] for tile in _TILES)
    share, counts = same_share(small, large)
    return Finding(
        "tile_agreement",
        f"{size} px: nuclei the same (IoU > {_SAME_IOU}) with tiles of {_TILES[0]} and {_TILES[1]} px",
        share,
        "%",
        _SAME,
        f"{counts[0]} and {counts[1]} nuclei",
    )


def load_labels(path: Path) -> np.ndarray:
    """Return the full-resolution labels of an OME-Zarr."""
    import numpy as np
    import zarr

    return np.asarray(zarr.open_array(str(path / "0"), mode="r")[:]).astype(np.int32)


def same_share(one: np.ndarray, other: np.ndarray) -> tuple[float, tuple[int, int]]:
    """Return the share of nuclei that both label images have, and how many each has.

    Of the larger number: a nucleus that only one image has counts as different.
    """
    from napari_nucleus_kd.metrics import overlap

    both = overlap(one, other)
    counts = len(both.true_area), len(both.pred_area)
    same = int((both.iou > _SAME_IOU).sum())
    return (same / max(counts) if max(counts) else 1.0), counts


if __name__ == "__main__":
    common.run(main)
