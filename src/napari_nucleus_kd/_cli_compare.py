"""What `nucleus-kd compare` does, and how it shows who is ahead."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from napari_nucleus_kd import segmenters
from napari_nucleus_kd._cli_inputs import find_jobs
from napari_nucleus_kd._cli_recipe import build_recipe, read_recipe
from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.compare import (
    Comparison,
    Contestant,
    Size,
    agreement_steps,
    cases_of,
    compare_steps,
    memory_steps,
    report_steps,
    standings,
)
from napari_nucleus_kd.compare.report import megabytes
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.folders import read_rows
from napari_nucleus_kd.index import Row, check_rows_steps
from napari_nucleus_kd.io import read
from napari_nucleus_kd.modality import suggest_modality
from napari_nucleus_kd.types import Modality, Progress
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_nucleus_kd._cli_inputs import Job
    from napari_nucleus_kd.compare import Agreement
    from napari_nucleus_kd.compare.standings import Interval, Standing

_NAME = re.compile(r"([^=:@/\\]+)=(.+)", re.DOTALL)
_LABELS = "labels"
_SHOWN_FAILURES = 5


def compare_all(
    data: Path | None,
    split: str,
    images: Sequence[str],
    named: Sequence[str],
    settings: Mapping[str, Any],
    output: Path,
    memory: bool,
    overwrite: bool,
) -> bool:
    """Compare behind a progress bar, print the means, and write the report.

    Parameters
    ----------
    named : see contestant.
    settings : of the recipes of all.
    memory : whether it is measured, too.
    overwrite : whether a comparison that is there is replaced.

    Returns
    -------
    Whether all could segment all images.

    Raises
    ------
    SettingsError, ReadError, ModelError, DeviceError, BaselineError, WriteError : see compare_steps.
    """
    console = Console()
    contestants = [contestant(text, settings) for text in named]
    if data is not None:
        if data.is_dir() and split != "val":
            raise SettingsError(
                f"{data} is a folder, and has no splits; leave --split out, or give a CSV index"
            )
        rows = read_rows(data, split)
        show(check_rows_steps([], judged=rows, channels=settings["channels"]), console)
    else:
        rows = show(_rows_steps(find_jobs(images)), console)
    comparison = show(compare_steps(cases_of(rows), contestants, output, overwrite=overwrite), console)
    if memory:
        comparison = show(memory_steps(comparison), console)
    agreement = show(agreement_steps(comparison), console)
    for table in _tables(comparison, agreement):
        console.print(table)
    failed = [o for outcomes in comparison.outcomes.values() for o in outcomes if o.problem]
    for outcome in failed[:_SHOWN_FAILURES]:
        told = f"[red]failed:[/] {escape(f'{outcome.contestant} on {outcome.image}: {outcome.problem}')}"
        console.print(told, soft_wrap=True)
    if (more := len(failed) - _SHOWN_FAILURES) > 0:
        console.print(f"[red]… and {more} more[/], see images.csv", soft_wrap=True, highlight=False)
    page = show(report_steps(comparison, output, agreement), console)
    console.print(f"report: {page}", soft_wrap=True, markup=False)
    return not failed


def contestant(text: str, settings: Mapping[str, Any]) -> Contestant:
    """Return the contestant that a text names: [NAME=]SEGMENTER[:WHICH][@DIAMETER].

    SEGMENTER is one of the registry, WHICH its weights, or the model of the student; or labels:FOLDER; or a
    recipe file. DIAMETER is a number of pixels, "own" (the one it was made for) or "annotated".

    Raises
    ------
    SettingsError : it names no segmenter, or its diameter is none.

    >>> contestant("Cellpose, as it is=cellpose:cyto3@own", {}).name
    'Cellpose, as it is'
    """
    name, what = m.groups() if (m := _NAME.fullmatch(text)) else (None, text)
    what, size, diameter = _size(what)
    segmenter, _, which = what.partition(":")
    if segmenter == _LABELS and which:
        return Contestant(name or Path(which).name, labels=Path(which))
    if what.lower().endswith(".json"):
        given = dict(settings) | ({} if diameter is None else {"diameter_px": diameter})
        recipe = build_recipe(read_recipe(Path(what)), given, refit=True)
        return Contestant(name or Path(what).stem, recipe, size)
    if segmenter not in segmenters.names():
        raise SettingsError(
            f"{text!r} names no segmenter; write {', '.join(segmenters.names())}, with what it takes after a "
            "colon as in cellpose:cyto3 or student:my-model, or labels:FOLDER, or a recipe file (.json)"
        )
    given = {**settings, "segmenter": segmenter, "diameter_px": diameter}
    given["model" if segmenter == "student" else "weights"] = which or None
    shown = Path(which).name if which else segmenter
    called = shown if segmenter == "student" or not which else f"{segmenter} {shown}"
    told = "" if diameter is None and size is Size.ESTIMATED else f" @{text.rpartition('@')[2]}"
    return Contestant(name or called + told, build_recipe(None, given), size)


def _size(what: str) -> tuple[str, Size, float | None]:
    """Part a text from the diameter behind its last @."""
    before, at, told = what.rpartition("@")
    if not at:
        return what, Size.ESTIMATED, None
    if told in (Size.OWN, Size.ANNOTATED):
        return before, Size(told), None
    try:
        return before, Size.ESTIMATED, float(told)
    except ValueError as error:
        if "/" in told or "\\" in told:  # an @ in the name of a folder
            return what, Size.ESTIMATED, None
        raise SettingsError(
            f"{what!r}: behind @ stands a diameter in pixels, {Size.OWN} or {Size.ANNOTATED}, not {told!r}"
        ) from error


def _rows_steps(jobs: Sequence[Job]) -> Generator[Progress, None, list[Row]]:
    """Tell how each image is made; one that cannot be read fails when it is segmented, alone."""
    if problems := [job.problem for job in jobs if job.problem]:
        raise SettingsError("; ".join(problems))
    rows = []
    for done, image in enumerate((job.source for job in jobs), 1):
        modality = Modality.FLUORESCENCE
        with suppress(Exception):  # as compare_steps, whatever a library raises
            modality, _ = suggest_modality(read(image))
        rows.append(Row(image, None, modality, image.resolve().parent.name))
        yield Progress(done, len(jobs), "looking at the images")
    return rows


def _tables(comparison: Comparison, agreement: Agreement) -> list[Table]:
    """Return a table for each source, or of who agrees with whom."""
    reached = standings(comparison)
    failures = any(row.failed for row in reached)
    costs = "s", "MB", *(["failed"] if failures else [])
    if not comparison.judged:
        table = Table("segmenter", "and", "F1 at IoU 0.5 (95%)", title="Agreement", box=None, padding=(0, 1))
        for (one, other), interval in agreement.pairs.items():
            table.add_row(escape(one), escape(other), _cell(interval))
        needs = Table("", "nuclei", *costs, title="All images", box=None, padding=(0, 1))
        for row in reached[-len(comparison.outcomes) :]:
            found = str(row.counts["found"])
            needs.add_row(escape(row.contestant), found, *_costs(comparison, row, failures))
        return [table, needs]
    tables = []
    for source in dict.fromkeys(row.source for row in reached):
        rows = [row for row in reached if row.source == source]
        over = ", interval and p over its nuclei" if len(comparison.cases) == 1 else ""
        title = f"{escape(source)}: {count(rows[0].images, 'image')}{over}"
        heads = "PQ (95%)", "p", "AJI", "AP@0.5", "Dice", *costs
        table = Table("", *heads, title=title, box=None, padding=(0, 1))
        for row in rows:
            others = (f"{row.means[name][0]:.3f}" for name in ("aji", "ap50", "dice"))
            table.add_row(
                escape(row.contestant),
                _cell(row.means["pq"]),
                "" if row.p is None else f"{row.p:.2g}",
                *others,
                *_costs(comparison, row, failures),
            )
        tables.append(table)
    return tables


def _costs(comparison: Comparison, row: Standing, failures: bool) -> list[str]:
    """Return seconds an image and megabytes of memory, and if asked, on how many images it failed."""
    seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
    return [seconds, megabytes(comparison, row.contestant), *([str(row.failed)] if failures else [])]


def _cell(interval: Interval) -> str:
    mean, low, high = interval
    return f"{mean:.3f} ({low:.3f}-{high:.3f})" if math.isfinite(low) else f"{mean:.3f}"
