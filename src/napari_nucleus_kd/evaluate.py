"""How good is it? Segments annotated images the way a user would, and scores the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleus_kd import metrics
from napari_nucleus_kd.index import read_index, read_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.pipeline import segment_steps
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_nucleus_kd.config import Recipe

SHOWN = ("pq", "dq", "sq", "ap50", "ap75", "aji", "aji_plus", "dice")


@dataclass(frozen=True, slots=True)
class Score:
    """One image's result.

    Attributes
    ----------
    values : metrics by name; see metrics.scores.
    diameter_px : nucleus diameter that was used, and `true_diameter_px` that of the annotation.
    """

    name: str
    source: str
    values: dict[str, float]
    diameter_px: float
    true_diameter_px: float | None
    seconds: float


def evaluate_steps(
    index: Path, split: str, recipe: Recipe, *, true_diameter: bool = False
) -> Generator[Progress, None, list[Score]]:
    """Segment every image of a split and compare it with its labels.

    Parameters
    ----------
    index, split : see index.read_index.
    recipe : how to segment; its defaults are what a user gets who changes nothing.
    true_diameter : tell the segmenter the median diameter of the annotated nuclei, as a user would who
        measured one, instead of letting it estimate.

    Yields
    ------
    Progress after each image, with its PQ.

    Returns
    -------
    One Score an image.
    """
    rows = read_index(index, split)
    found = []
    for i, row in enumerate(rows, 1):
        labels = read_labels(row.labels)
        diameter = metrics.median_diameter(labels)
        told = {"diameter_px": diameter} if true_diameter and diameter else {}
        result = yield from segment_steps(read(row.image), recipe.model_copy(update=told))
        values = metrics.scores(labels, result.nuclei.labels)
        found.append(Score(row.name, row.source, values, result.diameter_px, diameter, result.seconds))
        yield Progress(i, len(rows), row.name, {"pq": values["pq"]})
    return found


def summary(scores: Sequence[Score]) -> dict[str, dict[str, list[float]]]:
    """Return, for each source and metric, the mean over its images and a 95% bootstrap interval.

    The keys of the inner dictionary are those of SHOWN and "images".
    """
    out: dict[str, dict[str, list[float]]] = {}
    for source in sorted({score.source for score in scores}):
        group = [score for score in scores if score.source == source]
        out[source] = {"images": [float(len(group))]}
        for name in SHOWN:
            mean = metrics.bootstrap([score.values[name] for score in group])
            out[source][name] = [round(v, 4) for v in mean]
    return out
