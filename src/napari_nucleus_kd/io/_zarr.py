"""OME-Zarr 0.4 and 0.5 images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io._choice import (
    RGB_CHANNELS,
    Choice,
    check_pixels,
    check_series,
    fix_axes,
    join_sizes,
    name_channels,
    um_per_unit,
    z_plane_of,
)
from napari_nucleus_kd.io._plane import Plane, already_open, reading, to_dask
from napari_nucleus_kd.modality import has_bright_background
from napari_nucleus_kd.types import Channel, Image

if TYPE_CHECKING:
    from pathlib import Path

    import dask.array as da

_MARKERS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_RGB_NAMES = ({"red", "r"}, {"green", "g"}, {"blue", "b"})


def is_zarr(folder: Path) -> bool:
    """Whether a folder holds zarr metadata."""
    return any((folder / marker).is_file() for marker in _MARKERS)


def read_zarr(path: Path, choice: Choice) -> Image:
    """Read an OME-Zarr image (also one of several written by bioformats2raw).

    Raises
    ------
    ReadError if it has no image of the OME-Zarr form, or no such z, t or series.
    """
    with reading(path, "an OME-Zarr image"):
        found = _find(path, choice.series)
        axes, units = _axes(path, found)
        arrays = [_array(path, found, d["path"]) for d in found.multiscale["datasets"]]
        check_pixels(path, arrays[0].shape)
        if any(a.ndim != len(axes) for a in arrays) or arrays[0].dtype.kind not in "buif":
            raise ReadError(f"{path.name} has arrays that do not fit its axes {axes}. Write it again.")
        sizes = dict(zip(axes, arrays[0].shape, strict=True))
        fixed, notes = fix_axes(sizes, choice, path)
        levels = _levels(path, arrays, axes, fixed)
        size, size_notes = join_sizes(*_pixel_size(found.multiscale, axes, units))
        count = sizes.get("C", 1)
        listed = found.omero.get("channels") or []
        names = [c.get("label") for c in listed]
        channels = name_channels(names, [_color(c.get("color")) for c in listed], count)
        rgb, rgb_notes = _is_rgb(levels, channels, names)
    channels = RGB_CHANNELS if rgb else channels
    said = (*notes, *size_notes, *rgb_notes)
    return Image(levels, channels, rgb, size, path.name, path, said, z_plane_of(sizes, fixed))


def list_labels(path: Path) -> tuple[str, ...]:
    """Return what the group "labels" of an OME-Zarr image lists; nothing if there is no such group."""
    if not is_zarr(path / "labels"):
        return ()
    with reading(path / "labels", "labels of an OME-Zarr image"):
        return tuple(_ome(zarr.open_group(str(path / "labels"), mode="r")).get("labels") or ())


@dataclass(frozen=True)
class _Found:
    """One multiscale image: its group, its metadata and its omero block."""

    group: Any
    multiscale: dict[str, Any]
    omero: dict[str, Any]


def _find(path: Path, series: int) -> _Found:
    root = zarr.open(str(path), mode="r")
    if not isinstance(root, zarr.Group):
        raise ReadError(
            f"{path.name} is one bare zarr array: an OME-Zarr image says its axes. Write it as OME-Zarr."
        )
    words = _ome(root)
    if "plate" in words:
        raise ReadError(f"{path.name} is a plate: open one field of one well, for example {path.name}/A/1/0.")
    images = words.get("multiscales") or []
    if images:
        check_series(path, series, [i.get("name", "") for i in images])
        return _Found(root, images[series], words.get("omero") or {})
    if "bioformats2raw.layout" in words:
        numbers = sorted((name for name, _ in root.groups() if name.isdigit()), key=int)
        check_series(path, series, numbers)
        group = root[numbers[series]]
        inner = _ome(group)
        if inner.get("multiscales"):
            return _Found(group, inner["multiscales"][0], inner.get("omero") or {})
    raise ReadError(
        f"{path.name} is a zarr without OME-Zarr multiscales: it describes no image. Open the image in it."
    )


def _ome(group: Any) -> dict[str, Any]:
    """Return the OME words: under "ome" since 0.5, at the top before."""
    words = dict(group.attrs)
    return words["ome"] if isinstance(words.get("ome"), dict) else words


def _array(path: Path, found: _Found, name: str) -> Any:
    array = found.group.get(name)
    if not isinstance(array, zarr.Array):
        raise ReadError(
            f"{path.name} lists the level {name!r} but does not hold it. Copy it again from its source."
        )
    return array


def _axes(path: Path, found: _Found) -> tuple[str, list[str | None]]:
    """Return axes as letters, and their units; before 0.3 they are always TCZYX."""
    listed = found.multiscale.get("axes") or list("tczyx")
    axes = [a if isinstance(a, dict) else {"name": a} for a in listed]
    letters = [_letter(a) for a in axes]
    if len(set(letters)) != len(letters) or not {"Y", "X"} <= set(letters):
        names = ", ".join(f"{a.get('name')}" for a in axes)
        raise ReadError(
            f"{path.name} has axes {names}: an image needs one y and one x. Write it as OME-Zarr 0.5."
        )
    return "".join(letters), [a.get("unit") for a in axes]


def _letter(axis: dict[str, Any]) -> str:
    by_type = {"time": "T", "channel": "C"}.get(axis.get("type", ""))
    return by_type or f"{axis.get('name', '')}"[:1].upper()


def _levels(path: Path, arrays: list[Any], axes: str, fixed: dict[str, int]) -> tuple[da.Array, ...]:
    levels: list[da.Array] = []
    full = dict(zip(axes, arrays[0].shape, strict=True))
    for array in arrays:
        sizes = dict(zip(axes, array.shape, strict=True))
        if array.dtype != arrays[0].dtype or sizes.get("C") != full.get("C"):
            continue
        if levels and not 0 < sizes["X"] < levels[-1].shape[2]:
            continue
        # A pyramid may also shrink along z and t.
        here = {a: i * sizes[a] // full[a] for a, i in fixed.items()}
        shape = (sizes.get("C", 1), sizes["Y"], sizes["X"])
        dtype = np.dtype(array.dtype).newbyteorder("=")
        plane = Plane(partial(already_open, array), axes, shape, dtype, path, here)
        native = dict(zip(axes, array.chunks, strict=True))
        levels.append(to_dask(plane, (native["Y"], native["X"])))
    return tuple(levels)


def _pixel_size(
    multiscale: dict[str, Any], axes: str, units: list[str | None]
) -> tuple[float | None, float | None]:
    """Return the edges (x, y) in um of a full-resolution pixel; None without a unit of length."""
    listed = [*multiscale["datasets"][0].get("coordinateTransformations", ())]
    listed += multiscale.get("coordinateTransformations") or []
    scales = [t["scale"] for t in listed if t.get("type") == "scale" and len(t.get("scale", ())) == len(axes)]
    sizes: list[float | None] = []
    for axis in "XY":
        where = axes.index(axis)
        factor = um_per_unit(units[where] or "")
        edge = float(np.prod([s[where] for s in scales])) if scales else None
        sizes.append(edge * factor if edge and factor else None)
    return sizes[0], sizes[1]


def _color(text: str | None) -> str | None:
    digits = f"{text or ''}".lstrip("#")[:6]
    return f"#{digits.lower()}" if len(digits) == 6 else None


def _is_rgb(
    levels: tuple[da.Array, ...], channels: tuple[Channel, ...], names: list[str | None]
) -> tuple[bool, list[str]]:
    """Whether three channels are one colour picture.

    OME-Zarr has no word for it: channels named red, green and blue are; unnamed ones in these
    three colours are if the background is bright, as stained tissue's is.
    """
    if len(channels) != 3 or levels[0].dtype not in (np.uint8, np.uint16):
        return False, []
    if all(c.name.casefold() in allowed for c, allowed in zip(channels, _RGB_NAMES, strict=True)):
        return True, []
    unnamed = all(not n or n.casefold().startswith("channel") for n in names)
    pure = tuple(c.color for c in channels) == tuple(c.color for c in RGB_CHANNELS)
    if unnamed and pure and has_bright_background(levels):
        note = "three unnamed channels in red, green and blue on a bright background: taken as one picture"
        return True, [note]
    return False, []
