"""Mean, median, percentile and sum of many nuclei, rings and cells at once, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.measure import ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

NUCLEUS, RING, CELL = "", "ring ", "cell "  # how the columns of a compartment begin


class Compartments:
    """Pixels by the nuclei and rings that they belong to.

    Parameters
    ----------
    cell : (N,) number of the cell of each pixel.
    in_ring : (N,) whether the pixel is in the ring; else it is in the nucleus.
    has_rings : whether rings and cells are measured, too.

    Attributes
    ----------
    cells : (G,) the numbers that occur, rising.
    order : (N,) that puts the pixels in the order of their cells, those of the nucleus before the ring's.
    """

    def __init__(self, cell: Ints, in_ring: npt.NDArray[np.bool_], *, has_rings: bool) -> None:
        self.cells, local = np.unique(cell, return_inverse=True)
        group = 2 * local + in_ring
        self.order = np.argsort(group, kind="stable")
        self._group = group[self.order]
        self._size = self._add_up(None)
        begin = np.concatenate([[0], np.cumsum(self._size, dtype=np.int64)])
        nucleus, ring, end = begin[:-1:2], begin[1::2], begin[2::2]
        spans = {NUCLEUS: (nucleus, ring), RING: (ring, end), CELL: (nucleus, end)}
        self._spans = spans if has_rings else {NUCLEUS: spans[NUCLEUS]}

    def statistics(
        self, values: npt.NDArray[Any], percentile: float
    ) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
        """Yield each compartment with mean, median, percentile and sum of its values, (4, G).

        Parameters
        ----------
        values : (N,) real numbers in `order`; those that are not finite are left out. Changed.
        percentile : from 0 to 100; interpolated as numpy.percentile does, as is the median.

        Returns
        -------
        NaN where there is no value.
        """
        size, weights = self._size, values
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                size, weights = self._add_up(finite), np.where(finite, values, 0)
                values[~finite] = np.nan  # which sort to the end
        total = self._add_up(weights)
        columns = {NUCLEUS: slice(0, 1), RING: slice(1, 2), CELL: slice(0, 2)}
        for part, (start, stop) in self._spans.items():
            for first, last in zip(start.tolist(), stop.tolist(), strict=True):
                values[first:last].sort()
            many = size[:, columns[part]].sum(1).astype(np.int64)
            quantiles = (_quantile(values, start, many, share) for share in (0.5, percentile / 100))
            sums = np.where(many > 0, total[:, columns[part]].sum(1), np.nan)
            yield part, np.stack([ratio(sums, many), *quantiles, sums])

    def _add_up(self, weights: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        """Return the sum of weights, or of 1 each, in nucleus and ring, (G, 2)."""
        return np.bincount(self._group, weights, 2 * len(self.cells)).reshape(-1, 2)


def _quantile(ordered: npt.NDArray[Any], start: Ints, size: Ints, share: float) -> npt.NDArray[np.float64]:
    """Return a quantile of each group of values; groups begin at `start`, and rise."""
    found = np.full(len(size), np.nan)
    there = size > 0
    at = share * (size[there] - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, size[there] - 1)
    below, above = (ordered[start[there] + i].astype(np.float64) for i in (low, high))
    found[there] = below + (above - below) * (at - low)
    return found
