"""The journal of one image: each save adds a file with the blocks that changed, whole or not at all.

A file is a zip archive named by its number and the beginning of its own SHA-256, as
00000012-0123456789abcdef.zip; a block is two members of raw bytes, labels/ROW/COLUMN (int32, little
endian) and verified/ROW/COLUMN (one byte a pixel).
"""

from __future__ import annotations

import hashlib
import re
import uuid
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_nucleus_kd.errors import ProjectError, WriteError
from napari_nucleus_kd.io.atomic import settle
from napari_nucleus_kd.types import LabelArray, Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BLOCK_PX = 256
Block: TypeAlias = tuple[int, int]  # row and column in the grid of blocks
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Content: TypeAlias = tuple[Block, LabelArray, BoolArray]

_NAME = re.compile(r"([0-9]{8,})-([0-9a-f]{16})\.zip")
_MEMBER = re.compile(r"labels/([0-9]{1,7})/([0-9]{1,7})")
_FAST = 1  # of zlib; labels are so even that more effort gains little
_DAMAGED = (
    *(OSError, zipfile.BadZipFile, zlib.error, EOFError),
    *(ValueError, KeyError, NotImplementedError, RuntimeError),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One save."""

    number: int
    path: Path
    blocks: tuple[Block, ...]


def block_region(block: Block, shape_yx: tuple[int, int]) -> Region:
    """Return the pixels of a block of an image of this shape."""
    y, x = block[0] * BLOCK_PX, block[1] * BLOCK_PX
    return Region(y, x, min(y + BLOCK_PX, shape_yx[0]), min(x + BLOCK_PX, shape_yx[1]))


def blocks_in(region: Region) -> Iterator[Block]:
    """Return the blocks that a region touches; nothing if it is empty."""
    if region.y0 < region.y1 and region.x0 < region.x1:
        for row in range(region.y0 // BLOCK_PX, (region.y1 - 1) // BLOCK_PX + 1):
            for column in range(region.x0 // BLOCK_PX, (region.x1 - 1) // BLOCK_PX + 1):
                yield row, column


def write_entry(folder: Path, number: int, blocks: Iterable[Content]) -> Entry | None:
    """Write blocks as one entry, on the disk itself when this returns; None if there are no blocks.

    Raises
    ------
    WriteError : the disk refuses; nothing is then there under the entry's number.
    """
    partial, names = folder / f".{number:08d}-{uuid.uuid4().hex[:8]}.partial", []
    archive: zipfile.ZipFile | None = None
    try:
        for (row, column), labels, verified in blocks:
            if archive is None:
                archive = zipfile.ZipFile(partial, "x", zipfile.ZIP_DEFLATED, compresslevel=_FAST)
            archive.writestr(f"labels/{row}/{column}", labels.astype("<i4").tobytes())
            archive.writestr(f"verified/{row}/{column}", verified.astype(np.uint8).tobytes())
            names.append((row, column))
        if archive is None:
            return None
        archive.close()
        path = folder / f"{number:08d}-{_digest(partial)}.zip"
        settle(partial)
        partial.rename(path)
        settle(folder)
    except OSError as error:
        raise WriteError(
            f"entry {number} of {folder} cannot be written: {error.strerror or error}; check space and "
            "permissions and save again. What was saved before is safe"
        ) from error
    finally:
        _abandon(archive)
        partial.unlink(missing_ok=True)
    return Entry(number, path, tuple(names))


def _abandon(archive: zipfile.ZipFile | None) -> None:
    """Close an archive even where its end cannot be written any more."""
    if archive is not None and archive.fp is not None:
        file, archive.fp = archive.fp, None
        try:
            file.close()
        except OSError:
            return


def read_entries(folder: Path, first: int) -> tuple[list[Entry], str]:
    """Return the sound entries from a number on, up to the first that is damaged or missing.

    Returns
    -------
    The entries in order, and what is wrong with the one after them; "" if there is none.
    """
    files = numbered(folder)
    entries: list[Entry] = []
    for number in range(first, max(files, default=0) + 1):
        found = files.get(number, [])
        if len(found) != 1:
            what = "is missing" if not found else f"is there {len(found)} times"
            return entries, f"entry {number} of {folder} {what}"
        try:
            entries.append(_open_entry(number, found[0]))
        except _DAMAGED as error:
            return entries, f"{found[0]} is damaged ({error})"
    return entries, ""


def numbered(folder: Path) -> dict[int, list[Path]]:
    """Return the files of a journal by their numbers; a number has several only if copies were mixed."""
    files: dict[int, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            files[int(match[1])].append(path)
    return dict(files)


def _open_entry(number: int, path: Path) -> Entry:
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is no file of this folder")
    if not path.stem.endswith(_digest(path)):
        raise ValueError("its content is not what was written")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    matches = (_MEMBER.fullmatch(name) for name in names)
    return Entry(number, path, tuple((int(m[1]), int(m[2])) for m in matches if m))


def read_blocks(entry: Entry, blocks: Iterable[Block], shape_yx: tuple[int, int]) -> Iterator[Content]:
    """Read blocks of an entry, for an image of this shape.

    Raises
    ------
    ProjectError : the entry cannot be read any more.
    """
    try:
        with zipfile.ZipFile(entry.path) as archive:
            for block in blocks:
                shape = block_region(block, shape_yx).shape_yx
                labels = _member(archive, f"labels/{block[0]}/{block[1]}", np.dtype("<i4"), shape)
                verified = _member(archive, f"verified/{block[0]}/{block[1]}", np.dtype(np.uint8), shape)
                yield block, labels.astype(np.int32), verified != 0
    except _DAMAGED as error:
        raise ProjectError(
            f"{entry.path} is damaged ({error}); open the project again to see what can be done"
        ) from error


def _member(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[np.generic], shape: tuple[int, int]
) -> npt.NDArray[np.generic]:
    wanted = shape[0] * shape[1] * dtype.itemsize
    info = archive.getinfo(name)
    if min(shape) <= 0 or info.file_size != wanted:  # before memory is given to it
        raise ValueError(f"{name} has not the {wanted} bytes of its block")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in a way that this program does not write")
    with archive.open(info) as member:  # no more is unpacked than is asked for, whatever it holds
        content = member.read(wanted)
    return np.frombuffer(content, dtype).reshape(shape)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
