"""Which image labels belong to: where it is, and how to notice that it is gone or another one."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.errors import ProjectError, ReadError
from napari_nucleus_kd.io import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HEAD_BYTES, _PIECES, _PIECE_BYTES = 1 << 16, 64, 1 << 12  # of a file that are looked at
_SPREAD = 3  # of a folder of an OME-Zarr: its first, middle and last entries
_DEPTH = 6  # of folders in an OME-Zarr


class ImageState(StrEnum):
    """What became of an image."""

    THERE = "there"
    CHANGED = "changed"
    MISSING = "missing"


class ImageReference(Settings):
    """Where an image is; it is only ever read."""

    relative: str | None = Field(None, description="From the project's folder, with forward slashes")
    absolute: str = Field(description="Where to look if it is not there")
    size: int = Field(ge=0, description="Bytes; of an OME-Zarr, of the files that the fingerprint looks at")
    modified_ns: int = Field(description="When it was last changed, for people; copies may differ")
    fingerprint: str = Field(description="SHA-256 of pieces of it")
    z: int | None = None
    t: int = 0
    series: int = 0

    def find(self, folder: Path) -> tuple[Path, ImageState]:
        """Return where the image is now, seen from a project's folder, and what became of it.

        Of two candidates the unchanged one is taken. A missing one is said to be where it was.
        """
        places = self._places(folder)
        there = [place for place in places if place.is_file() or place.is_dir()]
        for place in there:
            if self._is_same(place):
                return place, ImageState.THERE
        return (there[0], ImageState.CHANGED) if there else (places[0], ImageState.MISSING)

    def is_at(self, path: Path, folder: Path) -> bool:
        """Tell whether the image is at a path, resolved; only an image that may be there is read."""
        maybe = any(place.resolve() == path for place in self._places(folder))
        return maybe and self.find(folder)[0].resolve() == path

    def _places(self, folder: Path) -> list[Path]:
        places = [Path(self.absolute)]
        if self.relative is not None:
            places.insert(0, Path(os.path.normpath(folder / self.relative)))
        return places

    def _is_same(self, place: Path) -> bool:
        try:
            return fingerprint(place) == (self.fingerprint, self.size)
        except OSError:
            return False


def refer_to(
    path: str | os.PathLike[str], folder: Path, *, z: int | None = None, t: int = 0, series: int = 0
) -> ImageReference:
    """Return a reference to an image file, or OME-Zarr folder, from a project's folder.

    Parameters
    ----------
    z, t, series : see io.read.

    Raises
    ------
    ProjectError : it cannot be read.
    """
    place = Path(path).expanduser().absolute()
    try:
        relative = Path(os.path.relpath(place, folder)).as_posix()
    except ValueError:  # on another drive
        relative = None
    try:
        digest, size = fingerprint(place)
        modified = place.stat().st_mtime_ns
    except OSError as error:
        raise ProjectError(
            f"{place} cannot be read: {error.strerror or error}; check name and permissions"
        ) from error
    return ImageReference(
        relative=relative,
        absolute=str(place),
        size=size,
        modified_ns=modified,
        fingerprint=digest,
        z=z,
        t=t,
        series=series,
    )


def index_of(
    references: Sequence[ImageReference],
    folder: Path,
    path: str | os.PathLike[str],
    *,
    z: int | None,
    t: int,
    series: int,
) -> int | None:
    """Return which of a project's references is to a plane of an image; None if none is.

    The middle plane of a stack is also that of z = None, the only one of a file also that of z = 0. The image
    is read only if a reference may name the plane the other way.
    """
    place = Path(path).expanduser().resolve()
    alike = [(i, r) for i, r in enumerate(references) if (r.t, r.series) == (t, series)]

    def first(fits: Callable[[int | None], bool]) -> int | None:
        return next((i for i, r in alike if fits(r.z) and r.is_at(place, folder)), None)

    found = first(lambda known: known == z)
    if found is None and first(lambda known: (known is None) != (z is None)) is not None:
        other = _other_name(place, z, t, series)
        found = first(lambda known: known == other)
    return found


def _other_name(path: Path, z: int | None, t: int, series: int) -> int | None:
    """Return the other z by which the same plane is read, see index_of; z itself if there is none."""
    with suppress(ReadError):
        usual = read(path, t=t, series=series).z
        number = (usual or 0) if z is None else z
        if read(path, z=number, t=t, series=series).z == usual:
            return number if z is None else None
    return z


def fingerprint(path: Path) -> tuple[str, int]:
    """Return a SHA-256 of pieces of a file or OME-Zarr folder, and how many bytes there are.

    Of a file: its beginning and 64 pieces spread over it. Of a folder: some of its files, without the
    labels that programs add to an OME-Zarr.
    """
    digest, total = hashlib.sha256(), 0
    for file in [path] if not path.is_dir() else _some_files(path, _DEPTH):
        size = file.stat().st_size
        total += size
        digest.update(f"{file.relative_to(path)} {size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(_HEAD_BYTES))
            for i in range(1, _PIECES + 1):
                at = (size - _PIECE_BYTES) * i // _PIECES
                if at >= _HEAD_BYTES:
                    content.seek(at)
                    digest.update(content.read(_PIECE_BYTES))
    return digest.hexdigest(), total


def _some_files(folder: Path, depth: int) -> Iterator[Path]:
    inside = sorted(entry for entry in folder.iterdir() if _is_image(entry.name))
    files = [entry for entry in inside if entry.is_file()]  # no pipe, which would be waited for
    folders = [entry for entry in inside if entry.is_dir()] if depth else []
    yield from _spread(files)
    for inner in _spread(folders):
        yield from _some_files(inner, depth - 1)


def _is_image(name: str) -> bool:
    """Tell whether a name in an OME-Zarr is of the image, not of its labels or what file browsers leave."""
    return name != "labels" and (not name.startswith(".") or name.startswith(".z"))


def _spread(entries: list[Path]) -> list[Path]:
    last = len(entries) - 1
    return (
        [entries[i] for i in sorted({last * k // (_SPREAD - 1) for k in range(_SPREAD)})] if entries else []
    )
