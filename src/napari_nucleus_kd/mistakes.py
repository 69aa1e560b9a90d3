"""Which nuclei were found, and what went wrong with the others: pure functions on two label images."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import fastremap
import numpy as np
from scipy import sparse

from napari_nucleus_kd.metrics import Overlap, bootstrap, overlap

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_nucleus_kd.metrics import Labels

_MOSTLY = 0.5  # share of a nucleus that lies inside another one, above which it belongs to that
_FOUND_IOU = 0.5
_DRAWS = 1999  # of a test
_EXACT = 1e-12  # sums of the same numbers in another order
_ENOUGH_TO_TEST = 6  # annotated nuclei: fewer tell too little


class Verdict(IntEnum):
    """What became of a nucleus; the numbers are those of the pixels of an error picture.

    A nucleus is *correct* with an IoU above 0.5, as PQ counts it. Of the others, a predicted nucleus that
    holds more than half of each of several true ones is *merged*, and so are these; one of several predicted
    nuclei that lie for more than half in one true nucleus is *split*, and so is that one; a true nucleus that
    is left, also one inside the correct outline of another, is *missed*, a predicted one *spurious*.
    """

    CORRECT = 1
    MISSED = 2
    SPURIOUS = 3
    SPLIT = 4
    MERGED = 5


# Okabe and Ito's colours, safe for the colour-blind; their pink cannot be seen on H&E.
COLOURS = {
    Verdict.CORRECT: "#009e73",
    Verdict.MISSED: "#56b4e9",
    Verdict.SPURIOUS: "#d55e00",
    Verdict.SPLIT: "#f0e442",
    Verdict.MERGED: "#e6007e",
}


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What became of the nuclei of two label images.

    Attributes
    ----------
    true_ids, pred_ids : (T,), (P,) labels, ascending.
    true, pred : (T,), (P,) uint8, the Verdict of each.
    iou : (T,) of the predicted nucleus that matches a correct one; 0 of the others.
    tries : (L, 2) places in true_ids and pred_ids: a predicted nucleus, and each true one that it was to be:
        that with which it shares most, and those of which it holds more than half.
    """

    true_ids: npt.NDArray[np.int64]
    pred_ids: npt.NDArray[np.int64]
    true: npt.NDArray[np.uint8]
    pred: npt.NDArray[np.uint8]
    iou: npt.NDArray[np.float64]
    tries: npt.NDArray[np.intp]

    def count(self, verdict: Verdict) -> int:
        """Return how many nuclei it holds for: predicted ones, of missed nuclei the true ones.

        Of merged nuclei these are the outlines that hold several; of split ones, the pieces.
        """
        of = self.true if verdict is Verdict.MISSED else self.pred
        return int((of == verdict).sum())


def mistakes(true: Labels, pred: Labels) -> Mistakes:
    """Tell which nuclei were found, and what went wrong with the others; see Verdict.

    Parameters
    ----------
    true, pred : (Y, X) int arrays; 0 is background.

    Raises
    ------
    LabelsError : not two 2-D integer arrays of one shape.

    >>> whole, halves = np.zeros((2, 8, 20), np.int32)
    >>> whole[2:6, 2:14] = 1
    >>> halves[2:6, 2:8], halves[2:6, 8:14], halves[2:6, 17:] = 1, 2, 3
    >>> found = mistakes(whole, halves)
    >>> [Verdict(v).name for v in found.pred], Verdict(found.true[0]).name
    (['SPLIT', 'SPLIT', 'SPURIOUS'], 'SPLIT')
    """
    pairs = overlap(true, pred)
    ids = [fastremap.unique(labels) for labels in (true, pred)]
    true_ids, pred_ids = (found[found != 0].astype(np.int64) for found in ids)
    verdicts = _verdicts(pairs)
    return Mistakes(true_ids, pred_ids, *verdicts, _tries(pairs))


def pq_over_nuclei(found: Mistakes) -> tuple[float, float, float]:
    """Return the PQ of one image, and its 95% bootstrap interval over the nuclei in it.

    Nuclei are drawn with all outlines that were to be them, so that one mistake counts once. It says how far
    so many nuclei tell; that another image may be easier or harder it does not know. Without any nucleus all
    three are NaN.
    """
    (shares,) = _shares(found)
    if not len(shares):
        return float("nan"), float("nan"), float("nan")
    return bootstrap(shares, lambda drawn: _pq(drawn.sum(0)))


