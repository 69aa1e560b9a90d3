"""Corrections: what they do, and that they do nothing else."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, distance_transform_edt
from skimage.draw import polygon2mask
from skimage.measure import label

from napari_nucleus_kd import edit
from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Region

SHAPE = (90, 110)


def disks(*circles, shape=SHAPE):
    """Draw circles (y, x, radius) numbered 1, 2, ...; later ones do not cover earlier ones."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i, (y, x, radius) in enumerate(circles, 1):
        labels[(np.hypot(yy - y, xx - x) <= radius) & (labels == 0)] = i
    return labels


def done(labels, change):
    """Return the labels after an edit; checks that taking it back restores them."""
    after = labels.copy()
    change.apply(after)
    again = after.copy()
    change.undone.apply(again)
    assert np.array_equal(again, labels) and again.dtype == labels.dtype
    return after


def assert_whole(labels):
    for number in np.unique(labels[labels > 0]):
        assert label(labels == number, connectivity=2).max() == 1, f"{number} is in pieces"


def assert_others_stay(before, after, changed):
    for number in set(np.unique(before).tolist()) - {0, *changed}:
        assert np.array_equal(before == number, after == number), f"{number} changed"


TWO = disks((40, 40, 12), (40, 61, 12), (15, 90, 8))  # two that touch, and another
APART = disks((20, 20, 10), (20, 80, 10))


def test_merge_gives_the_first_number_to_all_that_the_stroke_crosses():
    after = done(TWO, edit.merge(TWO, [(40, 65), (40, 35)]))
    assert np.array_equal(after == 2, (TWO == 1) | (TWO == 2))
    assert_others_stay(TWO, after, {1, 2})


def test_merge_of_nuclei_apart_bridges_them_along_the_stroke():
    change = edit.merge(TWO, [(40, 61), (15, 90)])
    after = done(TWO, change)
    assert_whole(after)
    added = (after == change.number) & (TWO == 0)
    assert added.any() and np.array_equal(after[TWO > 0] == 2, TWO[TWO > 0] > 1)
    assert_others_stay(TWO, after, {2, 3})


def test_merge_along_a_stroke_that_leaves_the_image_bridges_along_its_border():
    labels = disks((9, 30, 9), (9, 56, 9))
    after = done(labels, edit.merge(labels, [(9, 30), (-5, 43), (9, 56)]))
    assert_whole(after)
    assert (after[labels > 0] == 1).all()


def test_split_cuts_along_the_stroke():
    one = disks((40, 40, 12), (70, 80, 10))
    change = edit.split(one, [(40, 20), (40, 60)], fresh=7)
    after = done(one, change)
    assert set(np.unique(after)) == {0, 1, 2, 7}
    assert np.array_equal(after > 0, one > 0), "the stroke's own pixels stay nucleus"
    upper, lower = after[30, 40], after[50, 40]
    assert {upper, lower} == {1, 7}
    assert (after[:40][one[:40] == 1] == upper).all() and (after[41:][one[41:] == 1] == lower).all()
    assert_whole(after)


def test_a_stroke_that_ends_inside_is_drawn_on_to_the_edge():
    one = disks((40, 40, 12))
    short = done(one, edit.split(one, [(40, 34), (40, 46)], fresh=2))
    assert np.array_equal(short, done(one, edit.split(one, [(40, 20), (40, 60)], fresh=2)))


def test_a_stroke_is_not_drawn_on_through_another_lobe():
    ring = disks((40, 40, 20))
    ring[disks((40, 40, 12)) > 0] = 0
    ring[36:44, 20:40] = 0  # a C that is open to the left
    after = done(ring, edit.split(ring, [(18, 40), (26, 40)], fresh=2))  # cuts its upper arm alone
    assert len(np.unique(after)) == 3
    assert (after[53:60, 40] == after[40, 55]).all(), "the lower arm hangs on the right side"


def test_split_at_the_waist():
    both = (TWO > 0).astype(np.int32) * (TWO < 3)
    after = done(both, edit.split_at_waist(both, (40, 40), fresh=2))
    assert_whole(after)
    for number in (1, 2):
        shares = [((after == n) & (TWO == number)).sum() / (TWO == number).sum() for n in (1, 2)]
        assert max(shares) > 0.95
    with pytest.raises(EditError, match="no waist"):
        edit.split_at_waist(disks((40, 40, 12)), (40, 40), fresh=2)


def test_delete_fill_smooth_and_size():
    labels = TWO.copy()
    labels[38:42, 35:40] = 0
    labels[40, 37] = 9  # another nucleus in the hole keeps its pixel
    after = done(labels, edit.fill_holes(labels, (40, 30)))
    assert np.array_equal(after == 1, (TWO == 1) & (labels != 9))
    assert not (done(TWO, edit.delete(TWO, (40, 61))) == 2).any()
    spur = disks((40, 40, 12))
    spur[40, 52:64] = 1
    assert not done(spur, edit.smooth(spur, (40, 40)))[40, 56:].any()
    bigger = done(TWO, edit.grow(TWO, (15, 90), 2))
    assert np.array_equal(bigger == 3, distance_transform_edt(TWO != 3) <= 2)
    smaller = done(TWO, edit.grow(TWO, (15, 90), -1))
    assert np.array_equal(smaller == 3, distance_transform_edt(TWO == 3) > 1)


