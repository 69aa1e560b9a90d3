"""Corrections of labels: each looks only at the neighbourhood of what it changes, and can be undone.

A correction takes labels and where a person clicked or drew, and returns an Edit, which says what
changes; the labels stay as they are until `Edit.apply`. Positions are (y, x) in pixels, the middle of the
first pixel being (0, 0), as in napari. Other nuclei never lose or gain a pixel, and each corrected nucleus
is one connected piece with a number of its own.

Where labels from elsewhere have one number in several places, a correction is of the one piece that was
pointed at or crossed: the other pieces keep their pixels and the number. `remove` and `small` alone go by
number, wherever its pixels are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import edt
import fastremap
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.draw import line, polygon
from skimage.morphology import disk, h_maxima
from skimage.segmentation import watershed

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.instances import largest_piece, pieces_of
from napari_nucleus_kd.types import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

Labels = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
Point = tuple[float, float]

_OUTLINE_PX = 1024  # longest outline that is filled: larger ones would hold a window up
_WINDOW_PX = 64  # what is first looked at around a click; doubled until the nucleus lies inside
_CRUMB = 0.03  # of a nucleus: what a stroke cuts off below this share stays with its neighbour
_DEPTHS = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)  # of a waist, in shares of the greatest distance


@dataclass(frozen=True, slots=True)
class Edit:
    """What a correction changes.

    Attributes
    ----------
    rows, cols : (n,) int, the pixels that change.
    before, after : (n,) their numbers, in the dtype of the labels.
    number : of the nucleus to look at afterwards; 0 if there is none.
    """

    rows: npt.NDArray[np.intp]
    cols: npt.NDArray[np.intp]
    before: Labels
    after: Labels
    number: int = 0

    def apply(self, labels: Labels) -> None:
        """Change the labels in place."""
        labels[self.rows, self.cols] = self.after

    @property
    def undone(self) -> Edit:
        """The correction that takes this one back."""
        return Edit(self.rows, self.cols, self.after, self.before)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One nucleus and the window that it was found in."""

    window: Region
    around: Labels  # the numbers in the window
    mask: Mask
    number: int

    def holds(self, at: tuple[int, int]) -> bool:
        """Tell whether a pixel is one of the nucleus."""
        y, x, window = *at, self.window
        inside = window.y0 <= y < window.y1 and window.x0 <= x < window.x1
        return inside and bool(self.mask[y - window.y0, x - window.x0])


def delete(labels: Labels, at: Point) -> Edit:
    """Remove the nucleus at a point.

    Raises
    ------
    EditError : there is no nucleus at the point.
    """
    piece = _piece(labels, at)
    return _changed(piece.window, piece.around, np.where(piece.mask, 0, piece.around), 0)


def merge(labels: Labels, path: Sequence[Point]) -> Edit:
    """Make one nucleus of those that a stroke crosses; it gets the number of the first.

    Where they do not touch, the stroke is the bridge, three pixels wide.

    Raises
    ------
    EditError : the stroke crosses fewer than two nuclei, or they lie farther apart than the widest is wide.
    """
    rows, cols = _line(path)
    inside = _inside(rows, cols, labels.shape)
    under = np.zeros(len(rows), labels.dtype)
    under[inside] = _at(labels, rows[inside], cols[inside])
    crossed = np.flatnonzero(under)
    # Where it leaves the image it goes along the border, so that the bridge has no gap.
    rows, cols = rows.clip(0, labels.shape[0] - 1), cols.clip(0, labels.shape[1] - 1)
    pieces: list[_Piece] = []
    for point in zip(rows[crossed], cols[crossed], strict=True):
        if not any(piece.holds(point) for piece in pieces):
            pieces.append(_piece(labels, point))
    if len(pieces) < 2:
        raise EditError("the stroke crosses fewer than two nuclei; drag from one nucleus into another")
    gap = int(np.diff(crossed).max()) - 1
    widest = max(2 * math.sqrt(piece.mask.sum() / math.pi) for piece in pieces)
    if gap > widest:
        raise EditError(
            f"the nuclei lie {gap} px apart, farther than the widest is wide ({widest:.0f} px); draw the "
            "outline of one that holds both (Redraw)"
        )
    between = slice(crossed[0], crossed[-1] + 1)
    stroke = Region(rows[between].min(), cols[between].min(), rows[between].max(), cols[between].max())
    window = _joint([stroke, *(piece.window for piece in pieces)], labels.shape, margin=2)
    around = np.asarray(labels[window.slices])
    number, mask = pieces[0].number, np.zeros(around.shape, bool)
    for piece in pieces:
        mask[piece.window.within(window).slices] |= piece.mask
    bridge = np.zeros(around.shape, bool)
    bridge[rows[between] - window.y0, cols[between] - window.x0] = True
    if pieces_of(mask).max() > 1:
        mask |= ndimage.binary_dilation(bridge, np.ones((3, 3))) & (around == 0)
    return _changed(window, around, np.where(mask, number, around), number)


