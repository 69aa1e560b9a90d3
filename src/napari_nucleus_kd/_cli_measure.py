"""What `nucleus-kd measure` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from napari_nucleus_kd import io
from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.cells import measure_cells_steps
from napari_nucleus_kd.channels import choose_channels
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import LabelsError, SettingsError
from napari_nucleus_kd.io.tables import check_table, save_table
from napari_nucleus_kd.job import checked_region, used_channels
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nucleus_kd._cli_record import Plane
    from napari_nucleus_kd.types import Array, Image, Region


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured of an image, as the options say it; None leaves it to the image."""

    plane: Plane
    region: Region | None
    channels: tuple[int | str, ...] | None
    pixel_size_um: float | None
    ring_um: float | None
    ring_px: float | None
    percentile: float


def measure_image(source: str, labels: str, wanted: Measurement, output: Path, *, overwrite: bool) -> None:
    """Measure the nuclei of an image behind a progress bar, and write the table.

    Raises
    ------
    ReadError, WriteError, SettingsError, LabelsError; what can be told before the work is.
    """
    console = Console()
    output = check_table(output, overwrite=overwrite)
    image = io.read(source, z=wanted.plane.z, t=wanted.plane.t, series=wanted.plane.series)
    shapes = _read_labels(labels)
    size_um = wanted.pixel_size_um or image.pixel_size_um or shapes.pixel_size_um
    pixels, names = _channels(image, wanted)
    steps = measure_cells_steps(
        _fitting(shapes, image, pixels),
        pixels,
        channel_names=names,
        pixel_size_um=size_um,
        ring_um=wanted.ring_um,
        ring_px=wanted.ring_px,
        percentile=wanted.percentile,
    )
    columns = show(steps, console)
    save_table(columns, output, pixel_size_um=size_um, image_name=image.name, overwrite=overwrite)
    if size_um is None:
        console.print("The pixel size is not known: lengths are in pixels. --pixel-size gives it.")
    found = count(len(columns["label"]), "nucleus", "nuclei")
    channels = count(len(names), "channel", "channels")
    console.print(f"{found}, {channels}: {output}", soft_wrap=True, markup=False, highlight=False)


def _read_labels(path: str) -> Image:
    labels = io.read(path)
    if labels.rgb or len(labels.channels) != 1 or labels.pixels.dtype.kind not in "iu":
        what = "a colour picture" if labels.rgb else f"{len(labels.channels)} x {labels.pixels.dtype}"
        raise LabelsError(f"{path} is {what}; a label image has one channel of whole numbers")
    return labels


def _channels(image: Image, wanted: Measurement) -> tuple[Array, list[str]]:
    chosen = tuple(range(len(image.channels)))
    if wanted.channels is not None:
        chosen = choose_channels(image, wanted.channels, Modality.FLUORESCENCE)
    region = None if wanted.region is None else checked_region(wanted.region, image)
    return used_channels(image, Recipe(channels=chosen, region=region))


def _fitting(labels: Image, image: Image, pixels: Array) -> Array:
    """Return the labels (Y, X) if they have the size of the pixels (C, Y, X)."""
    (height, width), (labels_height, labels_width) = pixels.shape[1:], labels.shape_yx
    if (height, width) != (labels_height, labels_width):
        raise SettingsError(
            f"{labels.name} has {labels_height} x {labels_width} pixels, and what is measured of "
            f"{image.name} {height} x {width}; they must lie pixel on pixel. Labels of a part of an image "
            "need --region, the one they were made with"
        )
    plane: Array = labels.pixels[0]
    return plane