def test_a_nucleus_at_the_border_of_the_image_has_no_edge_there():
    labels = disks((0, 40, 12))
    after = done(labels, edit.grow(labels, (0, 40), -2))
    assert after[0, 32:48].all() and after[0, 40]


def test_redraw_replaces_the_nucleus_that_the_outline_is_about():
    square = [(32, 32), (32, 48), (48, 48), (48, 32)]
    after = done(TWO, edit.redraw(TWO, square, fresh=4))
    assert (after[33:48, 33:48] == 1).all() and (after == 1).sum() <= 17**2
    assert_others_stay(TWO, after, {1})
    beside = [(40, 70), (40, 84), (60, 84), (60, 70)]  # cuts a corner of 2 only
    after = done(TWO, edit.redraw(TWO, beside, fresh=4))
    assert (after == 4).sum() > 200
    assert_others_stay(TWO, after, ())


def test_an_outline_far_larger_than_a_nucleus_is_refused():
    labels = np.zeros((3000, 3000), np.int32)
    with pytest.raises(EditError, match=r"2500 px long.*zoom in"):
        edit.redraw(labels, [(0, 0), (0, 2500), (300, 2500), (300, 0)], fresh=1)


def test_add_takes_only_what_is_free():
    mask = np.ones((30, 30), bool)
    after = done(TWO, edit.add(TWO, Region(45, 50, 75, 80), mask, fresh=4))
    assert ((after == 4) == ((np.pad(mask, ((45, 15), (50, 30)))) & (TWO == 0))).all()
    assert_others_stay(TWO, after, ())


def test_small_and_border_nuclei_are_found_and_removed():
    labels = disks((40, 40, 12), (20, 70, 2), (0, 10, 6), (60, 109, 5))
    assert edit.small(labels, 20) == [2]
    assert edit.at_border(labels) == [3, 4]
    after = done(labels, edit.remove(labels, [2, 3, 4]))
    assert np.array_equal(after, np.where(labels == 1, 1, 0))


def test_the_extent_of_a_nucleus_is_tight():
    assert edit.extent(TWO, (15, 90)) == Region(7, 82, 24, 99)
    with pytest.raises(EditError, match="no nucleus"):
        edit.extent(TWO, (0, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: edit.delete(TWO, (0, 0)), "no nucleus at y 0, x 0"),
        (lambda: edit.delete(TWO, (400, 0)), "no nucleus"),
        (lambda: edit.merge(TWO, [(40, 40), (40, 44)]), "fewer than two"),
        (lambda: edit.merge(TWO, []), "fewer than two"),
        (
            lambda: edit.merge(APART, [(20, 20), (20, 80)]),
            r"39 px apart, farther than the widest is wide \(2\d px\)",
        ),
        (lambda: edit.split(TWO, [(0, 0), (3, 3)], 4), "crosses no nucleus"),
        (lambda: edit.split(TWO, [(40, 40)], 4), "does not cut"),
        (lambda: edit.redraw(TWO, [(3, 3), (4, 4)], 4), "encloses no pixel"),
        (lambda: edit.redraw(TWO, [(-9, -9), (-9, -4), (-4, -4)], 4), "encloses no pixel"),
        (lambda: edit.grow(TWO, (15, 90), -20), "nothing of this nucleus would be left"),
        (lambda: edit.split(TWO.astype(np.uint8), [(40, 20), (40, 60)], 256), "uint8 and end at 255"),
    ],
)
def test_what_cannot_be_done_says_why(change, message):
    with pytest.raises(EditError, match=message):
        change()


@st.composite
def scenes(draw):
    """Return labels, some touching, and a stroke over them."""
    circle = st.tuples(st.integers(0, 89), st.integers(0, 109), st.integers(2, 20))
    labels = disks(*draw(st.lists(circle, min_size=1, max_size=7)))
    pieces = label(labels, connectivity=2, background=0)  # covered ones may lie in pieces: number those anew
    inside = st.sampled_from([tuple(map(float, at)) for at in np.argwhere(pieces)[::7]])
    point = st.tuples(st.floats(-5, 95), st.floats(-5, 115))
    return pieces.astype(np.int32), [draw(inside), *draw(st.lists(inside | point, max_size=5))]


TOOLS = {
    "delete": lambda labels, path, fresh: edit.delete(labels, path[0]),
    "merge": lambda labels, path, fresh: edit.merge(labels, path),
    "split": edit.split,
    "split at waist": lambda labels, path, fresh: edit.split_at_waist(labels, path[0], fresh),
    "fill": lambda labels, path, fresh: edit.fill_holes(labels, path[0]),
    "smooth": lambda labels, path, fresh: edit.smooth(labels, path[0]),
    "grow": lambda labels, path, fresh: edit.grow(labels, path[0], 2),
    "shrink": lambda labels, path, fresh: edit.grow(labels, path[0], -1),
    "redraw": edit.redraw,
    "add": lambda labels, path, fresh: edit.add(labels, *spot(labels, path[0]), fresh),
}
MANY = {"small": lambda labels: edit.small(labels, 200), "at the border": edit.at_border}


