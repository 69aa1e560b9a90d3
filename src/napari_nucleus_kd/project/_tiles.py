"""Which tiles of an image are learnt from, and which are kept to judge by; and what in them teaches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import cc3d
import fastremap
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_nucleus_kd.types import LabelArray, Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_nucleus_kd.project._arrays import Plane

TILE_PX = 256  # edge of a tile, about: an image is cut into equal ones, here and where tiles are suggested
MARGIN_PX, MAX_MARGIN_PX = 32, 128  # of context around a tile that is learnt from
JUDGED_EACH = 5  # one tile in so many judges
_TUNE_EACH, _TUNE = 10, 3  # one in ten watches training
_MANY = 1 << 22  # highest number up to which there may be a table of all numbers
_STRIPE_PX = 256  # height of what is counted at once
BoolArray = npt.NDArray[np.bool_]
Areas = npt.NDArray[np.int64]


class Role(StrEnum):
    """What a tile is for: the splits of an index."""

    TRAIN = "train"
    TUNE = "tune"
    VAL = "val"


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image's grid."""

    region: Region
    role: Role


@dataclass(frozen=True, slots=True)
class Crop:
    """What is written of a tile.

    Attributes
    ----------
    region : of the image; larger than the tile if it is learnt from.
    labels : (Y, X) int32, each connected piece has a number of its own.
    valid : (Y, X) bool, what teaches; None: everything.
    numbers : of the nuclei that teach, or judge; as counted in the whole image.
    loose : pieces that share the number of another one, of the nuclei that begin in the tile.
    """

    region: Region
    labels: LabelArray
    valid: BoolArray | None
    numbers: frozenset[int]
    loose: int


def count_verified(labels: Plane, verified: Plane) -> tuple[int, float]:
    """Return how many nuclei are verified completely, and which share of the pixels is verified.

    Parameters
    ----------
    labels : (Y, X) whole numbers, 0 is background; read piece by piece. Not changed.
    verified : (Y, X), not 0 where a person has checked the pixels. Not changed.

    >>> count_verified(np.array([[1, 1, 2, 0]]), np.array([[1, 1, 0, 1]]))
    (1, 0.75)
    """
    height, width = verified.shape
    pixels, seen, unseen = 0, [], []
    for y in range(0, height, _STRIPE_PX):  # in pieces, so that a window can go on meanwhile
        part = slice(y, min(y + _STRIPE_PX, height)), slice(0, width)
        numbers, checked = np.asarray(labels[part]), np.asarray(verified[part]) != 0
        pixels += int(checked.sum())
        seen.append(fastremap.unique(numbers[checked]))
        unseen.append(fastremap.unique(numbers[~checked]))
    if not pixels:
        return 0, 0.0
    whole = np.setdiff1d(np.concatenate(seen), np.concatenate(unseen))
    return int((whole != 0).sum()), pixels / (height * width)


def _dense(labels: LabelArray) -> LabelArray:
    """Return labels whose numbers a table can hold: as they are, or renumbered."""
    if labels.max(initial=0) <= _MANY:
        return labels
    return fastremap.renumber(labels)[0].astype(np.int32, copy=False)  # type: ignore[no-any-return]


def _areas(labels: LabelArray, verified: BoolArray) -> tuple[Areas, Areas]:
    """Return the pixels of each number from 0 on, and how many of them are verified."""
    count = int(labels.max(initial=0)) + 1
    area, seen = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for y in range(0, len(labels), _STRIPE_PX):  # in pieces, so that a window can go on meanwhile
        part = labels[y : y + _STRIPE_PX]
        area += np.bincount(part.ravel(), minlength=count)
        seen += np.bincount(part[verified[y : y + _STRIPE_PX]], minlength=count)
    return area, seen


def _whole(area: Areas, seen: Areas) -> BoolArray:
    """Return which numbers are nuclei that are verified completely."""
    whole: BoolArray = (seen == area) & (area > 0)
    whole[:1] = False
    return whole


def tiles_of(shape_yx: tuple[int, int], offset: int) -> Iterator[Tile]:
    """Return the grid of an image with the role of each tile.

    The roles follow from the place alone, so that what was once kept to judge by is never learnt from, also
    after more was verified. They are spread like a knight's moves: any 2 x 3 or 1 x 5 tiles hold one that
    judges.

    Parameters
    ----------
    offset : of the roles; images of one tile take turns.
    """
    for row, column, region in _grid(shape_yx):
        place = row + 2 * column - offset
        role = Role.TUNE if place % _TUNE_EACH == _TUNE else Role.TRAIN
        role = Role.VAL if place % JUDGED_EACH == 0 else role
        yield Tile(region, role)


def grid(shape_yx: tuple[int, int]) -> list[Region]:
    """Return the tiles of an image without their roles, row by row: they cover it and do not overlap."""
    return [region for _, _, region in _grid(shape_yx)]


