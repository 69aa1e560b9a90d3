"""Arrays as callers hold them: checked and converted a part at a time."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_nucleus_kd.errors import LabelsError
from napari_nucleus_kd.project._journal import BLOCK_PX, blocks_in

if TYPE_CHECKING:
    from napari_nucleus_kd.project._journal import Block, BoolArray
    from napari_nucleus_kd.types import LabelArray, Region

_LARGEST = np.iinfo(np.int32).max


class Plane(Protocol):
    """A (Y, X) array that gives its parts when asked: NumPy, zarr or dask."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width."""

    def __getitem__(self, part: Any, /) -> Any:
        """Return a part."""


def check_shapes(shape_yx: tuple[int, int], labels: Plane, verified: Plane) -> None:
    """Raise LabelsError unless both arrays have the image's shape."""
    for name, array in (("labels", labels), ("verified", verified)):
        if tuple(array.shape) != shape_yx:
            raise LabelsError(
                f"{name} are {tuple(array.shape)} pixels, the image is {shape_yx}; take those of this image"
            )


def as_labels(part: Any) -> LabelArray:
    """Return labels as (Y, X) int32; a copy, since a person may paint on.

    Raises
    ------
    LabelsError : they are no whole numbers from 0 to 2**31 - 1.
    """
    numbers = np.array(part, order="C")
    if numbers.dtype.kind not in "iu":
        raise LabelsError(f"labels are {numbers.dtype}; they must be whole numbers")
    low, high = numbers.min(initial=0), numbers.max(initial=0)
    if low < 0 or high > _LARGEST:
        raise LabelsError(f"labels go from {low} to {high}: they must be 0 to {_LARGEST}. Number them anew")
    return numbers.astype(np.int32, copy=False)


def as_mask(part: Any) -> BoolArray:
    """Return where an array is not 0, (Y, X) bool."""
    return np.ascontiguousarray(np.asarray(part) != 0)


def digest(labels: LabelArray, verified: BoolArray) -> bytes:
    """Return 16 bytes that tell one content of a block from another."""
    content = hashlib.blake2b(np.ascontiguousarray(labels).data, digest_size=16)
    content.update(np.ascontiguousarray(verified).data)
    return content.digest()


def digests(region: Region, labels: LabelArray, verified: BoolArray) -> dict[Block, bytes]:
    """Return the digest of each block of a region whose corners are corners of blocks, or of the image."""
    found = {}
    for row, column in blocks_in(region):
        y, x = row * BLOCK_PX - region.y0, column * BLOCK_PX - region.x0
        part = slice(y, y + BLOCK_PX), slice(x, x + BLOCK_PX)
        found[row, column] = digest(labels[part], verified[part])
    return found
