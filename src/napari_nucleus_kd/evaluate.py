"""How good is it? Segments annotated images the way a user would, scores and shows the result."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd import metrics
from napari_nucleus_kd.channels import asked_channels
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.folders import read_rows
from napari_nucleus_kd.index import check_rows_steps, read_truth
from napari_nucleus_kd.io import image_suffix, read
from napari_nucleus_kd.io.atomic import beside, make_folder, write_csv, write_text
from napari_nucleus_kd.pipeline import seen, segment_steps
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    import numpy.typing as npt
    from PIL import Image as pil

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.types import Image, LabelArray

SHOWN = ("pq", "dq", "sq", "ap50", "ap75", "aji", "aji_plus", "dice")
_MEANS = (*SHOWN, "ap", "f1", "pixel_accuracy")
OVERALL = "(overall)"  # no name of a source
_ENOUGH_TO_COUNT = 5
FEWEST_IMAGES = 3  # for an interval over images
_SHOWN_CASES = 3  # worst and best images of each source
_REPORT = ("images.csv", "summary.json", "pictures")
_EARLIER = "*_pq[01].[0-9][0-9]_*.png"  # names of pictures of a report
# True outlines, predicted ones, and where both agree; safe for the colour-blind.
_TRUE, _PREDICTED, _BOTH = (86, 180, 233), (230, 159, 0), (255, 255, 255)
_LEGEND = (("annotated", _TRUE), ("found", _PREDICTED), ("both", _BOTH))
_LEGEND_PX = 16  # height of a line of the legend


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
        image is seen that it is a part of, that is taken. Channels concern images that have several.
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
    yield from check_rows_steps([], judged=rows, channels=recipe.channels, mapping=recipe.mapping)
    return (yield from score_steps(rows, recipe, true_diameter=true_diameter))


def score_steps(
    rows: Sequence[Row], recipe: Recipe, *, true_diameter: bool = False
) -> Generator[Progress, None, list[Score]]:
    """Segment the images of rows, which were checked, and compare them with their labels; see above."""
    found = []
    for i, row in enumerate(rows, 1):
        truth = read_truth(row)
        diameter = metrics.median_diameter(truth.nuclei)
        image = read(row.image)
        told = _told_of(row, image, recipe)
        if true_diameter and diameter:
            told["diameter_px"] = diameter
        result = yield from segment_steps(image, recipe.model_copy(update=told))
        values = metrics.scores(*truth.and_found(result.nuclei.labels))
        found.append(Score(row.name, row.source, values, result.diameter_px, diameter, result.seconds))
        yield Progress(i, len(rows), row.name, {"pq": values["pq"]})
    return found


def _told_of(row: Row, image: Image, recipe: Recipe) -> dict[str, Any]:
    """Return how the image of a row is seen, as settings of a Recipe."""
    return {"channels": asked_channels(image, recipe.channels, row.modality)} | row.seen


def summary(scores: Sequence[Score]) -> dict[str, dict[str, list[float]]]:
    """Return, for each source and metric, the mean over its images and a 95% bootstrap interval.

    Of several sources all images together come last, as OVERALL. The keys of the inner dictionary are
    "images", the metrics of metrics.scores, and "count_r2".
    """
    out: dict[str, dict[str, list[float]]] = {}
    sources = sorted({score.source for score in scores})
    groups = {source: [score for score in scores if score.source == source] for source in sources}
    if len(groups) > 1:
        groups[OVERALL] = list(scores)
    for source, group in groups.items():
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


def tellable(values: Mapping[str, Sequence[float]]) -> tuple[dict[str, list[float | None]], list[str]]:
    """Return the numbers of a source with None for what its few images cannot tell, and why, in sentences.

    Parameters
    ----------
    values : of one source, from summary.
    """
    count, notes = int(values["images"][0]), []
    told: dict[str, list[float | None]] = {name: list(numbers) for name, numbers in values.items()}
    if count < FEWEST_IMAGES:
        some = "1 image says" if count == 1 else f"{count} images say"
        notes.append(f"No 95% intervals: {some} nothing of the spread; give at least {FEWEST_IMAGES}.")
        told |= {name: [numbers[0], None, None] for name, numbers in told.items() if name != "images"}
    if count < _ENOUGH_TO_COUNT or "count_r2" not in values:
        notes.append(
            f"No R2 of the counts: it takes at least {_ENOUGH_TO_COUNT} images that differ in their number "
            "of nuclei."
        )
        told["count_r2"] = [None, None, None]
    return told, notes


def only_tellable(values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return the numbers of a source without what its few images cannot tell; see tellable."""
    told, _ = tellable(values)
    known = {name: [n for n in numbers if n is not None] for name, numbers in told.items()}
    return {name: numbers for name, numbers in known.items() if numbers}


