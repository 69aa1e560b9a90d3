import json

import numpy as np
import pytest

import napari_nucleus_kd as nk
from napari_nucleus_kd import pipeline
from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.errors import ModelError, SettingsError, WriteError
from napari_nucleus_kd.job import used_channels
from napari_nucleus_kd.pipeline import (
    measure_result,
    redecode,
    save,
    segment,
    segment_steps,
    to_image,
)
from napari_nucleus_kd.types import Channel, Image, Modality, Region


@pytest.fixture
def recipe(spots):
    return Recipe(model=str(spots), device="cpu")


@pytest.mark.parametrize("segmenter", ["student", "classical"])
def test_it_finds_the_nuclei(draw, recipe, segmenter):
    pixels, truth = draw(260, 300)
    result = segment(pixels, recipe, segmenter=segmenter)
    assert result.nuclei.count == pytest.approx(truth.max(), rel=0.05)
    assert result.nuclei.labels.shape == truth.shape and result.region == Region(0, 0, 260, 300)
    assert result.maps is not None and result.seconds > 0 and result.diameter_px > 1
    assert any("fluorescence" in note for note in result.notes)
    assert any("estimated" in note for note in result.notes)


def test_a_result_in_the_console_is_a_few_lines_not_its_arrays(draw, recipe):
    pixels, _ = draw(64, 80)
    result = segment(pixels, recipe, segmenter="classical")
    assert f"Nuclei({result.nuclei.count} in 64 x 80 px)" in repr(result)
    assert "array(" not in repr(result) and len(repr(result)) < 1500


@pytest.mark.parametrize("segmenter", ["student", "classical"])
def test_a_resolved_recipe_run_again_gives_the_same_bits(draw, recipe, segmenter):
    pixels, _ = draw(260, 300)
    first = segment(pixels, recipe, segmenter=segmenter)
    resolved = Recipe.model_validate_json(first.recipe.model_dump_json())
    again = segment(pixels, resolved)
    np.testing.assert_array_equal(first.nuclei.labels, again.nuclei.labels)
    assert again.recipe == first.recipe == resolved
    assert None not in (resolved.modality, resolved.channels, resolved.scaling_low, resolved.diameter_px)


@pytest.mark.parametrize("modality", [Modality.HE, Modality.IHC])
def test_a_grey_picture_of_stained_tissue_runs_again_by_its_recipe(draw, recipe, modality):
    pixels, _ = draw(160, 160)
    first = segment(pixels, recipe, modality=modality)
    assert first.nuclei.count and first.recipe.channels == (0,)
    assert len(first.recipe.scaling_low) == len(first.recipe.scaling_high) == 1
    refit = first.recipe.model_copy(update={"scaling_low": None, "scaling_high": None})
    for again in (first.recipe, refit):
        np.testing.assert_array_equal(segment(pixels, again).nuclei.labels, first.nuclei.labels)


def test_other_weights_than_the_recipes_are_refused(draw, recipe, make_model):
    resolved = segment(draw(64, 64)[0], recipe).recipe
    with pytest.raises(ModelError, match="other weights"):
        segment(draw(64, 64)[0], resolved, model=str(make_model(name="other", sharpness=10.0)))


@pytest.mark.parametrize("modality", list(Modality))
def test_every_modality_can_be_asked_for(draw, recipe, modality):
    pixels, _ = draw(96, 96)
    result = segment(np.stack([pixels] * 3, axis=-1), recipe, modality=modality)
    again = segment(np.stack([pixels] * 3, axis=-1), result.recipe)
    assert result.recipe.modality is modality
    np.testing.assert_array_equal(result.nuclei.labels, again.nuclei.labels)


def test_a_region_gives_the_nuclei_that_the_whole_gives_there(draw, recipe, same_nuclei):
    pixels, _ = draw(320, 320)
    whole = segment(pixels, recipe, diameter_px=18)
    region = Region(64, 96, 288, 320)
    part = segment(pixels, recipe, diameter_px=18, region=region)
    assert part.nuclei.labels.shape == (224, 224) and part.region == region
    assert whole.recipe.region is None and segment(pixels, part.recipe).region == region
    inner = part.nuclei.labels[30:-30, 30:]
    assert same_nuclei(inner, whole.nuclei.labels[94:258, 126:320]) > 0.95


