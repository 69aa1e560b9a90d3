"""The nuclei of a plane measured and put in the order of doubt; runs in threads, needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np

from napari_nucleus_kd.types import Progress, Region
from napari_nucleus_kd.widgets._places import place_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import numpy.typing as npt

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.review import Doubt
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.widgets._places import Place

    Scores = Mapping[int, float]

MIRROR_EDGE_PX = 4096  # larger labels are not compared with those of the mirror picture: it takes too long


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """The nuclei of a plane as they were at one moment.

    Attributes
    ----------
    labels : (Y, X), a copy.
    table : of measure.features, in pixels.
    places : a pixel (y, x) of each nucleus.
    checked : numbers of those that a person has verified.
    order : the others, the most doubtful first.
    """

    labels: npt.NDArray[Any]
    table: dict[str, npt.NDArray[Any]]
    places: dict[int, Place]
    checked: frozenset[int]
    order: list[Doubt]


def measure_steps(labels: Any, scores: Scores, verified: Any = None) -> Generator[Progress, None, Measured]:
    """Measure the nuclei of a plane and put them in the order of doubt.

    Parameters
    ----------
    labels : (Y, X), numpy or what is indexed like it.
    scores : of those nuclei that have one, by their number.
    verified : (Y, X), not 0 where a person has checked the pixels; None: nowhere.
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
    checked = _checked(plane, table, verified)
    return Measured(plane, table, places, checked, _without(doubts(table), checked))


def _checked(labels: npt.NDArray[Any], table: dict[str, npt.NDArray[Any]], verified: Any) -> frozenset[int]:
    """Return the numbers of the nuclei all of whose pixels are verified."""
    if verified is None:
        return frozenset()
    numbers, counts = fastremap.unique(labels[np.asarray(verified) != 0], return_counts=True)
    seen = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    areas = zip(table["label"].tolist(), table["area_px2"].tolist(), strict=True)
    return frozenset(number for number, area in areas if seen.get(number) == area)


def _without(order: list[Doubt], checked: frozenset[int]) -> list[Doubt]:
    return [doubt for doubt in order if doubt.number not in checked]


def mirror_steps(
    measured: Measured, image: Image, recipe: Recipe, corner: tuple[int, int]
) -> Generator[Progress, None, list[Doubt]]:
    """Ask the recipe's model about the mirror picture, and put the nuclei in the order of doubt anew.

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

    height, width = measured.labels.shape
    across = image.shape_yx[1]
    mirrored = replace(image, levels=(image.pixels[:, :, ::-1],), source=None)
    left = across - corner[1] - width
    part = Region(corner[0], left, corner[0] + height, left + width)
    result = yield from segment_steps(mirrored, recipe.model_copy(update={"region": part}))
    agreed = agreement(measured.labels, result.nuclei.labels[:, ::-1])
    return _without(doubts(measured.table, agreed), measured.checked)
