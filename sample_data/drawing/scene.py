"""Many nuclei in one picture: which are in front, how much they may cover, and their labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .shapes import stamp

if TYPE_CHECKING:
    from .shapes import Outline, Stamp

EIGHT_CONNECTED = np.ones((3, 3), bool)


@dataclass
class Nucleus:
    """One nucleus of a scene: its place, and the kind that decides how it is painted."""

    stamp: Stamp
    kind: str
    label: int


@dataclass
class Scene:
    """Nuclei in drawing order: a later one lies in front of the earlier ones.

    Attributes
    ----------
    labels : (Y, X) int32, exact: the front nucleus owns the pixel, each nucleus is one piece.
        While placing, pixels of -1 are forbidden to all.
    min_area : fewest visible pixels of a nucleus.
    """

    shape_yx: tuple[int, int]
    min_area: int = 20
    nuclei: list[Nucleus] = field(default_factory=list)
    labels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.shape_yx, np.int32)

    def place(self, outline: Outline, kind: str, overlap: float = 0.0, gap: float = 0.0) -> bool:
        """Put a nucleus in front of the others if it fits; say whether it did.

        overlap : largest part of any one nucleus, old or new, that may lie under or over another.
        gap : free pixels wanted around it.
        """
        if self._taken(outline.y, outline.x):
            return False
        new = stamp(outline, self.shape_yx, margin=gap + 3)
        if new is None:
            return False
        mask, below = new.mask, self.labels[new.window]
        if mask.sum() < max(self.min_area, 1) or _pieces(mask) != 1:
            return False
        if gap and below[new.depth >= -gap].any():
            return False
        if (below[mask] < 0).any() or not self._may_cover(mask, new.window, overlap):
            return False
        label = len(self.nuclei) + 1
        below[mask] = label
        self.nuclei.append(Nucleus(new, kind, label))
        return True

    def _taken(self, y: float, x: float) -> bool:
        """Say if the centre is on another nucleus: that would cover too much; quick to find out."""
        row, column = round(y), round(x)
        inside = 0 <= row < self.shape_yx[0] and 0 <= column < self.shape_yx[1]
        return inside and self.labels[row, column] != 0

    def _may_cover(self, mask: np.ndarray, window: tuple[slice, slice], overlap: float) -> bool:
        below = self.labels[window]
        touched = np.unique(below[mask])
        touched = touched[touched > 0]
        if touched.size == 0:
            return True
        if (below[mask] > 0).mean() > overlap:
            return False
        for label in touched:
            own = self.nuclei[label - 1].stamp
            whole = int(own.mask.sum())
            visible = self.labels[own.window] == label
            left = visible.copy()
            rows = slice(window[0].start - own.window[0].start, window[0].stop - own.window[0].start)
            columns = slice(window[1].start - own.window[1].start, window[1].stop - own.window[1].start)
            _clear(left, mask, rows, columns)
            if left.sum() < max(self.min_area, (1 - overlap) * whole) or _pieces(left) != 1:
                return False
        return True


def _clear(target: np.ndarray, mask: np.ndarray, rows: slice, columns: slice) -> None:
    """Set target to False under a mask that starts at (rows.start, columns.start) of it."""
    y0, x0 = max(0, rows.start), max(0, columns.start)
    y1, x1 = min(target.shape[0], rows.stop), min(target.shape[1], columns.stop)
    if y1 > y0 and x1 > x0:
        part = mask[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
        target[y0:y1, x0:x1] &= ~part


def _pieces(mask: np.ndarray) -> int:
    return int(ndimage.label(mask, EIGHT_CONNECTED)[1])
