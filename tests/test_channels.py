import numpy as np
import pytest

from napari_nucleus_kd.channels import (
    choose_channels,
    fit_input,
    given_input,
    normalize_image,
    nuclear_channels,
    scale_limits,
)
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.types import Channel, Image, Modality

FL, HE = Modality.FLUORESCENCE, Modality.HE


def image(pixels, *names, rgb=False):
    names = names or tuple(f"channel {i + 1}" for i in range(len(pixels)))
    return Image((pixels,), tuple(Channel(n) for n in names), rgb=rgb)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, np.bool_])
@pytest.mark.parametrize("modality", list(Modality))
def test_every_number_type_becomes_float32_between_0_and_1(dtype, modality):
    pixels = np.random.default_rng(0).integers(0, 200, (3, 40, 50))
    pixels = pixels > 100 if dtype is np.bool_ else pixels.astype(dtype)
    out = normalize_image(pixels, modality)
    assert out.dtype == np.float32 and out.shape == (3, 40, 50)
    assert out.min() >= 0 and out.max() == pytest.approx(1, abs=1e-6)


def test_limits_are_the_percentiles_of_each_channel():
    sample = np.stack([np.arange(1001), 2 * np.arange(1001)])
    assert scale_limits(sample, (10, 90)) == ((100.0, 200.0), (900.0, 1800.0))


def test_limits_of_sparse_constant_and_broken_channels_still_rise():
    sparse = np.zeros(10_000)
    sparse[0] = 50
    broken = np.full(10_000, np.nan)
    low, high = scale_limits(np.stack([sparse, np.full(10_000, 1e9), broken]), (1, 99.8))
    assert (low[0], high[0]) == (0, 50)
    assert all(np.float32(b) > np.float32(a) for a, b in zip(low, high, strict=True))


@pytest.mark.parametrize("bad", [(50, 50), (-1, 99), (1, 101), (90, 10)])
def test_percentiles_must_rise_within_0_to_100(bad):
    with pytest.raises(SettingsError, match="percentiles"):
        scale_limits(np.arange(5)[None], bad)


def test_tiles_get_what_the_whole_image_gets():
    pixels = np.random.default_rng(1).integers(0, 4000, (2, 90, 70)).astype(np.uint16)
    input_map = fit_input(image(pixels), (0, 1), FL)
    whole = input_map.apply(pixels)
    np.testing.assert_array_equal(input_map.apply(pixels[:, 20:60, 30:]), whole[:, 20:60, 30:])


def test_small_images_are_scaled_as_in_training():
    pixels = np.random.default_rng(2).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    for modality in Modality:
        fitted = fit_input(image(pixels, rgb=True), None, modality).apply(pixels)
        np.testing.assert_array_equal(fitted, normalize_image(pixels, modality))


def test_large_images_are_measured_on_a_sample_close_to_the_truth():
    pixels = np.random.default_rng(3).normal(1000, 100, (1, 3000, 3100)).astype(np.float32)
    input_map = fit_input(image(pixels), None, FL, (1, 99))
    expected = np.percentile(pixels, (1, 99))
    assert (input_map.low[0], input_map.high[0]) == pytest.approx(expected, abs=2)


def test_brightfield_keeps_the_ratio_of_colours():
    pixels = np.full((3, 32, 32), 200, np.uint8)
    pixels[:, 8:16, 8:16] = np.array([100, 40, 120])[:, None, None]
    out = normalize_image(pixels, HE)
    assert out[:, 10, 10] == pytest.approx([0.5, 0.2, 0.6], abs=1e-6)


def test_fluorescence_takes_the_brightest_channel_and_repeats_it():
    pixels = np.zeros((2, 32, 32), np.uint16)
    pixels[0, 4:8], pixels[1, 20:24] = 100, 4000
    out = fit_input(image(pixels), (0, 1), FL).apply(pixels)
    assert (out[0] == out[1]).all() and (out[0] == out[2]).all()
    assert out[0, 5, 5] == 1 and out[0, 21, 5] == 1 and out[0, 15, 5] == 0


def test_empty_colours_of_an_rgb_fluorescence_picture_stay_dark():
    rng = np.random.default_rng(4)
    pixels = np.stack([rng.integers(0, 3, (64, 64))] * 3).astype(np.uint8)  # noise of 2 counts
    pixels[2, 20:30, 20:30] = 250
    out = fit_input(image(pixels, rgb=True), None, FL).apply(pixels)
    assert out[0, 5, 5] < 0.02 and out[0, 25, 25] == 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["CD3", "DAPI", "CD8"], (1,)),
        (["DAPI-01", "FITC", "DAPI-02"], (0,)),
        (["Hoechst 33342", "Actin"], (0,)),
        (["141Pr_CD20", "191Ir_DNA1", "193Ir_DNA2"], (1, 2)),
        (["HistoneH3", "CD45"], (0,)),
        (["SYTO13", "PanCK"], (0,)),
        (["H3K27me3", "CD45"], (0,)),
        (["DNA-PK", "CD31", "CXCR4"], ()),
    ],
)
def test_nuclear_stains_are_known_by_name(names, expected):
    assert nuclear_channels(names) == expected


def test_channels_by_name_and_index_in_any_case():
    im = image(np.zeros((3, 4, 4)), "CD3", "Foo", "foo")
    assert choose_channels(im, ("foo", 0, "cd3"), FL) == (2, 0)


@pytest.mark.parametrize("bad", [("nope",), (3,), (-1,), ()])
def test_wrong_channels_are_refused_with_the_list(bad):
    with pytest.raises(SettingsError, match="0: CD3, 1: CD8"):
        choose_channels(image(np.zeros((2, 4, 4)), "CD3", "CD8"), bad, FL)


def test_no_nuclear_channel_asks_to_choose():
    with pytest.raises(SettingsError, match="choose the nuclear channels from 0: CD3, 1: CD8"):
        choose_channels(image(np.zeros((2, 4, 4)), "CD3", "CD8"), None, FL)


def test_brightfield_needs_a_colour_picture():
    with pytest.raises(SettingsError, match="H&E needs a colour picture"):
        fit_input(image(np.zeros((5, 4, 4))), None, HE)
    with pytest.raises(SettingsError, match="uses all 3"):
        fit_input(image(np.zeros((3, 4, 4)), rgb=True), (0,), HE)


@pytest.mark.parametrize(("count", "modality"), [(1, HE), (3, HE), (2, FL)])
def test_a_recipes_scaling_gives_the_same_input(count, modality):
    pixels = np.random.default_rng(5).integers(0, 255, (count, 32, 32), dtype=np.uint8)
    im = image(pixels)
    fitted = fit_input(im, tuple(range(count)), modality)
    assert given_input(im, fitted.channels, modality, fitted.low, fitted.high) == fitted


def test_a_recipes_scaling_must_fit_the_channels():
    with pytest.raises(SettingsError, match="scaling_low"):
        given_input(image(np.zeros((2, 4, 4))), (0, 1), FL, (0.0,), (1.0,))
    with pytest.raises(SettingsError, match="scaling_low"):
        given_input(image(np.zeros((1, 4, 4))), (0,), FL, (1.0,), (1.0,))


def test_only_the_used_channels_are_touched():
    dask = pytest.importorskip("dask.array")
    pixels = dask.from_array(np.arange(5 * 16 * 16).reshape(5, 16, 16), chunks=(1, 16, 16))
    selected = fit_input(image(pixels), (3,), FL).select(pixels)
    assert isinstance(selected, dask.Array) and selected.shape == (1, 16, 16)
