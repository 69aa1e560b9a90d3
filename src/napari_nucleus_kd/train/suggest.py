"""Where a correction helps most: the tiles that a model is least sure of and least agrees with itself on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_nucleus_kd.job import measure_diameter, prepare
from napari_nucleus_kd.metrics import match, overlap
from napari_nucleus_kd.types import Progress, Region

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.job import Job
    from napari_nucleus_kd.types import FloatArray, Image, LabelArray, Maps

TILE_PX = 256
Points = npt.NDArray[np.float64]
Strategy = Literal["gain", "uncertainty", "random"]


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image that a person could annotate.

    Attributes
    ----------
    uncertainty : mean entropy of the foreground probability, 0 (sure) to 1 (every pixel at 0.5).
    disagreement : 1 - PQ between the nuclei of the tile and those of its mirror picture, or of another
        model; 0 if both see none.
    looks : (K,) float32, what the tile looks like: brightness, contrast, share of nuclei.
    nuclei : number that the model sees.
    """

    region: Region
    uncertainty: float
    disagreement: float
    looks: FloatArray
    nuclei: int

    @property
    def gain(self) -> float:
        """What annotating it is expected to teach, for comparison with others."""
        return self.uncertainty * self.disagreement


def survey_steps(
    image: Image, recipe: Recipe, *, other: Recipe | None = None, tile_px: int = TILE_PX, most: int = 200
) -> Generator[Progress, None, list[Tile]]:
    """Look at the tiles of an image, or of the recipe's region, with a model.

    Parameters
    ----------
    recipe : with the model to teach.
    other : with another model, a teacher for instance, to disagree with; None takes the model itself on
        the mirror picture.
    most : tiles to look at; of a larger image an even choice is taken.

    Yields
    ------
    Progress after each tile.

    Raises
    ------
    SettingsError, ModelError, DeviceError, UnknownSegmenterError : see job.prepare.
    """
    yield Progress(0, 0, "opening the model")
    job = measure_diameter(prepare(image, recipe))
    rival = None if other is None else measure_diameter(prepare(image, other))
    regions = _tiles(job.region.shape_yx, tile_px, most)
    tiles = []
    for i, region in enumerate(regions, 1):
        tiles.append(_looked_at(job, rival, region))
        yield Progress(i, len(regions), "looking for what the model is unsure of")
    return tiles


def suggest(
    tiles: Sequence[Tile],
    count: int,
    taken: Sequence[Region] = (),
    *,
    strategy: Strategy = "gain",
    seed: int = 0,
) -> list[Tile]:
    """Choose the tiles to annotate next, the best first.

    Each further tile counts the more, the less it resembles, and the farther it lies from, what is
    annotated or chosen already.

    Parameters
    ----------
    taken : what is annotated; tiles that overlap it are not suggested again.
    strategy : "gain" multiplies uncertainty by disagreement; the other two are there to compare with, and
        know no resemblance: "uncertainty" alone, or "random".
    seed : of "random".

    Returns
    -------
    At most `count` tiles; fewer if no more are free.
    """
    free = [t for t in tiles if not any(_overlap(t.region, region) for region in taken)]
    if strategy == "random":
        order = np.random.default_rng(seed).permutation(len(free))
        return [free[i] for i in order[:count]]
    if strategy == "uncertainty":
        return sorted(free, key=lambda t: -t.uncertainty)[:count]
    known = [t for t in tiles if any(_overlap(t.region, region) for region in taken)]
    place = _places([*free, *known])
    gain = np.array([t.gain for t in free])
    nearest = np.full(len(free), np.inf)
    for i in range(len(free), len(place)):
        nearest = np.minimum(nearest, _distance(place[: len(free)], place[i]))
    chosen: list[int] = []
    while len(chosen) < min(count, len(free)):
        worth = gain * np.where(np.isfinite(nearest), nearest, 1.0)
        worth[chosen] = -1
        best = int(worth.argmax())
        chosen.append(best)
        nearest = np.minimum(nearest, _distance(place[: len(free)], place[best]))
    return [free[i] for i in chosen]


