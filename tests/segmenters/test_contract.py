"""What every registered segmenter must do."""

import numpy as np
import pytest

from napari_nucleus_kd import segmenters
from napari_nucleus_kd.baselines import TOOLS
from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.errors import UnknownSegmenterError
from napari_nucleus_kd.segmenters import Segmenter


@pytest.fixture(params=segmenters.names())
def segmenter(request, spots, fake_tool):
    weights = fake_tool() if request.param in TOOLS else None  # what is served is no real tool here
    return segmenters.load(request.param, Recipe(segmenter=request.param, model=str(spots), weights=weights))


@pytest.fixture
def tile(draw):
    pixels, labels = draw(150, 190)
    return np.repeat(pixels[None].astype(np.float32) / 255, 3, axis=0), labels


def test_it_keeps_the_protocol(segmenter):
    assert isinstance(segmenter, Segmenter)
    assert segmenter.name in segmenters.names() and segmenter.description
    assert isinstance(segmenter.decode_defaults, DecodeSettings)


@pytest.mark.parametrize("diameter", [None, 8.0, 18.0, 80.0])
def test_labels_have_the_tiles_shape_and_count_from_1(segmenter, tile, diameter):
    picture, _ = tile
    maps = segmenter.maps(picture, diameter)
    assert maps.shape_yx == (150, 190) and maps.scale == segmenter.scale(diameter)
    assert maps.values.shape[1:] == tuple(np.ceil(np.array([150, 190]) * maps.scale).astype(int))
    nuclei = segmenter.decode(maps, segmenter.decode_defaults)
    assert nuclei.labels.shape == (150, 190) and nuclei.labels.dtype == np.int32
    np.testing.assert_array_equal(np.unique(nuclei.labels), np.arange(nuclei.count + 1))
    assert nuclei.scores.shape == (nuclei.count,)
    assert ((nuclei.scores >= 0) & (nuclei.scores <= 1)).all()


@pytest.mark.parametrize("diameter", [18.0, 9.0])
def test_it_finds_the_nuclei(segmenter, tile, same_nuclei, diameter):
    picture, truth = tile
    found = segmenter.decode(segmenter.maps(picture, diameter), segmenter.decode_defaults).labels
    assert found.max() == pytest.approx(truth.max(), rel=0.15)
    union = ((found > 0) | (truth > 0)).sum()
    assert ((found > 0) & (truth > 0)).sum() / union > 0.8


def test_the_input_is_not_changed_and_the_output_repeats(segmenter, tile):
    picture, _ = tile
    before = picture.copy()
    first = segmenter.decode(segmenter.maps(picture, 18.0), segmenter.decode_defaults)
    again = segmenter.decode(segmenter.maps(picture, 18.0), segmenter.decode_defaults)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(first.labels, again.labels)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (33, 31)])
def test_odd_and_empty_tiles_give_no_nuclei(segmenter, shape):
    maps = segmenter.maps(np.zeros((3, *shape), np.float32), 18.0)
    assert segmenter.decode(maps, segmenter.decode_defaults).count == 0
    assert segmenter.estimate_diameter([np.zeros((3, *shape), np.float32)]) is None


def test_doubtful_nuclei_go_by_their_score(segmenter, tile):
    maps = segmenter.maps(tile[0], None)
    everything = segmenter.decode(maps, DecodeSettings(min_score=0))
    assert everything.scores.min() > 0.1 and everything.scores.max() <= 1
    limit = float(np.unique(everything.scores)[-2])
    surer = segmenter.decode(maps, DecodeSettings(min_score=limit))
    assert surer.count == np.count_nonzero(everything.scores >= limit) < everything.count
    np.testing.assert_array_equal(surer.scores, everything.scores[everything.scores >= limit])
    np.testing.assert_array_equal(np.unique(surer.labels), np.arange(surer.count + 1))
    assert (everything.labels[surer.labels > 0] > 0).all()


def test_small_nuclei_go_by_area_in_image_pixels(segmenter, tile):
    picture, _ = tile
    for diameter in (18.0, 9.0, 80.0):
        maps = segmenter.maps(picture, diameter)
        settings = segmenter.decode_defaults.model_copy(update={"min_area_px": 200})
        areas = np.bincount(segmenter.decode(maps, settings).labels.ravel())[1:]
        assert areas.size and areas.min() >= 0.85 * 200  # rescaling moves an edge by a part of a pixel


@pytest.mark.parametrize("diameter", [None, 5.0, 18.0, 200.0])
def test_tiles_are_aligned_and_hold_a_nucleus(segmenter, diameter):
    align, halo = segmenter.align_px(diameter), segmenter.halo_px(diameter)
    assert align >= 1 and halo % align == segmenter.context_px(diameter) % align == 0
    assert halo >= (diameter or segmenter.default_diameter_px)


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(UnknownSegmenterError, match="choose from student, classical"):
        segmenters.load("oracle", Recipe())


def test_others_can_be_added_once(monkeypatch):
    monkeypatch.setattr(segmenters, "_LOADERS", dict(segmenters._LOADERS))
    segmenters.register("mine", "napari_nucleus_kd.segmenters.classical:load")
    assert segmenters.load("mine", Recipe()).name == "classical"
    with pytest.raises(UnknownSegmenterError, match="registered already"):
        segmenters.register("mine", lambda recipe: None)
