from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image as ImageLayer

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.segmenters.three_classes import ThreeClassSegmenter
from napari_nucleus_kd.types import Channel, Image, Maps, Region
from napari_nucleus_kd.widgets import _layers, _show


@pytest.fixture
def model():
    return ViewerModel()


def _only(model):
    (source,) = _layers.sources(model.layers)
    return source


def _two_channels(**more):
    pixels = np.arange(2 * 6 * 8, dtype=np.uint16).reshape(2, 6, 8)
    return Image((pixels,), (Channel("DAPI", "#0000ff"), Channel("CD3")), name="two.tif", **more)


def _add(model, image):
    for values, keywords, _ in _show.layer_data(image):
        model.add_layer(ImageLayer(values, **keywords))


def test_the_channels_of_one_image_are_one_source(model):
    image = _two_channels(pixel_size_um=0.5)
    _add(model, image)
    model.add_image(np.zeros((4, 4)), name="other")
    first, other = _layers.sources(model.layers)
    assert (first.name, len(first.layers), first.opened) == ("two.tif", 2, image)
    assert (other.name, other.opened) == ("other", None)
    assert [layer.name for layer in first.layers] == ["DAPI (two.tif)", "CD3 (two.tif)"]
    assert [tuple(layer.scale) for layer in first.layers] == [(0.5, 0.5)] * 2
    assert all(str(layer.units[0]) == "micrometer" for layer in first.layers)


def test_one_image_opened_twice_is_two_sources(model):
    _add(model, _two_channels())
    _add(model, _two_channels())
    assert len(_layers.sources(model.layers)) == 2


def test_renaming_and_deleting_a_channel_keeps_the_source(model):
    _add(model, _two_channels())
    key = _only(model).key
    model.layers[1].name = "T cells"
    del model.layers[0]
    assert _only(model).key == key
    assert _only(model).opened is not None


def test_colour_becomes_one_rgb_layer(model):
    levels = (np.zeros((3, 64, 80), np.uint8), np.zeros((3, 32, 40), np.uint8))
    _add(model, Image(levels, tuple(Channel(n) for n in "rgb"), rgb=True, name="he"))
    layer = _only(model).layers[0]
    assert layer.rgb
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(64, 80, 3), (32, 40, 3)]


def test_lazy_pixels_stay_lazy_and_limits_are_measured_on_a_sample(model):
    reads = []

    def block(block_info=None):
        reads.append(1)
        shape = block_info[None]["chunk-shape"]
        return np.full(shape, 7, np.uint16)

    full = da.map_blocks(block, chunks=((1,), (256,) * 64, (256,) * 64), meta=np.empty((0, 0, 0), np.uint16))
    small = da.from_array(np.arange(1024 * 1024, dtype=np.uint32).reshape(1, 1024, 1024), chunks=512)
    ((values, keywords, _),) = _show.layer_data(Image((full, small), (Channel("DAPI"),)))
    assert not reads
    assert isinstance(values[0], da.Array)
    low, high = keywords["contrast_limits"]
    assert 0 < low < 0.01 * high
    _show.layer_data(Image((full,), (Channel("DAPI"),)))
    assert len(reads) <= 4 * 64, "without a pyramid, a few blocks of the file are enough"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_channel_has_usable_limits(dtype):
    ((_, keywords, _),) = _show.layer_data(Image((np.full((1, 5, 5), 3, dtype),), (Channel("flat"),)))
    low, high = keywords["contrast_limits"]
    assert low < high


def test_not_a_number_does_not_spoil_the_limits():
    pixels = np.ones((1, 6, 6), np.float32)
    pixels[0, :3] = np.nan
    ((_, keywords, _),) = _show.layer_data(Image((pixels,), (Channel("gaps"),)))
    assert np.isfinite(keywords["contrast_limits"]).all()