def split(labels: Labels, path: Sequence[Point], fresh: int) -> Edit:
    """Cut the nucleus that a stroke crosses most; the largest part keeps its number.

    A stroke that ends inside the nucleus is drawn on, straight, to its edge.

    Parameters
    ----------
    fresh : the first number that no nucleus has; further parts get the ones after it.

    Raises
    ------
    EditError : the stroke crosses no nucleus, or does not cut it.
    """
    rows, cols = _stroke(path, labels.shape)
    crossed = _at(labels, rows, cols)
    numbers, counts = np.unique(crossed[crossed > 0], return_counts=True)
    if not len(numbers):
        raise EditError("the stroke crosses no nucleus; draw it across the one to cut")
    i = int(np.flatnonzero(crossed == numbers[counts.argmax()])[0])
    piece = _piece(labels, (rows[i], cols[i]))
    parts = pieces_of(piece.mask & ~_cut(path, piece), connectivity=4)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    seeds = np.flatnonzero(sizes >= max(2, _CRUMB * piece.mask.sum()))
    if len(seeds) < 2:
        raise EditError("the stroke does not cut the nucleus in two; draw it from edge to edge")
    return _parted(piece, np.where(np.isin(parts, seeds), parts, 0), fresh)


def split_at_waist(labels: Labels, at: Point, fresh: int) -> Edit:
    """Cut the nucleus at a point where it is narrowest, by its distance transform.

    Raises
    ------
    EditError : there is no nucleus at the point, or it has no waist.
    """
    piece = _piece(labels, at)
    depth = edt.edt(np.pad(piece.mask, 1), black_border=True)[1:-1, 1:-1]
    depth = ndimage.gaussian_filter(depth, 0.7)
    for share in _DEPTHS:  # the deepest waist first
        peaks = h_maxima(depth, share * depth.max()).astype(bool) & piece.mask
        seeds = pieces_of(peaks)
        if seeds.max() > 1:
            return _parted(piece, watershed(-depth, seeds, mask=piece.mask), fresh)
    raise EditError("this nucleus has no waist to cut it at; draw a stroke across it")


def fill_holes(labels: Labels, at: Point) -> Edit:
    """Give the background that the nucleus at a point encloses to it.

    Raises
    ------
    EditError : there is no nucleus at the point.
    """
    return _reshaped(labels, at, ndimage.binary_fill_holes)


def smooth(labels: Labels, at: Point, sigma_px: float = 2.0) -> Edit:
    """Smooth the outline of the nucleus at a point.

    Parameters
    ----------
    sigma_px : standard deviation of the Gaussian that smooths.

    Raises
    ------
    EditError : there is no nucleus at the point, or nothing of it would be left.
    """
    return _reshaped(
        labels, at, lambda mask: ndimage.gaussian_filter(mask.astype(np.float32), sigma_px) > 0.5
    )


def grow(labels: Labels, at: Point, by_px: int = 1) -> Edit:
    """Make the nucleus at a point wider by some pixels on every side; with a negative number smaller.

    Raises
    ------
    EditError : there is no nucleus at the point, or nothing of it would be left.
    """
    change = ndimage.binary_dilation if by_px > 0 else ndimage.binary_erosion
    return _reshaped(labels, at, lambda mask: change(mask, disk(abs(by_px))), margin=abs(by_px) + 1)


