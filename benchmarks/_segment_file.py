"""Segments one file on disk, in a process of its own: _segment_file.py IMAGE LABELS RECIPE_JSON THREADS.

Prints one JSON object: seconds, peak memory of the process, nuclei, their diameter and the engine.
"""

from __future__ import annotations

import json
import sys
import time

_WARM_PX = 512  # small, or its memory would be what is measured


def main(image: str, labels: str, recipe_json: str, threads: str) -> None:
    """Warm up on a corner, then segment the file."""
    import psutil
    import torch
    import zarr

    from napari_nucleus_kd.apart import held_bytes
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.io import read
    from napari_nucleus_kd.pipeline import segment, segment_to_zarr_steps
    from napari_nucleus_kd.types import Region

    torch.set_num_threads(int(threads))
    recipe = Recipe.model_validate_json(recipe_json)
    opened = read(image)
    corner = (min(n, _WARM_PX) for n in opened.shape_yx)
    segmenter = segment(opened, recipe, region=Region(0, 0, *corner)).segmenter
    assert segmenter is not None
    began = time.perf_counter()
    for _ in segment_to_zarr_steps(read(image), labels, recipe):
        pass
    seconds = time.perf_counter() - began
    words = dict(zarr.open_group(labels, mode="r").attrs)["napari-nucleus-kd"]
    more = {
        "diameter_px": json.loads(words["recipe"])["diameter_px"],
        "engine": segmenter.description,
    }
    found = {"seconds": seconds, "peak_bytes": held_bytes(psutil.Process()), "nuclei": words["nuclei"]}
    print(json.dumps(found | more))


if __name__ == "__main__":
    main(*sys.argv[1:])
