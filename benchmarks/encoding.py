"""Ways from the same network maps to nuclei, compared: accuracy and time.

python benchmarks/encoding.py INDEX.csv [--split tune] [--model NAME|FOLDER]

The network predicts foreground, distance, touching edges and centre offsets at once, so one run of it
serves all ways. True diameters are given, so that only the decoding differs. Use the tuning images:
the choice must not see the validation images. Prints one table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cc3d
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage.segmentation import watershed

from napari_nucleus_kd import instances
from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.index import read_index, true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.metrics import median_diameter, scores
from napari_nucleus_kd.pipeline import segment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_nucleus_kd.types import FloatArray, LabelArray

    Decoder = Callable[..., LabelArray]


def _grow(landscape: FloatArray, seeds: np.ndarray, mask: np.ndarray) -> LabelArray:
    markers = cc3d.connected_components(seeds & mask, connectivity=4).astype(np.int32)
    return np.asarray(watershed(-landscape, markers, mask=mask), np.int32)


def three_classes(maps: Mapping[str, FloatArray], mask: np.ndarray) -> LabelArray:
    """Body, touching edge, background: what is left of the body after cutting the edges, grown back."""
    return _grow(maps["foreground"], maps["foreground"] - maps["border"] > 0.5, mask)


def distance(maps: Mapping[str, FloatArray], mask: np.ndarray) -> LabelArray:
    """Watershed of the distance map from where it is high."""
    depth = ndimage.gaussian_filter(maps["distance"], 1.0)
    return _grow(depth, depth > 0.5, mask)


def distance_and_edges(maps: Mapping[str, FloatArray], mask: np.ndarray) -> LabelArray:
    """Watershed of the distance, lowered along touching edges."""
    depth = ndimage.gaussian_filter(maps["distance"] * (1 - 0.5 * maps["border"]), 1.0)
    return _grow(depth, depth > 0.4, mask)


def with_watershed(way: Callable[[Mapping[str, FloatArray], np.ndarray], LabelArray]) -> Decoder:
    """Return a decoder like instances.decode that separates nuclei in another way."""

    def decode(
        maps: Mapping[str, FloatArray], settings: DecodeSettings, magnification: float = 1
    ) -> LabelArray:
        labels = way(maps, maps["foreground"] > settings.foreground)
        return instances._tidy(labels, round(settings.min_area_px * magnification**2), fill=True)

    return decode


WAYS: dict[str, Decoder] = {
    "votes for centres (shipped)": instances.decode,
    "three classes": with_watershed(three_classes),
    "distance": with_watershed(distance),
    "distance and edges": with_watershed(distance_and_edges),
}


def compare(index: Path, split: str, model: str) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return way -> source -> metric -> one value an image."""
    out: dict[str, dict[str, dict[str, list[float]]]] = {way: {} for way in WAYS}
    shipped = instances.decode
    for row in read_index(index, split):
        labels = true_labels(row)
        settings = Recipe(model=model, device="cpu", diameter_px=median_diameter(labels))
        result = segment(read(row.image), settings)
        if result.segmenter is None or result.maps is None:
            raise SystemExit(f"{row.image}: larger than one tile; compare on smaller images")
        for way, decode in WAYS.items():
            instances.decode = decode
            began = time.thread_time()
            found = result.segmenter.decode(replace(result.maps), result.recipe.decode).labels
            spent = (time.thread_time() - began) * 1e3 * 512**2 / labels.size
            instances.decode = shipped
            values = scores(labels, found)
            group = out[way].setdefault(row.source, {"pq": [], "ap50": [], "ms": []})
            group["pq"].append(values["pq"])
            group["ap50"].append(values["ap50"])
            group["ms"].append(spent)
    return out


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?", help="CSV of annotated images")
    parser.add_argument("--split", default="tune")
    parser.add_argument("--model", default="nucleus-student")
    args = parser.parse_args()
    if args.index is None:
        print("encoding: skipped, no INDEX.csv given (make one with benchmarks/make_index.py)")
        return
    found = compare(args.index, args.split, args.model)
    sources = sorted(next(iter(found.values())))
    table = Table("way", *(f"{s}\nPQ / AP@0.5" for s in sources), "ms a 512 x 512")
    for way, groups in found.items():
        cells = [f"{np.mean(groups[s]['pq']):.3f} / {np.mean(groups[s]['ap50']):.3f}" for s in sources]
        spent = np.median(np.concatenate([groups[s]["ms"] for s in sources]))
        table.add_row(way, *cells, f"{spent:.0f}")
    Console(width=150).print(table)
    means = {
        w: {s: {m: float(np.mean(v)) for m, v in g.items()} for s, g in gs.items()} for w, gs in found.items()
    }
    print(json.dumps({"benchmark": "encoding", "split": args.split, "ways": means}))


if __name__ == "__main__":
    main()
