"""What runs in a thread for the Compare widget: a part of the image, compared as a folder of images is."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.mistakes import Verdict
from napari_nucleus_kd.widgets._words import enhanced

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.figure import Figure

    from napari_nucleus_kd.compare import Comparison, Standing
    from napari_nucleus_kd.compare.standings import Interval
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Image, LabelArray, Progress, Region


_PLOT_INCHES, _PLOT_DPI = (4.2, 3.2), 80  # as wide as a dock
CORRECT, MISSED = Verdict.CORRECT, Verdict.MISSED


@dataclass(frozen=True, slots=True)
class Wrong:
    """A nucleus that was not found as it is.

    Attributes
    ----------
    verdict : number of its mistakes.Verdict.
    at : (y, x) of its middle, in pixels of the part.
    """

    verdict: int
    at: tuple[float, float]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Compared:
    """What came of a comparison of one part of an image; its folder goes with it.

    Attributes
    ----------
    region : of the image.
    pictures : the Verdict of each pixel, (Y, X) uint8, by contestant; {} without ground truth.
    wrong : by contestant, from top to bottom.
    pairs : agreement of each pair; {} with ground truth.
    places : where they agree least: middle (y, x) in pixels of the part.
    plots : (Y, X, 4) uint8, by title; see compare.figure_steps.
    """

    comparison: Comparison
    region: Region
    standings: list[Standing]
    pictures: dict[str, npt.NDArray[np.uint8]]
    wrong: dict[str, list[Wrong]]
    pairs: dict[tuple[str, str], Interval]
    places: list[tuple[float, float]]
    plots: dict[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be compared.

    Attributes
    ----------
    recipe : how all of them see the image: its modality, mapping and channels.
    recipes : of the segmenters, by name.
    layers : labels that are there, (Y, X) of the region, by name.
    truth : name of the ground truth and its labels, of the region.
    valid : (Y, X), not 0 where the ground truth is complete, of the region; None: everywhere.
    memory : whether to measure the memory that each segmenter needs, too.
    """

    image: Image
    region: Region
    recipe: Recipe
    recipes: Mapping[str, Recipe]
    layers: Mapping[str, LabelArray]
    truth: tuple[str, LabelArray] | None
    valid: npt.NDArray[np.uint8] | None = None
    memory: bool = False


def compared_steps(question: Question) -> Generator[Progress, None, Compared]:
    """Write the part and the labels that are there into a folder of its own, and compare.

    The part is seen through the scaling of the whole image that each segmenter would measure.
    """
    folder = Path(tempfile.mkdtemp(prefix="nucleus-kd-compare-"))
    try:
        compared = yield from _compared_steps(question, folder)
    except BaseException:  # also a cancelled one
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(compared, shutil.rmtree, folder, ignore_errors=True)
    return compared


