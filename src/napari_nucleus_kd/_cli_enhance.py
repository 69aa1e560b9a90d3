"""What `nucleus-kd enhance` does: one enhanced picture an image, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.markup import escape

from napari_nucleus_kd import io
from napari_nucleus_kd._cli_panel import fit_panel
from napari_nucleus_kd._cli_recipe import write_recipe
from napari_nucleus_kd._cli_record import Question, question
from napari_nucleus_kd._cli_show import show, show_new_notes
from napari_nucleus_kd.engine import open_engine
from napari_nucleus_kd.enhancer import load_enhancer
from napari_nucleus_kd.errors import NucleusKDError, WriteError, told
from napari_nucleus_kd.io.atomic import make_folder, uninterrupted, write_text
from napari_nucleus_kd.pairs import ENHANCED, RECORD
from napari_nucleus_kd.pipeline import enhance_steps, of_picture, save
from napari_nucleus_kd.types import named

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from rich.console import Console

    from napari_nucleus_kd._cli_inputs import Job
    from napari_nucleus_kd._cli_record import Plane
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.panel import Panel
    from napari_nucleus_kd.types import Progress

_RECIPE = "_enhancement_recipe.json"  # not the picture's name: what segment writes of it is called by that


def enhance_all(
    jobs: Sequence[Job],
    recipe: Recipe,
    panel: Panel | None,
    plane: Plane,
    output: Path,
    console: Console,
    *,
    overwrite: bool,
) -> bool:
    """Enhance images one after the other; one that fails does not stop the others.

    Pictures that are there and answer the same question are kept. A panel says the channels of each.

    Returns
    -------
    Whether none failed.

    Raises
    ------
    DeviceError, ModelError : nothing could be enhanced this way.
    WriteError : the output folder cannot be made.
    """
    make_folder(output)
    assert recipe.enhance is not None
    enhancer = load_enhancer(recipe.enhance)
    open_engine(enhancer, recipe.device)  # a device that is not there is no fault of the images
    recipe = recipe.model_copy(update={"enhance_hash": recipe.enhance_hash or enhancer.hash})
    failed, said = 0, set[str]()
    for job in jobs:
        steps = _steps(job, recipe, panel, plane, output, overwrite=overwrite)
        try:
            outcome, notes = show(named(job.name, steps), console)
        except (NucleusKDError, OSError, MemoryError) as error:
            failed += 1
            console.print(f"[bold red]{escape(job.name)}: {escape(told(error))}[/]", soft_wrap=True)
        else:
            console.print(escape(f"{job.name}: {outcome}"), soft_wrap=True, highlight=False)
            show_new_notes(job.name, notes, console, said)
    console.print(f"{len(jobs) - failed} of {len(jobs)} enhanced in {escape(str(output))}", soft_wrap=True)
    return not failed


def _steps(
    job: Job, recipe: Recipe, panel: Panel | None, plane: Plane, output: Path, *, overwrite: bool
) -> Generator[Progress, None, tuple[str, tuple[str, ...]]]:
    """Enhance one image; returns what became of it, and notes."""
    if job.problem:
        raise WriteError(job.problem)
    image = io.read(job.source, series=plane.series, z=plane.z, t=plane.t)
    target, record = output / f"{job.name}{ENHANCED}", output / f"{job.name}{RECORD}"
    asked = question(job.source, plane, of_picture(recipe))
    if target.exists() and not overwrite:
        before = _read(record)
        reasons = ["nothing beside it says how it was made"] if before is None else before.differences(asked)
        if not reasons:
            return "done before", ()
        raise WriteError(
            f"{target} exists and {', '.join(reasons)}; add --overwrite or choose another --output"
        )
    if panel is not None:
        recipe, image = fit_panel(recipe, panel, image)
    picture, resolved = yield from enhance_steps(image, recipe)
    with uninterrupted():
        record.unlink(missing_ok=True)  # from here it would no longer be true
        save(picture, target, overwrite=True)
        write_recipe(output / f"{job.name}{_RECIPE}", resolved, image)
        write_text(record, asked.model_dump_json(indent=2) + "\n")
    return "enhanced", picture.notes


def _read(record: Path) -> Question | None:
    try:
        return Question.model_validate_json(record.read_bytes())
    except (OSError, ValidationError):
        return None
