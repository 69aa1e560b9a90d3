"""One (C, Y, X) plane of a file with any axes, read region by region."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from napari_nucleus_kd.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

CHUNK_PIXELS = 1 << 20  # aim of one dask chunk: 1024 x 1024
CHANNEL_AXES = "CS"


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises into a ReadError, and keep its log and warnings to ourselves."""
    try:
        with hushed("tifffile"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ReadError:
        raise
    except Exception as error:
        said = f"{error}".strip().splitlines()
        reason = said[0][:200] if said else type(error).__name__
        raise ReadError(
            f"{path.name} cannot be read as {what}: {reason}. "
            "The file may be damaged or of an unknown variant; copy it again from its source, "
            "or open it in the program that wrote it and save it as OME-TIFF."
        ) from error


@contextlib.contextmanager
def hushed(logger: str) -> Iterator[None]:
    """Drop this thread's records of one logger; other threads keep theirs."""
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        return record.thread != thread

    log = logging.getLogger(logger)
    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)


@dataclass(frozen=True)
class Plane:
    """An array-like (C, Y, X) view of a file's array; dask asks it for regions.

    Attributes
    ----------
    open_array : returns the file's own array (numpy, zarr, ...), which has `axes`; called at each read.
    axes : one letter per axis of that array; Y and X must be there. C and S make up the channels.
    shape : (C, Y, X). C may be smaller than the file's, to leave an alpha channel out.
    fixed : index on every axis that is neither Y, X nor channel.
    """

    open_array: Callable[[], Any]
    axes: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    path: Path
    fixed: Mapping[str, int] = field(default_factory=dict)

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read one region; slices (with steps) and integers."""
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None),) * (3 - len(key)))
        spans, rest = zip(*(_span(k, n) for k, n in zip(key, self.shape, strict=True)), strict=True)
        with reading(self.path, "an image"):
            return np.asarray(self._read(*spans)[tuple(rest)])

    def _read(self, channels: slice, rows: slice, columns: slice) -> npt.NDArray[Any]:
        wanted = [a for a in self.axes if a in CHANNEL_AXES and a not in self.fixed]
        known: dict[str, Any] = {"Y": rows, "X": columns, **self.fixed}
        if len(wanted) == 1:
            known[wanted[0]] = channels
        block = np.asarray(self.open_array()[tuple(known.get(a, slice(None)) for a in self.axes)])
        left = [a for a in self.axes if a not in self.fixed]
        block = block.transpose([left.index(a) for a in (*wanted, "Y", "X")])
        block = block.reshape(-1, *block.shape[-2:])
        if len(wanted) > 1:
            block = block[channels]
        return block.astype(self.dtype, copy=False)


def _span(key: int | slice, size: int) -> tuple[slice, int | slice]:
    """Split one index into the span to read and what to take of it."""
    if isinstance(key, slice):
        picked = range(size)[key]
        if not picked:
            return slice(0, 0), slice(None)
        low, high = min(picked[0], picked[-1]), max(picked[0], picked[-1])
        first = picked[0] - low
        return slice(low, high + 1), slice(first, None, picked.step)
    index = range(size)[key]
    return slice(index, index + 1), 0


def already_open(array: Any) -> Any:
    """Open nothing: for arrays that are lazy, or in memory, themselves."""
    return array


def to_dask(plane: Plane, native: Sequence[int]) -> da.Array:
    """Wrap a plane as dask, in chunks that are whole multiples of the file's own (Y, X) `native` chunks."""
    interleaved = plane.axes[-1:] == "S"
    count, height, width = plane.shape
    chunks = (count if interleaved else 1, *_chunk_yx(native, (height, width)))
    meta = np.empty((0, 0, 0), plane.dtype)
    array: da.Array = da.from_array(  # type: ignore[no-untyped-call]
        plane, chunks=chunks, name=False, lock=False, fancy=False, asarray=True, meta=meta
    )
    return array


def _chunk_yx(native: Sequence[int], shape_yx: tuple[int, int]) -> tuple[int, int]:
    """Grow the file's chunk by whole multiples towards CHUNK_PIXELS; strips grow downwards only."""
    ny, nx = (max(1, min(n, s)) for n, s in zip(native, shape_yx, strict=True))
    edge = math.isqrt(CHUNK_PIXELS)
    x = min(shape_yx[1], nx * max(1, edge // nx))
    y = min(shape_yx[0], ny * max(1, CHUNK_PIXELS // x // ny))
    return y, x
