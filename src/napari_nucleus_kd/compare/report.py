"""Writes a comparison: tables as CSV and JSON, and one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd import __version__, metrics
from napari_nucleus_kd.channels import asked_channels, fit_input, given_input
from napari_nucleus_kd.compare.run import REPORT, Size, refuse_others
from napari_nucleus_kd.compare.standings import MEANS, agreements, standings
from napari_nucleus_kd.errors import ReadError, SettingsError
from napari_nucleus_kd.evaluate import OVERALL
from napari_nucleus_kd.index import true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.atomic import make_folder, write_csv, write_text
from napari_nucleus_kd.mistakes import COLOURS, Verdict, picture
from napari_nucleus_kd.project import grid
from napari_nucleus_kd.train.card import HEADS
from napari_nucleus_kd.types import Progress, Region
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.figure import Figure

    from napari_nucleus_kd.channels import InputMap
    from napari_nucleus_kd.compare.run import Case, Comparison
    from napari_nucleus_kd.compare.standings import Interval, Place, Standing
    from napari_nucleus_kd.index import Row
    from napari_nucleus_kd.types import Image, LabelArray

_HEADS = {**HEADS, "f1": "mean F1"}
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARGIN_PX = 96  # around the place of a picture
_PICTURE_PX = 352  # about the edge of a part of an image that is shown
_CASES = 3  # pictures of each source
_OVER_IMAGES = (
    "Means over images; in brackets 95% bootstrap intervals over images (1,000 replicates, at least 3 "
    "images). p: two-sided Wilcoxon signed-rank test of the PQ of each image against the first segmenter's "
    "(at least 6 images)"
)
_OVER_NUCLEI = (
    "In brackets the 95% bootstrap interval of the PQ over the nuclei of this image (1,000 replicates); "
    "another image may differ by more. p: how likely so large a difference of the PQ to the first "
    "segmenter's is by chance, from swapping at random what became of nuclei (approximate randomization, at "
    "least 6 nuclei)"
)


def report_steps(comparison: Comparison, output: Path) -> Generator[Progress, None, Path]:
    """Write comparison.csv, images.csv, comparison.json and report.html.

    Yields
    ------
    Progress after each picture of the report.

    Returns
    -------
    Path of report.html, which needs no other file.

    Raises
    ------
    WriteError : the disk refuses, or `output` holds a report that no comparison wrote.
    """
    refuse_others(output)
    make_folder(output)
    reached = standings(comparison)
    pairs, places = ({}, []) if comparison.judged else agreements(comparison)
    numbers, table, images, page = (output / name for name in REPORT)
    write_text(numbers, _as_json(comparison, reached, pairs))
    write_csv(table, _table(comparison, reached))
    write_csv(images, _images(comparison))
    shown = list(_shown(comparison, places))
    parts = [_head(comparison), *_standing_tables(comparison, reached), *_pair_table(pairs)]
    parts += [_figure_part(title, figure) for title, figure in figures(comparison)]
    parts.append(_legend(comparison))
    for done, (title, case, region) in enumerate(shown, 1):
        try:
            parts.append(_pictures(comparison, title, case, region))
        except ReadError as error:
            parts.append(f"<h3>{html.escape(title)}</h3><p>Cannot be shown: {html.escape(str(error))}</p>")
        yield Progress(done, len(shown), f"drawing {case.name}")
    write_text(page, _PAGE.replace("{{body}}", "\n".join(parts)))
    return page


def _table(comparison: Comparison, reached: Sequence[Standing]) -> Iterator[list[object]]:
    verdicts = [verdict.name.lower() for verdict in Verdict] if comparison.judged else []
    means = MEANS if comparison.judged else ()
    head = ["source", "segmenter", "images", "failed"]
    for name in means:
        head += [name, f"{name}_low", f"{name}_high"]
    head += ["pq_ahead", "pq_ahead_low", "pq_ahead_high", "p"] if means else []
    yield [*head, "found", *verdicts, "median_seconds", "memory_mb", "parameters", "description"]
    for row in reached:
        cells: list[object] = [row.source, row.contestant, row.images, row.failed]
        for name in means:
            cells += [_plain(value) for value in row.means[name]]
        if means:
            cells += [_plain(value) for value in (*(row.ahead or (None,) * 3), row.p)]
        facts = comparison.facts[row.contestant]
        cells += [row.counts.get(name, 0) for name in ("found", *verdicts)]
        yield [
            *(*cells, _plain(row.seconds), megabytes(comparison, row.contestant)),
            *(facts.parameters or "", facts.description),
        ]


def megabytes(comparison: Comparison, contestant: str) -> str:
    """Return the memory of a contestant in units of 10**6 bytes; "" where it was not measured."""
    held = comparison.memory_of(contestant)
    return "" if held is None else f"{held / 1e6:.0f}"


def _plain(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _images(comparison: Comparison) -> Iterator[list[object]]:
    first = next(iter(comparison.outcomes.values()))[0]
    names, verdicts = list(first.values), list(first.verdicts)
    yield [
        *("image", "source", "segmenter", "count", "diameter_px", "seconds", "memory_bytes", "problem"),
        *names,
        *verdicts,
    ]
    for outcomes in comparison.outcomes.values():
        for o in outcomes:
            numbers = (o.values.get(name) for name in names)
            yield [
                *(
                    o.image,
                    o.source,
                    o.contestant,
                    o.count,
                    _plain(o.diameter_px),
                    _plain(o.seconds),
                    "" if o.memory_bytes is None else o.memory_bytes,
                    o.problem,
                ),
                *(_plain(number) for number in numbers),
                *(o.verdicts.get(name, 0) for name in verdicts),
            ]


def _as_json(
    comparison: Comparison, reached: Sequence[Standing], pairs: dict[tuple[str, str], Interval]
) -> str:
    told = {
        "program": f"napari-nucleus-kd {__version__}",
        "images": [case.about or str(case.row.image) for case in comparison.cases],
        "segmenters": {
            c.name: {
                **comparison.facts[c.name].model_dump(),
                "memory_bytes": comparison.memory_of(c.name),
                "diameter": c.size.value,
                "recipe": None if c.recipe is None else c.recipe.model_dump(mode="json", exclude_unset=True),
            }
            for c in comparison.contestants
        },
        "standings": [asdict(row) for row in reached],
        "agreement_f1": [{"pair": pair, "mean_low_high": interval} for pair, interval in pairs.items()],
    }
    return json.dumps(_finite(told), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Return JSON with null for what few images cannot tell."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _head(comparison: Comparison) -> str:
    number, rows = len(comparison.cases), [case.row for case in comparison.cases]
    unless = ", where the index does not tell it" if any(row.diameter_px for row in rows) else ""
    sizes = {
        Size.ESTIMATED: f"estimates the diameter of the nuclei itself{unless}",
        Size.OWN: "sees the image as it is, at the size it was made for",
        Size.ANNOTATED: "is told the median diameter of the annotation",
    }
    lines = [
        f"<h1>Comparison on {count(number, 'image')}</h1>",
        "<p>All segmenters got the same files and, unless a recipe names others, the same channels. "
        "Intensities are scaled between the percentiles that each was trained with, and clipped there; "
        "thresholds, and the way from the network's maps to nuclei, are each one's own. An image "
        "on which one failed counts as one in which it found nothing, or, without nuclei, as wrong. Seconds "
        "are those of segmenting, each tool being open and warm, and all taking turns, on the images that "
        "all could do. "
        f"{_computer()} napari-nucleus-kd {html.escape(__version__)}.</p>",
    ]
    said = [html.escape(case.about) for case in comparison.cases if case.about]
    if any(row.low for row in rows):
        said.append("Images are scaled as the index says, for all segmenters alike.")
    lines += [*(f"<p>{text}</p>" for text in said), "<ul>"]
    for each in comparison.contestants:
        how = "" if each.recipe is None else f"; {sizes[each.size]}"
        if each.recipe is not None and (each.recipe.diameter_px or each.recipe.diameter_um):
            px, um = each.recipe.diameter_px, each.recipe.diameter_um
            how = f"; is told a diameter of {f'{px:g} px' if px else f'{um:g} µm'}"
        facts = comparison.facts[each.name]
        noted = {note for outcome in comparison.outcomes[each.name] for note in outcome.notes}
        how += "".join(f"; {html.escape(note)}" for note in sorted(noted))
        lines.append(f"<li><b>{html.escape(each.name)}</b>: {html.escape(facts.description)}{how}.</li>")
    problems = [o for outcomes in comparison.outcomes.values() for o in outcomes if o.problem]
    lines.append("</ul>")
    made = (o for of in comparison.outcomes.values() for o in of)
    sittings = sorted({o.begun for o in made if o.seconds is not None})
    if len(sittings) > 1:
        lines.append(
            f"<p>The seconds were measured in {len(sittings)} sittings (begun {', '.join(sittings)}), "
            "so what else the computer did may not be the same for all.</p>"
        )
    if comparison.measured is not None:
        lines.append(
            "<p>Memory (in MB, 10<sup>6</sup> bytes): the most main memory, without that of a GPU, that the "
            "process had that segmented the largest image, "
            f"{html.escape(comparison.measured.name)}, its libraries included. Models of this program and "
            "the classical method read and scale the image in it, too; of Cellpose and StarDist it is the "
            "tool's own process alone.</p>"
        )
    if problems:
        lines.append("<p><b>Failed:</b></p><ul>")
        lines += [
            f"<li>{html.escape(f'{o.contestant} on {o.image}: {o.problem}')}</li>" for o in problems[:20]
        ]
        lines.append("</ul>")
    return "\n".join(lines)


def _computer() -> str:
    import os

    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{count(cores or 1, 'core')}, {count(torch.get_num_threads(), 'thread')} of PyTorch."


def _standing_tables(comparison: Comparison, reached: Sequence[Standing]) -> Iterator[str]:
    judged = comparison.judged
    verdicts = [v.name.lower() for v in Verdict] if judged else []
    means = MEANS if judged else ()
    for source in dict.fromkeys(row.source for row in reached):
        rows = [row for row in reached if row.source == source]
        name = "All images" if source == OVERALL else source
        yield f"<h2>{html.escape(name)}: {count(rows[0].images, 'image')}</h2>"
        heads = [
            "segmenter",
            *(["PQ", "PQ ahead of the first", "p"] if judged else []),
            "s an image (median)",
            "MB of memory",
        ]
        heads += [*(_HEADS[name] for name in means[1:]), "found", *verdicts, "parameters", "failed"]
        body = [_cells(comparison, row, means, verdicts) for row in rows]
        yield _html_table(heads, body)
    if judged:
        over = _OVER_NUCLEI if len(comparison.cases) == 1 else _OVER_IMAGES
        yield (
            f"<p>{over}, not corrected for comparing several. Numbers of nuclei: <i>missed</i> are annotated "
            "ones; the others are outlines that were found. Click a head to sort.</p>"
        )


def _cells(
    comparison: Comparison, row: Standing, means: Sequence[str], verdicts: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the cells of a line: by what they are sorted, and what they show."""
    cells = [(row.contestant, html.escape(row.contestant))]
    if means:
        cells += [_cell(row.means["pq"]), ("", "") if row.ahead is None else _cell(row.ahead, sign="+")]
        cells.append((_plain(row.p), "" if row.p is None else f"{row.p:.2g}"))
    cells.append((_plain(row.seconds), "" if row.seconds is None else f"{row.seconds:.2f}"))
    held = megabytes(comparison, row.contestant)
    cells.append((held, held and f"{int(held):,}"))
    cells += [_cell(row.means[name]) for name in means[1:]]
    cells += [(str(n), f"{n:,}") for n in (row.counts.get(name, 0) for name in ("found", *verdicts))]
    parameters = comparison.facts[row.contestant].parameters
    cells.append(("", "") if parameters is None else (str(parameters), f"{parameters / 1e6:.2f} M"))
    return [*cells, (str(row.failed), str(row.failed))]