def _grid(shape_yx: tuple[int, int]) -> Iterator[tuple[int, int, Region]]:
    rows, columns = (_edges(length) for length in shape_yx)
    for i, (y0, y1) in enumerate(pairwise(rows)):
        for j, (x0, x1) in enumerate(pairwise(columns)):
            yield i, j, Region(y0, x0, y1, x1)


def _edges(length: int) -> list[int]:
    count = max(1, round(length / TILE_PX))
    return [length * i // count for i in range(count + 1)]


class Verified:
    """The labels of an image, and which of them are verified well enough to teach.

    A nucleus teaches only if at least half of its pixels are verified, or what nobody looked at would shape
    it; and only if it does not reach into a tile that judges.

    Parameters
    ----------
    labels : (Y, X) int32. Not changed.
    verified : (Y, X) bool. Not changed.

    Attributes
    ----------
    count : of the nuclei that are verified completely.
    diameter_px : their median diameter; None if there are none.
    """

    def __init__(self, labels: LabelArray, verified: BoolArray, tiles: list[Tile]):
        labels = _dense(labels)
        self._labels, self._verified = labels, verified
        self._boxes = ndimage.find_objects(labels)
        area, seen = _areas(labels, verified)
        self._teaches, self._learnt = 2 * seen >= area, verified.copy()
        known = area[_whole(area, seen)]
        self.count = len(known)
        self.diameter_px = float(np.median(2 * np.sqrt(known / np.pi))) if known.size else None
        for tile in tiles:
            if tile.role is Role.VAL:
                self._teaches[fastremap.unique(self._labels[tile.region.slices])] = False
            if tile.role is not Role.TRAIN:
                self._learnt[tile.region.slices] = False
        self._teaches[0] = True

    def judging(self, tile: Tile) -> Crop | None:
        """Return a tile to judge by: it is verified completely, with nuclei or without; None otherwise."""
        if not self._verified[tile.region.slices].all():
            return None
        return self._crop(tile.region, tile.region, self._labels[tile.region.slices], None)

    def teaching(self, tile: Tile) -> Crop | None:
        """Return a tile to learn from, with context around it; None if nothing in the tile teaches.

        The context goes as far as the nuclei of the tile reach, within limits; one that reaches further
        does not teach. Where the context is verified and may be learnt from, it teaches, too: else an old
        model would say there again what a person has corrected. Labels of nuclei that do not teach are left
        out.
        """
        region = self._with_context(
            tile.region, self._teaching(tile.region, self._verified[tile.region.slices])
        )
        core = tile.region.within(region).slices
        verified = self._learnt[region.slices].copy()
        verified[core] = self._verified[tile.region.slices]
        around = self._labels[region.slices]
        numbers = [n for n in self._teaching(region, verified) if _holds(region, self._boxes[n - 1])]
        teaching = np.isin(around, numbers)
        valid = verified & (teaching | (around == 0))
        if not valid[core].any():
            return None
        return self._crop(region, tile.region, np.where(teaching, around, 0), None if valid.all() else valid)

    def _teaching(self, region: Region, verified: BoolArray) -> list[int]:
        numbers = fastremap.unique(self._labels[region.slices][verified])
        return [int(n) for n in numbers if n and self._teaches[n]]

    def _with_context(self, tile: Region, numbers: list[int]) -> Region:
        sides = []
        for axis, (start, stop) in enumerate(((tile.y0, tile.y1), (tile.x0, tile.x1))):
            boxes = [self._boxes[n - 1][axis] for n in numbers]
            low = min([start - MARGIN_PX, *(box.start for box in boxes)])
            high = max([stop + MARGIN_PX, *(box.stop for box in boxes)])
            length = self._labels.shape[axis]
            sides.append((max(0, low, start - MAX_MARGIN_PX), min(length, high, stop + MAX_MARGIN_PX)))
        (y0, y1), (x0, x1) = sides
        return Region(y0, x0, y1, x1)

    def _crop(self, region: Region, tile: Region, labels: LabelArray, valid: BoolArray | None) -> Crop:
        numbers = frozenset(int(n) for n in fastremap.unique(labels) if n)
        pieces = cc3d.connected_components(np.ascontiguousarray(labels), connectivity=8).astype(np.int32)
        owner = np.zeros(int(pieces.max(initial=0)) + 1, np.int32)
        owner[pieces.ravel()] = labels.ravel()
        counts = Counter(owner[1:].tolist())
        begin = {n for n in numbers if _begins(tile, self._boxes[n - 1])}
        loose = sum(counts[n] - 1 for n in begin if _holds(region, self._boxes[n - 1]))
        return Crop(region, pieces, valid, numbers, loose)


def _begins(tile: Region, box: tuple[slice, slice]) -> bool:
    y, x = box
    return bool(tile.y0 <= y.start < tile.y1 and tile.x0 <= x.start < tile.x1)


def _holds(region: Region, box: tuple[slice, slice]) -> bool:
    y, x = box
    return bool(region.y0 <= y.start and y.stop <= region.y1 and region.x0 <= x.start and x.stop <= region.x1)
