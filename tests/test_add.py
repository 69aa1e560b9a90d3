"""Single nuclei from a click or a box, against drawn ones."""

from functools import partial

import numpy as np
import pytest

from napari_nucleus_kd.add import Adder, _rounded
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.pipeline import segment, to_image
from napari_nucleus_kd.types import Region


@pytest.fixture(scope="module")
def scene(draw):
    """Return pixels and labels; nucleus `faint` is too dark for the threshold."""
    pixels, truth = draw(260, 300)
    faint = int(truth[130:, 150:][truth[130:, 150:] > 0][0])
    pixels = pixels.copy()
    pixels[truth == faint] = pixels[truth == faint] * 0.45
    return pixels, truth, faint


@pytest.fixture
def recipe(spots):
    return Recipe(model=str(spots), device="cpu", diameter_px=18.0)


def nothing(region):
    return np.zeros(region.shape_yx, bool)


def taken_by(labels, region):
    return labels[region.slices] > 0


def placed(found, shape):
    region, mask = found
    whole = np.zeros(shape, bool)
    whole[region.slices] = mask
    return whole


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def middle(mask):
    return tuple(np.argwhere(mask).mean(axis=0))


def test_a_nucleus_that_the_run_missed_is_found_at_a_click(scene, recipe):
    pixels, truth, faint = scene
    result = segment(pixels, recipe)
    point = middle(truth == faint)
    assert result.nuclei.labels[tuple(round(c) for c in point)] == 0, "the run misses it"
    adder = Adder(to_image(pixels), result.recipe)
    found = placed(adder.at(point, lambda region: result.nuclei.labels[region.slices] > 0), truth.shape)
    assert found[tuple(round(c) for c in point)]
    assert found[truth == faint].sum() == found.sum(), "this network sees the bright middle only"
    assert iou(found, truth == faint) > 0.3


def test_what_the_model_is_unsure_of_gets_no_ragged_outline():
    yy, xx = np.mgrid[:60, :60]
    nucleus = np.hypot(yy - 30, xx - 30) < 10
    ragged = nucleus.copy()
    ragged[30:32, 30:33] = False
    ragged[30, 38:55] = ragged[10:25, 30] = True  # fingers
    assert iou(_rounded(ragged, (25, 30), 2.0), nucleus) > 0.95
    scribble = np.zeros((60, 60), bool)
    scribble[20:40:4, 10:50] = scribble[20:40, 10] = True
    assert not _rounded(scribble, (20, 30), 2.0).any()


def test_every_nucleus_is_found_as_the_run_finds_it(scene, recipe):
    pixels, truth, _ = scene
    result = segment(pixels, recipe)
    adder = Adder(to_image(pixels), result.recipe)
    for number in range(1, result.nuclei.count + 1, 7):
        known = result.nuclei.labels == number
        rows, cols = np.nonzero(known)
        i = np.hypot(rows - rows.mean(), cols - cols.mean()).argmin()
        assert iou(placed(adder.at((rows[i], cols[i]), nothing), truth.shape), known) > 0.9


@pytest.mark.parametrize("segmenter", ["student", "classical"])
def test_a_box_is_one_nucleus(scene, recipe, segmenter):
    pixels, truth, faint = scene
    adder = Adder(to_image(pixels), recipe.model_copy(update={"segmenter": segmenter}))
    for number in (faint, faint + 1):
        (y0, x0), (y1, x1) = (f(np.argwhere(truth == number), axis=0) for f in (np.min, np.max))
        box = Region(int(y0) - 2, int(x0) - 2, int(y1) + 3, int(x1) + 3)
        others = np.where(truth == number, 0, truth)
        found = placed(adder.in_box(box, partial(taken_by, others)), truth.shape)
        assert iou(found, truth == number) > 0.6
        outside = found.copy()
        outside[box.slices] = False
        assert not outside.any()


def test_what_is_taken_is_left(scene, recipe):
    pixels, truth, faint = scene
    adder = Adder(to_image(pixels), recipe)
    with pytest.raises(EditError, match="rim"):
        adder.at(middle(truth == faint), lambda region: truth[region.slices] > 0)
    rows, _ = np.nonzero(truth == faint)
    cut = round(rows.mean()) - 2  # a few rows above the middle belong to someone else

    def above(region):
        return np.broadcast_to(np.arange(region.y0, region.y1)[:, None] < cut, region.shape_yx)

    found = placed(adder.at(middle(truth == faint), above), truth.shape)
    assert found.any() and not found[:cut].any()


def test_where_the_model_sees_nothing_it_says_so(scene, recipe):
    pixels, truth, _ = scene
    empty = np.where(truth > 0, 20, pixels)
    empty[:40, :40] = pixels[:40, :40]  # so that the picture has contrast
    adder = Adder(to_image(empty.astype(np.uint8)), recipe)
    with pytest.raises(EditError, match="sees no nucleus at this point; draw its outline"):
        adder.at((200, 200), nothing)
    with pytest.raises(EditError, match="sees no nucleus in this box"):
        adder.in_box(Region(190, 190, 215, 215), nothing)


def test_what_is_far_too_large_is_refused(scene, recipe):
    pixels, _, _ = scene
    blot = pixels.copy()
    blot[60:200, 60:200] = 220
    adder = Adder(to_image(blot), recipe.model_copy(update={"segmenter": "classical"}))
    with pytest.raises(EditError, match=r"px across, a typical nucleus 18; draw"):
        adder.at((130, 130), nothing)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda adder: adder.at((-3, 5), nothing), "outside"),
        (lambda adder: adder.in_box(Region(5, 5, 5, 9), nothing), "encloses no pixel"),
        (lambda adder: adder.in_box(Region(-50, -50, -2, -2), nothing), "encloses no pixel"),
    ],
)
def test_points_and_boxes_off_the_image_are_refused(scene, recipe, ask, message):
    with pytest.raises(EditError, match=message):
        ask(Adder(to_image(scene[0]), recipe))


def test_a_box_has_a_limit(recipe):
    wide = to_image(np.zeros((8, 2000), np.uint8))
    with pytest.raises(EditError, match="2000 px long"):
        Adder(wide, recipe).in_box(Region(0, 0, 8, 2000), nothing)


def test_the_model_is_opened_once(scene, recipe, monkeypatch):
    from napari_nucleus_kd import add

    opened = []
    prepare = add.prepare
    monkeypatch.setattr(add, "prepare", lambda *given: opened.append(1) or prepare(*given))
    pixels, truth, faint = scene
    adder = Adder(to_image(pixels), recipe)
    for _ in range(3):
        adder.at(middle(truth == faint), nothing)
    assert len(opened) == 1