def _cell(interval: Interval, sign: str = "") -> tuple[str, str]:
    mean, low, high = interval
    spread = f"<br><small>({low:{sign}.3f} to {high:{sign}.3f})</small>" if math.isfinite(low) else ""
    return _plain(mean), f"{mean:{sign}.3f}{spread}"


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f'<td data-v="{html.escape(by)}">{text}</td>' for by, text in row) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _pair_table(pairs: dict[tuple[str, str], Interval]) -> Iterator[str]:
    if not pairs:
        return
    yield "<h2>Who agrees with whom</h2>"
    rows = [[(a, html.escape(a)), (b, html.escape(b)), _cell(found)] for (a, b), found in pairs.items()]
    yield _html_table(["segmenter", "and", "F1 at IoU 0.5, mean over images"], rows)
    yield "<p>Without annotation nobody knows who is right. Below, the places where they agree least.</p>"


def figures(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    """Yield titles and plots: average precision over IoU, found over annotated numbers, sizes of nuclei."""
    from matplotlib.figure import Figure

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
        yield "Average precision", figure
        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="annotated nuclei of an image", ylabel="found nuclei")
        most = 1.0
        for name, outcomes in comparison.outcomes.items():
            true, found = ([o.values[key] for o in outcomes] for key in ("true_count", "pred_count"))
            most = max(most, *true, *found)
            axes.plot(true, found, "o", ms=4, alpha=0.6, color=colours[name], label=name)
        axes.plot([0, most], [0, most], color="black", lw=0.8)
        axes.legend(fontsize="small")
        yield "Counts", figure
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="diameter, px (of a circle of the same area)", ylabel="nuclei")
    sizes = {name: _diameters(comparison, name) for name in comparison.outcomes}
    if comparison.judged:
        sizes = {
            "annotated": _join(metrics.diameters(true_labels(case.row)) for case in comparison.cases)
        } | sizes
    every = np.concatenate(list(sizes.values()))
    bins = np.linspace(0, np.percentile(every, 99.5) if every.size else 1, 40).tolist()
    for name, diameters in sizes.items():
        colour, wide = colours.get(name, "#999999"), 1.4 if name in colours else 3
        axes.hist(diameters, bins, histtype="step", color=colour, lw=wide, label=name)
    axes.legend(fontsize="small")
    yield "Sizes", figure


