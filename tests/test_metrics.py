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
    rows, cols = linear_sum_assignment(-(allowed + 1000 * (allowed > 0)))
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


def columns(*nuclei, shape=(4, 20)):
    """Return labels of full height: each nucleus from its first column up to its last."""
    labels = np.zeros(shape, int)
    for number, (first, end) in enumerate(nuclei, 5):
        labels[:, first:end] = number
    return labels


def test_every_number_of_a_case_done_by_hand():
    """Touching nuclei, one at the border missed, one spurious; a column holds 4 pixels."""
    true = columns((0, 5), (5, 10), (15, 20))  # 20 px each, 60 together
    pred = columns((0, 4), (4, 10), (12, 14))  # 16, 24 and 8 px, 48 together
    # First: 16 of 20 shared, IoU 16 / 20 = 0.8. Second: 20 shared of 24, IoU 20 / 24. TP 2, FP 1, FN 1.
    got = metrics.scores(true, pred)
    assert got["dq"] == pytest.approx(4 / 6)  # 2 TP / (2 TP + FP + FN)
    assert got["sq"] == pytest.approx((0.8 + 20 / 24) / 2)
    assert got["pq"] == pytest.approx((0.8 + 20 / 24) / 3)  # sum of IoU / (TP + FP / 2 + FN / 2)
    assert got["ap50"] == got["ap75"] == 2 / 4
    # Above 0.5, 0.55, ... 0.75 (six times) both match; above 0.8 only the second, as 0.8 is not above 0.8;
    # above 0.85, 0.9 and 0.95 none. Of 6 nuclei: AP 2/4, then 1/5, then 0; F1 4/6, then 2/6, then 0.
    assert got["ap"] == pytest.approx((6 * 2 / 4 + 1 / 5) / 10)
    assert got["f1"] == pytest.approx((6 * 4 / 6 + 2 / 6) / 10)
    # Shared 16 + 20; united 20 + 24, 20 missed, 8 spurious.
    assert got["aji"] == got["aji_plus"] == pytest.approx(36 / 72)
    assert got["dice"] == pytest.approx(2 * 40 / (60 + 48))
    assert got["pixel_accuracy"] == pytest.approx(1 - (20 + 8) / 80)
    assert (got["true_count"], got["pred_count"]) == (3, 3)


def test_below_half_as_many_as_possible_match():
    true = np.repeat([5, 6], [20, 4])[None]
    pred = np.repeat([1, 2], [4, 20])[None]
    # IoU: first nucleus with the first prediction 4 / 20, with the second 16 / 24; second with second 4 / 20.
    # Two matches of 0.2 go before one of 0.67.
    assert metrics.match(metrics.overlap(true, pred), 0.2) == metrics.Counts(2, 0, 0, pytest.approx(0.4))


def test_two_nuclei_found_as_one_part_aji_from_aji_plus():
    true, pred = columns((0, 5), (5, 10)), columns((0, 10))
    got = metrics.scores(true, pred)
    # AJI gives the one prediction of 40 px to both nuclei: (20 + 20) / (40 + 40).
    assert got["aji"] == pytest.approx(40 / 80)
    # AJI+ gives it to one, the other is missed: 20 / (40 + 20).
    assert got["aji_plus"] == pytest.approx(20 / 60)
    # Both IoU are 20 / 40, not above 0.5: nothing matches, though every pixel is right.
    assert (got["pq"], got["sq"], got["ap50"], got["dice"], got["pixel_accuracy"]) == (0, 0, 0, 1, 1)


@pytest.mark.parametrize("nuclei", [((2, 5),), ((0, 5), (5, 10), (15, 20))])
def test_an_empty_image_against_nuclei_scores_nothing(nuclei):
    empty, some = columns(), columns(*nuclei)
    share = (some > 0).mean()
    for got in (metrics.scores(empty, some), metrics.scores(some, empty)):
        assert not any(
            got[name] for name in ("pq", "dq", "sq", "ap50", "ap", "f1", "aji", "aji_plus", "dice")
        )
        assert got["pixel_accuracy"] == pytest.approx(1 - share)


def test_two_empty_images_score_everything():
    got = metrics.scores(columns(), columns())
    assert {value for name, value in got.items() if "count" not in name} == {1}
    assert got["true_count"] == got["pred_count"] == 0


def test_r2_of_counts_by_hand():
    # Mean of the true counts 4: spread 4 + 0 + 4 = 8; misses 1 + 0 + 1 = 2; 1 - 2 / 8.
    assert metrics.count_r2(np.array([[2.0, 3], [4, 4], [6, 5]])) == 0.75


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.4], (0.4, 0.4, 0.4)),
        ([0.7] * 9, (0.7, 0.7, 0.7)),
        # Means of two draws: 0 with chance 1/4, 0.5 with 1/2, 1 with 1/4; 2.5 % lie on either end.
        ([0, 1], (0.5, 0, 1)),
        # Ones among four draws: none 0.316, one 0.422, two 0.211, three 0.047, four 0.004. So 0 at 2.5 %; up
        # to two are 0.949 and up to three 0.996 of all, so three of four at 97.5 %.
        ([0, 0, 0, 1], (0.25, 0, 0.75)),
    ],
)
def test_intervals_of_few_values_by_hand(values, expected):
    assert metrics.bootstrap(values, replicates=4000) == pytest.approx(expected)


def test_the_interval_of_many_values_is_the_normal_one():
    values = np.arange(100) / 99
    mean, low, high = metrics.bootstrap(values, replicates=4000)
    # Standard deviation 0.2916, of the mean of 100 a tenth of that; 95 % lie within 1.96 of these: 0.0571.
    assert mean == pytest.approx(0.5)
    assert (low, high) == (pytest.approx(0.4429, abs=0.005), pytest.approx(0.5571, abs=0.005))


def test_replicates_that_say_nothing_do_not_count():
    # Half of the replicates draw one image twice, and then the true counts do not differ: R2 is NaN.
    assert metrics.bootstrap(np.array([[1.0, 1], [3, 3]]), metrics.count_r2) == (1, 1, 1)
    assert np.isnan(metrics.bootstrap(np.array([[1.0, 1], [1, 3]]), metrics.count_r2)).all()


def test_no_value_has_no_interval():
    with pytest.raises(ValueError, match="at least one value"):
        metrics.bootstrap([])
