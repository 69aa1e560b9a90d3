"""The only metrics of the package. The overlaps of two label images are counted once; all else follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import fastremap
import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from napari_nucleus_kd.errors import LabelsError
from napari_nucleus_kd.instances import check_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Labels = npt.NDArray[np.integer]

STRICT_IOU = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


def diameters(labels: Labels) -> npt.NDArray[np.float64]:
    """Return the diameter of each nucleus in pixels (of a circle of its area), ascending by label; (N,)."""
    area = np.bincount(labels.ravel())[1:]
    found: npt.NDArray[np.float64] = 2 * np.sqrt(area[area > 0] / np.pi)
    return found


def median_diameter(labels: Labels) -> float | None:
    """Return the median diameter of the nuclei in pixels (of circles of their areas); None without any."""
    found = diameters(labels)
    return float(np.median(found)) if found.size else None


@dataclass(frozen=True, slots=True)
class Overlap:
    """Shared pixels of the nuclei of two label images.

    Attributes
    ----------
    true_area : (T,) pixels of each true nucleus.
    pred_area : (P,) pixels of each predicted nucleus.
    shared : (T, P) sparse matrix of pixels in common.
    """

    true_area: npt.NDArray[np.int64]
    pred_area: npt.NDArray[np.int64]
    shared: sparse.coo_array

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each entry of `shared`, in its order."""
        union = self.true_area[self.shared.row] + self.pred_area[self.shared.col] - self.shared.data
        iou: npt.NDArray[np.float64] = self.shared.data / union
        return iou


def overlap(true: Labels, pred: Labels) -> Overlap:
    """Count the pixels that the nuclei of two label images share.

    Parameters
    ----------
    true, pred : (Y, X) int arrays; 0 is background.

    Raises
    ------
    LabelsError : not two 2-D integer arrays of one shape.
    """
    check_labels(true)
    check_labels(pred)
    if true.shape != pred.shape:
        raise LabelsError(f"label images differ in shape: {true.shape} and {pred.shape}")
    (t_ids, t, t_area), (p_ids, p, p_area) = (
        fastremap.unique(labels, return_inverse=True, return_counts=True) for labels in (true, pred)
    )
    both = np.nonzero((true != 0) & (pred != 0))
    places = t[both].astype(np.int64), p[both].astype(np.int64)
    ones = np.ones(len(both[0]), np.int64)
    counts = sparse.coo_array((ones, places), shape=(len(t_ids), len(p_ids))).tocsr()
    t_keep, p_keep = np.flatnonzero(t_ids), np.flatnonzero(p_ids)
    areas = t_area[t_keep].astype(np.int64), p_area[p_keep].astype(np.int64)
    return Overlap(*areas, counts[t_keep][:, p_keep].tocoo())


def known_part(true: Labels, pred: Labels, valid: npt.NDArray[np.bool_]) -> tuple[Labels, Labels]:
    """Return what can be judged of two label images where only a part is annotated completely.

    That are the true nuclei that lie in the part as a whole, and the predicted ones that lie for at least
    half of their pixels in the part and outside the true ones that it cuts.

    Parameters
    ----------
    true, pred : (Y, X) int arrays; 0 is background.
    valid : (Y, X), where the annotation is complete.

    >>> true, pred = np.array([[1, 1, 0, 2, 2, 0, 3]]), np.array([[1, 1, 0, 2, 0, 4, 4]])
    >>> known_part(true, pred, np.array([[True] * 4 + [False] * 3]))
    (array([[1, 1, 0, 0, 0, 0, 0]]), array([[1, 1, 0, 0, 0, 0, 0]]))
    """
    cut = fastremap.unique(true[~valid & (true != 0)])
    unknown = ~valid | np.isin(true, cut)
    numbers, area = fastremap.unique(pred, return_counts=True)
    partly, hidden = fastremap.unique(pred[unknown], return_counts=True)
    mostly = partly[2 * hidden > area[np.searchsorted(numbers, partly)]]
    return np.where(unknown, 0, true), np.where(np.isin(pred, mostly), 0, pred)


