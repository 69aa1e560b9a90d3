"""Runs a function over an image of any size, tile by tile, and joins the nuclei it finds.

Every tile has a halo around its core, in which nuclei are found too, and a context around that,
which only the network sees. A nucleus belongs to the tile whose core holds its centroid and is
written whole, so nothing is cut at a seam and nothing is glued by contact.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_nucleus_kd.apart import on_behalf
from napari_nucleus_kd.types import Progress, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_nucleus_kd.types import Array, FloatArray, LabelArray, Nuclei

_SLACK_PX = 2.0  # two tiles may place one centroid this far apart


class LabelTarget(Protocol):
    """Where labels go: a numpy or zarr array, (Y, X)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width."""

    def __getitem__(self, index: Any, /) -> Any:
        """Read a rectangle."""

    def __setitem__(self, index: Any, value: Any, /) -> None:
        """Write a rectangle."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One step of a run.

    Attributes
    ----------
    core : the rectangle that this tile answers for; cores do not overlap.
    window : the rectangle whose nuclei are found: the core and its halo, inside the image.
    view : the rectangle that is read: the window and its context.
    """

    core: Region
    window: Region
    view: Region


@dataclass(frozen=True, slots=True)
class TileDone:
    """What a finished tile added.

    Attributes
    ----------
    index : number of the tile, from 0.
    next_label : the first label that is still free.
    scores : of the nuclei this tile added, in label order; None if unknown.
    """

    index: int
    next_label: int
    scores: FloatArray | None


def plan_tiles(
    shape_yx: tuple[int, int], tile_px: int, halo_px: int, align_px: int = 1, context_px: int = 0
) -> list[Tile]:
    """Cover an image with tiles, row by row.

    Parameters
    ----------
    tile_px, halo_px, context_px : edge of a core and widths of the halo around it and of the context
        around that; all are rounded up to align_px.
    align_px : windows and views begin at a multiple of this, so that a network that pools over such
        blocks sees the same blocks whatever the tile size.
    """
    tile_px, halo_px, context_px = (_round_up(n, align_px) for n in (tile_px, halo_px, context_px))
    height, width = shape_yx
    tiles = []
    for y in range(0, height, tile_px):
        for x in range(0, width, tile_px):
            core = Region(y, x, min(y + tile_px, height), min(x + tile_px, width))
            window = core.grown(halo_px, shape_yx)
            tiles.append(Tile(core, window, window.grown(context_px, shape_yx)))
    return tiles


def run_tiles(
    pixels: Array,
    predict: Callable[[Any], Nuclei],
    *,
    prepare: Callable[[npt.NDArray[Any], Region], Any] | None = None,
    tile_px: int,
    halo_px: int,
    context_px: int = 0,
    out: LabelTarget,
    align_px: int = 1,
    start_tile: int = 0,
    next_label: int = 1,
    on_tile_done: Callable[[TileDone], None] | None = None,
) -> Generator[Progress, None, int]:
    """Find the nuclei of an image tile by tile; the next tile is prepared while one is predicted.

    Parameters
    ----------
    pixels : (C, Y, X), numpy or lazy.
    predict : takes what prepare returned for one window and returns the window's nuclei.
    prepare : takes one view's pixels, (C, h, w), and where in them the window lies; runs in a thread
        beside predict, for example the network beside the decoding. None gives the window's pixels.
    tile_px, halo_px, context_px, align_px : see plan_tiles. The halo must hold a nucleus, the
        context what a network sees around a pixel.
    out : (Y, X) int32, zeros; receives labels 1..n without gaps.
    start_tile, next_label : where an interrupted run goes on. Labels from next_label on that the
        interrupted tile left behind are removed.
    on_tile_done : called after a tile is written, before the next one.

    Yields
    ------
    Progress after each tile.

    Returns
    -------
    int : number of nuclei.
    """
    shape = int(pixels.shape[1]), int(pixels.shape[2])
    tiles = plan_tiles(shape, tile_px, halo_px, align_px, context_px)

    @on_behalf
    def fetch(index: int) -> Any:
        view, window = tiles[index].view, tiles[index].window
        part, inside = np.asarray(pixels[:, *view.slices]), window.within(view)
        return part[:, *inside.slices] if prepare is None else prepare(part, inside)

    with ThreadPoolExecutor(1, thread_name_prefix="prepare tile") as beside:
        ahead = [beside.submit(fetch, start_tile)] if start_tile < len(tiles) else []
        for index in range(start_tile, len(tiles)):
            prepared = ahead.pop().result()
            if index + 1 < len(tiles):
                ahead.append(beside.submit(fetch, index + 1))
            done = _write_tile(predict(prepared), tiles[index], index, out, next_label)
            del prepared  # two tiles in memory are enough
            next_label = done.next_label
            if on_tile_done is not None:
                on_tile_done(done)
            yield Progress(index + 1, len(tiles), f"tile {index + 1} of {len(tiles)}")
    return next_label - 1


def _write_tile(nuclei: Nuclei, tile: Tile, index: int, out: LabelTarget, next_label: int) -> TileDone:
    where = tile.window.slices
    current = np.array(out[where], dtype=np.int32)
    current[current >= next_label] = 0  # left behind by a run that stopped inside this tile
    target = _assign(nuclei.labels, current, _owned(nuclei.labels, tile), next_label)
    written = target[nuclei.labels]
    np.copyto(current, written, where=(current == 0) & (written > 0))
    out[where] = current
    added = target >= next_label
    scores = None if nuclei.scores is None else nuclei.scores[added[1:]]
    return TileDone(index, next_label + int(added.sum()), scores)


def _owned(labels: LabelArray, tile: Tile) -> npt.NDArray[np.bool_]:
    """Return for labels 0..n whether the centroid lies in the tile's core, give or take a little.

    The little slack keeps a nucleus whose centroid two tiles place on different sides of a seam;
    `_assign` drops the second copy.
    """
    y, x = np.nonzero(labels)
    flat = labels[y, x]
    area = np.bincount(flat, minlength=1)
    area[area == 0] = 1
    centre_y = np.bincount(flat, y, minlength=1) / area + tile.window.y0
    centre_x = np.bincount(flat, x, minlength=1) / area + tile.window.x0
    core = tile.core
    owned: npt.NDArray[np.bool_] = (
        (centre_y >= core.y0 - _SLACK_PX)
        & (centre_y < core.y1 + _SLACK_PX)
        & (centre_x >= core.x0 - _SLACK_PX)
        & (centre_x < core.x1 + _SLACK_PX)
    )
    owned[0] = False
    return owned


def _assign(
    labels: LabelArray, current: LabelArray, owned: npt.NDArray[np.bool_], next_label: int
) -> LabelArray:
    """Return the label to write for each of labels 0..n; 0 writes nothing.

    A nucleus more than half covered by nuclei already written is there already. One that covers
    more than half of a written nucleus completes it and takes its label. All others are new.
    """
    target = np.zeros(len(owned), np.int32)
    area = np.bincount(labels.ravel(), minlength=len(owned))
    both = (labels > 0) & (current > 0) & owned[labels]
    new, old = labels[both].astype(np.int64), current[both].astype(np.int64)
    covered = np.bincount(new, minlength=len(owned))
    there = covered > 0.5 * area
    if new.size:
        base = int(old.max()) + 1
        pairs, overlap = np.unique(new * base + old, return_counts=True)
        old_area = np.bincount(current.ravel())
        completes = overlap > 0.5 * old_area[pairs % base]
        order = np.argsort(overlap[completes], kind="stable")  # the largest overlap is written last and wins
        target[(pairs // base)[completes][order]] = (pairs % base)[completes][order]
    target[there | ~owned] = 0
    fresh = np.flatnonzero(owned & ~there & (target == 0) & (area > 0))
    target[fresh] = np.arange(next_label, next_label + fresh.size, dtype=np.int32)
    return target


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