def chance(first: Mistakes, second: Mistakes) -> float | None:
    """Return how likely so large a difference of two PQ of one image is by chance.

    What became of each annotated nucleus, with all outlines that were to be it, is swapped at random between
    the two, and so is each outline where none is (approximate randomization: Noreen, Computer-intensive
    methods for testing hypotheses, 1989; two-sided). Like the interval it knows of the nuclei of this image
    alone. None with fewer than six annotated ones.

    Parameters
    ----------
    first, second : of labels that were found in the same image, against the same truth.
    """
    if len(first.true) < _ENOUGH_TO_TEST:
        return None
    one, other = _shares(first, second)
    ours, theirs, between = one.sum(0), other.sum(0), other - one
    rng, seen = np.random.default_rng(0), abs(_pq(ours) - _pq(theirs))
    moved = [(rng.random(len(one)) < 0.5) @ between for _ in range(_DRAWS)]
    gaps = np.array([abs(_pq(ours + m) - _pq(theirs - m)) for m in moved])
    return float((1 + (gaps >= seen - _EXACT).sum()) / (1 + _DRAWS))


def _shares(*found: Mistakes) -> list[npt.NDArray[np.float64]]:
    """Return what each independent part of an image adds to both sides of PQ's fraction, (N, 2) of each.

    Such a part is a true nucleus with all outlines that were to be it, which may join it to others, or an
    outline where none is.
    """
    count, nodes, edges = len(found[0].true), len(found[0].true), []
    adds = []
    for each in found:
        edges.append(each.tries + np.array([0, nodes]))
        of_true = np.stack([each.iou, np.where(each.true == Verdict.CORRECT, 1.0, 0.5)], 1)
        of_pred = np.outer(each.pred != Verdict.CORRECT, (0.0, 0.5))
        adds.append((slice(nodes, nodes + len(each.pred)), of_true, of_pred))
        nodes += len(each.pred)
    rows, columns = np.concatenate(edges).T
    graph = sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), (nodes, nodes))
    parts, part_of = sparse.csgraph.connected_components(graph, directed=False)
    out = []
    for places, of_true, of_pred in adds:
        shares = np.zeros((parts, 2))
        np.add.at(shares, part_of[:count], of_true)
        np.add.at(shares, part_of[places], of_pred)
        out.append(shares)
    return out


def _pq(sums: npt.NDArray[np.float64]) -> float:
    return float(sums[0] / sums[1])


def _tries(pairs: Overlap) -> npt.NDArray[np.intp]:
    rows, columns, shared = pairs.shared.row, pairs.shared.col, pairs.shared.data
    most = np.zeros(len(pairs.pred_area), shared.dtype)
    np.maximum.at(most, columns, shared)
    tried = (shared == most[columns]) | (shared > _MOSTLY * pairs.true_area[rows])
    return np.stack([rows[tried], columns[tried]], 1).astype(np.intp)


def _verdicts(
    pairs: Overlap,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    rows, cols, shared, iou = pairs.shared.row, pairs.shared.col, pairs.shared.data, pairs.iou
    true = np.full(len(pairs.true_area), Verdict.MISSED, np.uint8)
    pred = np.full(len(pairs.pred_area), Verdict.SPURIOUS, np.uint8)
    matched = np.zeros(len(true))
    # The later overrules the earlier.
    inside = shared > _MOSTLY * pairs.pred_area[cols]
    pieces = np.bincount(rows[inside], minlength=len(true))
    true[pieces > 1] = Verdict.SPLIT
    pred[cols[inside & (pieces[rows] > 1)]] = Verdict.SPLIT
    held, good = shared > _MOSTLY * pairs.true_area[rows], iou > _FOUND_IOU
    merged = np.bincount(cols[held], minlength=len(pred)) > 1
    merged[cols[good]] = False
    pred[merged] = Verdict.MERGED
    true[rows[held & merged[cols]]] = Verdict.MERGED
    true[rows[good]] = pred[cols[good]] = Verdict.CORRECT
    matched[rows[good]] = iou[good]
    return true, pred, matched


def picture(true: Labels, pred: Labels, found: Mistakes | None = None) -> npt.NDArray[np.uint8]:
    """Return the Verdict of each pixel, (Y, X) uint8, 0 for background.

    Predicted nuclei show theirs; where there is none, true ones that are not correct show theirs.
    """
    found = found or mistakes(true, pred)
    shown = _painted(pred, found.pred_ids, found.pred)
    wrong = np.where(found.true == Verdict.CORRECT, 0, found.true).astype(np.uint8)
    behind = _painted(true, found.true_ids, wrong)
    return np.where(shown > 0, shown, behind)


def _painted(
    labels: Labels, ids: npt.NDArray[np.int64], values: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Return a value for each pixel of the nuclei."""
    places = np.searchsorted(ids, labels)
    table = np.append(values, np.uint8(0))
    painted: npt.NDArray[np.uint8] = np.where(labels == 0, 0, table[places]).astype(np.uint8)
    return painted
