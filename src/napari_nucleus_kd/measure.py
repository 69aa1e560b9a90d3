"""Measures every nucleus of a label image of any size; fast on a hundred thousand nuclei."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np
import numpy.typing as npt

from napari_nucleus_kd.channels import distinct_names
from napari_nucleus_kd.errors import LabelsError, SettingsError
from napari_nucleus_kd.types import Progress, finish

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_nucleus_kd.types import Array, FloatArray

_BLOCK_PX = 1024  # edge of what is measured at once: bounds memory, and lazy pixels are read in pieces

Columns = dict[str, npt.NDArray[Any]]


def features(
    labels: npt.NDArray[np.integer[Any]],
    pixels: Array | None = None,
    *,
    channel_names: Sequence[str] | None = None,
    pixel_size_um: float | None = None,
    scores: FloatArray | None = None,
) -> Columns:
    """Measure each nucleus.

    Parameters
    ----------
    labels : (Y, X) int array, 0 is background; labels may have gaps. Not changed.
    pixels : (C, Y, X), numpy or lazy; adds the mean intensity in each channel.
    channel_names : one per channel; default "channel 1", "channel 2", ...
    pixel_size_um : edge of one pixel. With it lengths are in micrometres, without in pixels; the names of
        the columns say which.
    scores : of labels 1, 2, ...; labels beyond their end get NaN.

    Returns
    -------
    dict of arrays with one entry per nucleus, in label order: label; area_um2; diameter_um of the circle
    of that area, major_axis_um and minor_axis_um of the ellipse of the same second moments (as in
    scikit-image), or the four in px2 and px; eccentricity (0 a circle, towards 1 a line); centroid_y and
    centroid_x (px, from the corner of the labels); "mean <channel>", of the pixels that are finite numbers,
    NaN without one; score. Channels that share a name get their number, from 0, behind it.

    Raises
    ------
    LabelsError if labels is not a 2-D integer array without negative values.
    SettingsError if pixels, channel_names and labels do not fit together.

    >>> f = features(np.kron([[0, 1], [0, 2]], np.ones((4, 4), int)), pixel_size_um=0.5)
    >>> f["label"].tolist(), f["area_um2"].tolist()
    ([1, 2], [4.0, 4.0])
    """
    steps = measure_steps(
        labels, pixels, channel_names=channel_names, pixel_size_um=pixel_size_um, scores=scores
    )
    return finish(steps)


def measure_steps(
    labels: npt.NDArray[np.integer[Any]],
    pixels: Array | None = None,
    *,
    channel_names: Sequence[str] | None = None,
    pixel_size_um: float | None = None,
    scores: FloatArray | None = None,
) -> Generator[Progress, None, Columns]:
    """Measure each nucleus, block by block; see `features`.

    Yields
    ------
    Progress after each block.
    """
    _check(labels, pixels, channel_names)
    dense, found = _renumber(labels)
    if scores is not None:
        known = found <= len(scores)
        own = np.full(len(found), np.nan, np.float32)
        own[known] = scores[found[known] - 1]
        scores = own
    columns = yield from features_steps(
        dense,
        len(found),
        pixels,
        channel_names=channel_names,
        pixel_size_um=pixel_size_um,
        scores=scores,
    )
    return columns | {"label": found}


def features_steps(
    labels: Array,
    count: int,
    pixels: Array | None = None,
    *,
    channel_names: Sequence[str] | None = None,
    pixel_size_um: float | None = None,
    scores: FloatArray | None = None,
) -> Generator[Progress, None, Columns]:
    """Measure nuclei 1 to `count`, block by block; labels and pixels may be on disk.

    Parameters
    ----------
    labels : (Y, X), anything that gives numpy arrays when sliced; each of 1 to `count` occurs.
    scores : (count,), or None.

    Yields
    ------
    Progress after each block.

    Returns
    -------
    See `features`.
    """
    sums = yield from _sums(labels, pixels, count)
    columns: Columns = {"label": np.arange(1, count + 1), **shape_columns(sums, pixel_size_um)}
    if pixels is not None:
        for i, name in enumerate(distinct_names(channel_names or [""] * pixels.shape[0])):
            columns[f"mean {name}"] = ratio(sums[f"c{i}"], sums.get(f"n{i}", sums["n"]))
    return columns if scores is None else columns | {"score": scores}


def ratio(total: npt.NDArray[Any], count: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return totals by counts; NaN where the count is 0."""
    found = np.full(len(count), np.nan)
    np.divide(total, count, out=found, where=count > 0)
    return found


def _check(labels: npt.NDArray[Any], pixels: Array | None, channel_names: Sequence[str] | None) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise LabelsError(f"labels must be a 2-D integer array, not {labels.ndim}-D {labels.dtype}")
    if labels.size and labels.min() < 0:
        raise LabelsError("labels must not be negative: 0 is background, nuclei are 1..n")
    if pixels is not None and tuple(pixels.shape[1:]) != labels.shape:
        raise SettingsError(f"pixels {tuple(pixels.shape)} must be (C, Y, X) with the labels' {labels.shape}")
    if pixels is not None and channel_names is not None and len(channel_names) != pixels.shape[0]:
        raise SettingsError(f"{len(channel_names)} channel names for {pixels.shape[0]} channels")