def _compared_steps(question: Question, folder: Path) -> Generator[Progress, None, Compared]:
    from napari_nucleus_kd import segmenters
    from napari_nucleus_kd.compare import (
        Case,
        Contestant,
        agreement_steps,
        compare_steps,
        figure_steps,
        memory_steps,
        standings,
    )
    from napari_nucleus_kd.index import Row, true_labels
    from napari_nucleus_kd.io import save_labels
    from napari_nucleus_kd.io.atomic import make_folder
    from napari_nucleus_kd.io.images import write_image
    from napari_nucleus_kd.mappings import fit_mapping
    from napari_nucleus_kd.mistakes import mistakes, picture
    from napari_nucleus_kd.modality import suggest_modality
    from napari_nucleus_kd.types import Progress

    yield Progress(0, 0, "taking the part of the image")
    image, region = question.image, question.region
    modality = question.recipe.modality or suggest_modality(image)[0]
    seen, measured = fit_mapping(image, question.recipe, modality, question.recipe.percentiles)
    asked = question.recipe.model_copy(update={**measured, "channels": seen.channels})
    rgb = image.rgb and len(seen.channels) == len(image.channels)
    stem = re.sub(r"\W+", "_", image.name)[:40].strip("_") or "image"
    data = folder / "data"
    make_folder(data)
    write_image(
        data / f"{stem}.tif",
        np.asarray(seen.select(image.pixels)[:, *region.slices]),
        rgb=rgb,
        pixel_size_um=image.pixel_size_um,
        channels=() if rgb else [image.channels[i].name for i in seen.channels],
    )
    truth = None
    if question.truth is not None:
        name, labels = question.truth
        make_folder(folder / "truth")
        truth = save_labels(labels, folder / "truth" / f"{_for_a_file(name)}.tif")
    valid = None
    if question.valid is not None:
        valid = save_labels(question.valid.astype(np.int32), folder / "truth" / "complete here.tif")
    contestants = []
    for name, recipe in question.recipes.items():
        percentiles = segmenters.load(recipe.segmenter, recipe).percentiles
        if "percentiles" in asked.model_fields_set:
            percentiles = asked.percentiles
        scaled, _ = fit_mapping(image, asked, modality, percentiles)
        seen_so = {**measured, "mapping": asked.mapping, "channels": None}
        seen_so |= {"scaling_low": scaled.low, "scaling_high": scaled.high}
        if not rgb:  # only these are in the file
            seen_so["channels"] = tuple(range(len(scaled.channels)))
        contestants.append(Contestant(name, recipe.model_copy(update=seen_so)))
    for number, (name, labels) in enumerate(question.layers.items()):
        place = folder / "layers" / str(number) / _for_a_file(name)
        make_folder(place)
        save_labels(labels, place / f"{stem}.tif")
        contestants.append(Contestant(name, labels=place))
    judge = question.truth[0] if question.truth else "none"
    about = (
        f"{', '.join([str(image.source or image.name), *image.notes])}, y {region.y0} to {region.y1}, "
        f"x {region.x0} to {region.x1}{enhanced(question.recipe)}; ground truth: {judge}"
    )
    case = Case(stem, Row(data / f"{stem}.tif", truth, modality, image.name, valid), about)
    comparison = yield from compare_steps([case], contestants, folder)
    if question.memory:
        comparison = yield from memory_steps(comparison)
    pictures: dict[str, npt.NDArray[np.uint8]] = {}
    wrong: dict[str, list[Wrong]] = {}
    if question.truth is not None:
        true = true_labels(case.row)
        for name in comparison.outcomes:
            found = comparison.labels_of(name, case)
            labels = np.zeros_like(true) if found is None else found
            marks = mistakes(true, labels)
            pictures[name] = picture(true, labels, marks)
            wrong[name] = sorted(
                [
                    *_wrong(labels, marks.pred_ids, marks.pred),
                    # Split and merged nuclei are gone to by what was drawn of them.
                    *_wrong(true, marks.true_ids, np.where(marks.true == MISSED, MISSED, CORRECT)),
                ],
                key=lambda w: w.at,
            )
    pairs, places = yield from agreement_steps(comparison)
    middles = [
        (p.region.y0 + p.region.shape_yx[0] / 2, p.region.x0 + p.region.shape_yx[1] / 2) for p in places
    ]
    figures = yield from figure_steps(comparison)
    yield Progress(0, 0, "drawing")
    plots = {title: _drawn(figure) for title, figure in figures.items()}
    return Compared(comparison, region, standings(comparison), pictures, wrong, pairs, middles, plots)


def _drawn(figure: Figure) -> npt.NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_size_inches(*_PLOT_INCHES)
    figure.set_dpi(_PLOT_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def holds_comparison(folder: Path) -> bool:
    """Tell whether a folder holds a comparison, which its report would replace."""
    from napari_nucleus_kd.compare import holds_comparison as holds

    return holds(folder)


def report_steps(compared: Compared, folder: Path) -> Generator[Progress, None, Path]:
    """Write the report of a comparison, with all that was found, into a folder; one that is there goes."""
    from napari_nucleus_kd.compare import forget_former, refuse_others
    from napari_nucleus_kd.compare import report_steps as steps
    from napari_nucleus_kd.errors import WriteError

    comparison = compared.comparison
    refuse_others(folder, comparison.cases, comparison.contestants, overwrite=True)
    forget_former(folder)
    try:
        shutil.copytree(comparison.folder / "labels", folder / "labels", dirs_exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be written: {error}; choose another folder") from error
    return (yield from steps(comparison, folder))


def _for_a_file(name: str) -> str:
    return re.sub(r"[^\w -]+", "_", name)[:60].strip()


def _wrong(labels: LabelArray, ids: npt.NDArray[Any], verdicts: npt.NDArray[Any]) -> Sequence[Wrong]:
    from scipy.ndimage import center_of_mass

    bad = np.flatnonzero(verdicts != CORRECT)
    middles = center_of_mass(labels > 0, labels, ids[bad]) if len(bad) else []
    return [Wrong(int(verdicts[i]), (float(y), float(x))) for i, (y, x) in zip(bad, middles, strict=True)]
