"""Which nuclei to look at first: those that are most likely wrong, each with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_nucleus_kd.metrics import overlap

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_FEW = 10  # nuclei below which nothing can be called unusual
_ODD = 3.0  # robust standard deviations at which a nucleus is odd

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a nucleus should be looked at.

    Attributes
    ----------
    number : its label.
    doubt : 0 (nothing speaks against it) to 1.
    reason : what speaks against it most, for a person; "" if nothing does.
    """

    number: int
    doubt: float
    reason: str


def agreement(
    labels: npt.NDArray[np.integer[Any]], other: npt.NDArray[np.integer[Any]]
) -> tuple[Numbers, npt.NDArray[np.intp]]:
    """Return how well other labels of the same image repeat each nucleus, and which of them does it best.

    Parameters
    ----------
    labels, other : (Y, X) int, for instance of the picture and of its mirror picture, turned back.

    Returns
    -------
    (n,) the best intersection over union of each nucleus, in order of its number; 0 if there is none. And
    (n,) the place of that other nucleus among the others, in order of their numbers; -1 if there is none.
    """
    pairs = overlap(labels, other)
    best, partner = np.zeros(len(pairs.true_area)), np.full(len(pairs.true_area), -1)
    rising = np.argsort(pairs.iou, kind="stable")
    rows = pairs.shared.row[rising]
    best[rows], partner[rows] = pairs.iou[rising], pairs.shared.col[rising]  # the last one stays
    return best, partner


def doubts(
    table: Mapping[str, npt.NDArray[Any]], agreed: Numbers | None = None, cut: Collection[int] = ()
) -> list[Doubt]:
    """Return the nuclei in the order in which to review them.

    Parameters
    ----------
    table : of measure.features; its scores are taken if they are there.
    agreed : (n,) from `agreement`, one for each row of the table.
    cut : numbers of nuclei that the border of the image cuts, see edit.at_border; of these, size and shape
        say nothing.

    Returns
    -------
    The most doubtful first; equal ones as in the table. Doubts add up as if they were independent
    chances to be wrong: low score, disagreement, unusual size, unusual length, dented outline.
    """
    count = len(table["label"])
    if not count:
        return []
    area = _column(table, "area")
    major, minor = _column(table, "major_axis"), _column(table, "minor_axis")
    major, minor = (np.maximum(axis, 1e-3 * np.sqrt(area)) for axis in (major, minor))  # a line has no width
    filled = area / (np.pi / 4 * major * minor)  # of the ellipse: less if it is dented
    ratio = major / minor
    larger = np.log(area / np.median(area))
    whole = ~np.isin(table["label"], np.fromiter(cut, np.int64, len(cut)))
    parts: list[tuple[Numbers, list[str]]] = []
    if "score" in table:
        score = np.nan_to_num(np.asarray(table["score"], float), nan=1.0)
        parts.append((1 - score, [f"low score, {s:.2f}" for s in score]))
    if agreed is not None:
        parts.append((1 - agreed, ["seen differently in the mirror picture"] * count))
    sizes = [f"{'large' if x > 0 else 'small'}, {np.exp(x):.2g} times the median area" for x in larger]
    long, dented = whole & (ratio > np.median(ratio)), whole & (filled < np.median(filled))
    parts.append((_odd(larger) * whole, sizes))
    parts.append((_odd(np.log(ratio)) * long, [f"long, {r:.1f} to 1" for r in ratio]))
    parts.append((_odd(filled) * dented, ["dented, perhaps several nuclei"] * count))
    chances = np.stack([chance for chance, _ in parts])
    doubt, strongest = 1 - np.prod(1 - chances, axis=0), chances.argmax(0)
    order = np.argsort(-doubt, kind="stable")
    return [
        Doubt(int(table["label"][i]), float(doubt[i]), parts[strongest[i]][1][i] if doubt[i] > 0 else "")
        for i in order
    ]


def _column(table: Mapping[str, npt.NDArray[Any]], name: str) -> Numbers:
    """Return a column whose name ends in its unit."""
    return np.asarray(next(v for key, v in table.items() if key.startswith(f"{name}_")), float)


def _odd(values: Numbers) -> Numbers:
    """Return how unusual values are among each other, 0 to 1: 0.63 at three robust standard deviations."""
    if len(values) < _FEW:
        return np.zeros(len(values))
    away = np.abs(values - np.median(values))
    spread = 1.4826 * np.median(away)
    return np.asarray(1 - np.exp(-((away / max(_ODD * spread, 1e-9)) ** 4)))
