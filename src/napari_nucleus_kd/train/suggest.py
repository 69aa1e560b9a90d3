"""Where a correction helps most: the tiles that a model is least sure of and least agrees with itself on.

Tiles are those of the project's grid, about 256 pixels (project.grid): so what is suggested and then verified
is one whole tile to learn from, or to judge by (one in five, see project.tiles_of). `survey_steps` looks at
them with a model, once; `suggest` chooses of them and is quick, so that it can be asked again after each tile
that was verified.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_nucleus_kd.job import measure_diameter, prepare
from napari_nucleus_kd.metrics import match, overlap
from napari_nucleus_kd.project import JUDGED_EACH, Role, grid, tiles_of
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.job import Job
    from napari_nucleus_kd.project import Plane
    from napari_nucleus_kd.types import FloatArray, Image, LabelArray, Maps, Region

Points = npt.NDArray[np.float64]
Strategy = Literal["promise", "uncertainty"]
_VERIFIED = 0.5  # share of a tile from which on it counts as verified
_APART = 12.0  # square of how far two images are from each other; two tiles of one image: 2 on average
_FLOOR = 0.1  # of disagreement: a model that sees none of the nuclei agrees with itself, and is wrong


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A tile that a model looked at; a person could annotate it.

    Attributes
    ----------
    uncertainty : mean entropy of the foreground probability, 0 (sure) to 1 (every pixel at 0.5).
    disagreement : 1 - PQ between the nuclei of the tile and those of its mirror picture, or of another
        model; 0 if both see none.
    looks : (K,) float32, what the tile looks like: brightness, contrast, share of nuclei.
    nuclei : number that the model sees.
    image : name of the image.
    judges : whether it is kept to judge by once it is verified, and so teaches nothing.
    """

    region: Region
    uncertainty: float
    disagreement: float
    looks: FloatArray
    nuclei: int
    image: str = ""
    judges: bool = False

    @property
    def promise(self) -> float:
        """What annotating it is expected to teach, for comparison with others."""
        return self.uncertainty * (_FLOOR + self.disagreement)


def survey_steps(
    image: Image,
    recipe: Recipe,
    *,
    other: Recipe | None = None,
    most: int = 200,
    offset: int | None = None,
) -> Generator[Progress, None, list[Surveyed]]:
    """Look at the tiles of an image with a model.

    Parameters
    ----------
    recipe : with the model to teach; with a region, the tiles that it touches are looked at.
    other : with another model, a teacher for instance, to disagree with; None takes the model itself on
        the mirror picture.
    most : tiles to look at; of a larger image an even choice is taken.
    offset : of the image in its project, which says what each tile is for; see Project.offset_of. None: it
        is not known, so no tile is said to judge.

    Yields
    ------
    Progress after each tile.

    Raises
    ------
    SettingsError, ModelError, DeviceError, UnknownSegmenterError : see job.prepare.
    """
    yield Progress(0, 0, "opening the model")
    job = _opened(image, recipe)
    rival = None if other is None else _opened(image, other)
    part = recipe.region
    regions = [r for r in grid(image.shape_yx) if part is None or min(r.common(part).shape_yx) > 0]
    regions = _choice(regions, most)
    tiles = []
    for i, region in enumerate(regions, 1):
        tiles.append(replace(_looked_at(job, rival, region), image=image.name))
        yield Progress(i, len(regions), "looking for what the model is unsure of")
    return tiles if offset is None else judged(tiles, image.shape_yx, offset)


def judged(tiles: Sequence[Surveyed], shape_yx: tuple[int, int], offset: int) -> list[Surveyed]:
    """Return the tiles of an image, each knowing whether it judges; offset as in survey_steps."""
    judging = {tile.region for tile in tiles_of(shape_yx, offset) if tile.role is Role.VAL}
    return [replace(tile, judges=tile.region in judging) for tile in tiles]


