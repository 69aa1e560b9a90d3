"""What became of each nucleus: hand-drawn cases, and rules that hold for any two label images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleus_kd.metrics import match, overlap, scores
from napari_nucleus_kd.mistakes import COLOURS, Verdict, chance, mistakes, picture, pq_over_nuclei

C, MISSED, SPURIOUS, SPLIT, MERGED = Verdict


def drawn(*boxes, shape=(12, 40)):
    """Return labels 1, 2, ... of boxes (y0, y1, x0, x1)."""
    labels = np.zeros(shape, np.int32)
    for number, (y0, y1, x0, x1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = number
    return labels


LEFT, RIGHT, BOTH = (2, 8, 2, 10), (2, 8, 10, 18), (2, 8, 2, 18)


@pytest.mark.parametrize(
    ("true", "pred", "of_true", "of_pred"),
    [
        ([LEFT], [LEFT], [C], [C]),
        ([LEFT], [], [MISSED], []),
        ([], [LEFT], [], [SPURIOUS]),
        ([LEFT], [(2, 8, 8, 18)], [MISSED], [SPURIOUS]),  # beside it
        ([BOTH], [LEFT, RIGHT], [SPLIT], [SPLIT, SPLIT]),
        ([LEFT, RIGHT], [BOTH], [MERGED, MERGED], [MERGED]),
        # A crumb beside a good outline is a piece too many, and nothing is missed.
        ([BOTH], [(2, 8, 2, 16), (2, 8, 16, 18)], [C], [C, SPLIT]),
        # A good outline of the larger that also holds the smaller: this one is lost in it, and missed.
        ([(2, 8, 2, 14), (2, 8, 14, 18)], [BOTH], [C, MISSED], [C]),
        # Both at once: a piece of the first is outlined by itself, most of it with the second.
        ([LEFT, RIGHT], [(2, 8, 2, 5), (2, 8, 5, 18)], [MISSED, C], [SPURIOUS, C]),
        ([BOTH, (2, 8, 18, 34)], [(2, 8, 2, 9), (2, 8, 9, 34)], [MISSED, C], [SPURIOUS, C]),
        (
            [LEFT, RIGHT, (2, 8, 20, 32)],
            [BOTH, (2, 8, 20, 26), (2, 8, 26, 32)],
            [MERGED, MERGED, SPLIT],
            [MERGED, SPLIT, SPLIT],
        ),
        # Half of it is found, and nothing else is there: drawn badly, so missed and spurious, as PQ says.
        ([BOTH], [LEFT], [MISSED], [SPURIOUS]),
    ],
)
def test_hand_drawn_cases(true, pred, of_true, of_pred):
    found = mistakes(drawn(*true), drawn(*pred))
    assert [Verdict(v) for v in found.true] == of_true
    assert [Verdict(v) for v in found.pred] == of_pred


def test_numbers_need_not_be_consecutive_and_counts_are_of_outlines():
    true, pred = drawn(LEFT, RIGHT, (9, 12, 30, 36)), drawn(BOTH)
    true[true == 2] = 700
    pred[pred == 1] = 40
    found = mistakes(true, pred)
    assert found.true_ids.tolist() == [1, 3, 700] and found.pred_ids.tolist() == [40]
    assert [Verdict(v) for v in found.true] == [MERGED, MISSED, MERGED]
    assert {v: found.count(v) for v in Verdict} == {C: 0, MISSED: 1, SPURIOUS: 0, SPLIT: 0, MERGED: 1}


def test_the_picture_shows_outlines_and_behind_them_what_is_wrong_of_the_truth():
    true, pred = drawn(LEFT, RIGHT, (2, 8, 24, 32)), drawn((2, 8, 2, 9), (9, 12, 0, 6))
    shown = picture(true, pred)
    assert (shown[2:8, 2:9] == C).all() and (shown[2:8, 9] == 0).all(), (
        "the rest of a correct one is no error"
    )
    assert (shown[2:8, 10:18] == MISSED).all() and (shown[2:8, 24:32] == MISSED).all()
    assert (shown[9:12, :6] == SPURIOUS).all()
    assert shown.dtype == np.uint8 and (shown > 0).sum() == 6 * 7 + 6 * 16 + 18
    assert set(COLOURS) == set(Verdict) and len(set(COLOURS.values())) == 5


labels = arrays(np.int32, (9, 11), elements=st.integers(0, 4))


@given(labels, labels)
def test_correct_is_what_pq_counts_and_the_other_way_round_merged_is_split(true, pred):
    found, back = mistakes(true, pred), mistakes(pred, true)
    counts = match(overlap(true, pred))
    assert found.count(C) == (found.true == C).sum() == counts.tp
    assert found.iou.sum() == pytest.approx(counts.iou_sum)
    assert sum(found.count(v) for v in Verdict if v is not MISSED) == len(found.pred_ids)
    assert len(found.true_ids) - counts.tp == (found.true != C).sum() == (back.pred != C).sum()
    assert not np.isin(found.true, (SPURIOUS,)).any() and not np.isin(found.pred, (MISSED,)).any()
    shown = picture(true, pred, found)
    assert ((shown > 0) >= (pred > 0)).all() and not shown[(true == 0) & (pred == 0)].any()


def test_the_interval_of_one_image_is_over_its_nuclei(draw):
    true = draw(200, 220)[1]
    found = np.where(true % 3 == 0, 0, true)
    found[:4, :4] = 999
    pq, low, high = pq_over_nuclei(mistakes(true, found))
    assert pq == pytest.approx(scores(true, found)["pq"]) and low < pq < high
    few = np.where(true < 12, true, 0)
    wide = pq_over_nuclei(mistakes(few, np.where(few % 3 == 0, 0, few)))
    assert wide[2] - wide[1] > high - low
    assert pq_over_nuclei(mistakes(true, true)) == (1, 1, 1)
    assert np.isnan(pq_over_nuclei(mistakes(true * 0, true * 0))).all()


def test_a_difference_in_one_image_is_told_from_chance(draw):
    true = draw(300, 300)[1]
    alike = [mistakes(true, np.where(true % 9 == n, 0, true)) for n in (1, 2)]
    worse = mistakes(true, np.where(true % 9 < 4, 0, true))
    assert chance(alike[0], alike[1]) > 0.5, "each misses as many, only others"
    assert chance(alike[0], worse) < 0.01 and chance(alike[0], worse) == chance(worse, alike[0])
    assert chance(worse, worse) == 1
    doubled = np.where(
        true == 0, 0, 2 * true + np.indices(true.shape)[1] % 2
    )  # combs, of which none is right
    assert chance(alike[0], mistakes(true, doubled)) < 0.01
    few = np.where(true < 6, true, 0)
    assert chance(mistakes(few, few), mistakes(few, 0 * few)) is None


def _missed(true, bad):
    return np.where(bad, 0, true)


def _beside(true, bad):
    """Return nuclei that lie 7 px beside their place, each one outline too many and one too few."""
    others, moved = np.where(bad, 0, true), np.roll(np.where(bad, true, 0), 7, 1)
    return np.where((others == 0) & (moved > 0), moved, others)


def _split(true, bad):
    return np.where(bad & (np.indices(true.shape)[1] % 14 < 7), true + true.max(), true)


def _merged(true, bad):
    return np.where(bad, (true + 1) // 2 * 2, true)  # with the next one of the row


@pytest.mark.parametrize("spoil", [_missed, _beside, _split, _merged])
def test_chance_and_interval_are_right_as_often_as_they_say(draw, spoil):
    true, rng = draw(300, 300)[1], np.random.default_rng(0)

    def found():
        share = rng.random(true.max() + 1) < 0.25
        return mistakes(true, spoil(true, share[true] & (true > 0)))

    said = np.array([chance(found(), found()) for _ in range(100)])
    assert (said < 0.1).mean() <= 0.17, "of equals, one pair in ten is called different at 0.1"
    every = [pq_over_nuclei(found()) for _ in range(60)]
    expected = np.mean([pq for pq, _, _ in every])
    assert 0.85 < np.mean([low <= expected <= high for _, low, high in every])
