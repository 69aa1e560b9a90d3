"""What `nucleus-kd enhance` does: one enhanced picture an image, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape

from napari_nucleus_kd import io
from napari_nucleus_kd._cli_recipe import read_recipe
from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.errors import NucleusKDError, WriteError, told
from napari_nucleus_kd.io.atomic import make_folder, scratch_beside, write_text
from napari_nucleus_kd.io.images import write_image
from napari_nucleus_kd.job import prepare

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from rich.console import Console

    from napari_nucleus_kd._cli_inputs import Job
    from napari_nucleus_kd._cli_record import Plane
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Progress

_STEM = "_enhanced"


def enhance_all(
    jobs: Sequence[Job], recipe: Recipe, plane: Plane, output: Path, console: Console, *, overwrite: bool
) -> bool:
    """Enhance images one after the other; one that fails does not stop the others.

    Returns
    -------
    Whether none failed.
    """
    make_folder(output)
    mine = [job for job in jobs if not job.name.endswith(_STEM)]  # results of an earlier run
    failed = 0
    for job in mine:
        name = escape(job.name)
        try:
            notes = show(_steps(job, recipe, plane, output, overwrite=overwrite), console)
        except (NucleusKDError, OSError) as error:
            failed += 1
            console.print(f"[bold red]{name}: {escape(told(error))}[/]", soft_wrap=True)
        else:
            console.print(f"{name}: {escape('; '.join(notes))}", soft_wrap=True, highlight=False)
    console.print(f"{len(mine) - failed} of {len(mine)} enhanced in {escape(str(output))}", soft_wrap=True)
    return not failed


def _steps(
    job: Job, recipe: Recipe, plane: Plane, output: Path, *, overwrite: bool
) -> Generator[Progress, None, tuple[str, ...]]:
    if job.problem:
        raise WriteError(job.problem)
    target = output / f"{job.name}{_STEM}.ome.tif"
    beside = output / f"{job.name}{_STEM}_recipe.json"
    image = io.read(job.source, series=plane.series, z=plane.z, t=plane.t)
    prepared = prepare(image, recipe)
    resolved = prepared.recipe.model_copy(update={"device": "auto"})
    if target.exists() and not overwrite:
        if beside.exists() and read_recipe(beside) == resolved:
            return ("done before",)
        raise WriteError(
            f"{target} exists and is not of these settings; add --overwrite or choose another --output"
        )
    with scratch_beside(target) as scratch:
        pixels = np.memmap(scratch / "pixels", np.uint8, "w+", shape=(1, *prepared.region.shape_yx))
        done = yield from prepared.enhanced_steps(pixels)
        size = resolved.pixel_size_um
        write_image(scratch / target.name, pixels, rgb=False, pixel_size_um=size, channels=("enhanced",))
        (scratch / target.name).replace(target)
        del pixels
    write_text(beside, resolved.model_dump_json(indent=2) + "\n")
    return done.notes