def _tiles(shape_yx: tuple[int, int], tile_px: int, most: int) -> list[Region]:
    """Return tiles that cover an image, or an even choice of them; those at the end are moved inside."""
    height, width = shape_yx
    corners = [
        (max(0, min(y, height - tile_px)), max(0, min(x, width - tile_px)))
        for y in range(0, height, tile_px)
        for x in range(0, width, tile_px)
    ]
    if len(corners) > most:
        corners = [corners[i] for i in np.random.default_rng(0).permutation(len(corners))[:most]]
    return [Region(y, x, min(y + tile_px, height), min(x + tile_px, width)) for y, x in corners]


def _looked_at(job: Job, rival: Job | None, region: Region) -> Tile:
    picture, inside = _seen(job, region)
    maps, labels = _nuclei(job, picture, inside)
    if rival is None:
        width = picture.shape[2]
        mirrored = Region(inside.y0, width - inside.x1, inside.y1, width - inside.x0)
        others = _nuclei(job, np.ascontiguousarray(picture[:, :, ::-1]), mirrored)[1][:, ::-1]
    else:
        others = _nuclei(rival, *_seen(rival, region))[1]
    pixels = picture[:, *inside.slices]
    looks = [*pixels.mean((1, 2)), *pixels.std((1, 2)), (labels > 0).mean()]
    return Tile(
        Region(
            region.y0 + job.region.y0,
            region.x0 + job.region.x0,
            region.y1 + job.region.y0,
            region.x1 + job.region.x0,
        ),
        uncertainty=_entropy(maps, inside),
        disagreement=1 - match(overlap(labels, others)).pq,
        looks=np.array(looks, np.float32),
        nuclei=len(np.unique(labels[labels > 0])),
    )


def _seen(job: Job, region: Region) -> tuple[FloatArray, Region]:
    """Return the network's input around a part of a job's pixels, and where the part lies in it."""
    diameter = job.recipe.diameter_px
    around = job.segmenter.context_px(diameter) + job.segmenter.halo_px(diameter)
    outer = region.grown(around, job.region.shape_yx)
    return job.tile(np.asarray(job.pixels[:, *outer.slices])), region.within(outer)


def _nuclei(job: Job, picture: FloatArray, inside: Region) -> tuple[Maps, LabelArray]:
    """Return the maps of a picture, and the labels of a part of it."""
    maps = job.segmenter.maps(picture, job.recipe.diameter_px)
    return maps, job.decode(maps).labels[inside.slices]


def _entropy(maps: Maps, inside: Region) -> float:
    """Return the mean entropy of the foreground probability in a part of maps, in bits."""
    y0, x0, y1, x1 = (round(n * maps.scale) for n in (inside.y0, inside.x0, inside.y1, inside.x1))
    p = np.clip(maps["foreground"][y0:y1, x0:x1], 1e-6, 1 - 1e-6)
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean())


def _places(tiles: Sequence[Tile]) -> Points:
    """Return tiles as points, (n, K): one half what they look like, the other where they lie."""
    looks = np.array([t.looks for t in tiles], float).reshape(len(tiles), -1)
    where = np.array([[t.region.y0, t.region.x0] for t in tiles], float).reshape(len(tiles), -1)
    halves = []
    for half in (looks, where):
        spread = half.std(0)
        halves.append(half / np.where(spread > 0, spread, 1) / np.sqrt(max(1, half.shape[1])))
    return np.concatenate(halves, axis=1)


def _distance(points: Points, to: Points) -> Points:
    distance: Points = np.linalg.norm(points - to, axis=1)
    return distance


def _overlap(one: Region, other: Region) -> bool:
    return one.y0 < other.y1 and other.y0 < one.y1 and one.x0 < other.x1 and other.x0 < one.x1
