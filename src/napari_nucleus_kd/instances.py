"""Between instance labels and the maps a network predicts.

Every nucleus is described by six maps: where it is (foreground), how deep inside it a pixel lies
(distance), where its centre is (offset_y, offset_x), where it touches another (border) and how large
it is (log_diameter). Decoding reads the first four; the border is learned beside them.
docs/encoding.md records what was tried and why these won.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cc3d
import edt
import fastremap
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from napari_nucleus_kd.errors import LabelsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_nucleus_kd.config import DecodeSettings
    from napari_nucleus_kd.types import FloatArray, LabelArray

MAP_NAMES = ("foreground", "distance", "offset_y", "offset_x", "border", "log_diameter")
CANONICAL_DIAMETER_PX = 20.0

# Chosen on the tuning images; see docs/encoding.md.
_STEPS = 3  # how often a vote is followed
_CELL_PX = 2  # votes are counted in cells of 2 x 2 pixels
_SPREAD = 1.3  # smoothing of the votes, in cells, where `split` is 0.5
_FEWEST_VOTES = 1.5  # at a peak, a cell; an object of about 40 pixels just reaches this


def check_labels(labels: npt.NDArray[np.integer]) -> None:
    """Raise LabelsError unless labels is a 2-D integer array without negative values."""
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise LabelsError(
            f"labels must be a 2-D integer array, not {labels.ndim}-D {labels.dtype}; "
            "choose one plane and convert it with labels.astype('int32')"
        )
    if labels.size and labels.min() < 0:
        raise LabelsError("labels must not be negative: 0 is background, nuclei are 1..n")


def encode(labels: npt.NDArray[np.integer]) -> FloatArray:
    """Turn instance labels into the maps a network learns.

    Parameters
    ----------
    labels : (Y, X) int array; 0 is background. Not changed.

    Returns
    -------
    (6, Y, X) float32, in the order of MAP_NAMES: nucleus (0 or 1); distance to the nucleus' edge
    divided by the nucleus' largest (0 to 1); offset to its centroid along y and x, in units of
    CANONICAL_DIAMETER_PX; touching edge (1 within two pixels of another nucleus); natural log of its
    diameter over CANONICAL_DIAMETER_PX. All are 0 in the background.

    Raises
    ------
    LabelsError : labels is not a 2-D integer array.
    """
    check_labels(labels)
    maps = np.zeros((len(MAP_NAMES), *labels.shape), np.float32)
    inside = labels > 0
    if not inside.any():
        return maps
    dense, _ = fastremap.renumber(labels)  # 1..n
    flat = dense[inside].astype(np.intp) - 1
    area = np.bincount(flat).astype(np.float32)
    y, x = (c.astype(np.float32) for c in np.nonzero(inside))
    depth = edt.edt(dense, black_border=False)[inside]
    deepest = np.zeros(len(area), np.float32)
    np.maximum.at(deepest, flat, depth)
    maps[0][inside] = 1
    maps[1][inside] = depth / np.maximum(deepest[flat], 1e-6)
    maps[2][inside] = ((np.bincount(flat, y) / area)[flat] - y) / CANONICAL_DIAMETER_PX
    maps[3][inside] = ((np.bincount(flat, x) / area)[flat] - x) / CANONICAL_DIAMETER_PX
    maps[4] = _touching(labels)
    maps[5][inside] = np.log(2 * np.sqrt(area / np.pi) / CANONICAL_DIAMETER_PX)[flat]
    return maps


def _touching(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Nucleus pixels with another nucleus among their 5 x 5 neighbours."""
    far = np.iinfo(labels.dtype).max
    highest = ndimage.maximum_filter(labels, 5)
    lowest = ndimage.minimum_filter(np.where(labels == 0, far, labels), 5)
    touching: npt.NDArray[np.bool_] = (labels > 0) & (highest != lowest)
    return touching


def decode(
    maps: Mapping[str, FloatArray], settings: DecodeSettings, *, magnification: float = 1.0
) -> LabelArray:
    """Turn maps into instance labels: every nucleus pixel votes for a centre, and votes that meet are one.

    By components, a connected piece of the foreground is one instead, as in stain-agnostic segmentation
    (section 2.7): touching nuclei are not taken apart.

    Parameters
    ----------
    maps : "foreground", "distance", "offset_y" and "offset_x", each (H, W) float32, as `encode`
        describes them.
    settings : thresholds; `min_area_px` is in image pixels.
    magnification : edge of an image pixel in pixels of the maps.

    Returns
    -------
    (H, W) int32; 0 is background, nuclei are 1..n, each one connected piece.
    """
    shape = maps["foreground"].shape
    labels = np.zeros(shape, np.int32)
    inside = np.flatnonzero(maps["foreground"] > settings.foreground)
    if settings.by == "components":
        labels = pieces_of(maps["foreground"] > settings.foreground)
    elif inside.size:
        y, x = _follow(maps, inside)
        cell = (y / _CELL_PX).astype(np.intp), (x / _CELL_PX).astype(np.intp)
        spread = _SPREAD * 4 ** (0.5 - settings.split)
        labels.flat[inside] = _basins(cell, maps["distance"].ravel()[inside], shape, spread)[cell]
    return _tidy(labels, round(settings.min_area_px * magnification**2), fill=settings.fill_holes)


