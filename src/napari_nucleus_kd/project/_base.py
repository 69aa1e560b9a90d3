"""The complete labels of one image as OME-Zarr 0.5: written once, in pieces, then only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.io.atomic import scratch_beside, settle
from napari_nucleus_kd.io.labels import zarr_words
from napari_nucleus_kd.project._journal import BLOCK_PX, BoolArray
from napari_nucleus_kd.types import LabelArray, Progress, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

CHUNK_PX = 4 * BLOCK_PX
Pair: TypeAlias = tuple[LabelArray, BoolArray]
_DTYPES = {"nuclei": "int32", "verified": "uint8"}


def base_path(folder: Path, number: int) -> Path:
    """Return where the base of this number is, in the folder of its image."""
    return folder / f"base-{number:06d}.ome.zarr"


def chunks_of(shape_yx: tuple[int, int]) -> Iterator[Region]:
    """Return the pieces in which a base is written and read."""
    for y in range(0, shape_yx[0], CHUNK_PX):
        for x in range(0, shape_yx[1], CHUNK_PX):
            yield Region(y, x, min(y + CHUNK_PX, shape_yx[0]), min(x + CHUNK_PX, shape_yx[1]))


def write_base_steps(
    path: Path, shape_yx: tuple[int, int], pixel_size_um: float | None, read: Callable[[Region], Pair]
) -> Generator[Progress, None, None]:
    """Write labels and verified pixels piece by piece; on the disk itself, under the name, at the end.

    Parameters
    ----------
    read : returns labels and verified pixels of a region.

    Raises
    ------
    WriteError : the disk refuses; nothing is then there under the name.
    """
    pieces = list(chunks_of(shape_yx))
    safe = "check space and permissions. What was saved before is safe"
    with scratch_beside(path, safe) as partial:
        arrays = _make(partial, path.name, shape_yx, pixel_size_um)
        for done, piece in enumerate(pieces, 1):
            for array, values in zip(arrays, read(piece), strict=True):
                array[piece.slices] = values
            yield Progress(done, len(pieces), "writing labels")
        for file in [*partial.rglob("*"), partial]:
            settle(file)
        partial.rename(path)
        settle(path.parent)


def _make(folder: Path, name: str, shape_yx: tuple[int, int], um: float | None) -> list[Any]:
    """Make the empty arrays, as labels without an image: the image stays where it is."""
    import zarr
    from zarr.codecs import ZstdCodec

    labels = zarr.open_group(str(folder), mode="w-", zarr_format=3).create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": list(_DTYPES)}
    arrays = []
    for kind, dtype in _DTYPES.items():
        group = labels.create_group(kind)
        group.attrs["ome"] = zarr_words(f"{name} {kind}", [1], um)
        arrays.append(
            group.create_array(
                "0",
                shape=shape_yx,
                dtype=dtype,
                chunks=(CHUNK_PX, CHUNK_PX),
                dimension_names=["y", "x"],
                compressors=ZstdCodec(level=1, checksum=True),
                config={"write_empty_chunks": True},  # so that a lost one is noticed
            )
        )
    return arrays


class Base:
    """The base under a name, for reading.

    Raises
    ------
    ProjectError : it is missing, a part of it is, or it has not this shape.
    """

    def __init__(self, path: Path, shape_yx: tuple[int, int]):
        import zarr

        self._path = path
        try:
            self._arrays: list[Any] = [
                zarr.open_array(str(path / "labels" / kind / "0"), mode="r", zarr_format=3)
                for kind in _DTYPES
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{error}") from error
        wanted = -(-shape_yx[0] // CHUNK_PX) * -(-shape_yx[1] // CHUNK_PX)
        for array, (kind, dtype) in zip(self._arrays, _DTYPES.items(), strict=True):
            if array.shape != shape_yx or array.chunks != (CHUNK_PX, CHUNK_PX) or array.dtype != dtype:
                raise self._damaged(f"{kind} is {array.shape} {array.dtype}, the project says {shape_yx}")
            found = sum(file.name.isdigit() for file in (path / "labels" / kind / "0" / "c").glob("*/*"))
            if found != wanted:  # zarr would read missing ones as background
                raise self._damaged(f"{kind} has {found} of {wanted} files")

    def read(self, region: Region) -> Pair:
        """Read a region: labels int32 and verified bool.

        Raises
        ------
        ProjectError : it cannot be read.
        """
        try:
            labels, verified = (np.asarray(array[region.slices]) for array in self._arrays)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise self._damaged(f"{error}") from error
        return labels, verified != 0

    def _damaged(self, why: str) -> ProjectError:
        return ProjectError(
            f"{self._path} is damaged ({why}); restore this folder from a backup. Nothing was deleted"
        )
