"""TIFF and what is built on it (OME-TIFF, ImageJ, QPTIFF, SVS, NDPI, ...), read lazily by tifffile."""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io._choice import (
    MAX_PIXELS_AT_ONCE,
    RGB_CHANNELS,
    Choice,
    check_pixels,
    check_series,
    fix_axes,
    join_sizes,
    name_channels,
    z_plane_of,
)
from napari_nucleus_kd.io._plane import CHANNEL_AXES, Plane, reading, to_dask
from napari_nucleus_kd.io._tiff_check import (
    COLOUR,
    check_complete,
    check_readable,
    check_structure,
    contiguous_offset,
    word,
)
from napari_nucleus_kd.io._tiff_metadata import describe
from napari_nucleus_kd.types import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import dask.array as da

MAX_PAGES_AS_CHANNELS = 64
_SLIDES = {"svs", "ndpi", "scn", "philips", "bif", "qpi", "avs"}


def read_tiff(path: Path, choice: Choice) -> Image:
    """Read any file that tifffile reads.

    Raises
    ------
    ReadError if it is damaged, cut short, of an unknown variant, or has no such z, t or series.
    """
    with reading(path, "a TIFF"), tifffile.TiffFile(path) as tif:
        if not tif.is_ndpi:  # whose offsets beyond 4 GB are coded in its own way
            check_structure(path)
        everything = tif.series
        if not everything:
            raise ReadError(f"{path.name} is a TIFF without an image in it. Save it again from its source.")
        check_series(path, choice.series, [s.name for s in everything])
        series = everything[choice.series]
        check_readable(path, series)
        layout = _lay_out(path, series, choice)
        levels = _levels(path, series, layout, choice.series)
        words = describe(tif, series, choice.series, layout.count)
        pixel_size, size_notes = join_sizes(*words.size_um)
        channels = RGB_CHANNELS if layout.rgb else name_channels(words.names, words.colors, layout.count)
        notes = [*_series_notes(everything, choice.series), *layout.notes, *words.notes, *size_notes]
    return Image(levels, channels, layout.rgb, pixel_size, path.name, path, tuple(notes), layout.z_plane)


@dataclass(frozen=True)
class _Layout:
    """How a series' axes become (C, Y, X)."""

    axes: str  # of level 0, every letter once
    fixed: dict[str, int]
    count: int  # channels
    rgb: bool
    notes: list[str]
    z_plane: tuple[int, int] | None


