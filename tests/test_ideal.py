"""Ideal nuclei and the three classes, on drawn cases."""

import numpy as np
import pytest
from scipy import ndimage

from napari_nucleus_kd.ideal import (
    BACKGROUND,
    BODY,
    EDGE,
    PENDING,
    between_nuclei,
    ideal_nuclei,
    nuclei_in,
    three_classes,
)
from napari_nucleus_kd.metrics import scores


def disc(shape, centre, radius):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


@pytest.fixture
def touching():
    labels = np.zeros((40, 60), np.int32)
    labels[disc(labels.shape, (20, 20), 10)] = 1
    labels[disc(labels.shape, (20, 39), 10) & (labels == 0)] = 2
    return labels


def test_a_nucleus_fades_from_its_middle_to_its_edge(touching):
    drawn = ideal_nuclei(touching)
    assert drawn.dtype == np.float32 and drawn[20, 20] == 1 and not drawn[touching == 0].any()
    row = drawn[20, 10:21]
    assert (np.diff(row) > 0).all() and row[0] >= 0.5


def test_where_nuclei_touch_there_is_one_intensity_on_both_sides(touching):
    drawn = ideal_nuclei(touching)
    a, b = ndimage.binary_dilation(touching == 1), ndimage.binary_dilation(touching == 2)
    assert set(drawn[a & (touching == 2)]) == set(drawn[b & (touching == 1)]) == {np.float32(PENDING)}


def test_an_edge_is_two_pixels_inside_and_two_outside():
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 10:30] = 7
    row = three_classes(labels)[20]
    assert row.tolist() == [BACKGROUND] * 8 + [EDGE] * 4 + [BODY] * 16 + [EDGE] * 4 + [BACKGROUND] * 8


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_no_nucleus_is_without_a_body(size):
    labels = np.zeros((20, 20), np.int32)
    labels[5 : 5 + size, 5 : 5 + size] = 3
    assert (three_classes(labels)[labels > 0] == BODY).any()
    assert ideal_nuclei(labels).max() == 1


def test_a_nucleus_in_another_one_and_one_at_the_border_are_told_apart():
    labels = np.zeros((40, 40), np.int32)
    labels[disc(labels.shape, (20, 20), 15)] = 1
    labels[disc(labels.shape, (20, 20), 5)] = 2
    labels[:4, :4] = 3
    classes = three_classes(labels)
    assert ndimage.label(classes == BODY)[1] == 3
    assert classes[0, 0] == BODY  # the picture's border is none of the nucleus
    assert ideal_nuclei(labels)[20, 20] == 1


def test_a_nucleus_that_fills_the_picture_is_deepest_everywhere():
    labels = np.full((8, 9), 3, np.int32)
    assert (ideal_nuclei(labels) == 1).all() and (three_classes(labels) == BODY).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64, np.uint64])
def test_numbers_may_have_any_type_and_gaps(touching, dtype):
    drawn = ideal_nuclei(touching)
    assert np.array_equal(drawn, ideal_nuclei(touching.astype(dtype)))
    assert np.array_equal(drawn, ideal_nuclei(touching.astype(dtype) * dtype(100)))
    alone = np.pad(np.ones((6, 6), dtype), 4)
    assert not between_nuclei(alone, 2).any() and ideal_nuclei(alone).min(where=alone > 0, initial=1) >= 0.5


@pytest.mark.parametrize("width", [1, 2])
def test_a_thin_nucleus_between_two_others_is_drawn(width):
    labels = np.zeros((20, 20), np.int32)
    labels[5:15, 2:9], labels[5:15, 9 : 9 + width], labels[5:15, 9 + width : 18] = 1, 2, 3
    drawn = ideal_nuclei(labels)
    assert (drawn[labels == 2] == 1).all()
    assert (drawn[5:15, 8] == PENDING).all() and (drawn[5:15, 9 + width] == PENDING).all()
    one = np.zeros((20, 20), np.int32)
    one[5:15, 5:15], one[9, 15] = 1, 2
    assert ideal_nuclei(one)[9, 15] == 1 and ideal_nuclei(one)[9, 14] == np.float32(PENDING)


def test_holes_are_closed_but_no_other_nucleus():
    labels = np.zeros((120, 120), np.int32)
    labels[disc(labels.shape, (60, 60), 50) & ~disc(labels.shape, (60, 60), 35)] = 1
    labels[disc(labels.shape, (60, 60), 12)] = 2
    labels[8:14, 60] = 0
    classes = np.eye(3, dtype=np.float32)[three_classes(labels)].transpose(2, 0, 1)
    found = nuclei_in(classes)
    assert len(np.unique(found)) == 3 and found[60, 60] != found[60, 20]


def test_an_empty_picture_stays_empty():
    labels = np.zeros((9, 9), np.int32)
    assert not ideal_nuclei(labels).any() and not three_classes(labels).any()
    assert not nuclei_in(np.stack([np.ones((9, 9)), np.zeros((9, 9)), np.zeros((9, 9))])).any()


def test_from_the_classes_of_labels_come_the_labels(draw):
    labels = draw(200, 220)[1]
    classes = np.eye(3, dtype=np.float32)[three_classes(labels)].transpose(2, 0, 1)
    assert scores(labels, nuclei_in(classes))["pq"] > 0.95


@pytest.mark.parametrize(("diameter", "overlap"), [(6, 0.6), (9, 0.8), (16, 0.9), (40, 0.95)])
def test_nuclei_of_any_size_come_back_from_their_classes(diameter, overlap):
    labels = disc((60, 60), (30, 30), diameter / 2).astype(np.int32)
    classes = np.eye(3, dtype=np.float32)[three_classes(labels)].transpose(2, 0, 1)
    found = nuclei_in(classes, 1)
    assert found.max() == 1
    assert (found & labels).sum() / (found | labels).sum() >= overlap
