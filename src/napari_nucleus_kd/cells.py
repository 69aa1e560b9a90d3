"""Measures nuclei, the rings around them and whole cells in every channel, of an image of any size.

Labels and pixels are read block by block. Where a block cuts a cell, its pixels are kept until the last block
that it reaches into: medians and percentiles are exact, and memory goes with the number of nuclei only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np

from napari_nucleus_kd.channels import distinct_names
from napari_nucleus_kd.compartments import CELL, NUCLEUS, RING, Compartments
from napari_nucleus_kd.errors import LabelsError, SettingsError
from napari_nucleus_kd.measure import add_moments, add_up, no_moments, shape_columns
from napari_nucleus_kd.types import Progress, Region, finish

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy.typing as npt

    from napari_nucleus_kd.measure import Columns
    from napari_nucleus_kd.types import Array

    Ints = npt.NDArray[np.int64]

_BLOCK_PX = 1024  # edge of what is measured at once
_AT_ONCE_BYTES = 1 << 26  # of pixels that are read at once


def measure_cells(labels: Array, pixels: Array | None = None, **settings: Any) -> Columns:
    """Measure nuclei, and with a ring whole cells, in every channel; see measure_cells_steps.

    >>> labels = np.zeros((5, 9), np.int32)
    >>> labels[2, 2], labels[2, 6] = 1, 2
    >>> pixels = np.arange(45.0).reshape(1, 5, 9)
    >>> cells = measure_cells(labels, pixels, channel_names=["CD3"], ring_px=1)
    >>> cells["mean CD3"].tolist(), cells["ring_area_px2"].tolist(), cells["ring median CD3"].tolist()
    ([20.0, 24.0], [4.0, 4.0], [20.0, 24.0])
    """
    return finish(measure_cells_steps(labels, pixels, **settings))


def measure_cells_steps(
    labels: Array,
    pixels: Array | None = None,
    *,
    channel_names: Sequence[str] | None = None,
    pixel_size_um: float | None = None,
    ring_um: float | None = None,
    ring_px: float | None = None,
    percentile: float = 95.0,
) -> Generator[Progress, None, Columns]:
    """Measure nuclei, and with a ring whole cells, in every channel.

    A ring holds the pixels that are no nucleus and whose nearest nucleus is at most so far away, from pixel
    centre to pixel centre; so rings do not overlap. A cell is a nucleus with its ring.

    Parameters
    ----------
    labels : (Y, X) integers, anything that gives numpy arrays when sliced; 0 is background; labels may have
        gaps. Not changed.
    pixels : (C, Y, X), numpy or lazy; None measures areas and shapes only.
    channel_names : one per channel; default "channel 1", "channel 2", ...; see channels.distinct_names.
    pixel_size_um : edge of one pixel. With it lengths are in micrometres, without in pixels; the names of
        the columns say which.
    ring_um, ring_px : width of the ring, in micrometres or pixels, at least one pixel; 0 or None: no ring.
    percentile : from 0 to 100, besides the median.

    Yields
    ------
    Progress after each block.

    Returns
    -------
    dict of arrays with one entry per nucleus, in label order: label, and size, shape and place as in
    measure.features; with a ring ring_area_um2 and cell_area_um2 (or px2); then "mean CHANNEL", "median
    CHANNEL", "p95 CHANNEL" and "integrated CHANNEL" (the sum over the pixels), of the nucleus, and with
    "ring " or "cell " before it of these. Percentiles lie between two values where numpy.percentile has them.
    Pixels that are no finite number are left out; what has no other pixel gets NaN.

    Raises
    ------
    LabelsError if labels is not a 2-D integer array without negative values.
    SettingsError if pixels, names and labels do not fit together, a ring in um has no pixel size, or a
    number is out of its range.
    """
    _check(labels, pixels, channel_names, percentile)
    ring = _ring_px(ring_um, ring_px, pixel_size_um)
    names = distinct_names(channel_names or [""] * (0 if pixels is None else pixels.shape[0]))
    blocks = _blocks(labels.shape, math.ceil(ring))
    found, last = yield from _numbers(labels, blocks)
    work = _Work(labels, pixels, ring, percentile, found, last)
    for done, block in enumerate(blocks, 1):
        work.measure(done - 1, block)
        yield Progress(done, len(blocks), f"measuring {len(found):,} nuclei")
    return _columns(work, names, pixel_size_um)


def statistic_names(percentile: float) -> tuple[str, ...]:
    """Return what is measured of each channel, as columns name it.

    >>> statistic_names(99.5)
    ('mean', 'median', 'p99.5', 'integrated')
    """
    return "mean", "median", f"p{percentile:g}", "integrated"


def _check(
    labels: Array, pixels: Array | None, channel_names: Sequence[str] | None, percentile: float
) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise LabelsError(f"labels must be a 2-D integer array, not {labels.ndim}-D {labels.dtype}")
    if pixels is not None and tuple(pixels.shape[1:]) != tuple(labels.shape):
        raise SettingsError(
            f"the labels have {labels.shape[0]} x {labels.shape[1]} pixels and the image has "
            f"{' x '.join(map(str, pixels.shape[1:]))}; they must lie pixel on pixel"
        )
    if pixels is not None and pixels.dtype.kind not in "buif":
        raise SettingsError(f"pixels must be real numbers, not {pixels.dtype}")
    count = 0 if pixels is None else pixels.shape[0]
    if channel_names is not None and len(channel_names) != count:
        raise SettingsError(f"{len(channel_names)} channel names for {count} channels")
    if not 0 <= percentile <= 100:
        raise SettingsError(f"percentile {percentile:g} must lie between 0 and 100")


def _ring_px(ring_um: float | None, ring_px: float | None, pixel_size_um: float | None) -> float:
    if ring_um and ring_px:
        raise SettingsError("ring_um and ring_px say the same; give one of them")
    if ring_um and pixel_size_um is None:
        raise SettingsError(
            f"a ring of {ring_um:g} um needs a pixel size, and the image has none; "
            "give the pixel size, or the ring in pixels"
        )
    width = ring_um / pixel_size_um if ring_um and pixel_size_um else float(ring_px or 0)
    if width and not 1 <= width < math.inf:
        raise SettingsError(f"the ring is {width:.3g} pixels wide; it needs at least one pixel")
    return width


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of the image, and the larger one that tells which nucleus is nearest in it."""

    inner: Region
    outer: Region

    def crop(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Cut the inner part out of a picture of the outer one."""
        return picture[self.inner.within(self.outer).slices]


def _blocks(shape: tuple[int, ...], halo_px: int) -> list[_Block]:
    height, width = shape
    inner = [
        Region(y, x, min(y + _BLOCK_PX, height), min(x + _BLOCK_PX, width))
        for y in range(0, height, _BLOCK_PX)
        for x in range(0, width, _BLOCK_PX)
    ]
    return [_Block(region, region.grown(halo_px, shape)) for region in inner]


def _numbers(labels: Array, blocks: Sequence[_Block]) -> Generator[Progress, None, tuple[Ints, Ints]]:
    """Return the labels that occur, rising, and of each the last block that its cell may reach into."""
    seen = []
    for done, block in enumerate(blocks, 1):
        found = fastremap.unique(np.asarray(labels[block.outer.slices]))
        if found.size and found[0] < 0:
            raise LabelsError("labels must not be negative: 0 is background, nuclei are 1..n")
        seen.append(found[found > 0].astype(np.int64))
        yield Progress(0, 0, f"looking which nuclei there are, part {done} of {len(blocks)}")
    numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *seen]))
    last = np.zeros(len(numbers), np.int64)
    for index, found in enumerate(seen):
        last[np.searchsorted(numbers, found)] = index
    return numbers, last


class _Work:
    """Measures block by block.

    Attributes
    ----------
    sums : of the pixels of nuclei, for their shapes.
    ring_pixels : (N,) number of pixels in each ring.
    found : compartment to (4, C, N) mean, median, percentile and sum.
    """

    def __init__(
        self, labels: Array, pixels: Array | None, ring: float, percentile: float, numbers: Ints, last: Ints
    ) -> None:
        self.labels, self.pixels, self.ring, self.percentile = labels, pixels, ring, percentile
        self.numbers, self._last = numbers, last
        self.sums, self.ring_pixels = no_moments(len(numbers)), np.zeros(len(numbers))
        channels = 0 if pixels is None else pixels.shape[0]
        parts = (NUCLEUS, RING, CELL) if ring else (NUCLEUS,)
        self.found = {part: np.full((4, channels, len(numbers)), np.nan) for part in parts}
        self._held = np.zeros(0, np.int64), np.zeros(0, bool)  # cell, and whether in the ring, of pixels
        self._held_values = np.zeros((channels, 0), None if pixels is None else pixels.dtype)

    def measure(self, index: int, block: _Block) -> None:
        """Measure the cells that end in a block, and keep the pixels of those that go on."""
        nuclei, cells = self._cut(block)
        rows, cols = np.nonzero(cells)
        cell, in_ring = cells[rows, cols] - 1, nuclei[rows, cols] == 0
        if cell.size:
            inside = ~in_ring
            if inside.any():
                y, x = rows[inside] + block.inner.y0, cols[inside] + block.inner.x0
                add_moments(self.sums, cell[inside] + 1, y, x)
            add_up(self.ring_pixels, cell + 1, in_ring)
        if self.pixels is None or not self.pixels.shape[0] or not cell.size + self._held[0].size:
            return
        place = rows * cells.shape[1] + cols
        cell, in_ring = (np.concatenate(pair) for pair in zip(self._held, (cell, in_ring), strict=True))
        is_whole = self._last[cell] <= index
        whole, going_on = np.flatnonzero(is_whole), np.flatnonzero(~is_whole)
        parts = Compartments(cell[whole], in_ring[whole], has_rings=self.ring > 0)
        ordered = whole[parts.order]
        held = np.zeros((len(self._held_values), len(going_on)), self._held_values.dtype)
        for channel, picture in self._read(block):
            values = np.concatenate([self._held_values[channel], picture.ravel()[place]])
            held[channel] = values[going_on]
            for part, statistics in parts.statistics(values[ordered], self.percentile):
                self.found[part][:, channel, parts.cells] = statistics
        self._held, self._held_values = (cell[going_on], in_ring[going_on]), held

    def _cut(self, block: _Block) -> tuple[Ints, Ints]:
        """Return nuclei and cells of a block, (Y, X), numbered from 1 without gaps."""
        labels = np.asarray(self.labels[block.outer.slices])
        dense = np.zeros(labels.shape, np.int64)
        there = labels > 0
        if there.any():
            dense[there] = np.searchsorted(self.numbers, labels[there].astype(np.int64)) + 1
        nuclei = block.crop(dense)
        if not self.ring or not there.any():
            return nuclei, nuclei
        from skimage.segmentation import expand_labels

        return nuclei, block.crop(expand_labels(dense, distance=self.ring))

    def _read(self, block: _Block) -> Generator[tuple[int, npt.NDArray[Any]], None, None]:
        """Yield each channel of a block with its number, some of them read at once."""
        assert self.pixels is not None
        y, x = block.inner.slices
        plane_bytes = math.prod(block.inner.shape_yx) * self.pixels.dtype.itemsize
        step = max(1, _AT_ONCE_BYTES // plane_bytes)
        for start in range(0, self.pixels.shape[0], step):
            pictures = np.asarray(self.pixels[start : start + step, y, x])
            yield from enumerate(pictures, start)


def _columns(work: _Work, names: Sequence[str], pixel_size_um: float | None) -> Columns:
    unit, size = ("px", 1.0) if pixel_size_um is None else ("um", pixel_size_um)
    columns: Columns = {"label": work.numbers, **shape_columns(work.sums, pixel_size_um)}
    if work.ring:
        columns[f"ring_area_{unit}2"] = work.ring_pixels * size**2
        columns[f"cell_area_{unit}2"] = (work.sums["n"] + work.ring_pixels) * size**2
    for part, found in work.found.items():
        for statistic, values in zip(statistic_names(work.percentile), found, strict=True):
            columns |= {f"{part}{statistic} {name}": of for name, of in zip(names, values, strict=True)}
    return columns
