import numpy as np
import pytest
from scipy import ndimage

from napari_nucleus_kd import instances
from napari_nucleus_kd.config import DecodeSettings
from napari_nucleus_kd.errors import LabelsError
from napari_nucleus_kd.instances import CANONICAL_DIAMETER_PX, MAP_NAMES, _tidy, decode, encode
from napari_nucleus_kd.metrics import match, overlap

KEEP_ALL = DecodeSettings(min_area_px=0)


def draw(shape, ellipses):
    """Labels of ellipses (y, x, semi-axis y, semi-axis x); later ones lie on top."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i, (y, x, a, b) in enumerate(ellipses, 1):
        labels[((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 <= 1] = i
    return labels


def crowd(seed, size=192, radius=(6, 12)):
    rng = np.random.default_rng(seed)
    spots = [(*rng.uniform(8, size - 8, 2), *rng.uniform(*radius, 2)) for _ in range(60)]
    labels = draw((size, size), spots)
    out = np.zeros_like(labels)
    for i in range(1, len(spots) + 1):  # what is left of each, one piece
        pieces, count = ndimage.label(labels == i)
        if count:
            area = ndimage.sum_labels(labels == i, pieces, range(1, count + 1))
            if area.max() > 40:
                out[pieces == 1 + area.argmax()] = i
    return out


def perfect(labels):
    return dict(zip(MAP_NAMES, encode(labels), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_touching_nuclei_come_back(seed):
    labels = crowd(seed)
    found = decode(perfect(labels), KEEP_ALL)
    counts = match(overlap(labels, found))
    assert counts.f1 > 0.97
    assert counts.sq > 0.97


def test_labels_are_consecutive_and_each_one_piece():
    found = decode(perfect(crowd(7)), KEEP_ALL)
    assert set(np.unique(found)) == set(range(found.max() + 1))
    for i in range(1, found.max() + 1):
        assert ndimage.label(found == i)[1] == 1


def test_two_halves_touching_are_two():
    labels = draw((48, 64), [(24, 22, 11, 11), (24, 42, 11, 11)])
    assert decode(perfect(labels), KEEP_ALL).max() == 2


def test_split_setting_decides_where_votes_fall_close_together():
    labels = draw((48, 80), [(24, 40, 10, 10)])
    maps = perfect(labels)
    halves = np.where(np.arange(80) < 40, 36.5, 43.5)  # the network is of two minds about the centre
    maps["offset_x"] = (labels > 0) * ((halves - np.arange(80)) / CANONICAL_DIAMETER_PX).astype(np.float32)
    joined = decode(maps, DecodeSettings(split=0.0))
    fallen = decode(maps, DecodeSettings(split=1.0))
    assert joined.max() == 1
    assert fallen.max() == 2


def test_encode_says_where_size_and_centre_are():
    labels = draw((64, 64), [(30, 33, 14, 14)])
    maps = dict(zip(MAP_NAMES, encode(labels * 5), strict=True))
    inside = labels > 0
    y, x = np.nonzero(inside)
    np.testing.assert_array_equal(maps["foreground"], inside)
    assert maps["distance"].max() == 1
    assert np.unravel_index(maps["distance"].argmax(), labels.shape) == (30, 33)
    np.testing.assert_allclose(y + maps["offset_y"][inside] * CANONICAL_DIAMETER_PX, 30, atol=0.01)
    np.testing.assert_allclose(x + maps["offset_x"][inside] * CANONICAL_DIAMETER_PX, 33, atol=0.01)
    diameter = np.exp(maps["log_diameter"][inside]) * CANONICAL_DIAMETER_PX
    np.testing.assert_allclose(diameter, 28, rtol=0.02)
    for values in maps.values():
        assert not values[~inside].any()


def test_border_lies_only_between_nuclei():
    labels = draw((64, 96), [(30, 24, 12, 12), (30, 48, 12, 12), (30, 80, 8, 8)])
    border = perfect(labels)["border"]
    assert border[30, 36] == 1
    assert not border[:, 66:].any()


def test_encode_of_nothing_is_zero():
    assert not encode(np.zeros((16, 16), np.int32)).any()


@pytest.mark.parametrize("labels", [np.zeros((4, 4)), np.zeros((2, 4, 4), int), np.full((4, 4), -1)])
def test_not_labels(labels):
    with pytest.raises(LabelsError, match="labels must"):
        encode(labels)


def test_decode_of_nothing_is_nothing():
    maps = {name: np.zeros((32, 32), np.float32) for name in MAP_NAMES}
    assert decode(maps, KEEP_ALL).max() == 0


def test_small_objects_go_and_magnification_counts():
    labels = draw((64, 64), [(16, 16, 4, 4), (40, 40, 10, 10)])
    maps = perfect(labels)
    assert decode(maps, DecodeSettings(min_area_px=20)).max() == 2
    assert decode(maps, DecodeSettings(min_area_px=60)).max() == 1
    assert decode(maps, DecodeSettings(min_area_px=20), magnification=2).max() == 1


def test_holes_are_filled_unless_unwanted_or_open():
    labels = draw((64, 64), [(32, 32, 14, 14)])
    maps = perfect(labels)
    maps["foreground"][30:33, 30:33] = 0
    assert decode(maps, KEEP_ALL)[31, 31] == 1
    assert decode(maps, DecodeSettings(min_area_px=0, fill_holes=False))[31, 31] == 0
    maps["foreground"][31, :32] = 0  # a channel to the outside
    assert decode(maps, KEEP_ALL)[31, 31] == 0


def test_background_between_two_nuclei_stays_background():
    """A ring of two nuclei encloses background that belongs to neither."""
    yy, xx = np.mgrid[:64, :64]
    radius = np.hypot(yy - 32, xx - 32)
    ring = (radius < 24) & (radius > 10)
    labels = np.where(ring, np.where(xx < 32, 1, 2), 0).astype(np.int32)
    found = decode(perfect(labels), DecodeSettings(min_area_px=0, split=0.2))
    assert found[32, 32] == 0


def test_tidy_takes_labels_with_gaps():
    labels = np.zeros((32, 32), np.int32)
    labels[4:12, 4:12] = 40  # a higher number than there are pieces
    assert _tidy(labels, 0, fill=True).max() == 1


def test_peaks_at_the_right_border_have_nothing_to_do_with_the_left():
    """cc3d 4.1.1 puts a pixel of the left into a piece at the right, if bool and of odd width."""
    cells = [*[(6, 16)] * 40, *[(4, 1)] * 40, *[(2, 1)] * 5]  # the last five lead up to those before
    basins = instances._basins(tuple(np.transpose(cells)), np.ones(85, np.float32), (16, 34), 0.5)
    assert basins[6, 16] != basins[4, 1] == basins[2, 1] > 0


def test_by_components_what_is_connected_is_one():
    """The post-processing of stain-agnostic segmentation: touching nuclei merge, small things go."""
    maps = perfect(draw((64, 96), [(24, 22, 11, 11), (24, 42, 11, 11), (50, 75, 8, 8), (50, 20, 2, 2)]))
    assert decode(maps, KEEP_ALL)[24, 22] != decode(maps, KEEP_ALL)[24, 42]
    merged = decode(maps, DecodeSettings(by="components", foreground=0.3, min_area_px=32))
    assert merged.max() == 2 and merged[24, 22] == merged[24, 42] != merged[50, 75] > 0 == merged[50, 20]
