"""Writes a comparison: tables as CSV and JSON, and one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd import __version__
from napari_nucleus_kd.compare.comparison import Size
from napari_nucleus_kd.compare.computer import computer
from napari_nucleus_kd.compare.folder import REPORT, refuse_others
from napari_nucleus_kd.compare.pictures import figure_steps, most_errors, shown, views
from napari_nucleus_kd.compare.standings import MEANS, agreement_steps, standings
from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.evaluate import OVERALL
from napari_nucleus_kd.io.atomic import make_folder, write_csv, write_text
from napari_nucleus_kd.mistakes import COLOURS, Verdict
from napari_nucleus_kd.train.card import HEADS
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from napari_nucleus_kd.compare.comparison import Comparison
    from napari_nucleus_kd.compare.standings import Agreement, Interval, Standing

_HEADS = {**HEADS, "f1": "mean F1"}
_SHOWN_FAILURES = 20
_PICTURE_PX = 352  # about the edge of a part of an image that is shown
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


def report_steps(
    comparison: Comparison, output: Path, agreement: Agreement | None = None
) -> Generator[Progress, None, Path]:
    """Write comparison.csv, images.csv, comparison.json and report.html.

    Parameters
    ----------
    agreement : of the contestants, if it was looked at before.

    Yields
    ------
    Progress after each image, and each picture of the report.

    Returns
    -------
    Path of report.html, which needs no other file.

    Raises
    ------
    WriteError : the disk refuses, or `output` holds another comparison, or a report that none wrote.
    """
    refuse_others(output, comparison.cases, comparison.contestants)
    make_folder(output)
    reached = standings(comparison)
    if agreement is None:
        agreement = yield from agreement_steps(comparison)
    pairs, places = agreement
    numbers, table, images, page = (output / name for name in REPORT)
    write_text(numbers, _as_json(comparison, reached, pairs))
    write_csv(table, _table(comparison, reached))
    write_csv(images, _images(comparison))
    parts = [_head(comparison), *_standing_tables(comparison, reached), *_pair_table(pairs)]
    figures = yield from figure_steps(comparison)
    parts += [_figure_part(title, figure) for title, figure in figures.items()]
    parts.append(_legend(comparison))
    worth_a_look = shown(comparison, places)
    for done, (title, case, region) in enumerate(worth_a_look, 1):
        parts.append(f"<h3>{html.escape(title)}</h3>")
        try:
            region = region or most_errors(comparison, case)
            parts.append(_picture_row(list(views(comparison, case, region))))
        except ReadError as error:
            parts.append(f"<p>Cannot be shown: {html.escape(str(error))}</p>")
        yield Progress(done, len(worth_a_look), f"drawing {case.name}")
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
        "computer": computer(),
        "images": [case.shown for case in comparison.cases],
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
        Size.OWN: "takes the diameter it was made for on every image",
        Size.ANNOTATED: "is told the median diameter of the annotation",
    }
    lines = [
        f"<h1>Comparison on {count(number, 'image')}</h1>",
        "<p>All segmenters got the same files and, unless a recipe names others, the same channels. "
        "Fluorescence is scaled between the two percentiles that each one is made for; H&amp;E and IHC from "
        "black to the upper of them, all colours alike, and segmenters that see no colours get the "
        "haematoxylin of that (colour deconvolution), divided by a constant. Brighter pixels are clipped. "
        "Thresholds, and the way from the network's maps to nuclei, are each one's own. An image "
        "on which one failed counts as one in which it found nothing, or, without nuclei, as wrong. Seconds "
        "are those of segmenting, each tool being open and warm, and all taking turns, on the images that "
        "all could do; those of Cellpose and StarDist hold the way of pictures and maps between the "
        "processes. Where Cellpose's diameter is estimated, nucleus-kd does so with Cellpose's own network, "
        "not with Cellpose's SizeModel. "
        f"{html.escape(_computer())} napari-nucleus-kd {html.escape(__version__)}.</p>",
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
            f"<li>{html.escape(f'{o.contestant} on {o.image}: {o.problem}')}</li>"
            for o in problems[:_SHOWN_FAILURES]
        ]
        more = len(problems) - _SHOWN_FAILURES
        lines.append(f"<li>… and {more} more, see images.csv</li></ul>" if more > 0 else "</ul>")
    return "\n".join(lines)


def _computer() -> str:
    facts = computer()
    cores, threads = count(int(facts["cores"]), "core"), count(int(facts["threads"]), "thread")
    return f"{facts['processor']}, {cores}, {threads} of PyTorch."


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
    yield (
        "<p>An image on which one of the two failed is left out. Without annotation nobody knows who is "
        "right. Below, the places where they agree least.</p>"
    )


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


def _picture_row(pictures: Sequence[tuple[str, npt.NDArray[np.uint8]]]) -> str:
    cells = "".join(
        f'<figure><img alt="{html.escape(text)}" src="data:image/png;base64,{_png(pixels)}">'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for text, pixels in pictures
    )
    return f'<div class="row">{cells}</div>'


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