def _lay_out(path: Path, series: Any, choice: Choice) -> _Layout:
    axes, notes = _name_axes(series, choice)
    sizes = dict(zip(axes, series.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise ReadError(f"{path.name} has axes {axes}: an image needs Y and X. Save it as OME-TIFF.")
    fixed, axis_notes = fix_axes(sizes, choice, path)
    samples = sizes.get("S", 1)
    count = math.prod(sizes.get(a, 1) for a in CHANNEL_AXES)
    small = series.dtype in (np.uint8, np.uint16)
    photometric = word(series.keyframe.photometric)
    rgb = photometric in COLOUR and small and samples in (3, 4) and count == samples
    alpha = samples - 3 if rgb else _alphas(series, count == samples)
    if alpha:
        notes.append("an alpha channel was left out")
    if photometric == "PALETTE":
        notes.append("the file's colour table is not applied: values are kept as stored")
    if photometric == "MINISWHITE":
        notes.append("the file says that 0 is white: values are kept as stored")
    return _Layout(axes, fixed, count - alpha, rgb, notes + axis_notes, z_plane_of(sizes, fixed))


def _alphas(series: Any, samples_only: bool) -> int:
    """Return the number of trailing alpha samples to leave out of a picture that is not RGB."""
    extra = [word(sample) for sample in series.keyframe.extrasamples]
    return int(samples_only and bool(extra) and extra[-1] in ("ASSOCALPHA", "UNASSALPHA"))


def _name_axes(series: Any, choice: Choice) -> tuple[str, list[str]]:
    """Give every axis its own letter; pages that the file does not describe become channels or z planes."""
    axes = list(series.axes)
    unknown = [i for i, a in enumerate(axes) if a in "IQ"]
    if not unknown:
        return "".join(axes), []
    size = series.shape[unknown[-1]]
    as_channels = size <= MAX_PAGES_AS_CHANNELS and not (choice.z is not None and len(unknown) == 1)
    free = [a for a in ("CZT" if as_channels else "ZT") + "ABDEFGHJK" if a not in axes]
    if "S" in axes and "C" in free:
        free.remove("C")  # a stack of colour pictures is a stack, not more channels
    for i, letter in zip(reversed(unknown), free, strict=False):
        axes[i] = letter
    taken = axes[unknown[-1]]
    names = {"C": "channels (pass z to read them as z planes)", "Z": "z planes", "T": "time points"}
    note = f"the file does not say what its {size} pages are: taken as {names.get(taken, 'positions')}"
    return "".join(axes), [note]


def _levels(path: Path, series: Any, layout: _Layout, number: int) -> tuple[da.Array, ...]:
    """Wrap every level of a pyramid that has the channels of the first."""
    source = TiffSource(path)
    levels: list[da.Array] = []
    for index, level in enumerate(series.levels):
        if level.axes != series.axes or level.dtype != series.dtype:
            continue
        sizes = dict(zip(layout.axes, level.shape, strict=True))
        other = any(sizes[a] != n for a, n in zip(layout.axes, series.shape, strict=True) if a not in "YX")
        if other or (levels and not 0 < sizes["X"] < levels[-1].shape[2]):
            continue
        check_complete(path, level, layout.axes, layout.fixed)
        shape = (layout.count, int(sizes["Y"]), int(sizes["X"]))
        opener, native = _opener(path, source, level, (number, index))
        plane = Plane(opener, layout.axes, shape, level.dtype.newbyteorder("="), path, layout.fixed)
        levels.append(to_dask(plane, native))
    return tuple(levels)


def _opener(
    path: Path, source: TiffSource, level: Any, where: tuple[int, int]
) -> tuple[Callable[[], Any], tuple[int, int]]:
    """Return what opens this level's array, and its native (Y, X) chunk."""
    page = level.keyframe
    offset = contiguous_offset(level)
    if offset is not None:
        dtype = level.dtype.newbyteorder(page.parent.byteorder)
        return functools.partial(_map, path, dtype, offset, level.shape), (1, 1)
    native_yx = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    check_pixels(path, page.chunks, MAX_PIXELS_AT_ONCE)
    return functools.partial(source.array, *where), native_yx


def _map(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    return np.memmap(path, dtype, "r", offset, shape)


def _series_notes(everything: Any, number: int) -> list[str]:
    if len(everything) == 1 or everything[number].kind in _SLIDES - {"bif"}:
        return []
    series = everything[number]
    if series.kind == "bif":
        return ["tiles are not stitched by this reader; install the slides extra to have them stitched"]
    return [f"series {number} of {len(everything)}, counted from 0 ({series.name or 'no name'})"]


class TiffSource:
    """A TIFF that opens when pixels are first asked for and closes when nobody holds it.

    Safe to share between threads; a copy sent to another process opens the file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = _stamp(path)
        self._restart()

    def _restart(self) -> None:
        self._lock = threading.RLock()
        self._file: Any = None
        self._arrays: dict[tuple[int, int], Any] = {}

    def array(self, series: int, level: int) -> Any:
        """Return one level as a zarr array with the series' own axes."""
        with self._lock:
            key = (series, level)
            if key not in self._arrays:
                if self._file is None:
                    self._file = self._open()
                store = self._file.series[series].aszarr(level=level)
                self._arrays[key] = zarr.open_array(store, mode="r")
            return self._arrays[key]

    def _open(self) -> Any:
        if not self.path.exists() or _stamp(self.path) != self._stamp:
            raise ReadError(
                f"{self.path.name} was changed, moved or deleted since it was opened. Open it again."
            )
        return tifffile.TiffFile(self.path)

    def close(self) -> None:
        """Close the file; asking for pixels opens it again."""
        with self._lock:
            self._arrays.clear()
            if self._file is not None:
                self._file.close()
                self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_stamp": self._stamp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    def __del__(self) -> None:
        if "_lock" in self.__dict__:
            self.close()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