def check_report(output: Path, *, overwrite: bool) -> None:
    """Raise WriteError if a folder holds a report already, unless that may be replaced."""
    there = next((output / name for name in _REPORT if (output / name).exists()), None)
    if there is not None and not overwrite:
        raise WriteError(f"{there} exists; add --overwrite or choose another --output")


def report_steps(
    index: Path, split: str, recipe: Recipe, scores: Sequence[Score], output: Path, *, overwrite: bool = False
) -> Generator[Progress, None, None]:
    """Write what evaluate_steps found: images.csv, summary.json, and pictures of the worst and best images.

    A picture shows the image as the network saw it, and beside it the annotated outlines (blue), those found
    (orange) and where both agree (white). In summary.json, null stands for what so few images cannot tell.

    Parameters
    ----------
    overwrite : replace a report that is there, with its pictures.

    Raises
    ------
    WriteError : a report is there and overwrite is False, or the disk refuses.
    """
    check_report(output, overwrite=overwrite)
    pictures = output / "pictures"
    make_folder(pictures)
    earlier = set(pictures.glob(_EARLIER))
    write_csv(output / "images.csv", _table(scores))
    write_text(output / "summary.json", _told(summary(scores)))
    rows, cases = read_rows(index, split), _cases(scores)
    for done, (name, i) in enumerate(cases.items(), 1):
        yield from _draw(rows[i], recipe, scores[i], pictures / name)
        yield Progress(done, len(cases), name)
    for path in earlier - {pictures / name for name in cases}:
        path.unlink(missing_ok=True)


def _told(found: dict[str, dict[str, list[float]]]) -> str:
    """Return a summary as JSON, null for what so few images cannot tell, and the reason in "notes"."""
    told = {source: tellable(values) for source, values in found.items()}
    texts = {source: numbers | {"notes": notes} for source, (numbers, notes) in told.items()}
    return json.dumps(texts, indent=2, allow_nan=False) + "\n"


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
                image = scores[i].name.removesuffix(image_suffix(Path(scores[i].name)))
                name = f"{source}_{kind}{place}_pq{scores[i].values['pq']:.2f}_{image}"
                out[re.sub(r"[^\w.-]", "_", name) + ".png"] = i
    return out


def _draw(row: Row, recipe: Recipe, score: Score, path: Path) -> Generator[Progress, None, None]:
    image = read(row.image)
    told = _told_of(row, image, recipe) | {"diameter_px": score.diameter_px}
    result = yield from segment_steps(image, recipe.model_copy(update=told))
    labels = read_truth(row).and_found(result.nuclei.labels)
    with beside(path) as partial:
        _with_legend(_compared(as_seen(image, result.recipe), *labels)).save(partial, format="PNG")


def _compared(seen: npt.NDArray[np.uint8], true: LabelArray, found: LabelArray) -> npt.NDArray[np.uint8]:
    """Return the picture and, beside it, the picture with both outlines, (Y, 2 X, 3)."""
    from skimage.segmentation import find_boundaries

    marked = seen.copy()
    drawn, predicted = (find_boundaries(each, mode="inner") for each in (true, found))
    marked[drawn], marked[predicted], marked[drawn & predicted] = _TRUE, _PREDICTED, _BOTH
    return np.hstack([seen, marked])


def _with_legend(picture: npt.NDArray[np.uint8]) -> pil.Image:
    """Return a picture, (Y, X, 3), with the meaning of the colours below it."""
    from PIL import Image as pil
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default()
    steps = [round(font.getlength(text)) + 2 * _LEGEND_PX for text, _ in _LEGEND]
    legend = pil.new("RGB", (sum(steps), _LEGEND_PX))
    draw, left, edge = ImageDraw.Draw(legend), 0, _LEGEND_PX // 4
    for (text, colour), step in zip(_LEGEND, steps, strict=True):
        draw.rectangle((left + edge, edge, left + 3 * edge, 3 * edge), fill=colour)
        draw.text((left + _LEGEND_PX, _LEGEND_PX / 2), text, fill=_BOTH, font=font, anchor="lm")
        left += step
    height, width = picture.shape[:2]
    larger = max(1, width // 1000)  # in a large picture a line of 16 pixels is hardly seen
    legend = legend.resize((larger * legend.width, larger * legend.height), pil.Resampling.NEAREST)
    canvas = pil.new("RGB", (max(width, legend.width), height + legend.height))
    canvas.paste(pil.fromarray(picture), (0, 0))
    canvas.paste(legend, (0, height))
    return canvas


def as_seen(image: Image, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Return an image as the network saw it in the run of a resolved recipe, (Y, X, 3)."""
    picture, _ = seen(image, recipe)
    return (picture * 255).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