@pytest.mark.parametrize("tile_px", [128, 192])
@pytest.mark.parametrize("diameter", [18.0, 8.0, 60.0])
def test_a_large_image_in_tiles_gives_what_one_go_gives(
    draw, recipe, same_nuclei, monkeypatch, tile_px, diameter
):
    pixels, _ = draw(420, 500)
    recipe = recipe.model_copy(update={"tile_px": tile_px, "diameter_px": diameter})
    one = segment(pixels, recipe)
    monkeypatch.setattr(pipeline, "ONE_TILE_PX", 256)
    tiled = segment(pixels, recipe)
    assert tiled.maps is None and one.maps is not None
    assert same_nuclei(one.nuclei.labels, tiled.nuclei.labels) >= 0.995
    assert same_nuclei(tiled.nuclei.labels, one.nuclei.labels) >= 0.995
    assert tiled.nuclei.scores.shape == (tiled.nuclei.count,)


def test_progress_ends_and_closing_cancels(draw, recipe, finish):
    image = to_image(draw(128, 128)[0])
    result, seen = finish(segment_steps(image, recipe))
    assert seen[-1].done == seen[-1].total and str(result.nuclei.count) in seen[-1].message
    steps = segment_steps(image, recipe)
    next(steps)
    steps.close()


def test_redecoding_runs_no_network(draw, recipe, monkeypatch):
    result = segment(draw(200, 200)[0], recipe)
    monkeypatch.setattr(type(result.segmenter), "maps", None)
    settings = DecodeSettings(min_area_px=250)
    again = redecode(result, settings)
    assert 0 < again.nuclei.count < result.nuclei.count
    assert again.recipe.decode == settings and again.maps is result.maps
    same = redecode(again, result.recipe.decode)
    np.testing.assert_array_equal(same.nuclei.labels, result.nuclei.labels)


def test_redecoding_without_maps_says_what_to_do(draw, recipe, monkeypatch):
    monkeypatch.setattr(pipeline, "ONE_TILE_PX", 64)
    with pytest.raises(SettingsError, match="not kept"):
        redecode(segment(draw(128, 128)[0], recipe, diameter_px=18), DecodeSettings())


def test_the_models_tuned_settings_are_taken_unless_set(draw, spots_architecture, spots, tmp_path):
    from napari_nucleus_kd.package import load_model, save_model

    model = load_model(spots)
    tuned = DecodeSettings(foreground=0.6, split=0.3)
    spec = model.spec.model_copy(update={"decode": tuned, "percentiles": (2.0, 98.0)})
    folder = save_model(tmp_path / "tuned", model.network(), spec, "", np.zeros((3, 32, 32), np.float32))
    pixels = draw(64, 64)[0]
    taken = segment(pixels, model=str(folder)).recipe
    assert taken.decode == tuned and taken.percentiles == (2.0, 98.0)
    own = segment(pixels, model=str(folder), decode=DecodeSettings(), percentiles=(1.0, 99.0)).recipe
    assert own.decode == DecodeSettings() and own.percentiles == (1.0, 99.0)


def test_micrometres_become_pixels_or_ask_for_the_pixel_size(draw, recipe):
    pixels, _ = draw(64, 64)
    assert segment(pixels, recipe, diameter_um=9, pixel_size_um=0.5).diameter_px == 18
    with pytest.raises(SettingsError, match="needs a pixel size"):
        segment(pixels, recipe, diameter_um=9)
    with pytest.raises(SettingsError, match="too small to find"):
        segment(pixels, recipe, diameter_um=9, pixel_size_um=20)


def test_an_image_without_nuclei_gives_none_and_says_so(recipe):
    result = segment(np.zeros((100, 90), np.uint16), recipe)
    assert result.nuclei.count == 0 and any("no nuclei" in note for note in result.notes)


@pytest.mark.parametrize("bad", [Region(0, 0, 65, 10), Region(5, 5, 5, 9), Region(-1, 0, 5, 5)])
def test_regions_outside_the_image_are_refused(draw, recipe, bad):
    with pytest.raises(SettingsError, match="not inside"):
        segment(draw(64, 64)[0], recipe, region=bad)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("diametre", 3),
        ("diameter_px", 0),
        ("diameter_px", float("inf")),
        ("pixel_size_um", float("nan")),
        ("scaling_high", (float("inf"),)),
        ("decode", {"split": 2}),
    ],
)
def test_unfit_settings_are_refused_by_name(draw, name, value):
    with pytest.raises(SettingsError, match=name):
        segment(draw(64, 64)[0], **{name: value})