def suggest(
    tiles: Sequence[Surveyed],
    count: int,
    verified: Plane | None = None,
    *,
    known: Sequence[Surveyed] = (),
    strategy: Strategy = "promise",
) -> list[Surveyed]:
    """Choose the tiles to annotate next, the best first.

    Each further tile counts the more, the less it resembles, and the farther it lies from, what is
    verified or chosen already; of tiles that count alike, the farther one is taken. Tiles that judge teach
    nothing: five others come before the first, and four before each further one, while there are both.

    Parameters
    ----------
    tiles : of one image, or of several.
    verified : (Y, X), where it is not 0 a person has checked the pixels; tiles of which that is half or more
        are not suggested. Only for the tiles of one image; None: nowhere.
    known : tiles of which that is known already, of any image.
    strategy : "promise" multiplies uncertainty by disagreement; "uncertainty" is there to compare with, and
        knows no resemblance.

    Returns
    -------
    At most `count` tiles; fewer if no more are free.
    """
    done = [verified is not None and _share(verified, t.region) >= _VERIFIED for t in tiles]
    free = [t for t, known in zip(tiles, done, strict=True) if not known]
    if strategy == "uncertainty":
        return sorted(free, key=lambda t: -t.uncertainty)[:count]
    if not free:
        return []
    passed = [*(t for t, verified in zip(tiles, done, strict=True) if verified), *known]
    distances = _Distances([*free, *passed])
    judging = sum(t.judges for t in passed)
    teaching = len(passed) - judging
    promise, judges = np.array([t.promise for t in free]), np.array([t.judges for t in free])
    nearest = np.full(len(free), np.inf)
    for i in range(len(free), len(distances)):
        nearest = np.minimum(nearest, distances.to(i)[: len(free)])
    chosen: list[int] = []
    while len(chosen) < min(count, len(free)):
        worth = promise * np.where(np.isfinite(nearest), nearest, 1.0)
        taken = np.isin(np.arange(len(free)), chosen)
        due = teaching > (JUDGED_EACH - 1) * (judging + 1)
        best = int(np.lexsort((-nearest, -worth, judges != due, taken))[0])  # the last key counts most
        chosen.append(best)
        judging, teaching = judging + int(judges[best]), teaching + int(not judges[best])
        nearest = np.minimum(nearest, distances.to(best)[: len(free)])
    return [free[i] for i in chosen]


def _opened(image: Image, recipe: Recipe) -> Job:
    """Return the job of a recipe for the whole image; the recipe's region, if it has one, fits the image."""
    job = measure_diameter(prepare(image, recipe))
    if recipe.region is None:
        return job
    return prepare(image, job.recipe.model_copy(update={"region": None}))


def _choice(regions: list[Region], most: int) -> list[Region]:
    """Return an even choice of regions."""
    if len(regions) <= most:
        return regions
    return [regions[i] for i in np.random.default_rng(0).permutation(len(regions))[:most]]


def _share(verified: Plane, region: Region) -> float:
    """Return the share of a region that is verified."""
    return float((np.asarray(verified[region.slices]) != 0).mean())


def _looked_at(job: Job, rival: Job | None, region: Region) -> Surveyed:
    picture, inside = _seen(job, region)
    maps, labels = _nuclei(job, picture, inside)
    if rival is None:
        width = picture.shape[2]
        mirrored = replace(inside, x0=width - inside.x1, x1=width - inside.x0)
        others = _nuclei(job, np.ascontiguousarray(picture[:, :, ::-1]), mirrored)[1][:, ::-1]
    else:
        others = _nuclei(rival, *_seen(rival, region))[1]
    pixels = picture[:, *inside.slices]
    looks = [*pixels.mean((1, 2)), *pixels.std((1, 2)), (labels > 0).mean()]
    return Surveyed(
        region,
        uncertainty=_entropy(maps, inside),
        disagreement=1 - match(overlap(labels, others)).pq,
        looks=np.array(looks, np.float32),
        nuclei=len(np.unique(labels[labels > 0])),
    )


def _seen(job: Job, region: Region) -> tuple[FloatArray, Region]:
    """Return the network's input around a part of a job's pixels, and where the part lies in it.

    That is less than what a run takes, where only whole nuclei count: here tiles are but compared, and all
    that the network can see around a tile would be ten times its area.
    """
    around = 2 * job.segmenter.halo_px(job.recipe.diameter_px)
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


class _Distances:
    """How far tiles are from each other: half by what they look like, half by where they lie.

    Tiles of two images lie farther apart than two of one image: another image is another stain or sample.
    """

    def __init__(self, tiles: Sequence[Surveyed]):
        looks = np.array([t.looks for t in tiles], float).reshape(len(tiles), -1)
        where = np.array([[t.region.y0, t.region.x0] for t in tiles], float).reshape(len(tiles), -1)
        self._halves = [_even(half) for half in (looks, where)]
        self._images = np.array([t.image for t in tiles])

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self._images)

    def to(self, i: int) -> Points:
        """Return the distance of each tile to one of them, (n,)."""
        looks, where = (((half - half[i]) ** 2).sum(1) for half in self._halves)
        apart = np.where(self._images == self._images[i], where, _APART)
        distance: Points = np.sqrt(looks + apart)
        return distance


def _even(points: Points) -> Points:
    """Return points whose spread is 1 in all."""
    spread = points.std(0)
    even: Points = points / np.where(spread > 0, spread, 1) / np.sqrt(max(1, points.shape[1]))
    return even
