"""Segment many images, one after the other, each whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from napari_nucleus_kd import io, pipeline, segmenters
from napari_nucleus_kd._cli_options import Format
from napari_nucleus_kd._cli_panel import fit_panel
from napari_nucleus_kd._cli_recipe import decode_settings, write_recipe
from napari_nucleus_kd._cli_record import (
    Plane,
    Question,
    RunRecord,
    question,
    read_record,
)
from napari_nucleus_kd._cli_show import show_new_notes
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.enhancer import load_enhancer
from napari_nucleus_kd.errors import ModelError, ReadError, SettingsError, WriteError, told
from napari_nucleus_kd.io.atomic import discard, uninterrupted, write_text
from napari_nucleus_kd.io.tables import write_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console
    from rich.progress import TaskID

    from napari_nucleus_kd._cli_inputs import Job
    from napari_nucleus_kd.measure import Columns
    from napari_nucleus_kd.panel import Panel
    from napari_nucleus_kd.types import Image, Progress

# A TIFF's labels are made in memory: 4 bytes a pixel, and some copies.
MAX_TIFF_PX = 2**27
_ENDINGS = {Format.TIFF: "_labels.tif", Format.OME_ZARR: "_labels.ome.zarr"}


@dataclass(frozen=True, slots=True)
class Order:
    """What all images of one command share."""

    output: Path
    format: Format
    overwrite: bool
    plane: Plane
    request: Recipe
    panel: Panel | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image."""

    name: str
    status: Literal["done", "done before", "failed"]
    nuclei: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    problem: str = ""


def settle_request(request: Recipe, decode: Mapping[str, Any]) -> Recipe:
    """Return the request with its model pinned and the given decode settings put in.

    Decode settings that are not given are the recipe's, else those that suit the model.

    Raises
    ------
    SettingsError, ModelError, DeviceError, UnknownSegmenterError: nothing could be segmented this way.
    """
    segmenter = segmenters.load(request.segmenter, request)
    if request.model_hash not in (None, segmenter.model_hash):
        raise ModelError(
            f"the recipe was made with weights {request.model_hash}, but model "
            f"{request.weights or request.model!r} has {segmenter.model_hash}; get that model, or give "
            f"--{'weights' if request.weights else 'model'} to use another"
        )
    settled = request.model_copy(update={"model_hash": segmenter.model_hash})
    if request.enhance is not None:
        pinned = request.enhance_hash or load_enhancer(request.enhance).hash
        settled = settled.model_copy(update={"enhance_hash": pinned})
    given = {name: value for name, value in decode.items() if value is not None}
    if not given:
        return settled
    start = request.decode if "decode" in request.model_fields_set else segmenter.decode_defaults
    return settled.model_copy(update={"decode": decode_settings(start.model_dump() | given)})


def _labels_path(job: Job, order: Order) -> Path:
    return order.output / f"{job.name}{_ENDINGS[order.format]}"


def _record_path(job: Job, order: Order) -> Path:
    return order.output / f"{job.name}_run.json"


def _existing(job: Job, order: Order) -> Path | None:
    """Return the labels of this name that are there already, in either format."""
    paths = (order.output / f"{job.name}{ending}" for ending in _ENDINGS.values())
    return next((path for path in (_labels_path(job, order), *paths) if path.exists()), None)


def _done_before(job: Job, order: Order, labels: Path, asked: Question) -> Outcome:
    """Return the outcome written in the record if it answers this very question, else complain."""
    record = read_record(_record_path(job, order))
    if record is None:
        reason = "nothing beside it says how it was made"
    elif labels != _labels_path(job, order) or record.labels != labels.name:
        reason = "the result of this name has another format"
    elif not _table_path(job, order).exists():
        reason = "the table of its nuclei is not beside it"
    elif differences := record.question.differences(asked):
        reason = ", ".join(differences)
    else:
        return Outcome(job.name, "done before", record.nuclei, record.seconds)
    raise WriteError(f"{labels} exists and {reason}; add --overwrite or choose another --output")


def _remove(path: Path) -> None:
    """Remove a file or folder; under its name it is whole or gone."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.rename(doomed)
        if doomed.is_dir() and not doomed.is_symlink():
            shutil.rmtree(doomed)
        else:
            doomed.unlink()
    except OSError as error:
        raise WriteError(
            f"the new labels are written, but {path} cannot be removed: {error.strerror}; "
            "remove it, it does not belong to the recipe beside it"
        ) from error


def _table_path(job: Job, order: Order) -> Path:
    return order.output / f"{job.name}_nuclei.csv"


@contextmanager
def _table_beside(path: Path, columns: Columns) -> Iterator[Path]:
    """Write the table beside its name; what is not taken from there is removed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_columns(partial, columns)
        yield partial
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        discard(partial)


def _finish(
    job: Job,
    order: Order,
    image: Image,
    recipe: Recipe,
    asked: Question,
    outcome: Outcome,
    table: Path,
) -> Outcome:
    """Put the table in place and write recipe and record; labels of another format go, they are replaced."""
    from napari_nucleus_kd import __version__

    for ending in _ENDINGS.values():
        other = order.output / f"{job.name}{ending}"
        if order.overwrite and other != _labels_path(job, order) and other.exists():
            _remove(other)
    record = RunRecord(
        question=asked,
        labels=_labels_path(job, order).name,
        nuclei=outcome.nuclei or 0,
        seconds=round(outcome.seconds, 3),
        notes=outcome.notes,
        version=__version__,
    )
    table.replace(_table_path(job, order))
    write_recipe(order.output / f"{job.name}_recipe.json", recipe, image)
    write_text(_record_path(job, order), record.model_dump_json(indent=2) + "\n")
    return outcome