@pytest.mark.parametrize(
    ("shape", "dtype", "expected", "rgb"),
    [
        ((9, 8), np.uint16, (1, 9, 8), False),
        ((9, 8), np.bool_, (1, 9, 8), False),
        ((2, 9, 8), np.float32, (2, 9, 8), False),
        ((9, 8, 3), np.uint8, (3, 9, 8), True),
        ((9, 8, 4), np.uint8, (3, 9, 8), True),
        ((3, 9, 8), np.uint8, (3, 9, 8), False),
    ],
)
def test_arrays_become_images(shape, dtype, expected, rgb):
    image = to_image(np.zeros(shape, dtype))
    assert image.pixels.shape == expected and image.rgb is rgb and len(image.channels) == expected[0]


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 2, 2, 2)), np.zeros((0, 5)), np.array([["a"]])])
def test_other_arrays_are_refused(bad):
    with pytest.raises(SettingsError, match="or a numeric array"):
        to_image(bad)


def test_only_the_chosen_channels_count(draw, recipe):
    pixels, truth = draw(128, 128)
    other = np.random.default_rng(0).integers(0, 255, pixels.shape, dtype=np.uint8)
    names = (Channel("CD3"), Channel("DAPI"))
    image = Image((np.stack([other, pixels]),), names, pixel_size_um=0.5)
    result = segment(image, recipe)
    assert result.recipe.channels == (1,) and result.nuclei.count == pytest.approx(truth.max(), rel=0.05)
    table = measure_result(result, image)
    assert "mean DAPI" in table and "mean CD3" not in table and len(table["score"]) == result.nuclei.count
    assert table["area_um2"].sum() == (result.nuclei.labels > 0).sum() / 4


@pytest.mark.parametrize("name", ["a.ome.tif", "b.tif", "c.ome.zarr"])
def test_saving_writes_labels_and_recipe_and_overwrites_only_on_purpose(draw, recipe, tmp_path, name):
    result = segment(draw(64, 64)[0], recipe)
    written = save(result, tmp_path / name)
    assert written.name == name
    beside = tmp_path / f"{name[0]}_recipe.json"
    assert Recipe.model_validate_json(beside.read_text()) == result.recipe
    np.testing.assert_array_equal(np.asarray(nk.read(written).pixels)[0], result.nuclei.labels)
    with pytest.raises(WriteError, match="exists"):
        save(result, tmp_path / name)
    save(result, tmp_path / name, overwrite=True)
    assert json.loads(beside.read_text())["model_hash"] == result.recipe.model_hash


def test_a_pixel_size_other_than_the_files_is_said(draw, recipe):
    pixels, _ = draw(128, 128)
    image = Image((pixels[None],), (Channel("DAPI"),), pixel_size_um=0.5)
    told = segment(image, recipe, pixel_size_um=0.325)
    assert any("0.325 um" in note and "0.5 um" in note for note in told.notes)
    assert not any("the file says" in note for note in segment(image, recipe).notes)


def test_channels_of_one_name_are_measured_each(draw):
    pixels, _ = draw(120, 120)
    image = Image((np.stack([pixels, pixels // 2]),), (Channel("DAPI"), Channel("DAPI")))
    result = segment(image, segmenter="classical", channels=(0, 1))
    table = measure_result(result, image)
    first, second = table["mean DAPI"], table["mean DAPI (2)"]
    assert (first > 1.9 * second).all()


def test_measuring_a_part_does_not_copy_the_whole(draw):
    pixels = np.stack([draw(200, 200)[0]] * 2)
    image = Image((pixels,), (Channel("DAPI"), Channel("CD3")))
    part, _ = used_channels(image, Recipe(channels=(1,), region=Region(0, 0, 50, 50)))
    assert part.shape == (1, 50, 50) and part.base is None
    both, _ = used_channels(image, Recipe(channels=(0, 1)))
    assert both is pixels


def test_edges_of_a_region_may_be_numpys_whole_numbers_only():
    recipe = Recipe(region=Region(*np.array([0, 0, 64, 64])))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    with pytest.raises(SettingsError, match="whole numbers"):
        segment(np.zeros((80, 80)), region=Region(0, 0, 64.0, 64))


def test_colour_arrays_may_be_floats_and_channels_must_come_first(draw):
    pixels, _ = draw(64, 80)
    colour = np.repeat(pixels[..., None], 3, axis=2) / 255
    assert to_image(colour).rgb and to_image(colour).shape_yx == (64, 80)
    with pytest.raises(SettingsError, match="moveaxis"):
        to_image(np.zeros((64, 80, 5)))
    assert to_image(np.zeros((5, 64, 80))).pixels.shape == (5, 64, 80)


def test_settings_that_do_not_suit_the_picture_are_noted(draw):
    light = 255 - np.repeat(draw(96, 96)[0][..., None], 3, axis=2)
    found = segment(light, segmenter="classical", modality=Modality.FLUORESCENCE)
    assert any("looks like H&E" in note for note in found.notes)
    right = segment(light, segmenter="classical", modality=Modality.HE)
    assert not any("looks like" in note for note in right.notes)
