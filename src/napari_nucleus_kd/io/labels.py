"""Save a label image as OME-TIFF or OME-Zarr: complete under its name, or not there at all."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import LabelsError, WriteError
from napari_nucleus_kd.io.atomic import discard, put_in_place
from napari_nucleus_kd.io.images import pixel_size_words, position_words

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import numpy.typing as npt

_TIFF_TILE = (512, 512)
_ZARR_CHUNK = 1024
_COARSEST_PX = 512  # no further pyramid level once both edges are within this


def save_labels(
    labels: npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | None = None,
    corner_yx: tuple[int, int] = (0, 0),
    overwrite: bool = False,
    recipe: str | None = None,
) -> Path:
    """Write labels as OME-TIFF (.tif, .tiff) or as an OME-Zarr 0.5 label image (.zarr).

    Parameters
    ----------
    labels : (Y, X) whole numbers, 0 is background. Not changed. Stored as uint16 if they fit, else uint32.
    path : the suffix chooses the format.
    pixel_size_um : edge of one pixel in micrometres; None leaves it out.
    corner_yx : where in the image the labels begin, in pixels; kept as the position of a TIFF's plane or
        the translation of an OME-Zarr.
    overwrite : replace what is there; only now and only once the new one is complete.
    recipe : JSON text of the run, kept in the file (OME description, zarr attribute).

    Returns
    -------
    The absolute path written.

    Raises
    ------
    LabelsError if labels are not 2-D whole numbers from 0 to 2**32 - 1.
    WriteError if the path exists and overwrite is False, its suffix is unknown, or writing fails;
    nothing new is then left under the name, and what was there stays.
    """
    compact = _compact(labels)
    path = Path(path).expanduser().absolute()
    write = _writer(path)
    check_target(path, overwrite)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        write(compact, partial, path.name, pixel_size_um, corner_yx, recipe)
        put_in_place(partial, path)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written: {error.strerror or error}. Check the disk's space and permissions."
        ) from error
    finally:
        discard(partial)
    return path


def _compact(labels: npt.ArrayLike) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iu" or array.size == 0:
        raise LabelsError(
            f"labels have shape {array.shape} and type {array.dtype}: they must be a 2-D (Y, X) image "
            "of whole numbers. Pass labels, not a mask or probabilities."
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= 1 << 32:
        raise LabelsError(f"labels go from {low} to {high}: they must be 0 to 2**32 - 1. Relabel them.")
    return array.astype(np.uint16) if high < 1 << 16 else array.astype(np.uint32)


def _writer(path: Path) -> Callable[..., None]:
    name = path.name.casefold()
    if name.endswith((".tif", ".tiff")):
        return _write_tiff
    if name.endswith(".zarr"):
        return _write_zarr
    raise WriteError(f"{path.name} has no suffix for labels: use .ome.tif, .tif, .tiff or .ome.zarr.")


def check_target(path: Path, overwrite: bool) -> None:
    """Raise WriteError unless labels may be written to this path.

    Its folder must be there. What is there under its name is only replaced if `overwrite` is True and it
    may be labels: a file for a TIFF, a Zarr folder for a Zarr.
    """
    if not path.parent.is_dir():
        raise WriteError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if not path.exists():
        return
    if not overwrite:
        raise WriteError(f"{path} exists already. Choose another name, or allow overwriting.")
    is_folder = path.name.casefold().endswith(".zarr")
    if path.is_dir() != is_folder or (is_folder and not _looks_like_zarr(path)):
        raise WriteError(f"{path} is something else than labels and is not overwritten. Choose another name.")


def _looks_like_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _write_tiff(
    labels: npt.NDArray[Any],
    path: Path,
    name: str,
    um: float | None,
    corner: tuple[int, int],
    recipe: str | None,
) -> None:
    import tifffile

    words: dict[str, Any] = {"axes": "YX", "Name": name, **pixel_size_words(um)}
    words |= position_words(um, corner)
    if recipe is not None:
        words["Description"] = recipe
    tifffile.imwrite(
        path, labels, ome=True, photometric="minisblack", compression="zlib", tile=_TIFF_TILE, metadata=words
    )


def _write_zarr(
    labels: npt.NDArray[Any],
    path: Path,
    name: str,
    um: float | None,
    corner: tuple[int, int],
    recipe: str | None,
) -> None:
    import zarr

    group = zarr.open_group(str(path), mode="w-", zarr_format=3)
    scales: list[int] = []
    level = labels
    while True:
        chunks = tuple(min(_ZARR_CHUNK, n) for n in level.shape)
        group.create_array(f"{len(scales)}", data=level, chunks=chunks, dimension_names=["y", "x"])
        scales.append(2 ** len(scales))
        if max(level.shape) <= _COARSEST_PX:
            break
        level = level[::2, ::2]  # every second label: averaging would invent labels
    group.attrs["ome"] = zarr_words(name, scales, um, corner)
    if recipe is not None:
        group.attrs["napari-nucleus-kd"] = {"recipe": recipe}


def zarr_words(
    name: str, scales: list[int], um: float | None, corner_yx: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Return the "ome" attribute of a label image in OME-Zarr 0.5.

    Parameters
    ----------
    scales : of each level, in full-resolution pixels.
    um : edge of a full-resolution pixel in micrometres; None if unknown.
    corner_yx : where in the image the labels begin, in full-resolution pixels.
    """
    unit = {} if um is None else {"unit": "micrometer"}
    edge = um or 1.0
    place = (
        [{"type": "translation", "translation": [at * edge for at in corner_yx]}] if any(corner_yx) else []
    )
    datasets = [
        {
            "path": f"{i}",
            "coordinateTransformations": [{"type": "scale", "scale": [s * edge] * 2}, *place],
        }
        for i, s in enumerate(scales)
    ]
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    multiscale = {"name": name, "axes": axes, "datasets": datasets, "type": "nearest"}
    return {"version": "0.5", "multiscales": [multiscale], "image-label": {"version": "0.5"}}