def _tiff_steps(job: Job, order: Order, image: Image, asked: Question) -> Generator[Progress, None, Outcome]:
    height, width = (order.request.region or image).shape_yx
    if height * width > MAX_TIFF_PX:
        raise SettingsError(
            f"{job.source.name} has {width} x {height} pixels, above the {MAX_TIFF_PX:,} that --format tiff "
            "makes in memory; use --format ome-zarr, it takes any size"
        )
    result = yield from pipeline.segment_steps(image, order.request)
    recipe, notes = result.recipe, (*image.notes, *result.notes)
    outcome = Outcome(job.name, "done", result.nuclei.count, result.seconds, notes)
    columns = pipeline.measure_result(result, image)
    with _table_beside(_table_path(job, order), columns) as table, uninterrupted():
        _record_path(job, order).unlink(missing_ok=True)  # from here it would no longer be true
        io.save_labels(
            result.nuclei.labels,
            _labels_path(job, order),
            pixel_size_um=recipe.pixel_size_um,
            corner_yx=(result.region.y0, result.region.x0),
            overwrite=order.overwrite,
            recipe=recipe.model_dump_json(),
        )
        return _finish(job, order, image, recipe, asked, outcome, table)


def _zarr_steps(job: Job, order: Order, image: Image, asked: Question) -> Generator[Progress, None, Outcome]:
    import zarr

    began = time.perf_counter()
    path = _labels_path(job, order)
    steps = pipeline.segment_to_zarr_steps(image, path, order.request, overwrite=order.overwrite)
    path = yield from steps
    seconds = time.perf_counter() - began
    with _table_beside(_table_path(job, order), pipeline.read_table(path)) as table, uninterrupted():
        _record_path(job, order).unlink(missing_ok=True)
        stored: Any = zarr.open_group(str(path), mode="r").attrs["napari-nucleus-kd"]
        recipe = Recipe.model_validate_json(stored["recipe"])
        outcome = Outcome(
            job.name, "done", int(stored["nuclei"]), seconds, (*image.notes, *stored.get("notes", ()))
        )
        return _finish(job, order, image, recipe, asked, outcome, table)


def segment_job_steps(job: Job, order: Order) -> Generator[Progress, None, Outcome]:
    """Segment one image and write its labels, recipe and record.

    Raises
    ------
    ReadError, WriteError, SettingsError and what the pipeline raises.
    """
    if job.problem:
        raise ReadError(job.problem)
    if not job.source.exists():
        raise ReadError(f"{job.source} does not exist")
    asked = question(job.source, order.plane, order.request)
    existing = _existing(job, order)
    if existing is not None and not order.overwrite:
        return _done_before(job, order, existing, asked)
    if existing is None and _table_path(job, order).exists() and not order.overwrite:
        raise WriteError(
            f"{_table_path(job, order)} exists without labels beside it; "
            "add --overwrite or choose another --output"
        )
    plane = order.plane
    image = io.read(job.source, z=plane.z, t=plane.t, series=plane.series)
    if order.panel is not None:
        request, image = fit_panel(order.request, order.panel, image)
        order = replace(order, request=request)
    steps = _tiff_steps if order.format is Format.TIFF else _zarr_steps
    return (yield from steps(job, order, image, asked))


def _attempt(job: Job, order: Order, show: Callable[[Progress], None]) -> Outcome:
    """Segment one image; whatever goes wrong with it stays with it."""
    began = time.perf_counter()
    steps = segment_job_steps(job, order)
    try:
        while True:
            show(next(steps))
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    except Exception as error:
        problem = told(error, "not enough memory; use --format ome-zarr, which works piece by piece")
    finally:
        steps.close()
    return Outcome(job.name, "failed", seconds=time.perf_counter() - began, problem=problem)


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def segment_all(jobs: Sequence[Job], order: Order, console: Console) -> list[Outcome]:
    """Segment every image, with a bar for all and one for the image in work; failures do not stop it.

    Raises
    ------
    WriteError if the output folder cannot be made.
    """
    try:
        order.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {order.output}: {error.strerror}") from error
    outcomes: list[Outcome] = []
    said: set[str] = set()
    with _bars(console) as bars:
        whole = bars.add_task("images", total=len(jobs))
        for job in jobs:
            part = bars.add_task(job.name, total=None)

            def show(progress: Progress, part: TaskID = part, name: str = job.name) -> None:
                text = f"{name}: {progress.message}" if progress.message else name
                bars.update(part, completed=progress.done, total=progress.total or None, description=text)

            outcome = _attempt(job, order, show)
            outcomes.append(outcome)
            bars.remove_task(part)
            bars.advance(whole)
            _show_outcome(outcome, bars.console, said)
    return outcomes


def _show_outcome(outcome: Outcome, console: Console, said: set[str]) -> None:
    """Print what went wrong, and the notes that no image before had."""
    if outcome.problem:
        console.print(f"[bold red]{escape(outcome.name)}[/]: {escape(outcome.problem)}", soft_wrap=True)
    show_new_notes(outcome.name, outcome.notes, console, said)


def show_summary(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print one line for each image."""
    table = Table("image", "nuclei", "seconds", "result")
    for column in table.columns[1:3]:
        column.justify = "right"
    for outcome in outcomes:
        nuclei = "" if outcome.nuclei is None else str(outcome.nuclei)
        table.add_row(escape(outcome.name), nuclei, f"{outcome.seconds:.1f}", outcome.status)
    console.print(table)
