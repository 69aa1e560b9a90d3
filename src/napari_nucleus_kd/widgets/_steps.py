"""What runs in threads for the widgets; needs no Qt and imports the pipeline only there."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._show import layer_data

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_nucleus_kd.config import DecodeSettings
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.types import Image, Modality
    from napari_nucleus_kd.widgets._show import LayerData


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A result with the table of its nuclei.

    Attributes
    ----------
    table : column name to one value a nucleus; "index" is the label.
    work_seconds : how long it took once the model was open.
    """

    result: Result
    table: dict[str, Any]
    work_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stored:
    """Labels that were written to an OME-Zarr.

    Attributes
    ----------
    levels : lazy (Y, X) arrays, full resolution first.
    table : column name to one value a nucleus; "index" is the label.
    recipe : resolved.
    seconds : how long the run took.
    work_seconds : the same once the model was open.
    """

    path: Path
    levels: list[Any]
    table: dict[str, Any]
    recipe: Recipe
    seconds: float
    work_seconds: float


def memory_steps(image: Image, recipe: Recipe) -> Generator[Progress, None, Found]:
    """Segment in memory and measure its nuclei."""
    from napari_nucleus_kd.pipeline import segment_steps

    result, seconds = yield from _timed(segment_steps(image, recipe))
    yield Progress(0, 0, "Measuring the nuclei")
    return Found(result, measure(result, image), seconds)


def disk_steps(image: Image, path: Path, recipe: Recipe) -> Generator[Progress, None, Stored]:
    """Segment a large image into an OME-Zarr."""
    from napari_nucleus_kd.pipeline import segment_to_zarr_steps

    start = time.monotonic()
    # The file dialog has asked whether a file that is there may be replaced.
    steps = segment_to_zarr_steps(image, path, recipe, overwrite=path.exists())
    written, work_seconds = yield from _timed(steps)
    return open_stored(written, time.monotonic() - start, work_seconds)


def _timed(steps: Generator[Progress, None, T]) -> Generator[Progress, None, tuple[T, float]]:
    """Pass steps on and add the seconds since the first one with a known amount of work.

    What comes before, importing and opening the model, happens once and says nothing of the next run.
    """
    begun: float | None = None
    with contextlib.closing(steps):
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                return stop.value, 0.0 if begun is None else time.monotonic() - begun
            if begun is None and progress.total:
                begun = time.monotonic()
            yield progress


def decode(result: Result, settings: DecodeSettings, image: Image) -> Found:
    """Apply other thresholds to the kept maps and measure the nuclei."""
    from napari_nucleus_kd.pipeline import redecode

    again = redecode(result, settings)
    return Found(again, measure(again, image))


def measure(result: Result, image: Image) -> dict[str, Any]:
    """Return the features of every nucleus of a result; "index" is its label, as napari has it."""
    from napari_nucleus_kd.pipeline import measure_result

    return _indexed(measure_result(result, image))


def _indexed(table: dict[str, Any]) -> dict[str, Any]:
    return {"index": table.pop("label").astype(int), **table}


def open_stored(path: Path, seconds: float, work_seconds: float) -> Stored:
    """Open the pyramid that a run wrote, lazily, with what it says of itself."""
    import dask.array
    import zarr

    from napari_nucleus_kd.ondisk import read_table

    group = zarr.open_group(str(path), mode="r")
    attributes: dict[str, Any] = dict(group.attrs)
    names = [dataset["path"] for dataset in attributes["ome"]["multiscales"][0]["datasets"]]
    levels = [dask.array.from_zarr(group[name]) for name in names]  # type: ignore[no-untyped-call]
    run = attributes["napari-nucleus-kd"]
    recipe = Recipe.model_validate_json(run["recipe"])
    return Stored(path, levels, _indexed(read_table(path)), recipe, seconds, work_seconds)


def list_models() -> tuple[Model, ...]:
    """List the models that are there."""
    from napari_nucleus_kd import package

    return package.list_models()


def suggest(image: Image) -> tuple[Modality, str]:
    """Ask the pixels how the picture was made, and why."""
    from napari_nucleus_kd.modality import suggest_modality

    return suggest_modality(image)


def read_steps(path: Path, z: int | None = None) -> Generator[Progress, None, tuple[Image, list[LayerData]]]:
    """Read an image and prepare its layers."""
    from napari_nucleus_kd.io import read

    yield Progress(0, 2, f"Reading {path.name}")
    image = read(path, z=z)
    yield Progress(1, 2, "Preparing the picture")
    return image, layer_data(image)


def sample_steps(name: str) -> Generator[Progress, None, tuple[Image, list[LayerData]]]:
    """Read a sample image and prepare its layers."""
    from napari_nucleus_kd.io.samples import sample

    yield Progress(0, 2, f"Reading the {name} sample")
    image = sample(name)
    yield Progress(1, 2, "Preparing the picture")
    return image, layer_data(image)
