"""Where the nuclei of a plane lie, in the order in which a person goes from one to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np

from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._changes import changes_in
from napari_nucleus_kd.widgets._numbers import blocks

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy.typing as npt

    Place = tuple[int, int]

_BAND_PX = 128  # height of the lines in which the plane is read
_NEAR_PX = (24, 128)  # how far around its former place a nucleus is looked for


class Places:
    """One pixel of each nucleus of a plane; a nucleus that was changed since is looked for around it.

    Parameters
    ----------
    places : number to pixel (y, x).
    axes : of the plane in the data of its layer.
    """

    def __init__(self, places: dict[int, Place], axes: tuple[int, int]) -> None:
        self._places, self._axes = places, axes
        self._order: npt.NDArray[np.int64] | None = None

    def note(self, item: Any) -> None:
        """Take in a step of the layer's history: nuclei that are new in it."""
        for change in changes_in(item):
            span = [np.ravel(_start(change.index[axis])) for axis in self._axes]
            found, first = np.unique(change.after, return_index=True)
            for number, i in zip(found.tolist(), first.tolist(), strict=True):
                if number and number not in self._places:
                    y, x = (int(part[min(i, len(part) - 1)]) for part in span)
                    self._places[number] = (y, x)
                    self._order = None

    def beside(self, number: int, step: int, labels: Any) -> tuple[int, Place] | None:
        """Return the nucleus that comes before or after another one, and a pixel of it; None without any.

        Parameters
        ----------
        number : of the nucleus to start from; one that is unknown stands before the first.
        step : 1 for the next one, -1 for the one before.
        labels : (Y, X) as they are now.
        """
        order = self._in_order()
        at = np.flatnonzero(order == number)
        start = int(at[0]) if at.size else (-1 if step > 0 else len(order))
        for count in range(1, len(order) + 1):
            known = int(order[(start + step * count) % len(order)])
            place = place_now(labels, known, self._places[known])
            if place is not None:
                return known, place
        return None

    def _in_order(self) -> npt.NDArray[np.int64]:
        if self._order is None:
            numbers = np.fromiter(self._places, np.int64, len(self._places))
            places = np.array(list(self._places.values()), np.int64).reshape(-1, 2)
            self._order = numbers[np.lexsort((places[:, 1], places[:, 0] // _BAND_PX))]
        return self._order


def place_steps(labels: Any) -> Generator[Progress, None, dict[int, Place]]:
    """Find one pixel of every nucleus of a plane, some rows at a time.

    Parameters
    ----------
    labels : (Y, X), numpy or what is indexed like it.
    """
    places: dict[int, Place] = {}
    height, width = labels.shape
    for top, block in blocks(labels):
        yield Progress(top, int(height), "Looking where the nuclei are")
        numbers, first = fastremap.unique(np.ascontiguousarray(block), return_index=True)
        for number, at in zip(numbers.tolist(), first.tolist(), strict=True):
            if number and number not in places:
                places[number] = (top + at // width, at % width)
    return places


def _start(part: Any) -> npt.NDArray[np.int64]:
    """Return positions along an axis: those of an index, the middle of a slice."""
    if isinstance(part, slice):
        return np.array([(part.start + part.stop) // 2])
    return np.asarray(part, np.int64)


def place_now(labels: Any, number: int, place: Place) -> Place | None:
    """Return a pixel that a nucleus has now, near the one that it had; None if it is gone."""
    y, x = place
    height, width = labels.shape
    if int(labels[y, x]) == number:
        return place
    for reach in _NEAR_PX:
        top, left = max(0, y - reach), max(0, x - reach)
        around = np.asarray(labels[top : min(height, y + reach + 1), left : min(width, x + reach + 1)])
        rows, cols = np.nonzero(around == number)
        if len(rows):
            return top + int(rows[0]), left + int(cols[0])
    return None
