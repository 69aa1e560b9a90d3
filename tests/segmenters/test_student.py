import math
from dataclasses import replace

import numpy as np
import pytest

from napari_nucleus_kd import engine as engine_module
from napari_nucleus_kd import segmenters
from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.segmenters.student import _enlarged
from napari_nucleus_kd.types import Maps, Modality


@pytest.fixture
def load():
    return lambda folder: segmenters.load("student", Recipe(model=str(folder), device="cpu"))


@pytest.fixture
def picture(draw):
    return np.repeat(draw(200, 230)[0][None].astype(np.float32) / 255, 3, axis=0)


@pytest.mark.parametrize("diameter", [6.0, 9.0, 50.0, 73.0])
def test_a_tile_cut_anywhere_on_the_grid_has_the_maps_of_the_whole(load, spots, picture, diameter):
    segmenter = load(spots)
    step, scale = segmenter.align_px(diameter), segmenter.scale(diameter)
    assert scale * step == 32
    whole = segmenter.maps(picture, diameter).values
    start = step * (96 // step)
    cut = segmenter.maps(picture[:, start:, start:], diameter).values
    edge = 4 + math.ceil(2 * scale)  # what the resizing and the two convolutions see
    at = round(start * scale)
    np.testing.assert_allclose(whole[:, at + edge :, at + edge :], cut[:, edge:, edge:], atol=0.02)


def test_diameters_in_the_models_range_are_not_rescaled(load, spots):
    segmenter = load(spots)  # range 10 to 40, made for 18
    assert [segmenter.scale(d) for d in (None, 10.0, 18.0, 40.0)] == [1, 1, 1, 1]
    assert segmenter.scale(5.0) == pytest.approx(2, rel=0.05)
    assert segmenter.scale(80.0) == pytest.approx(0.5, rel=0.05)


def test_small_nuclei_are_enlarged_to_where_the_model_is_best(make_model, load):
    segmenter = load(make_model(name="best", enlarge_to_px=14.0))  # range 10 to 40
    assert [segmenter.scale(d) for d in (10.0, 13.0)] == [1, 1]
    assert segmenter.scale(7.0) == pytest.approx(2, rel=0.05)
    assert segmenter.scale(80.0) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("diameter", [7.0, 18.0, 60.0])
def test_no_nucleus_is_smaller_than_asked_for(load, spots, picture, diameter):
    segmenter = load(spots)
    maps = segmenter.maps(picture, diameter)
    found = segmenter.decode(maps, DecodeSettings(min_area_px=60)).labels
    assert found.max() and np.bincount(found.ravel())[1:].min() >= 60


def test_a_large_picture_goes_in_blocks_with_the_same_maps(load, spots, picture, monkeypatch):
    segmenter = load(spots)
    whole = segmenter.maps(picture, None).values
    monkeypatch.setattr(engine_module, "CONTEXT_PX", 32)
    monkeypatch.setattr(segmenter._engine, "_block_px", 64)
    np.testing.assert_allclose(segmenter.maps(picture, None).values, whole, atol=0.02)


def test_an_enlarged_map_lies_where_the_small_one_lay():
    ramp = np.arange(20, dtype=np.float32)[:, None] * np.ones(20, np.float32)
    large = _enlarged(ramp, Maps(ramp[None], ("foreground",), (39, 38), 0.5))
    assert large.shape == (39, 38)
    np.testing.assert_allclose(large[2:37, 5], ((np.arange(39) + 0.5) * 0.5 - 0.5)[2:37], atol=1e-5)


def test_large_nuclei_have_a_smooth_edge_and_no_holes(make_model, load, draw):
    from scipy import ndimage
    from skimage.measure import perimeter

    pixels, truth = draw(400, 400, radius=(38.0, 44.0), spacing=100)
    pixels[np.hypot(*(np.indices((400, 400)) - 50)[:, :, :]) < 3] = 0  # a dark spot inside a nucleus
    picture = np.repeat(pixels[None].astype(np.float32) / 255, 3, axis=0)
    segmenter = load(make_model(name="large", size_range=(10.0, 20.0)))
    maps = segmenter.maps(picture, 80.0)
    labels = segmenter.decode(maps, segmenter.decode_defaults).labels
    assert maps.scale == 0.25 and labels.max() == truth.max()
    np.testing.assert_array_equal(labels > 0, ndimage.binary_fill_holes(labels > 0))
    assert perimeter(labels > 0) == pytest.approx(perimeter(truth > 0), rel=0.04)


def test_the_diameter_is_read_off_the_maps(make_model, load, picture):
    segmenter = load(make_model(name="thirty", log_diameter=math.log(30 / 18)))
    assert segmenter.diameter_in(segmenter.maps(picture, None)) == pytest.approx(30, rel=0.02)
    assert segmenter.estimate_diameter([picture]) == pytest.approx(30, rel=0.02)


def test_a_diameter_outside_the_range_is_not_believed_at_once(make_model, load, picture):
    segmenter = load(make_model(name="ninety", log_diameter=math.log(90 / 18)))
    assert segmenter.diameter_in(segmenter.maps(picture, None)) is None
    assert segmenter.estimate_diameter([picture]) > 90  # however small the look, it seems as large


def test_a_kind_of_image_is_first_looked_at_where_its_nuclei_are_expected(make_model, picture):
    def of(seen_px, modality):
        folder = make_model(
            name=f"sees-{seen_px}",
            enlarge_to_px=14.0,
            expected_px={"H&E": 7.0},
            log_diameter=math.log(seen_px / 18),
        )
        return segmenters.load("student", Recipe(model=str(folder), device="cpu", modality=modality))

    expecting, other, unknown = (of(14, m) for m in (Modality.HE, Modality.IHC, None))
    assert [s.scale(None) for s in (other, unknown)] == [1, 1] and expecting.scale(None) == 2
    assert (expecting.default_diameter_px, other.default_diameter_px) == (7.0, 18.0)
    assert expecting.scale(18.0) == 1, "what is told counts more"
    assert expecting.diameter_in(expecting.maps(picture, None)) == pytest.approx(7, rel=0.05)
    assert expecting.estimate_diameter([picture]) == pytest.approx(7, rel=0.05)
    assert other.diameter_in(other.maps(picture, None)) == pytest.approx(14, rel=0.05)
    larger = of(30, Modality.HE)
    assert larger.diameter_in(larger.maps(picture, None)) is None, "seen twice as large, they seem of 15 px"
    assert larger.estimate_diameter([picture]) == pytest.approx(30, rel=0.02), "as if nothing was expected"


def test_notes_are_the_engines(load, spots):
    segmenter = load(spots)
    segmenter._engine.notes.append("GPU out of memory")
    assert segmenter.notes == ("GPU out of memory",)
    segmenter._engine.notes.clear()


def test_fine_maps_give_labels_at_image_pixels(load, spots, picture):
    segmenter = load(spots)
    fine = segmenter.decode(segmenter.maps(picture, 9.0), segmenter.decode_defaults)
    plain = segmenter.decode(segmenter.maps(picture, 18.0), segmenter.decode_defaults)
    both = ((fine.labels > 0) & (plain.labels > 0)).sum()
    assert both / ((fine.labels > 0) | (plain.labels > 0)).sum() > 0.9


def test_decoding_needs_no_diameter(load, spots, picture):
    segmenter = load(spots)
    maps = segmenter.maps(picture, 18.0)
    assert segmenter.decode(replace(maps, diameter_px=None), segmenter.decode_defaults).count
