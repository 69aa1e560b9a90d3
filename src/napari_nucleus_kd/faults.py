"""What is wrong with files of annotated images, in words: where they lie, what they look like, what to do."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cc3d
import numpy as np

from napari_nucleus_kd.errors import LabelsError, ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from napari_nucleus_kd.types import LabelArray

_MASK_PIECES = 3  # so many separate pieces under the only number are hardly one nucleus
_CRUMB = 0.1  # pieces below this share of the largest one of their number are slips of the pen
_IN_PARTS = 0.1  # share of the numbers that may stand for several pieces that are no crumbs
_MANY = 50  # from so many on, their typical size tells labels from pictures
_MOST = 0.5  # share of the pixels that no nucleus has if there are others
_SPECKS_PX = 2  # pixels next to each other that have one value in a noisy picture; no nucleus is as small
_PATCHES_PX = 8  # the same in smooth pictures and probabilities
_JPEG = (".jpg", ".jpeg", ".jpe")
_LABELS_ARE = (
    "labels are one plane of whole numbers, 0 for the background and another number for each nucleus"
)
_BY_THRESHOLD = "skimage.measure.label(probability > 0.5) makes numbers of them, then part those that touch"
_OWN_NUMBERS = (
    "give each nucleus its own number (for instance with skimage.measure.label, then part those that touch)"
)


def shown(path: Path) -> str:
    """Return where a file lies, without detours; seen from the current folder if that is shorter."""
    place = path.parent.resolve() / path.name  # a link keeps its name: that is the one people know
    try:
        return min(os.path.relpath(place), str(place), key=len)
    except (OSError, ValueError):  # another drive, or a current folder that is gone
        return str(place)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let errors of reading a file begin with the place where it lies, not with its bare name.

    Raises
    ------
    ReadError : what the block raised, so named.
    """
    try:
        yield
    except ReadError as error:
        rule = str(error)
        starts = (str(path.absolute()), str(path), path.name)
        start = next((start for start in starts if rule.startswith(start)), None)
        rest = f": {rule}" if start is None else rule.removeprefix(start)
        raise ReadError(shown(path) + rest) from error


def refuse_jpeg(path: Path) -> None:
    """Raise LabelsError if a file of labels, or of where they are complete, is named as a JPEG."""
    if path.suffix.lower() in _JPEG:
        raise LabelsError(
            f"{shown(path)}: JPEG does not keep the numbers of labels; export them as PNG or TIFF"
        )


def refuse_channels(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Raise LabelsError if what should be labels, (C, Y, X), has several channels."""
    if len(pixels) == 1:
        return
    start = f"{shown(path)}: has {len(pixels)} channels"
    if _changes(pixels[0]):
        raise LabelsError(
            f"{start} that change from pixel to pixel, so it looks like a picture; {_LABELS_ARE}. Give the "
            "label image of this picture: were the two exchanged?"
        )
    raise LabelsError(f"{start}; {_LABELS_ARE}. Export the numbers, not their colours")


def refuse_values(path: Path, plane: npt.NDArray[Any]) -> None:
    """Raise LabelsError unless the values of a plane, (Y, X), can be numbers of nuclei: whole, from 0 on."""
    whole = plane.dtype.kind in "uib" or (plane.dtype.kind == "f" and bool((plane == np.rint(plane)).all()))
    if whole and not (plane.size and plane.min() < 0):
        if plane.size and float(plane.max()) >= 2**63:
            raise LabelsError(
                f"{shown(path)}: labels must be below 2**63; these are {_range(plane)}. Number them anew"
            )
        return
    start = f"{shown(path)}: labels must be whole numbers from 0 on; these are {_range(plane)}"
    if not np.isfinite(plane).all() or not _changes(plane):
        raise LabelsError(
            f"{start}. Export the numbers of the nuclei as they are: not scaled, 0 for the background"
        )
    if plane.min() >= 0 and plane.max() <= 1:
        raise LabelsError(
            f"{start}, and change from pixel to pixel: it looks like a map of probabilities, or a picture. "
            f"Export the numbers of the nuclei; of probabilities, {_BY_THRESHOLD}"
        )
    raise LabelsError(
        f"{start}, and change from pixel to pixel: it looks like a picture. Give the label image of this "
        "picture: were the two exchanged?"
    )


def refuse_background(path: Path, labels: npt.NDArray[np.integer[Any]]) -> None:
    """Raise LabelsError if the background of (Y, X) labels is a number: 0 nowhere, and one in most pixels."""
    if not labels.size or labels.min() <= 0:
        return
    numbers, area = np.unique(labels, return_counts=True)
    if len(numbers) > 1 and area.max() > _MOST * labels.size:
        raise LabelsError(
            f"{shown(path)}: no pixel is 0, and {area.max() / labels.size:.0%} of them have the number "
            f"{numbers[area.argmax()]}, so that seems to be the background; {_LABELS_ARE}. Set it to 0"
        )


def refuse_pieces(path: Path, labels: LabelArray, *, allowed: bool = False) -> None:
    """Raise LabelsError if the numbers of (Y, X) labels stand for no nuclei: a mask, classes, a picture.

    Several nuclei in pieces may also be `allowed`: what annotation should not be, a program may find.
    """
    owner, area = pieces(labels)
    numbers, of, count = np.unique(owner, return_inverse=True, return_counts=True)
    if len(numbers) == 1 and count[0] >= _MASK_PIECES:
        raise LabelsError(
            f"{shown(path)}: one number for {count[0]} separate pieces is a mask, not labels; {_OWN_NUMBERS}"
        )
    largest = np.zeros(len(numbers))
    np.maximum.at(largest, of, area)
    parts = np.bincount(of[area >= _CRUMB * largest[of]], minlength=len(numbers))
    several = int((parts > 1).sum())
    in_parts = several > _IN_PARTS * len(numbers) and parts.sum() - len(numbers) > 1
    if _typical_px(largest) <= _SPECKS_PX or (in_parts and _typical_px(area) <= _PATCHES_PX):
        raise LabelsError(
            f"{shown(path)}: its {len(numbers)} numbers change from pixel to pixel, so it looks like a "
            "picture or a map of probabilities. Give the label image of this picture: were the two "
            f"exchanged? Of probabilities, {_BY_THRESHOLD}"
        )
    if in_parts and not allowed:
        raise LabelsError(
            f"{shown(path)}: {several} of {len(numbers)} numbers stand for several separate pieces each, as "
            f"in a map of classes or in tiles joined without numbering anew; {_OWN_NUMBERS}"
        )


def pieces(labels: LabelArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return number and area of every piece that is apart from the others of its number, also by a corner."""
    found = cc3d.connected_components(labels, connectivity=8).ravel()
    area = np.bincount(found)
    owner = np.zeros(len(area), np.int32)
    owner[found] = labels.ravel()
    return owner[1:], area[1:]


def _changes(plane: npt.NDArray[Any]) -> bool:
    """Tell whether values, (Y, X), change from pixel to pixel, not from nucleus to nucleus."""
    _, codes = np.unique(plane, return_inverse=True)
    _, area = pieces(codes.reshape(plane.shape).astype(np.int32))
    return _typical_px(area) <= _PATCHES_PX


def _typical_px(area: npt.NDArray[Any]) -> float:
    """Return the median of areas, in pixels; infinite where there are only few."""
    return float(np.median(area)) if len(area) >= _MANY else float("inf")


def _range(plane: npt.NDArray[Any]) -> str:
    if not np.isfinite(plane).all():
        return f"{plane.dtype}, not all of them finite"
    return f"{plane.dtype} from {plane.min():g} to {plane.max():g}"