def _follow(maps: Mapping[str, FloatArray], inside: npt.NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """Walk from each pixel along its offset to where that says the centre is, and on from there.

    Later steps start near the centre, where offsets are small and sure; so votes gather.
    """
    height, width = maps["foreground"].shape
    offset_y, offset_x = (maps[name].ravel() for name in ("offset_y", "offset_x"))
    y, x = (c.astype(np.float32) for c in np.divmod(inside, width))
    at = inside
    for _ in range(_STEPS):
        y += offset_y[at] * np.float32(CANONICAL_DIAMETER_PX)
        x += offset_x[at] * np.float32(CANONICAL_DIAMETER_PX)
        np.clip(y, 0, height - 1, out=y)
        np.clip(x, 0, width - 1, out=x)
        at = (y + 0.5).astype(np.intp) * width + (x + 0.5).astype(np.intp)
    return y, x


def _basins(
    cell: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
    weight: FloatArray,
    shape: tuple[int, ...],
    spread: float,
) -> LabelArray:
    """Count the votes in cells of _CELL_PX pixels and label the cells by the peak they lead up to."""
    rows, cols = (-(-n // _CELL_PX) for n in shape)
    votes = np.bincount(cell[0] * cols + cell[1], weight, rows * cols).reshape(rows, cols).astype(np.float32)
    votes = ndimage.gaussian_filter(votes, spread, truncate=2.5)
    peaks = (votes == ndimage.maximum_filter(votes, 3)) & (votes > _FEWEST_VOTES)
    return np.asarray(watershed(-votes, pieces_of(peaks), mask=votes > 0), np.int32)


def pieces_of(mask: npt.NDArray[np.bool_], connectivity: Literal[4, 8] = 8) -> LabelArray:
    """Return the number of the connected piece that each pixel of a (Y, X) mask is in, from 1 on; else 0."""
    # As uint8: of a bool array with an odd width, cc3d 4.1.1 joins the two borders (8 neighbours, 2-D).
    pieces = cc3d.connected_components(np.ascontiguousarray(mask).view(np.uint8), connectivity=connectivity)
    return np.asarray(pieces, np.int32)


def largest_piece(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest connected piece of a (Y, X) mask (8 neighbours); of an empty one, nothing."""
    pieces = pieces_of(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest: npt.NDArray[np.bool_] = mask & (pieces == sizes.argmax())
    return largest


def _tidy(labels: LabelArray, min_area: int, *, fill: bool) -> LabelArray:
    """Keep the largest piece of each nucleus, drop small ones, number them 1..n and fill their holes."""
    pieces = cc3d.connected_components(labels, connectivity=4).ravel()
    inside = np.flatnonzero(pieces)
    piece = pieces[inside]
    area = np.bincount(piece, minlength=1)
    owner = np.zeros(len(area), labels.dtype)
    owner[piece] = labels.ravel()[inside]
    largest = np.zeros(int(owner.max()) + 1, np.int64)
    by_area = np.argsort(area, kind="stable")
    largest[owner[by_area]] = by_area  # the last, that is the largest, piece wins
    keep = (largest[owner] == np.arange(len(area))) & (area >= min_area) & (owner > 0)
    number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    kept = np.zeros(labels.shape, np.int32)
    kept.flat[inside] = number[piece]
    if fill:
        close_holes(kept)
    return kept


def close_holes(labels: LabelArray) -> None:
    """Give background enclosed by a single nucleus to it, in place."""
    gaps = cc3d.connected_components(labels == 0, connectivity=4)
    enclosed = np.ones(int(gaps.max()) + 1, bool)
    enclosed[0] = False
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        enclosed[edge] = False
    holes = np.flatnonzero(enclosed[gaps])
    gap = gaps.flat[holes]
    low, high = np.full(len(enclosed), np.iinfo(np.int32).max), np.zeros(len(enclosed), np.int64)
    for step in (-labels.shape[1], labels.shape[1], -1, 1):  # to the four neighbours; no hole is at an edge
        beside = labels.flat[holes + step]
        rim = beside > 0
        np.minimum.at(low, gap[rim], beside[rim])
        np.maximum.at(high, gap[rim], beside[rim])
    labels.flat[holes] = np.where(low == high, high, 0)[gap]
