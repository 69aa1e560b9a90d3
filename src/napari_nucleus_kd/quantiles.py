"""Mean, median, percentile and sum of many small groups of numbers at once, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.measure import ratio

if TYPE_CHECKING:
    import numpy.typing as npt

_LOW_BITS = 32  # of a sorting key: the value; above it: the group


def group_statistics(
    values: npt.NDArray[Any], groups: npt.NDArray[np.int64], count: int, percentile: float
) -> npt.NDArray[np.float64]:
    """Return mean, median, percentile and sum of each group, (4, count) float64.

    Parameters
    ----------
    values : (N,) real numbers of any type; those that are not finite are left out.
    groups : (N,) the group of each, 0 to count - 1.
    percentile : from 0 to 100.

    Returns
    -------
    NaN of groups without a value. Percentiles are interpolated as numpy.percentile does.

    >>> group_statistics(np.array([1, 9, 2]), np.array([0, 1, 0]), 3, 100).tolist()
    [[1.5, 9.0, nan], [1.5, 9.0, nan], [2.0, 9.0, nan], [3.0, 9.0, nan]]
    """
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            values, groups = values[finite], groups[finite]
    size = np.bincount(groups, minlength=count)
    total = np.bincount(groups, values, minlength=count)
    ordered, start = sort_in_groups(values, groups), np.cumsum(size) - size
    total = np.where(size > 0, total, np.nan)
    quantiles = (_quantile(ordered, start, size, share) for share in (0.5, percentile / 100))
    return np.stack([ratio(total, size), *quantiles, total])


def sort_in_groups(values: npt.NDArray[Any], groups: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return values (N,) in the order of their groups (N,), and rising within each.

    Numbers of at most 32 bits go with their group into one 64-bit key: one sort of keys is several times as
    fast as numpy.lexsort.
    """
    if values.dtype.kind == "b" or values.dtype == np.float16:
        values = values.astype(np.float32 if values.dtype.kind == "f" else np.uint8)
    if not values.size or values.dtype.itemsize > _LOW_BITS // 8:
        return values[np.lexsort((values, groups))]
    is_float = values.dtype.kind == "f"
    whole = _swap_order(values.view(np.int32)) if is_float else values
    low = int(whole.min())
    keys = (groups << _LOW_BITS) | (whole.astype(np.int64) - low)
    keys.sort()
    whole = (keys & ((1 << _LOW_BITS) - 1)) + low
    return _swap_order(whole.astype(np.int32)).view(np.float32) if is_float else whole


def _swap_order(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Make integers that rise as floats do of their bits, and the bits of these integers."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _quantile(
    ordered: npt.NDArray[Any], start: npt.NDArray[np.int64], size: npt.NDArray[np.int64], share: float
) -> npt.NDArray[np.float64]:
    """Return a quantile of each group of values that lie one after the other, each rising."""
    found = np.full(len(size), np.nan)
    there = size > 0
    at = share * (size[there] - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, size[there] - 1)
    below, above = (ordered[start[there] + i].astype(np.float64) for i in (low, high))
    found[there] = below + (above - below) * (at - low)
    return found
