"""What napari calls for File > Open, File > Save and File > Open Sample; needs no Qt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import LabelsError, WriteError
from napari_nucleus_kd.widgets._layers import RECIPE_KEY, pixel_size_um
from napari_nucleus_kd.widgets._show import layer_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.widgets._show import LayerData


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return a reader for one image; None for what is not ours, so that napari tries the next reader."""
    from napari_nucleus_kd.io import IMAGE_SUFFIXES

    if not isinstance(path, str) or not path.lower().rstrip("/\\").endswith(tuple(IMAGE_SUFFIXES)):
        return None
    return read_layers


def read_layers(path: str) -> list[LayerData]:
    """Read an image as napari layer data: lazy, multiscale, scaled in micrometres where the file says so."""
    from napari_nucleus_kd.io import read

    return layer_data(read(Path(path)))


def sample_layers(name: str) -> list[LayerData]:
    """Return a sample image as napari layer data."""
    from napari_nucleus_kd.io.samples import sample

    return layer_data(sample(name))


def fluorescence_sample() -> list[LayerData]:
    """Open the fluorescence sample."""
    return sample_layers("fluorescence")


def he_sample() -> list[LayerData]:
    """Open the H&E sample."""
    return sample_layers("he")


def ihc_sample() -> list[LayerData]:
    """Open the IHC sample."""
    return sample_layers("ihc")


def multiplex_sample() -> list[LayerData]:
    """Open the 8-channel multiplex sample."""
    return sample_layers("multiplex")


def panel_sample() -> list[LayerData]:
    """Open the simulated panel of 12 channels."""
    return sample_layers("panel")


def lamin_sample() -> list[LayerData]:
    """Open the nuclear-envelope sample."""
    return sample_layers("lamin")


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write one labels layer as OME-TIFF or OME-Zarr, by the suffix of `path`.

    napari has asked the person whether a file may be replaced before it calls this.

    Parameters
    ----------
    data : (Y, X) integers, or one plane of a stack; of a multiscale layer the full resolution is written.
    meta : the layer's attributes; its metadata may hold the recipe of the run.

    Raises
    ------
    LabelsError if the layer has more than one plane.
    """
    from napari_nucleus_kd.io import save_labels

    labels = data[0] if meta.get("multiscale") else data
    planes = [axis for axis, size in enumerate(labels.shape[:-2]) if size == 1]
    flat = np.squeeze(np.asarray(labels), axis=tuple(planes)) if planes else labels
    if flat.ndim != 2:
        raise LabelsError(
            f"{meta.get('name', 'the layer')} has {flat.ndim} axes of more than one pixel; "
            "labels are written plane by plane: save one 2-D layer"
        )
    recipe = meta.get("metadata", {}).get(RECIPE_KEY)
    target = Path(path)
    if target.is_dir() and not target.name.lower().endswith(".zarr"):
        raise WriteError(f"{target} is a folder; give a file name that ends in .tif or .ome.zarr")
    part = None if recipe is None else recipe.region
    written = save_labels(
        flat,
        target,
        pixel_size_um=_pixel_size(meta, recipe),
        corner_yx=(part.y0, part.x0) if part is not None and part.shape_yx == flat.shape else (0, 0),
        overwrite=True,
        recipe=recipe and recipe.model_dump_json(),
    )
    return [str(written)]


def _pixel_size(meta: dict[str, Any], recipe: Recipe | None) -> float | None:
    """Return the edge of a pixel in micrometres, from the layer or else from the recipe of its run."""
    scale, units = meta.get("scale"), meta.get("units")
    known = None if scale is None or units is None else pixel_size_um(scale[-2:], units[-2:])
    return recipe.pixel_size_um if known is None and recipe is not None else known
