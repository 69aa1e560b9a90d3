import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from napari_nucleus_kd import metrics
from napari_nucleus_kd.errors import LabelsError


def slow_iou(true, pred):
    """IoU by definition, one pair of masks at a time."""
    ts, ps = (np.unique(a[a > 0]) for a in (true, pred))
    iou = np.zeros((len(ts), len(ps)))
    for i, t in enumerate(ts):
        for j, p in enumerate(ps):
            a, b = true == t, pred == p
            iou[i, j] = (a & b).sum() / (a | b).sum()
    return iou


def blobs(seed, size=64, n=14):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for i in range(n):
        y, x, r = *rng.uniform(0, size, 2), rng.uniform(3, 8)
        labels[np.hypot(yy - y, xx - x) < r] = 3 * i + 1  # labels with gaps
    return labels


def pair(seed):
    true = blobs(seed)
    pred = np.roll(true, (1, 2), (0, 1))
    pred[pred == pred.max()] = 0
    pred[:5, :5] = 99
    return true, pred


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.75])
def test_match_agrees_with_the_definition(seed, threshold):
    true, pred = pair(seed)
    iou = slow_iou(true, pred)
    # Strictly above 0.5 and more no nucleus has two partners.
    allowed = np.where(iou > threshold if threshold >= 0.5 else iou >= threshold, iou, 0)
    rows, cols = linear_sum_assignment(-allowed)
    hits = allowed[rows, cols]
    got = metrics.match(metrics.overlap(true, pred), threshold)
    assert got.tp == (hits > 0).sum()
    assert (got.tp + got.fn, got.tp + got.fp) == iou.shape
    assert got.iou_sum == pytest.approx(hits.sum())


@pytest.mark.parametrize("seed", range(5))
def test_aji_agrees_with_the_definition(seed):
    true, pred = pair(seed)
    iou = slow_iou(true, pred)
    ts, ps = (np.unique(a[a > 0]) for a in (true, pred))
    shared = total = 0
    used = set()
    for i, t in enumerate(ts):
        j = iou[i].argmax()
        if iou[i, j] == 0:
            total += (true == t).sum()
            continue
        shared += ((true == t) & (pred == ps[j])).sum()
        total += ((true == t) | (pred == ps[j])).sum()
        used.add(j)
    total += sum((pred == p).sum() for j, p in enumerate(ps) if j not in used)
    assert metrics.aji(metrics.overlap(true, pred)) == pytest.approx(shared / total)


def test_perfect_and_disjoint():
    true = blobs(0)
    same = metrics.scores(true, true)
    assert {same[k] for k in ("pq", "dq", "sq", "ap50", "ap75", "aji", "aji_plus", "dice")} == {1.0}
    none = metrics.scores(true, np.zeros_like(true))
    assert {none[k] for k in ("pq", "ap50", "aji", "aji_plus", "dice")} == {0.0}


def test_two_empty_images_agree():
    empty = np.zeros((8, 8), np.int32)
    assert metrics.scores(empty, empty)["pq"] == 1
    assert metrics.scores(empty, empty)["aji"] == 1


def test_known_numbers():
    true = np.zeros((10, 20), int)
    true[:, :4], true[:, 10:14] = 1, 2
    pred = np.zeros((10, 20), int)
    pred[:, :5] = 1  # IoU 0.8
    pred[:, 16:18] = 2  # spurious
    got = metrics.scores(true, pred)
    assert got["dq"] == pytest.approx(0.5)
    assert got["sq"] == pytest.approx(0.8)
    assert got["pq"] == pytest.approx(0.4)
    assert got["ap50"] == pytest.approx(1 / 3)
    assert got["aji"] == pytest.approx(40 / (50 + 40 + 20))
    assert got["dice"] == pytest.approx(2 * 40 / (80 + 70))


def test_counts_add_up():
    total = metrics.Counts(1, 2, 3, 0.7) + metrics.Counts(4, 0, 0, 3.2)
    assert total == metrics.Counts(5, 2, 3, pytest.approx(3.9))


def test_shapes_must_agree():
    with pytest.raises(LabelsError, match=r"\(4, 4\) and \(4, 5\)"):
        metrics.overlap(np.zeros((4, 4), int), np.zeros((4, 5), int))


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(100):
        mean, low, high = metrics.bootstrap(rng.normal(0.5, 0.1, 40), seed=seed)
        assert low < mean < high
        covered += low < 0.5 < high
    assert covered >= 85


def test_median_diameter():
    labels = np.zeros((40, 40), int)
    labels[:10, :10], labels[20:36, 20:36] = 1, 7
    assert metrics.median_diameter(labels) == pytest.approx(np.mean([2 * 10, 2 * 16]) / np.sqrt(np.pi))
    assert metrics.median_diameter(np.zeros((4, 4), int)) is None


def test_means_over_stricter_overlaps_agree_with_the_definition():
    true, pred = pair(0)
    iou = slow_iou(true, pred)
    hits = [(iou > t).sum() for t in np.arange(0.5, 0.96, 0.05)]
    got = metrics.scores(true, pred)
    assert got["ap"] == pytest.approx(np.mean([h / (sum(iou.shape) - h) for h in hits]))
    assert got["f1"] == pytest.approx(np.mean([2 * h / sum(iou.shape) for h in hits]))
    assert got["pixel_accuracy"] == np.mean((true > 0) == (pred > 0))


def test_r2_of_counts():
    true = np.array([3.0, 10, 25])
    assert metrics.count_r2(np.column_stack([true, true])) == 1
    assert metrics.count_r2(np.column_stack([true, np.full(3, true.mean())])) == 0
    assert metrics.count_r2(np.column_stack([true, true + 1])) == pytest.approx(1 - 3 / np.var(true) / 3)
    assert np.isnan(metrics.count_r2(np.array([[4.0, 4], [4, 9]])))