def _renumber(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Close the gaps: label found[i] becomes i + 1, so that memory goes with the number of nuclei."""
    if not labels.size:
        return labels, np.zeros(0, np.int64)
    found = fastremap.unique(labels)
    found = found[found > 0]
    if not found.size or found[-1] == found.size:
        return labels, found.astype(np.int64)
    table = {label: number for number, label in enumerate([0, *found.tolist()])}
    return fastremap.remap(labels, table), found.astype(np.int64)


def _sums(
    labels: Array, pixels: Array | None, count: int
) -> Generator[Progress, None, dict[str, npt.NDArray[np.float64]]]:
    """Return per label, 1..count: what add_moments adds up, and the sum of each channel.

    Of a channel that may have pixels that are no finite numbers also how many are: "n0", "n1", ...
    """
    channels = range(0 if pixels is None else pixels.shape[0])
    may_lack = pixels is not None and pixels.dtype.kind == "f"
    sums = no_moments(count) | {f"c{i}": np.zeros(count) for i in channels}
    sums |= {f"n{i}": np.zeros(count) for i in channels if may_lack}
    height, width = labels.shape
    corners = [(y, x) for y in range(0, height, _BLOCK_PX) for x in range(0, width, _BLOCK_PX)]
    for done, (top, left) in enumerate(corners, 1):
        here = slice(top, top + _BLOCK_PX), slice(left, left + _BLOCK_PX)
        block = np.asarray(labels[here])
        rows, cols = np.nonzero(block)
        if rows.size:
            numbers = block[rows, cols]
            add_moments(sums, numbers, rows + top, cols + left)
            pictures = () if pixels is None else np.asarray(pixels[:, *here])
            for i, picture in zip(channels, pictures, strict=True):
                values = picture[rows, cols]
                if may_lack:
                    finite = np.isfinite(values)
                    add_up(sums[f"n{i}"], numbers, finite)
                    values = np.where(finite, values, 0)
                add_up(sums[f"c{i}"], numbers, values)
        yield Progress(0, 0, f"measuring the nuclei, part {done} of {len(corners)}")
    return sums


def no_moments(count: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return the sums that add_moments adds to, of nuclei 1..count: number of pixels, y, x, y2, x2, xy."""
    return {key: np.zeros(count) for key in ("n", "y", "x", "yy", "xx", "xy")}


def add_moments(
    sums: Mapping[str, npt.NDArray[np.float64]],
    numbers: npt.NDArray[Any],
    rows: npt.NDArray[np.intp],
    cols: npt.NDArray[np.intp],
) -> None:
    """Add pixels to the sums that the shape of nuclei is worked out from.

    Parameters
    ----------
    sums : from no_moments. Changed.
    numbers : (N,) of the nucleus of each pixel, from 1.
    rows, cols : (N,) where the pixels lie.
    """
    y, x = rows.astype(np.float64), cols.astype(np.float64)
    weights = {"n": None, "y": y, "x": x, "yy": y * y, "xx": x * x, "xy": y * x}
    for key, weight in weights.items():
        add_up(sums[key], numbers, weight)


def add_up(
    total: npt.NDArray[np.float64], numbers: npt.NDArray[Any], weights: npt.NDArray[Any] | None
) -> None:
    """Add weights (N,), or 1 each, to the totals of the nuclei 1, 2, ... that they belong to."""
    low = int(numbers.min())
    part = np.bincount((numbers - low).astype(np.int64), weights)
    total[low - 1 : low - 1 + len(part)] += part


def shape_columns(sums: Mapping[str, npt.NDArray[np.float64]], pixel_size_um: float | None) -> Columns:
    """Return the columns of size, shape and place, see features, from what add_moments added up."""
    unit, size = ("px", 1.0) if pixel_size_um is None else ("um", pixel_size_um)
    n, y, x, yy, xx, xy = (sums[key] for key in ("n", "y", "x", "yy", "xx", "xy"))
    cy, cx = y / n, x / n
    vyy, vxx, vxy = yy / n - cy * cy, xx / n - cx * cx, xy / n - cy * cx
    middle, spread = (vyy + vxx) / 2, np.hypot((vyy - vxx) / 2, vxy)
    large, small = np.maximum(middle + spread, 0), np.maximum(middle - spread, 0)
    return {
        f"area_{unit}2": n * size**2,
        f"diameter_{unit}": 2 * np.sqrt(n / np.pi) * size,
        f"major_axis_{unit}": 4 * np.sqrt(large) * size,
        f"minor_axis_{unit}": 4 * np.sqrt(small) * size,
        "eccentricity": np.sqrt(1 - np.divide(small, large, out=np.ones_like(large), where=large > 0)),
        "centroid_y": cy,
        "centroid_x": cx,
    }