@pytest.mark.parametrize(
    "wrap",
    [np.asarray, lambda a: da.from_array(a, chunks=4), lambda a: zarr.array(a, chunks=(4,) * a.ndim)],
    ids=["numpy", "dask", "zarr"],
)
def test_a_plain_grey_layer_becomes_an_image(model, wrap):
    pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
    model.add_layer(ImageLayer(wrap(pixels), name="plain", contrast_limits=(0, 48)))
    image = _layers.to_image(_only(model), model)
    np.testing.assert_array_equal(np.asarray(image.pixels), pixels[None])
    assert (image.name, image.rgb, image.pixel_size_um) == ("plain", False, None)


@pytest.mark.parametrize("depth", [3, 4])
def test_a_plain_colour_layer_loses_its_alpha(model, depth):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, depth), np.uint8)
    model.add_image(pixels, rgb=True)
    image = _layers.to_image(_only(model), model)
    assert image.rgb
    np.testing.assert_array_equal(image.pixels, pixels[..., :3].transpose(2, 0, 1))


def test_a_plain_pyramid_keeps_its_levels(model):
    model.add_image([np.zeros((64, 64)), np.zeros((32, 32))], multiscale=True)
    assert [level.shape for level in _layers.to_image(_only(model), model).levels] == [
        (1, 64, 64),
        (1, 32, 32),
    ]


def test_the_shown_plane_of_a_stack_is_taken(model):
    stack = np.arange(5 * 6 * 8).reshape(5, 6, 8)
    model.add_image(stack, scale=(2.0, 1.0, 1.0), name="stack")
    model.dims.set_current_step(0, 3)
    image = _layers.to_image(_only(model), model)
    np.testing.assert_array_equal(image.pixels[0], stack[3])
    assert "plane 3 of 5" in image.notes[0]


def test_a_stack_seen_from_another_side_gives_that_plane(model):
    stack = np.arange(5 * 6 * 8).reshape(5, 6, 8)
    model.add_image(stack)
    model.dims.order = (2, 0, 1)
    model.dims.set_current_step(2, 4)
    image = _layers.to_image(_only(model), model)
    np.testing.assert_array_equal(image.pixels[0], stack[:, :, 4])


@pytest.mark.parametrize(
    ("scale", "units", "size_um"),
    [
        ((0.5, 0.5), ("um", "um"), 0.5),
        ((500.0, 500.0), ("nm", "nm"), 0.5),
        ((0.5, 0.5), None, None),
        ((0.5, 0.7), ("um", "um"), None),
    ],
)
def test_the_pixel_size_is_known_only_with_a_unit_of_length(model, scale, units, size_um):
    model.add_image(np.zeros((5, 5)), scale=scale, units=units)
    found = _layers.to_image(_only(model), model).pixel_size_um
    assert found == (None if size_um is None else pytest.approx(size_um))


def test_filling_in_the_pixel_size_moves_images_and_results_alike(model):
    _add(model, _two_channels())
    source = _only(model)
    labels = model.add_labels(
        np.ones((2, 3), int),
        translate=(4, 5),
        metadata={_layers.FROM_KEY: source.key, _layers.RECIPE_KEY: Recipe()},
    )
    image = _show.set_pixel_size(source, model.layers, 0.25)
    assert image.pixel_size_um == 0.25
    assert _only(model).opened is image
    np.testing.assert_allclose(labels.translate, (1.0, 1.25))
    np.testing.assert_allclose(labels.scale, source.layers[0].scale)
    assert labels.units == source.layers[0].units


@pytest.fixture
def found():
    spots = np.zeros((60, 80), np.uint8)
    spots[12:22, 12:22] = spots[30:44, 40:52] = 200
    return spots


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"scale": (0.5, 0.5), "translate": (7, -3)},
        {"scale": (2, 2), "rotate": 30},
        {"scale": (2, 2), "rotate": 30, "shear": [0.2], "affine": [[1, 0, 5], [0.1, 1, 0], [0, 0, 1]]},
    ],
)
def test_labels_of_a_region_lie_over_their_image(model, found, place):
    layer = model.add_image(found, name="spots", **place)
    region = Region(10, 5, 50, 70)
    result = segment(found, segmenter="classical", diameter_px=12, region=region)
    plane = _layers.shown_plane(_only(model), model)
    labels = _show.add_labels(model, plane, result, {"index": [1, 2]}, outlines=True)
    for point in ((0, 0), (7, 3), (39, 64)):
        there = np.add(point, (region.y0, region.x0))
        np.testing.assert_allclose(labels.data_to_world(point), layer.data_to_world(there))