def redraw(labels: Labels, outline: Sequence[Point], fresh: int) -> Edit:
    """Give a nucleus a new outline; where the outline is about none, add one.

    It is about the nucleus that fills it most, if that fills half of it or lies half inside it.

    Parameters
    ----------
    outline : corners of a polygon; it is closed.
    fresh : number of the nucleus if it is a new one.

    Raises
    ------
    EditError : the outline encloses no pixel that is free, or is far too large for a nucleus.
    """
    corners = np.asarray(outline, float).reshape(-1, 2)
    if len(corners) and max(longest := np.ptp(corners, axis=0)) > _OUTLINE_PX:
        raise EditError(
            f"the outline is {max(longest):.0f} px long, {_OUTLINE_PX} are possible; zoom in, and "
            "draw around one nucleus"
        )
    rows, cols = polygon(*corners.T, shape=labels.shape) if len(corners) > 2 else (np.zeros(0, int),) * 2
    if not len(rows):
        raise EditError("the outline encloses no pixel of the image; draw around a nucleus")
    inside = _at(labels, rows, cols)
    window = Region(rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
    numbers, counts = np.unique(inside[inside > 0], return_counts=True)
    piece = None
    if len(numbers):
        i = int(np.flatnonzero(inside == numbers[counts.argmax()])[0])
        piece = _piece(labels, (rows[i], cols[i]))
        if 2 * counts.max() < min(len(rows), piece.mask.sum()):
            piece = None
        else:
            window = _joint([window, piece.window], labels.shape)
    around = np.asarray(labels[window.slices])
    old, drawn = np.zeros(around.shape, bool), np.zeros(around.shape, bool)
    drawn[rows - window.y0, cols - window.x0] = True
    if piece is None:
        return _placed(window, around, old, drawn, fresh)
    old[piece.window.within(window).slices] = piece.mask
    return _placed(window, around, old, drawn, piece.number)


def add(labels: Labels, window: Region, mask: Mask, fresh: int) -> Edit:
    """Add a nucleus where a mask is true and no other one is.

    Parameters
    ----------
    window : where the mask lies in the labels.
    mask : (h, w) bool.
    fresh : its number.

    Raises
    ------
    EditError : nothing of the mask is free.
    """
    around = np.asarray(labels[window.slices])
    return _placed(window, around, np.zeros(around.shape, bool), mask, fresh)


def remove(labels: Labels, numbers: Collection[int]) -> Edit:
    """Remove all nuclei of these numbers, wherever they are; looks at the whole image."""
    rows, cols = np.nonzero(np.isin(labels, np.fromiter(numbers, labels.dtype, len(numbers))))
    return Edit(rows, cols, labels[rows, cols], np.zeros(len(rows), labels.dtype))


def small(labels: Labels, below_px: float) -> list[int]:
    """Return the numbers of nuclei with an area below this, px; looks at the whole image."""
    numbers, counts = fastremap.unique(labels, return_counts=True)
    return [int(n) for n, count in zip(numbers, counts, strict=True) if n and count < below_px]


def at_border(labels: Labels) -> list[int]:
    """Return the numbers of nuclei that touch the border of the image."""
    edges = [np.asarray(part) for part in (labels[:1], labels[-1:], labels[:, :1], labels[:, -1:])]
    return [int(n) for n in np.unique(np.concatenate([edge.ravel() for edge in edges])) if n]


def extent(labels: Labels, at: Point) -> Region:
    """Return the smallest rectangle around the nucleus at a point.

    Raises
    ------
    EditError : there is no nucleus at the point.
    """
    return _piece(labels, at, margin=0).window


def _piece(labels: Labels, at: Point, margin: int = 2) -> _Piece:
    """Return the connected piece of the nucleus at a point, in a window with a margin around it."""
    y, x = (round(c) for c in at)
    height, width = labels.shape
    number = int(labels[y, x]) if 0 <= y < height and 0 <= x < width else 0
    if not number:
        raise EditError(f"there is no nucleus at y {y}, x {x}; click on one")
    half = _WINDOW_PX // 2
    while True:
        window = Region(y, x, y, x).grown(half, labels.shape)
        around = np.asarray(labels[window.slices])
        parts = pieces_of(around == number)
        mask = parts == parts[y - window.y0, x - window.x0]
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        found = Region(
            window.y0 + rows[0], window.x0 + cols[0], window.y0 + rows[-1] + 1, window.x0 + cols[-1] + 1
        ).grown(margin, labels.shape)
        if window == _joint([window, found], labels.shape):
            break
        half *= 2
    inner = found.within(window).slices
    return _Piece(found, around[inner], mask[inner], number)


def _reshaped(labels: Labels, at: Point, change: Callable[[Mask], Mask], margin: int = 2) -> Edit:
    """Change the shape of the nucleus at a point."""
    piece = _piece(labels, at, margin)
    pad = margin + 1  # so that the border of the image is no edge of the nucleus
    changed = change(np.pad(piece.mask, pad, mode="edge"))[pad:-pad, pad:-pad]
    return _placed(piece.window, piece.around, piece.mask, changed, piece.number)


def _placed(window: Region, around: Labels, old: Mask, new: Mask, number: int) -> Edit:
    """Put a nucleus where its new mask is free, in one piece, and take it from where it was."""
    mask = largest_piece(new & ((around == 0) | old))
    if not mask.any():
        raise EditError("nothing of this nucleus would be left; delete it instead, or draw where it is free")
    after = np.where(mask, np.int64(number), np.where(old, 0, around))
    return _changed(window, around, after, number)


def _parted(piece: _Piece, seeds: npt.NDArray[Any], fresh: int) -> Edit:
    """Give each part of a nucleus its number: what has no part yet joins the nearest one."""
    parts = watershed(np.zeros(seeds.shape, np.uint8), seeds, connectivity=2, mask=piece.mask)
    numbers, counts = np.unique(parts[piece.mask], return_counts=True)
    after = piece.around.astype(np.int64)
    largest = numbers[counts.argmax()]
    for i, part in enumerate(n for n in numbers if n != largest):
        after[parts == part] = fresh + i
    return _changed(piece.window, piece.around, after, piece.number)


def _changed(window: Region, before: Labels, after: Labels, number: int) -> Edit:
    most = np.iinfo(before.dtype).max
    if after.max(initial=0) > most:
        raise EditError(
            f"these labels are {before.dtype} and end at {most}; convert the layer to int32 first"
        )
    rows, cols = np.nonzero(before != after)
    old, new = before[rows, cols], after[rows, cols].astype(before.dtype)
    return Edit(rows + window.y0, cols + window.x0, old, new, number)


def _joint(regions: Sequence[Region], shape: tuple[int, ...], margin: int = 0) -> Region:
    """Return the smallest region that holds others, with a margin."""
    return Region(
        min(r.y0 for r in regions),
        min(r.x0 for r in regions),
        max(r.y1 for r in regions),
        max(r.x1 for r in regions),
    ).grown(margin, shape)


def _at(labels: Labels, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> Labels:
    """Return the numbers at these pixels."""
    if not len(rows):
        return np.zeros(0, labels.dtype)
    y0, x0 = rows.min(), cols.min()
    window = np.asarray(labels[y0 : rows.max() + 1, x0 : cols.max() + 1])
    found: Labels = window[rows - y0, cols - x0]
    return found


def _stroke(
    path: Sequence[Point] | npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pixels of a stroke through points, inside the image, in order."""
    rows, cols = _line(path)
    inside = _inside(rows, cols, shape)
    return rows[inside], cols[inside]


def _line(
    path: Sequence[Point] | npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pixels of a stroke through points, in order, wherever they are."""
    points = np.rint(np.asarray(path, float).reshape(-1, 2)).astype(int)
    if not len(points):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    lines = [line(*a, *b) for a, b in pairwise(points)] or [tuple(points[:1].T)]
    rows, cols = (np.concatenate(part) for part in zip(*lines, strict=True))
    return rows, cols


def _inside(rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    inside: Mask = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    return inside


def _cut(path: Sequence[Point], piece: _Piece) -> Mask:
    """Return the pixels of a stroke in the window of a nucleus; an end inside is drawn on to the edge."""
    points = np.asarray(path, float).reshape(-1, 2) - (piece.window.y0, piece.window.x0)
    points = points[np.r_[True, np.any(np.diff(points, axis=0), axis=1)]]  # a mouse at rest repeats itself
    shape = piece.mask.shape
    cut = np.zeros(shape, bool)
    cut[_stroke(points, shape)] = True
    few = min(len(points), 4) - 1  # the last little wiggle of a hand is no direction
    for end, before in ((0, few), (-1, -1 - few)):
        step = points[end] - points[before]
        length = float(np.hypot(*step))
        if length > 0:
            far = points[end] + step * (sum(shape) / length)
            for row, col in zip(*_stroke([points[end], far], shape), strict=True):
                if not piece.mask[row, col]:
                    break
                cut[row, col] = True
    return cut