def spot(labels, at):
    """Return a disk around a point inside the image, and where it lies."""
    window = Region(*(round(c) for c in at), *(round(c) + 1 for c in at)).grown(9, labels.shape)
    yy, xx = np.mgrid[window.slices]
    return window, np.hypot(yy - round(at[0]), xx - round(at[1])) <= 9


@pytest.mark.parametrize("tool", TOOLS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(scene=scenes())
def test_every_edit_keeps_labels_unique_and_others_untouched(tool, scene):
    labels, path = scene
    fresh = int(labels.max()) + 1
    before = labels.copy()
    try:
        change = TOOLS[tool](labels, path, fresh)
    except EditError:
        return
    assert np.array_equal(labels, before), "the labels stay until the edit is applied"
    after = done(labels, change)
    assert_whole(after)
    pointed, crossed, inside = meant(labels, path)
    if tool == "merge":
        assert_others_stay(labels, after, crossed)
        assert set(np.unique(after)) < set(np.unique(labels))
    elif tool.startswith("split"):
        assert np.array_equal(after > 0, labels > 0)
        assert len(np.unique(after)) > len(np.unique(labels)) and after.max() >= fresh
        assert_one_changed(labels, after, crossed if tool == "split" else {pointed})
    elif tool == "add":
        assert_others_stay(labels, after, ())
        window, mask = spot(labels, path[0])
        assert set(np.unique(after[labels != after])) == {fresh}
        assert mask[after[window.slices] == fresh].all() and (after == fresh).sum() == (after != labels).sum()
    else:
        assert_one_changed(labels, after, inside if tool == "redraw" else {pointed})
        assert set(np.unique(after)) <= set(np.unique(labels)) | ({fresh} if tool == "redraw" else set())


@pytest.mark.parametrize("find", MANY)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(scene=scenes())
def test_removing_many_takes_these_and_no_pixel_of_others(find, scene):
    labels, _ = scene
    numbers = MANY[find](labels)
    after = done(labels, edit.remove(labels, numbers))
    assert_others_stay(labels, after, numbers)
    assert not np.isin(after, numbers).any() and MANY[find](after) == []


def meant(labels, path):
    """Return the number under the first point, those along the path, and those in the outline it makes."""
    points = np.array(path)
    fine = np.linspace(points[:-1], points[1:], 600).reshape(-1, 2) if len(points) > 1 else points
    rows, cols = np.rint(fine).astype(int).T
    along = np.zeros((labels.shape[0] + 60, labels.shape[1] + 60), bool)  # the path may leave the image
    along[rows + 30, cols + 30] = True
    along = binary_dilation(along, np.ones((3, 3)))[30:-30, 30:-30]  # however a line is rounded to pixels
    outline = (
        binary_dilation(polygon2mask(labels.shape, points), np.ones((3, 3))) if len(points) > 2 else along
    )
    start = labels[tuple(np.rint(points[0]).astype(int))]
    return int(start), set(labels[along].tolist()), set(labels[outline].tolist())


def assert_one_changed(before, after, among):
    changed = set(before[before != after].tolist()) - {0}
    assert len(changed) <= 1 and changed <= among, f"{changed} changed, {among} were meant"


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ("delete", [(40, 40)]),
        ("merge", [(40, 40), (40, 61)]),
        ("split", [(40, 20), (40, 52)]),
        ("smooth", [(40, 40)]),
        ("grow", [(40, 40)]),
        ("shrink", [(40, 40)]),
        ("redraw", [(30, 30), (30, 50), (50, 40)]),
    ],
)
def test_of_a_number_in_several_places_only_the_piece_pointed_at_is_corrected(tool, path):
    scattered = TWO.copy()
    scattered[70:80, 20:30] = 1  # the number of the one at y 40, x 40
    after = done(scattered, TOOLS[tool](scattered, path, 4))
    assert (after[70:80, 20:30] == 1).all() and (after[after != scattered].size > 0)
    assert np.array_equal(after[60:] > 0, scattered[60:] > 0)
    assert edit.remove(scattered, [1]).rows.size == (scattered == 1).sum(), "by number, it is all of them"


def test_an_edit_of_a_large_image_looks_at_its_neighbourhood_only():
    large = np.zeros((10_000, 10_000), np.int32)
    large[5000:5090, 7000:7110] = TWO
    waist = large[5030:5050, 7030:7080]
    waist[waist > 0] = 1  # one nucleus of two disks
    stroke = [(5040, 7040), (5015, 7090)]
    outline = [(5030, 7030), (5030, 7050), (5050, 7040)]
    seconds = {}
    for name, tool in TOOLS.items():
        split, free = [(5020, 7040), (5060, 7040)], [(5070, 7020)]
        path = {"redraw": outline, "split": split, "add": free}.get(name, stroke)
        start = time.perf_counter()
        for _ in range(5):
            tool(large, path, 4)
        seconds[name] = (time.perf_counter() - start) / 5
    assert max(seconds.values()) < 0.05, seconds