def test_labels_of_a_stack_lie_in_their_plane_alone(model, found):
    stack = np.stack([np.zeros_like(found), found, np.zeros_like(found)])
    model.add_image(stack, scale=(3, 1, 1))
    model.dims.set_current_step(0, 1)
    plane = _layers.shown_plane(_only(model), model)
    model.dims.set_current_step(0, 2)  # the person scrolls on while it runs
    result = segment(found, segmenter="classical", diameter_px=12)
    labels = _show.add_labels(model, plane, result, {"index": [1, 2]}, outlines=False)
    assert labels.data.shape == (1, *found.shape)
    assert labels.translate[0] == 3
    labels.data_setitem(tuple(np.array([i]) for i in (0, 3, 3)), 9)
    labels.undo()
    again = segment(found, segmenter="classical", diameter_px=14)
    _show.update_labels(labels, again, {"index": [1, 2]})
    assert labels.data.shape == (1, *found.shape)
    labels.redo()
    assert 9 not in labels.data, "what was done to former nuclei is not done to these"


def test_a_coarser_probability_covers_the_same_ground(model, found):
    layer = model.add_image(found, scale=(0.5, 0.5))
    result = segment(found, segmenter="classical", diameter_px=12)
    maps = Maps(np.zeros((1, 30, 40), np.float32), ("foreground",), (60, 80), scale=0.5)
    plane = _layers.shown_plane(_only(model), model)
    probability = _show.add_probability(model, plane, replace(result, maps=maps))
    np.testing.assert_allclose(probability.data_to_world((-0.5, -0.5)), layer.data_to_world((-0.5, -0.5)))
    np.testing.assert_allclose(probability.data_to_world((29.5, 39.5)), layer.data_to_world((59.5, 79.5)))
    assert _layers.sources(model.layers)[0].layers == (layer,), "a result must not be offered as an image"


def test_the_probability_of_three_classes_is_that_it_is_not_background(model, found):
    class Engine:
        def run(self, tile):
            background = np.linspace(0, 1, tile.shape[2], dtype=np.float32) * np.ones_like(tile[0])
            return np.stack([background, 0.75 * (1 - background), 0.25 * (1 - background)])

    model.add_image(found)
    spec = SimpleNamespace(multiple_px=8, maps=("background", "body", "edge"), diameter_px=20)
    spec.decode = spec.percentiles = None
    segmenter = ThreeClassSegmenter(SimpleNamespace(spec=spec, hash="", parameters=0), Engine())
    maps = segmenter.maps(np.zeros((3, *found.shape), np.float32), None)
    result = replace(segment(found, segmenter="classical", diameter_px=12), maps=maps)
    layer = _show.add_probability(model, _layers.shown_plane(_only(model), model), result)
    np.testing.assert_allclose(layer.data, 1 - maps["background"])
    assert layer.data[0, 0] > 0.99 > layer.data[0, -1]


def test_nothing_drawn_yet_means_the_whole_image(model):
    model.add_image(np.zeros((50, 60)))
    assert _layers.visible_region(_only(model), model) is None


def test_what_is_seen_is_given_in_full_resolution(model):
    layer = model.add_image([np.zeros((800, 1000)), np.zeros((400, 500))], multiscale=True)
    layer._data_level = 1
    layer.corner_pixels = np.array([[50, 100], [149, 299]])
    assert _layers.visible_region(_only(model), model) == Region(100, 200, 300, 600)


def test_who_sees_nearly_all_of_an_image_means_all_of_it(model):
    layer = model.add_image(np.zeros((512, 512)))
    layer.corner_pixels = np.array([[0, 0], [511, 507]])
    assert _layers.visible_region(_only(model), model) is None
    layer.corner_pixels = np.array([[0, 0], [511, 479]])
    assert _layers.visible_region(_only(model), model) == Region(0, 0, 512, 480)
