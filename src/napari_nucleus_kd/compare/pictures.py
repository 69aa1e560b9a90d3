"""The pictures of a comparison: plots of all images, and parts of images where segmenters err or disagree."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd import metrics
from napari_nucleus_kd.channels import asked_channels, fit_input, given_input
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.index import true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.mistakes import COLOURS, Verdict, picture
from napari_nucleus_kd.project import grid
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import numpy.typing as npt
    from matplotlib.figure import Figure

    from napari_nucleus_kd.channels import InputMap
    from napari_nucleus_kd.compare.comparison import Case, Comparison
    from napari_nucleus_kd.compare.standings import Place
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.types import Image, LabelArray, Region

_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARGIN_PX = 96  # around the place of a picture
_CASES = 3  # pictures of each source


def figure_steps(comparison: Comparison) -> Generator[Progress, None, dict[str, Figure]]:
    """Return plots by title: average precision over IoU, found over annotated numbers, sizes of nuclei.

    Yields
    ------
    Progress after each image whose nuclei were measured.
    """
    from matplotlib.figure import Figure

    figures = {}
    colours = {name: _LINES[i % len(_LINES)] for i, name in enumerate(comparison.outcomes)}
    if comparison.judged:
        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.add_subplot(
            xlabel="IoU above which a nucleus counts as found", ylabel="average precision"
        )
        for name, outcomes in comparison.outcomes.items():
            mean = np.mean([o.ap for o in outcomes], axis=0)
            axes.plot(metrics.STRICT_IOU, mean, "o-", ms=3, color=colours[name], label=name)
        axes.set_ylim(0, 1)
        axes.legend(fontsize="small")
        figures["Average precision"] = figure
        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="annotated nuclei of an image", ylabel="found nuclei")
        most = 1.0
        for name, outcomes in comparison.outcomes.items():
            true, found = ([o.values[key] for o in outcomes] for key in ("true_count", "pred_count"))
            most = max(most, *true, *found)
            axes.plot(true, found, "o", ms=4, alpha=0.6, color=colours[name], label=name)
        axes.plot([0, most], [0, most], color="black", lw=0.8)
        axes.legend(fontsize="small")
        figures["Counts"] = figure
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="diameter, px (of a circle of the same area)", ylabel="nuclei")
    sizes = yield from _diameter_steps(comparison)
    every = np.concatenate(list(sizes.values()))
    bins = np.linspace(0, np.percentile(every, 99.5) if every.size else 1, 40).tolist()
    for name, diameters in sizes.items():
        colour, wide = colours.get(name, "#999999"), 1.4 if name in colours else 3
        axes.hist(diameters, bins, histtype="step", color=colour, lw=wide, label=name)
    axes.legend(fontsize="small")
    figures["Sizes"] = figure
    return figures


def _diameter_steps(comparison: Comparison) -> Generator[Progress, None, dict[str, npt.NDArray[np.float64]]]:
    """Return the diameters of all nuclei, in pixels, annotated ones first."""
    drawn = ["annotated"] if comparison.judged else []
    parts = {name: [np.zeros(0)] for name in [*drawn, *comparison.outcomes]}
    for done, case in enumerate(comparison.cases, 1):
        for name, diameters in parts.items():
            labels = true_labels(case.row) if name in drawn else comparison.labels_of(name, case)
            if labels is not None:
                diameters.append(metrics.diameters(labels))
        yield Progress(done, len(comparison.cases), "measuring the nuclei")
    return {name: np.concatenate(diameters) for name, diameters in parts.items()}


def shown(comparison: Comparison, places: Sequence[Place]) -> list[tuple[str, Case, Region | None]]:
    """Return titles and regions of what is worth a look: where the first errs, or where all disagree.

    Where there is no region it is the one of most errors, see most_errors.
    """
    if not comparison.judged:
        return [(f"{p.case.name}: agreement {p.agreement:.2f}", p.case, p.region) for p in places]
    out: list[tuple[str, Case, Region | None]] = []
    first, *others = comparison.outcomes.values()
    for source in sorted({case.row.source for case in comparison.cases}):
        group = [i for i, case in enumerate(comparison.cases) if case.row.source == source]
        worst = min(group, key=lambda i: first[i].values["pq"])
        picked = {worst: "where the first is worst"}
        if others:

            def gap(i: int) -> float:
                return max(other[i].values["pq"] for other in others) - first[i].values["pq"]

            behind, ahead = max(group, key=gap), min(group, key=gap)
            if gap(behind) > 0:
                picked.setdefault(behind, "where the first is furthest behind another")
            if gap(ahead) < 0:
                picked.setdefault(ahead, "where the first is furthest ahead of all others")
        for i, why in list(picked.items())[:_CASES]:
            case = comparison.cases[i]
            out.append((f"{source}: {case.name}, {why}", case, None))
    return out


def most_errors(comparison: Comparison, case: Case) -> Region:
    """Return the tile of an image on which the contestants err most."""
    truth = true_labels(case.row)
    wrong = np.zeros(truth.shape, np.int32)
    for name in comparison.outcomes:
        labels = comparison.labels_of(name, case)
        verdicts = picture(truth, np.zeros_like(truth) if labels is None else labels)
        wrong += verdicts > Verdict.CORRECT
    return max(grid(truth.shape), key=lambda region: int(wrong[region.slices].sum()))


def views(comparison: Comparison, case: Case, region: Region) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield captions and pictures of a region and what surrounds it: the image, then what each found.

    Raises
    ------
    ReadError : the image or what was found cannot be read.
    """
    image = read(case.row.image)
    around = region.grown(_MARGIN_PX // 2, image.shape_yx)
    part = _seen(comparison, image, case.row).apply(image.pixels[:, *around.slices])
    plain = (part * 255).round().astype(np.uint8).transpose(1, 2, 0)
    yield "image", plain
    truth = true_labels(case.row) if comparison.judged else None
    for name, outcomes in comparison.outcomes.items():
        labels = comparison.labels_of(name, case)
        outcome = next(o for o in outcomes if o.image == case.name)
        if labels is None:
            labels = np.zeros(image.shape_yx, np.int32)
        said = f"{name}, PQ {outcome.values['pq']:.2f}" if outcome.values else f"{name}, {outcome.count}"
        yield said, _outlined(plain, labels, truth, around)


def _seen(comparison: Comparison, image: Image, row: Row) -> InputMap:
    """Return how the image of a row is shown: as the index says, or as the first that can sees it."""
    if row.low is not None and row.high is not None:
        return given_input(image, tuple(range(len(row.low))), row.modality, row.low, row.high, row.weights)
    wishes = [each.recipe.channels for each in comparison.contestants if each.recipe is not None]
    for channels in (*wishes, None):
        with suppress(SettingsError):
            return fit_input(image, asked_channels(image, channels, row.modality), row.modality)
    return fit_input(image, (0,), row.modality)


def _outlined(
    plain: npt.NDArray[np.uint8], labels: LabelArray, truth: LabelArray | None, around: Region
) -> npt.NDArray[np.uint8]:
    """Return a picture with outlines in the colours of their verdicts; white without ground truth."""
    from skimage.segmentation import find_boundaries

    def edge(of: LabelArray) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = find_boundaries(of[around.slices], mode="inner")
        return found

    marked = plain.copy()
    if truth is None:
        marked[edge(labels)] = 255, 255, 255
        return marked
    verdicts = picture(truth, labels)[around.slices]
    for of in (truth * (labels == 0), labels):
        line = edge(of)
        for verdict in Verdict:
            colour = bytes.fromhex(COLOURS[verdict].removeprefix("#"))
            marked[line & (verdicts == verdict)] = tuple(colour)
    return marked
