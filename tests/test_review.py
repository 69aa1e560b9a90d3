"""The order in which nuclei are reviewed."""

import numpy as np
import pytest

from napari_nucleus_kd.edit import at_border
from napari_nucleus_kd.measure import features
from napari_nucleus_kd.review import agreement, doubts


def field(**odd):
    """Return 5 x 6 disks, numbered by rows; some replaced by masks of other shapes, by number."""
    labels = np.zeros((200, 240), np.int32)
    yy, xx = np.mgrid[:40, :40] - 20
    for i in range(30):
        y, x = 40 * (i // 6), 40 * (i % 6)
        rng = np.random.default_rng(i)
        shape = np.hypot(yy, xx * rng.uniform(0.9, 1.1)) < rng.uniform(9, 11)
        shape = odd.get(f"n{i + 1}", lambda yy, xx, shape=shape: shape)(yy, xx)
        labels[y : y + 40, x : x + 40][shape] = i + 1
    return labels


def test_odd_ones_come_first_with_their_reason():
    labels = field(
        n3=lambda y, x: np.hypot(y, x) < 18,
        n10=lambda y, x: np.hypot(y, x) < 2.5,
        n17=lambda y, x: np.hypot(3 * y, x) < 17,
        n24=lambda y, x: (np.hypot(y, x - 8) < 7) | (np.hypot(y, x + 8) < 7),
    )
    found = doubts(features(labels))
    assert len(found) == 30 and [d.doubt for d in found] == sorted((d.doubt for d in found), reverse=True)
    first = {d.number: d.reason for d in found[:4]}
    assert set(first) == {3, 10, 17, 24}
    assert first[3].startswith("large, 3.") and first[10].startswith("small, 0.06")
    assert first[17].startswith("long")
    assert all(d.doubt < 0.3 for d in found[4:])


def test_a_dented_nucleus_is_doubted():
    found = doubts(features(field(n7=lambda y, x: (np.hypot(y, x) < 11.5) & ~((np.abs(y) < 3) & (x > -8)))))
    assert found[0].number == 7 and found[0].reason.startswith("dented")


def test_scores_and_disagreement_count():
    labels = field()
    scores = np.full(30, 0.99, np.float32)
    scores[[4, 11]] = 0.4, np.nan
    mirrored = labels.copy()
    mirrored[labels == 20] = 0
    mirrored[labels == 7], mirrored[labels == 30] = 30, 7
    agreed, partner = agreement(labels, mirrored)
    assert (partner[19], partner[6], partner[29], partner[28]) == (-1, 28, 6, 27), "number 20 is no more"
    assert agreed[19] == 0 and np.delete(agreed, 19).min() == 1
    found = doubts(features(labels, scores=scores), agreed)
    assert [(d.number, d.reason) for d in found[:2]] == [
        (20, "seen differently in the mirror picture"),
        (5, "low score, 0.40"),
    ]
    assert next(d for d in found if d.number == 12).doubt < 0.5, "no score is no doubt"


def test_few_or_no_nuclei_are_not_unusual():
    labels = field(n3=lambda y, x: np.hypot(y, x) < 18)
    labels[:, 100:] = 0
    labels[100:] = 0
    found = doubts(features(labels))
    assert {d.doubt for d in found} == {0.0} and {d.reason for d in found} == {""}
    assert [d.number for d in found][:2] == [1, 2], "as in the table"
    assert doubts(features(np.zeros((8, 8), np.int32))) == []


def test_nuclei_at_the_border_are_not_odd_for_that():
    labels = field()
    labels[:, :14] = 0  # the first of each row is cut: small, long and dented
    labels = labels[:, 14:]
    cut = at_border(labels)
    assert {1, 7, 13, 19, 25} <= set(cut)
    table = features(labels)
    assert {d.number for d in doubts(table)[:5]} == {1, 7, 13, 19, 25}
    by_number = {d.number: d for d in doubts(table, cut=cut)}
    assert all(by_number[n].doubt == 0 and by_number[n].reason == "" for n in cut)
    scores = np.full(30, 0.99, np.float32)
    scores[0] = 0.2
    assert doubts(features(labels, scores=scores), cut=cut)[0].reason == "low score, 0.20"


@pytest.mark.parametrize("spot", [np.s_[20:21, 20:21], np.s_[20:21, 10:30]])
def test_a_pixel_or_a_line_is_odd_like_others(spot):
    labels = field()
    labels[:40, :40] = 0
    labels[spot] = 1
    first = doubts(features(labels))[0]
    assert first.number == 1 and 0.5 < first.doubt <= 1
