"""Find TIFFs that are cut short, damaged or of a kind we do not read, before any pixel is decoded."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io._choice import check_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COLOUR = {"RGB", "YCBCR"}
_GREY = {"MINISBLACK", "MINISWHITE", "PALETTE", "MASK"}
_DESCRIPTION_TAG = 270


def check_structure(path: Path) -> None:
    """Raise ReadError if a page or its description lies beyond the end of the file.

    tifffile takes such a file for one with fewer pages, or without channel names.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for end in _needed_ends(file, size):
            _check_end(path, end, size)


def _needed_ends(file: IO[bytes], size: int) -> Iterator[int]:
    """Yield how far the file must reach for each page of the main chain and for its description."""
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    number, entry, pointer = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    offset = _unpack(order + pointer, start[8:] if big else start[4:])[0]
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        yield offset + 8
        if offset + 8 > size:
            return
        file.seek(offset)
        count = _unpack(order + number, file.read(struct.calcsize(number)))[0]
        length = count * struct.calcsize("=" + entry)
        yield file.tell() + length
        entries = file.read(min(length, size))
        for tag, _, items, value in struct.iter_unpack(order + entry, entries[: len(entries) // 4 * 4]):
            if tag == _DESCRIPTION_TAG and items > struct.calcsize(pointer):
                yield value + items
        offset = _unpack(order + pointer, file.read(struct.calcsize(pointer)) or bytes(8))[0]


def _unpack(form: str, data: bytes) -> tuple[int, ...]:
    return struct.unpack(form, data[: struct.calcsize(form)])


def word(value: Any) -> str:
    """Return the name of a TIFF tag's value; tifffile gives a bare number for one it does not know."""
    return str(getattr(value, "name", value))


def check_readable(path: Path, series: Any) -> None:
    """Raise ReadError if a series has too many pixels, or a kind of colour, number or compression we lack."""
    check_pixels(path, series.shape)
    kind = word(series.keyframe.photometric)
    lossless = word(series.keyframe.compression) in ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE")
    if kind not in COLOUR | _GREY or (kind == "YCBCR" and lossless):
        raise ReadError(
            f"{path.name} stores its colours as {kind}: only grey values and RGB are read. "
            "Save it as an RGB TIFF."
        )
    if word(series.keyframe.compression).isdigit():
        raise ReadError(
            f"{path.name} is compressed by a method ({series.keyframe.compression}) that is not known here. "
            "Save it again without compression, or with LZW, deflate or JPEG."
        )
    if series.dtype is None or series.dtype.kind not in "buif":
        raise ReadError(
            f"{path.name} has pixels of type {series.dtype}: only whole and real numbers are read. "
            "Save it as 8-bit, 16-bit or 32-bit float."
        )


def contiguous_offset(level: Any) -> int | None:
    """Where the uncompressed pixels of a level start, if they lie in one piece in one file."""
    if level.is_multifile or not level.keyframe.is_memmappable:
        return None
    offset: int | None = level.dataoffset
    return offset


def check_complete(path: Path, level: Any, axes: str, fixed: Mapping[str, int]) -> None:
    """Raise ReadError if the file ends before the pixels of the chosen plane do."""
    offset = contiguous_offset(level)
    if offset is not None:
        end = offset + math.prod(level.shape) * level.dtype.itemsize
        _check_end(path, end, path.stat().st_size)
        return
    for page in _chosen_pages(level, axes, fixed):
        if page is None:
            raise ReadError(
                f"{path.name} has no pixels for the chosen plane: the file lists it but does not hold it. "
                "Choose another z or t, or save the image again as one complete file."
            )
        part = Path(page.parent.filehandle.path)  # another file in a multi-file OME-TIFF
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
        _check_end(part, max(ends, default=0), part.stat().st_size)
        _check_pieces(part, page)


def _check_pieces(path: Path, page: Any) -> None:
    expected = math.prod(page.keyframe.chunked)
    if len(page.dataoffsets) < expected and not page.keyframe.is_ndpi:
        raise ReadError(
            f"{path.name} is damaged: it lists {len(page.dataoffsets)} of its {expected} pieces. "
            "Copy it again from its source."
        )


def _check_end(path: Path, end: int, file_size: int) -> None:
    if end > file_size:
        raise ReadError(
            f"{path.name} is cut short: its pixels need {end:,} bytes and the file has {file_size:,}. "
            "The copy or download was not finished; copy it again from its source."
        )


def _chosen_pages(level: Any, axes: str, fixed: Mapping[str, int]) -> list[Any]:
    """Return the pages that hold the chosen plane (all channels); all pages where they do not map to axes."""
    pages = list(level.pages)
    leading: list[int] = []
    for size in level.shape:
        if math.prod(leading) == len(pages):
            break
        leading.append(size)
    if math.prod(leading) != len(pages):
        return pages
    index = tuple(fixed.get(a, slice(None)) for a in axes[: len(leading)])
    numbers = np.arange(len(pages)).reshape(leading)[index]
    return [pages[i] for i in np.atleast_1d(numbers).ravel()]
