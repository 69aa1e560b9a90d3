"""Makes images of any size on disk from a sample image: mirrored, repeated, with noise of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_TILE_PX = 512
_COARSEST_PX = 512
# The mosaic's joints lie where no tile of a run ends, or seams would cut no nuclei but theirs.
_SHIFT_YX = (171, 203)
_NOISE = 0.01  # of the sample's brightest pixel, standard deviation


class Mosaic:
    """A large picture that exists only where it is looked at.

    Attributes
    ----------
    shape : height and width in pixels.
    dtype : of the sample.
    pixel_size_um : of the sample.
    """

    def __init__(self, size_px: int, sample: str = "fluorescence"):
        """Take the first channel of a sample."""
        from napari_nucleus_kd.io.samples import sample as open_sample
        from napari_nucleus_kd.io.samples import sample_labels

        image, labels = open_sample(sample), sample_labels(sample)
        self._period = _mirrored(np.asarray(image.pixels[0]))
        self._labels = None if labels is None else _mirrored(labels)
        self.shape = (size_px, size_px)
        self.dtype = self._period.dtype
        self.pixel_size_um = image.pixel_size_um

    def tile(self, y: int, x: int) -> np.ndarray:
        """Return the tile that begins at a pixel, (h, w), cut at the picture's end; always the same."""
        height, width = (min(_TILE_PX, n - start) for n, start in zip(self.shape, (y, x), strict=True))
        noise = np.random.default_rng((y, x)).normal(0, _NOISE * self._period.max(), (height, width))
        limits = np.iinfo(self.dtype)
        noisy = self._period[self._at(y, x, height, width)] + noise
        return np.clip(np.rint(noisy), limits.min, limits.max).astype(self.dtype)

    def labels(self) -> np.ndarray | None:
        """Return the exact labels of all of it, (Y, X) int32, each copy a number of its own; None without."""
        if self._labels is None:
            return None
        from cc3d import connected_components

        copies = connected_components(self._labels[self._at(0, 0, *self.shape)], connectivity=8)
        return np.asarray(copies).astype(np.int32)

    def _at(self, y: int, x: int, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Return which pixels of the period lie in a part of the picture."""
        rows = (np.arange(y, y + height) + _SHIFT_YX[0]) % self._period.shape[0]
        columns = (np.arange(x, x + width) + _SHIFT_YX[1]) % self._period.shape[1]
        return np.ix_(rows, columns)

    def corners(self) -> Iterator[tuple[int, int]]:
        """Yield where the tiles begin, row by row."""
        for y in range(0, self.shape[0], _TILE_PX):
            for x in range(0, self.shape[1], _TILE_PX):
                yield y, x

    def whole(self) -> np.ndarray:
        """Return all of it, (Y, X)."""
        picture = np.zeros(self.shape, self.dtype)
        for y, x in self.corners():
            tile = self.tile(y, x)
            picture[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        return picture


def _mirrored(plane: np.ndarray) -> np.ndarray:
    """Return a picture that repeats without an edge: it goes on into its mirror image."""
    return np.pad(plane, [(0, n) for n in plane.shape], mode="symmetric")


def write_tiff(mosaic: Mosaic, path: Path) -> None:
    """Write a tiled OME-TIFF without a pyramid, as many microscopes do."""
    import tifffile

    um = {f"PhysicalSize{axis}": mosaic.pixel_size_um for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    tifffile.imwrite(
        path,
        (mosaic.tile(y, x) for y, x in mosaic.corners()),
        shape=mosaic.shape,
        dtype=mosaic.dtype,
        tile=(_TILE_PX, _TILE_PX),
        photometric="minisblack",
        compression="zlib",
        ome=True,
        metadata={"axes": "YX", "Channel": {"Name": ["DAPI"]}, **um, **units},
    )


def write_zarr(mosaic: Mosaic, path: Path) -> None:
    """Write an OME-Zarr 0.5 with a pyramid."""
    import zarr

    group = zarr.open_group(str(path), mode="w-", zarr_format=3)
    level = _new_level(group, 0, mosaic.shape, mosaic.dtype)
    for y, x in mosaic.corners():
        tile = mosaic.tile(y, x)
        level[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    count = 1
    while max(group[f"{count - 1}"].shape) > _COARSEST_PX:
        _halve(group, count)
        count += 1
    datasets = [
        {
            "path": f"{i}",
            "coordinateTransformations": [
                {"type": "scale", "scale": [2**i * (mosaic.pixel_size_um or 1)] * 2}
            ],
        }
        for i in range(count)
    ]
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "mosaic", "axes": axes, "datasets": datasets}],
    }


WRITERS: dict[str, tuple[str, Callable[[Mosaic, Path], None]]] = {
    "tiff": (".ome.tif", write_tiff),
    "zarr": (".ome.zarr", write_zarr),
}


def _halve(group: object, number: int) -> None:
    fine = group[f"{number - 1}"]  # type: ignore[index]
    height, width = (n // 2 for n in fine.shape)
    coarse = _new_level(group, number, (height, width), fine.dtype)
    step = 2 * _TILE_PX
    for y in range(0, 2 * height, step):
        for x in range(0, 2 * width, step):
            block = fine[y : min(y + step, 2 * height), x : min(x + step, 2 * width)]
            small = (
                block.reshape(block.shape[0] // 2, 2, block.shape[1] // 2, 2).mean((1, 3)).astype(fine.dtype)
            )
            coarse[y // 2 : y // 2 + small.shape[0], x // 2 : x // 2 + small.shape[1]] = small


def _new_level(group: object, number: int, shape: tuple[int, int], dtype: np.dtype) -> object:
    chunks = tuple(min(_TILE_PX, n) for n in shape)
    return group.create_array(
        f"{number}", shape=shape, dtype=dtype, chunks=chunks, dimension_names=["y", "x"]
    )  # type: ignore[attr-defined]
