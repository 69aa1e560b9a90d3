"""How good is it? Segments annotated images the way a user would, scores and shows the result."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd import metrics
from napari_nucleus_kd.channels import given_input
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.folders import read_rows
from napari_nucleus_kd.index import check_rows, true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.atomic import make_folder, write_csv, write_text
from napari_nucleus_kd.pipeline import segment_steps
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.types import Image, LabelArray

SHOWN = ("pq", "dq", "sq", "ap50", "ap75", "aji", "aji_plus", "dice")
_MEANS = (*SHOWN, "ap", "f1", "pixel_accuracy")
_ENOUGH_TO_COUNT = 5
_SHOWN_CASES = 3  # worst and best images of each source
# True outlines, predicted ones, and where both agree; safe for the colour-blind.
_TRUE, _PREDICTED, _BOTH = (86, 180, 233), (230, 159, 0), (255, 255, 255)


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
    index, split : see folders.read_rows.
    recipe : how to segment; its defaults are what a user gets who changes nothing. Where a row says how the
        image is seen that it is a part of, that is taken.
    true_diameter : tell the segmenter the median diameter of the annotated nuclei, as a user would who
        measured one, instead of letting it estimate.

    Yields
    ------
    Progress after each image, with its PQ.

    Returns
    -------
    One Score an image.
    """
    rows = read_rows(index, split)
    check_rows([], judged=rows)
    return (yield from score_steps(rows, recipe, true_diameter=true_diameter))


def score_steps(
    rows: Sequence[Row], recipe: Recipe, *, true_diameter: bool = False
) -> Generator[Progress, None, list[Score]]:
    """Segment the images of rows, which were checked, and compare them with their labels; see above."""
    found = []
    for i, row in enumerate(rows, 1):
        labels = true_labels(row)
        diameter = metrics.median_diameter(labels)
        told = row.seen | ({"diameter_px": diameter} if true_diameter and diameter else {})
        result = yield from segment_steps(read(row.image), recipe.model_copy(update=told))
        values = metrics.scores(labels, result.nuclei.labels)
        found.append(Score(row.name, row.source, values, result.diameter_px, diameter, result.seconds))
        yield Progress(i, len(rows), row.name, {"pq": values["pq"]})
    return found


def summary(scores: Sequence[Score]) -> dict[str, dict[str, list[float]]]:
    """Return, for each source and metric, the mean over its images and a 95% bootstrap interval.

    The keys of the inner dictionary are "images", the metrics of metrics.scores, and "count_r2".
    """
    out: dict[str, dict[str, list[float]]] = {}
    for source in sorted({score.source for score in scores}):
        group = [score for score in scores if score.source == source]
        out[source] = {"images": [float(len(group))]}
        for name in _MEANS:
            mean = metrics.bootstrap([score.values[name] for score in group])
            out[source][name] = [round(v, 4) for v in mean]
        counts = np.array([(score.values["true_count"], score.values["pred_count"]) for score in group])
        r2 = metrics.bootstrap(counts, metrics.count_r2)
        # It says nothing of a few images, or of images that hold the same number.
        if len(group) >= _ENOUGH_TO_COUNT and np.isfinite(r2).all():
            out[source]["count_r2"] = [round(v, 4) for v in r2]
    return out


def report_steps(
    index: Path, split: str, recipe: Recipe, scores: Sequence[Score], output: Path
) -> Generator[Progress, None, None]:
    """Write what evaluate_steps found: images.csv, summary.json, and pictures of the worst and best images.

    A picture shows the image as the network saw it, and beside it the true outlines (blue), the predicted
    ones (orange) and where both agree (white).

    Raises
    ------
    WriteError : the disk refuses.
    """
    make_folder(output / "pictures")
    write_csv(output / "images.csv", _table(scores))
    write_text(output / "summary.json", json.dumps(summary(scores), indent=2) + "\n")
    rows, cases = read_rows(index, split), _cases(scores)
    for done, (name, i) in enumerate(cases.items(), 1):
        yield from _draw(rows[i], recipe, scores[i], output / "pictures" / name)
        yield Progress(done, len(cases), name)


def _table(scores: Sequence[Score]) -> list[list[str]]:
    names = list(scores[0].values)
    lines = [["image", "source", "diameter_px", "true_diameter_px", "seconds", *names]]
    for s in scores:
        numbers = (s.diameter_px, s.true_diameter_px, s.seconds, *(s.values[name] for name in names))
        lines.append([s.name, s.source, *("" if n is None else f"{n:.6g}" for n in numbers)])
    return lines


def _cases(scores: Sequence[Score]) -> dict[str, int]:
    """Return which images are the worst and best of each source, by the names of their pictures."""
    out: dict[str, int] = {}
    order = sorted(range(len(scores)), key=lambda i: scores[i].values["pq"])
    for source in sorted({score.source for score in scores}):
        group = [i for i in order if scores[i].source == source]
        worst = group[: min(_SHOWN_CASES, -(-len(group) // 2))]
        best = group[len(worst) :][::-1][:_SHOWN_CASES]
        for kind, cases in (("worst", worst), ("best", best)):
            for place, i in enumerate(cases, 1):
                name = f"{source}_{kind}{place}_pq{scores[i].values['pq']:.2f}_{scores[i].name}"
                out[re.sub(r"[^\w.-]", "_", name) + ".png"] = i
    return out


def _draw(row: Row, recipe: Recipe, score: Score, path: Path) -> Generator[Progress, None, None]:
    from skimage.io import imsave

    image, labels = read(row.image), true_labels(row)
    told = recipe.model_copy(update=row.seen | {"diameter_px": score.diameter_px})
    result = yield from segment_steps(image, told)
    try:
        imsave(path, _compared(image, labels, result), check_contrast=False)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}") from error


def _compared(image: Image, labels: LabelArray, result: Result) -> npt.NDArray[np.uint8]:
    """Return the picture and, beside it, the picture with both outlines, (Y, 2 X, 3)."""
    from skimage.segmentation import find_boundaries

    seen = as_seen(image, result.recipe)
    marked = seen.copy()
    true, predicted = (find_boundaries(each, mode="inner") for each in (labels, result.nuclei.labels))
    marked[true], marked[predicted], marked[true & predicted] = _TRUE, _PREDICTED, _BOTH
    return np.hstack([seen, marked])


def as_seen(image: Image, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Return an image as the network saw it in the run of a resolved recipe, (Y, X, 3)."""
    assert recipe.modality is not None and recipe.scaling_low is not None and recipe.scaling_high is not None
    limits = recipe.scaling_low, recipe.scaling_high
    seen = given_input(image, recipe.channels, recipe.modality, *limits).apply(image.pixels)
    return (seen * 255).round().astype(np.uint8).transpose(1, 2, 0).copy()
