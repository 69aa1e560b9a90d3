"""A tool that finds bright spots, served as Cellpose is; it does wrong what its weights say."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from napari_nucleus_kd.baselines import serve


class FakeTool:
    def __init__(self, weights, device):
        self.weights = Path(weights)
        if not self.weights.exists():
            raise serve.Unusable(f"no file {weights}")
        self.fault = self.weights.read_text(encoding="utf-8")
        print("a tool that prints while it loads")
        if self.fault == "no network":
            self.weights.unlink()
            raise OSError("Name or service not known")
        if self.fault == "of another kind":
            raise KeyError("output.2.weight")
        if self.fault == "too large to open":
            raise MemoryError
        if self.fault == "silent end":
            os._exit(3)

    def about(self):
        told = {
            "version": "3.1",
            "weights": str(self.weights),
            "device": "cpu",
            "threads": 2,
            "parameters": 7,
            "diameter_px": 18.0,
            "default_diameter_px": 36.0 if self.fault == "learnt from large ones" else 18.0,
            "grid": 1,
            "foreground": 0.5,
            "colour": self.fault == "sees colours",
            "maps": ["foreground", "flow_y", "flow_x"],
        }
        return {"version": "3.1"} if self.fault == "says too little" else told

    def maps(self, picture, size):
        if self.fault == "crash":
            print("about to crash", file=sys.stderr, flush=True)
            os.abort()
        if self.fault == "hang":
            time.sleep(600)
        if self.fault == "no memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.fault == "no main memory":
            raise MemoryError
        if self.fault == "fault":
            raise KeyError("flows")
        if self.fault == "odd arrays":
            os.write(4, b'{"arrays": [5]}\n')
            time.sleep(5)
        if self.fault == "endless array":
            os.write(4, b'{"arrays": [["<f4", [3000000, 3000000]]]}\n')
            time.sleep(5)
        if self.fault == "garbage":
            os.write(4, b"not JSON\n")
            time.sleep(5)
        rows, columns = (
            ((np.arange(n) + 0.5) * old / n).astype(int)
            for n, old in zip(size, picture.shape[1:], strict=True)
        )
        spots = picture.mean(0)[np.ix_(rows, columns)]
        found = np.stack([1 / (1 + np.exp(-20 * (spots - 0.3))), spots, spots]).astype(np.float32)
        return found[:, 1:] if self.fault == "too few rows" else found

    def decode(self, maps, shape, scale, foreground, min_area):
        from scipy.ndimage import label

        rows, columns = (((np.arange(n) + 0.5) * scale).astype(int) for n in shape)
        labels, _ = label(maps[0][np.ix_(rows, columns)] > foreground)
        labels = np.where(np.bincount(labels.ravel())[labels] >= min_area, labels, 0).astype(np.int32)
        return -labels if self.fault == "labels below 0" else labels


class FakeGrid(FakeTool):
    """Without a size of its own, and with maps of every second pixel, as StarDist."""

    def about(self):
        return super().about() | {"diameter_px": None, "default_diameter_px": None, "grid": 2}


if __name__ == "__main__":
    serve.TOOLS.update(cellpose=FakeTool, stardist=FakeGrid)
    serve.main()
