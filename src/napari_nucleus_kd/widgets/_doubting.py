"""The nuclei of a plane measured and put in the order of doubt; runs in threads, needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np

from napari_nucleus_kd.tiling import plan_tiles
from napari_nucleus_kd.types import Progress, Region, retold
from napari_nucleus_kd.widgets._places import place_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import numpy.typing as npt

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.review import Doubt
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.widgets._places import Place

    Scores = Mapping[int, float]

_PART_PX, _HALO_PX = 4096, 128  # of the mirror picture at once, so that a slide's is not in memory as a whole


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """The nuclei of a plane as they were at one moment.

    Attributes
    ----------
    labels : (Y, X), a copy.
    table : of measure.features, in pixels.
    places : a pixel (y, x) of each nucleus.
    done : numbers of those that a person has verified.
    order : the others, the most doubtful first.
    """

    labels: npt.NDArray[Any]
    table: dict[str, npt.NDArray[Any]]
    places: dict[int, Place]
    done: frozenset[int]
    order: list[Doubt]


def measure_steps(labels: Any, scores: Scores, verified: Any = None) -> Generator[Progress, None, Measured]:
    """Measure the nuclei of a plane and put them in the order of doubt.

    Parameters
    ----------
    labels : (Y, X), numpy or what is indexed like it.
    scores : of those nuclei that have one, by their number.
    verified : (Y, X), not 0 where a person has verified the pixels; None: nowhere.
    """
    from napari_nucleus_kd.measure import features
    from napari_nucleus_kd.review import doubts

    yield Progress(0, 2, "Measuring the nuclei")
    plane = np.array(labels[:, :])  # a person may paint on
    table = features(plane)
    if scores:
        table["score"] = np.array([scores.get(int(n), np.nan) for n in table["label"]])
    yield Progress(1, 2, "Looking where the nuclei are")
    places = yield from place_steps(plane)
    done = _whole(plane, table, verified)
    return Measured(plane, table, places, done, _without(doubts(table), done))


def _whole(labels: npt.NDArray[Any], table: dict[str, npt.NDArray[Any]], verified: Any) -> frozenset[int]:
    """Return the numbers of the nuclei all of whose pixels are verified."""
    if verified is None:
        return frozenset()
    numbers, counts = fastremap.unique(labels[np.asarray(verified) != 0], return_counts=True)
    seen = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    areas = zip(table["label"].tolist(), table["area_px2"].tolist(), strict=True)
    return frozenset(number for number, area in areas if seen.get(number) == area)


def _without(order: list[Doubt], done: frozenset[int]) -> list[Doubt]:
    return [doubt for doubt in order if doubt.number not in done]


def mirror_steps(
    measured: Measured, image: Image, recipe: Recipe, corner: tuple[int, int]
) -> Generator[Progress, None, list[Doubt]]:
    """Ask the recipe's model about the mirror picture, and put the nuclei in the order of doubt anew.

    A nucleus without a score, as one that was drawn or kept in a project, gets that of the nucleus that the
    model sees in its place. A large picture is asked about part by part; progress counts the parts.

    Parameters
    ----------
    recipe : best the resolved one of the labels.
    corner : where the first pixel of the labels lies in the image.

    Raises
    ------
    SettingsError, ModelError, DeviceError, UnknownSegmenterError : the recipe cannot be run here.
    """
    from napari_nucleus_kd.pipeline import segment_steps
    from napari_nucleus_kd.review import agreement, doubts

    mirrored = replace(image, levels=(image.pixels[:, :, ::-1],), source=None)
    across, (y, x) = image.shape_yx[1], corner
    numbers = measured.table["label"]
    at = np.array([measured.places[number] for number in numbers.tolist()]).reshape(-1, 2)
    agreed, score = np.zeros(len(numbers)), np.full(len(numbers), np.nan)
    tiles = plan_tiles(measured.labels.shape, _PART_PX, _HALO_PX)
    for done, tile in enumerate(tiles):
        part, core = tile.window, tile.core
        there = Region(part.y0 + y, across - part.x1 - x, part.y1 + y, across - part.x0 - x)
        steps = segment_steps(mirrored, recipe.model_copy(update={"region": there}))
        asking = Progress(done, len(tiles), "Asking the mirror picture")
        result = yield from retold(steps, lambda _, asking=asking: asking)  # type: ignore[misc]
        labels = measured.labels[part.slices]
        inside = np.isin(numbers, fastremap.unique(labels))
        found, partner = agreement(labels, result.nuclei.labels[:, ::-1])
        # Each counts in the part whose core it lies in: others may cut it.
        own = np.all((at >= (core.y0, core.x0)) & (at < (core.y1, core.x1)), axis=1)
        agreed[own & inside] = found[own[inside]]
        if result.nuclei.scores is not None:
            seen = np.append(result.nuclei.scores, np.nan)[partner]  # -1 is none
            score[own & inside] = seen[own[inside]]
    known = measured.table.get("score", score)
    table = measured.table | {"score": np.where(np.isnan(known), score, known)}
    return _without(doubts(table, agreed), measured.done)