@dataclass(frozen=True, slots=True)
class Counts:
    """Matches of one image at one IoU threshold; sums of these over images are again Counts.

    Attributes
    ----------
    tp, fp, fn : matched, spurious and missed nuclei.
    iou_sum : sum of the IoU of the matched ones.
    """

    tp: int
    fp: int
    fn: int
    iou_sum: float

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou_sum + other.iou_sum
        )

    @property
    def f1(self) -> float:
        """Detection quality (DQ): 2 TP / (2 TP + FP + FN); 1 if both images are empty."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched; 1 if both images are empty, 0 without a match."""
        if not self.tp:
            return float(not (self.fp or self.fn))
        return self.iou_sum / self.tp

    @property
    def pq(self) -> float:
        """Panoptic quality, DQ x SQ (Kirillov et al., 2019)."""
        return self.f1 * self.sq

    @property
    def ap(self) -> float:
        """Average precision as StarDist and Cellpose define it, TP / (TP + FP + FN); 1 if both are empty."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0


def match(pairs: Overlap, iou: float = 0.5) -> Counts:
    """Match nuclei one to one so that as many as possible reach an IoU.

    From 0.5 on the IoU must exceed the threshold, and no choice exists; below, it must reach it, and of the
    assignments with as many matches the one with the largest total IoU is taken. StarDist and Cellpose also
    match pairs whose IoU equals the threshold; the definition of PQ does not.
    """
    values = pairs.iou
    good = values > iou if iou >= 0.5 else values >= iou
    rows, cols, values = pairs.shared.row[good], pairs.shared.col[good], values[good]
    if iou < 0.5 and len(values):
        dense = np.zeros((len(pairs.true_area), len(pairs.pred_area)))
        dense[rows, cols] = values
        # All IoU together weigh less than one match.
        chosen = linear_sum_assignment(-((dense > 0) + dense / (2 * min(dense.shape))))
        values = dense[chosen]
        values = values[values > 0]
    tp = len(values)
    return Counts(tp, len(pairs.pred_area) - tp, len(pairs.true_area) - tp, float(values.sum()))


def dice(true: Labels, pred: Labels) -> float:
    """Return the Dice coefficient of the two foregrounds; 1 if both are empty."""
    a, b = true > 0, pred > 0
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def aji(pairs: Overlap, *, plus: bool = False) -> float:
    """Return the aggregated Jaccard index (Kumar et al., 2017), or AJI+ (Graham et al., 2019).

    AJI gives every true nucleus its best prediction, AJI+ matches one to one.
    """
    shape = (len(pairs.true_area), len(pairs.pred_area))
    if not all(shape):
        return float(not any(shape))
    rows, cols, iou = pairs.shared.row, pairs.shared.col, pairs.iou
    if plus:
        # A pair costs 2 - IoU, a nucleus without partner 2, so the total IoU is largest; 0 would be no pair.
        alone = sparse.diags_array(np.full(shape[0], 2.0))
        cost = sparse.hstack([sparse.coo_array((2 - iou, (rows, cols)), shape=shape), alone], "csr")
        _, partner = sparse.csgraph.min_weight_full_bipartite_matching(cost)
        best = np.flatnonzero(partner[rows] == cols)
    else:
        order = np.lexsort((cols, -iou, rows))
        best = order[np.unique(rows[order], return_index=True)[1]]
    rows, cols, shared = rows[best], cols[best], pairs.shared.data[best]
    union = pairs.true_area[rows] + pairs.pred_area[cols] - shared
    missed = pairs.true_area.sum() - pairs.true_area[rows].sum()
    spurious = np.delete(pairs.pred_area, np.unique(cols)).sum()
    return float(shared.sum() / (union.sum() + missed + spurious))


def scores(true: Labels, pred: Labels) -> dict[str, float]:
    """Return every metric of one image.

    pq, dq (F1 at IoU 0.5), sq; ap50, ap75; ap and f1, means over IoU 0.5, 0.55, ... 0.95; aji, aji_plus;
    dice and pixel_accuracy of the foreground; true_count and pred_count.
    """
    pairs = overlap(true, pred)
    found = {iou: match(pairs, iou) for iou in STRICT_IOU}
    at50 = found[0.5]
    return {
        "pq": at50.pq,
        "dq": at50.f1,
        "sq": at50.sq,
        "ap50": at50.ap,
        "ap75": found[0.75].ap,
        "ap": float(np.mean([counts.ap for counts in found.values()])),
        "f1": float(np.mean([counts.f1 for counts in found.values()])),
        "aji": aji(pairs),
        "aji_plus": aji(pairs, plus=True),
        "dice": dice(true, pred),
        "pixel_accuracy": float(((true > 0) == (pred > 0)).mean()),
        "true_count": float(len(pairs.true_area)),
        "pred_count": float(len(pairs.pred_area)),
    }


def count_r2(counts: npt.NDArray[np.float64]) -> float:
    """Return how well predicted counts tell true ones: R2, the coefficient of determination.

    Parameters
    ----------
    counts : (N, 2) true and predicted number of nuclei of each image.

    Returns
    -------
    1 for the truth, 0 for always saying the mean of the true counts, below 0 for worse; NaN where all
    images have the same true count.
    """
    true, pred = counts.T
    spread = float(((true - true.mean()) ** 2).sum())
    return 1 - float(((true - pred) ** 2).sum()) / spread if spread else float("nan")


def bootstrap(
    values: Sequence[float] | npt.NDArray[np.float64],
    statistic: Callable[[npt.NDArray[np.float64]], float] = lambda v: float(v.mean()),
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return a statistic and its 95% percentile interval over resampled images.

    Parameters
    ----------
    values : (N,) one number an image, or (N, K).
    statistic : of an array of such numbers; the mean by default. Replicates where it is NaN do not count.
    """
    data = np.asarray(values, float)
    if not data.size:
        raise ValueError("bootstrap needs at least one value")
    rng = np.random.default_rng(seed)
    drawn = [statistic(data[rng.integers(0, len(data), len(data))]) for _ in range(replicates)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return statistic(data), float(low), float(high)