def _diameters(comparison: Comparison, name: str) -> npt.NDArray[np.float64]:
    found = (comparison.labels_of(name, case) for case in comparison.cases)
    return _join(metrics.diameters(labels) for labels in found if labels is not None)


def _join(parts: Iterator[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *parts])


def _figure_part(title: str, figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg")
    svg = file.getvalue()
    return f"<figure><figcaption>{title}</figcaption>{svg[svg.index('<svg') :]}</figure>"


def _legend(comparison: Comparison) -> str:
    if not comparison.judged:
        return ""
    spots = "".join(
        f'<span class="key" style="background:{COLOURS[v]}"></span>{v.name.lower()} ' for v in Verdict
    )
    return (
        f"<h2>Where they err</h2><p>{spots}</p><p>Outlines as found; in the colour of <i>missed</i>, "
        "<i>split</i> and <i>merged</i> also annotated nuclei where nothing was found.</p>"
    )


def _shown(comparison: Comparison, places: Sequence[Place]) -> Iterator[tuple[str, Case, Region]]:
    """Yield titles and places of the pictures."""
    if not comparison.judged:
        for place in places:
            yield f"{place.case.name}: agreement {place.agreement:.2f}", place.case, place.region
        return
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
            yield f"{source}: {case.name}, {why}", case, _most_errors(comparison, case)


def _most_errors(comparison: Comparison, case: Case) -> Region:
    """Return the tile of an image on which the contestants err most."""
    truth = true_labels(case.row)
    wrong = np.zeros(truth.shape, np.int32)
    for name in comparison.outcomes:
        labels = comparison.labels_of(name, case)
        verdicts = picture(truth, np.zeros_like(truth) if labels is None else labels)
        wrong += verdicts > Verdict.CORRECT
    return max(grid(truth.shape), key=lambda region: int(wrong[region.slices].sum()))


def _pictures(comparison: Comparison, title: str, case: Case, region: Region) -> str:
    image = read(case.row.image)
    height, width = image.shape_yx
    around = Region(
        max(0, region.y0 - _MARGIN_PX // 2),
        max(0, region.x0 - _MARGIN_PX // 2),
        min(height, region.y1 + _MARGIN_PX // 2),
        min(width, region.x1 + _MARGIN_PX // 2),
    )
    row = case.row
    part = _seen(comparison, image, row).apply(image.pixels[:, *around.slices])
    plain = (part * 255).round().astype(np.uint8).transpose(1, 2, 0)
    truth = true_labels(row) if comparison.judged else None
    shown = [("image", plain)]
    for name, outcomes in comparison.outcomes.items():
        labels = comparison.labels_of(name, case)
        outcome = next(o for o in outcomes if o.image == case.name)
        if labels is None:
            labels = np.zeros(image.shape_yx, np.int32)
        said = f"{name}, PQ {outcome.values['pq']:.2f}" if outcome.values else f"{name}, {outcome.count}"
        shown.append((said, _outlined(plain, labels, truth, around)))
    cells = "".join(
        f'<figure><img alt="{html.escape(text)}" src="data:image/png;base64,{_png(pixels)}">'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for text, pixels in shown
    )
    return f'<h3>{html.escape(title)}</h3><div class="row">{cells}</div>'


def _seen(comparison: Comparison, image: Image, row: Row) -> InputMap:
    """Return how the image of a row is shown: as the index says, or as the first that can sees it."""
    if row.low is not None and row.high is not None:
        return given_input(image, tuple(range(len(row.low))), row.modality, row.low, row.high)
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


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image as pil

    file = io.BytesIO()
    larger = max(1, round(_PICTURE_PX / max(pixels.shape[:2])))
    shown = pil.fromarray(pixels)
    shown.resize((larger * shown.width, larger * shown.height), pil.Resampling.NEAREST).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Comparison of segmenters</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 100em; padding: 0 1em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25em .6em; text-align: right; vertical-align: top; border-bottom: 1px solid #ddd }
th { cursor: pointer; border-bottom: 2px solid #888 } th:first-child, td:first-child { text-align: left }
small { color: #666 } .wide { overflow-x: auto }
figure { display: inline-block; margin: 0 .5em .5em 0; vertical-align: top } figcaption { font-size: 13px }
.row { display: flex; flex-wrap: wrap } .row img { width: 20em; image-rendering: pixelated }
.key { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 .8em; border: 1px solid #888 }
</style></head><body>
{{body}}
<script>
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], i = head.cellIndex;
  const value = row => row.cells[i].dataset.v, falling = head.dataset.falling !== "1";
  head.dataset.falling = falling ? "1" : "";
  const rows = [...body.rows].sort((a, b) => {
    const x = parseFloat(value(a)), y = parseFloat(value(b));
    const order = isNaN(x) || isNaN(y) ? value(a).localeCompare(value(b)) : x - y;
    return falling ? -order : order;
  });
  body.append(...rows);
};
</script></body></html>
"""
