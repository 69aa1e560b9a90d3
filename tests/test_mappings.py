"""From the channels of an image to what a network sees: by name, measured once, and repeatable."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_nucleus_kd import channels as channels_module
from napari_nucleus_kd import mappings, pipeline
from napari_nucleus_kd._cli_recipe import build_recipe
from napari_nucleus_kd.channels import sample_blocks, sample_pixels
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.export import export_steps
from napari_nucleus_kd.io.samples import sample
from napari_nucleus_kd.mappings import BUILT_IN, fit_mapping, names
from napari_nucleus_kd.networks.adapter import FixedAdapter, FixedConfig, InvariantAdapter, InvariantConfig
from napari_nucleus_kd.package import ModelSpec, list_models, load_model, save_model
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.stains import estimate_stains, haematoxylin
from napari_nucleus_kd.types import Channel, Image, Modality, Region, finish

FL, HE = Modality.FLUORESCENCE, Modality.HE
PERCENTILES = (1.0, 99.8)


@pytest.fixture
def panel():
    """Four channels, the first of them nuclear by name."""
    rng = np.random.default_rng(0)
    pixels = np.stack([ndimage.gaussian_filter(rng.random((64, 72)), s) for s in (1, 2, 3, 0.5)])
    named = tuple(Channel(name) for name in ("DAPI", "CD3", "CD8", "panCK"))
    return Image(((pixels * 4000).astype(np.uint16),), named)


def adapter(folder, architecture="invariant-adapter", *, decided=False, **options):
    """Save an adapter with random weights, which may be sure of what it says; returns its folder."""
    torch.manual_seed(1)
    network, config = {
        "invariant-adapter": (InvariantAdapter, InvariantConfig),
        "fixed-adapter": (FixedAdapter, FixedConfig),
    }[architecture]
    spec = ModelSpec(
        name=folder.name,
        version="1",
        architecture=architecture,
        options=config(**options).model_dump(),
        maps=("seen_1", "seen_2", "seen_3"),
        multiple_px=8,
        diameter_px=24,
        size_range=(16, 40),
    )
    picture = np.random.default_rng(0).random((3, 32, 32), np.float32)
    made = network(config(**options)).eval()
    if decided:
        made.verdict[-1].weight.data *= 3000
    return str(save_model(folder, made, spec, "", picture))


def seen(image, modality=FL, **settings):
    fitted, measured = fit_mapping(image, Recipe(**settings), modality, PERCENTILES)
    return fitted.apply(image.pixels), fitted, measured


def scaled(image):
    low, high = channels_module.scale_limits(image.pixels.reshape(len(image.pixels), -1), PERCENTILES)
    return channels_module.scale_channels(image.pixels, low, high)


def test_the_mean_is_that_of_all_channels_each_by_its_own_scale(panel):
    found, fitted, _ = seen(panel, mapping="mean")
    assert np.allclose(found, scaled(panel).mean(0), atol=1e-6) and fitted.channels == (0, 1, 2, 3)
    some, fitted, _ = seen(panel, mapping="mean", channels=("CD3", "CD8"))
    assert np.allclose(some[0], scaled(panel)[1:3].mean(0), atol=1e-6)


def test_the_first_three_are_seen_as_colours(panel):
    found, _, _ = seen(panel, mapping="first")
    assert np.allclose(found, scaled(panel)[:3], atol=1e-6)
    two, _, _ = seen(panel, mapping="first", channels=(2, 0))
    assert np.allclose(two[:2], scaled(panel)[[2, 0]], atol=1e-6) and not two[2].any()


def test_a_blend_has_the_weights_that_are_given_and_reads_no_more(panel):
    found, fitted, measured = seen(
        panel, mapping="blend", channels=("DAPI", "CD3", "CD8"), channel_weights=(3, 1, 0)
    )
    assert np.allclose(found[0], 0.75 * scaled(panel)[0] + 0.25 * scaled(panel)[1], atol=1e-6)
    assert fitted.channels == (0, 1) and measured["channel_weights"] == (0.75, 0.25)
    equal, fitted, _ = seen(panel, mapping="blend")
    assert fitted.channels == (0,) and np.allclose(equal[0], scaled(panel)[0], atol=1e-6)


@pytest.mark.parametrize("weights", [(1,), (0, 0), (1, -1)])
def test_weights_that_make_no_blend_are_refused(weights, panel):
    with pytest.raises(SettingsError, match="channel_weights"):
        seen(panel, mapping="blend", channels=(0, 1), channel_weights=weights)


def test_an_adapter_weighs_all_channels_and_says_how_much(panel, tmp_path):
    name = adapter(tmp_path / "mine")
    found, fitted, measured = seen(panel, mapping=name)
    weights = np.array(fitted.weights)
    assert weights.sum() == pytest.approx(1, abs=1e-5) and measured["channel_weights"] == fitted.weights
    assert np.allclose(found[0], np.tensordot(weights, scaled(panel)[list(fitted.channels)], 1), atol=1e-5)
    _, shuffled, _ = seen(Image((panel.pixels[::-1],), panel.channels[::-1]), mapping=name)
    assert np.allclose(shuffled.weights[::-1], fitted.weights, atol=1e-5)
    _, some, _ = seen(panel, mapping=name, channels=("CD3", "CD8"))
    assert set(some.channels) <= {1, 2}


def test_a_recipe_says_what_an_adapter_chose_from_and_measures_only_what_it_chose(panel, tmp_path):
    name = adapter(tmp_path / "mine")
    _, _, measured = seen(panel, mapping=name)
    assert measured["adapter_channels"] is None
    _, fitted, measured = seen(panel, mapping=name, channels=("CD3", 2))
    assert measured["adapter_channels"] == ("CD3", 2)
    again = Recipe(mapping=name, channels=fitted.channels, **measured)
    assert build_recipe(again, {}, refit=True).channels == ("CD3", 2)
    assert build_recipe(again, {"channels": (0,)}).adapter_channels is None


def test_who_sees_nuclei_in_no_channel_says_so(panel, tmp_path):
    unsure = segment(panel, mapping=adapter(tmp_path / "mine"), segmenter="classical")
    assert any("no channel clearly shows all nuclei" in note for note in unsure.notes)
    sure = segment(panel, mapping=adapter(tmp_path / "sure", decided=True), segmenter="classical")
    assert not any("no channel clearly" in note for note in sure.notes)
    assert "seen: DAPI" in segment(panel, segmenter="classical").notes


def test_a_stack_read_as_channels_is_asked_about(tmp_path):
    rng = np.random.default_rng(0)
    steps = ndimage.gaussian_filter(rng.random((12, 160, 160)), (4, 2, 2))[3:9]
    stack = Image(((steps * 9000).astype(np.uint16),), tuple(Channel(f"channel {i}") for i in range(1, 7)))
    mapping = adapter(tmp_path / "mine")

    def asks(image, **settings):
        notes = segment(image, segmenter="classical", modality=FL, **settings).notes
        return any("Are these z planes or time points?" in note for note in notes)

    assert asks(stack, mapping=mapping) and asks(stack, mapping="mean")
    assert not asks(stack, channels=(2,))
    named = Image(stack.levels, tuple(Channel(f"CD{i}") for i in range(6)))
    unlike = Image(((rng.random((6, 160, 160)) * 99).astype(np.uint16),), stack.channels)
    assert not asks(named, mapping="mean") and not asks(unlike, mapping="mean")


@pytest.mark.parametrize("value", [7, np.nan])
@pytest.mark.parametrize(("mapping", "channels"), [("nuclear", None), ("blend", ("DAPI", "CD3"))])
def test_a_nuclear_channel_that_shows_nothing_is_named(panel, value, mapping, channels):
    pixels = panel.pixels.astype(np.float32)
    pixels[0] = value
    blank = Image((pixels,), panel.channels)
    notes = segment(blank, segmenter="classical", mapping=mapping, channels=channels).notes
    assert [note for note in notes if note.startswith("DAPI shows nothing")]
    fine = segment(panel, segmenter="classical", mapping=mapping, channels=channels)
    assert not any("shows nothing" in note for note in fine.notes)


def test_a_large_image_is_judged_by_blocks_of_it(panel, tmp_path, monkeypatch):
    name = adapter(tmp_path / "mine", decided=True)
    large = np.tile(panel.pixels, (1, 20, 20))[:, :1250, :1270]
    judged, measured = [], []
    monkeypatch.setattr(mappings, "sample_blocks", lambda *a: judged.extend(sample_blocks(*a)) or judged)
    monkeypatch.setattr(
        channels_module, "sample_pixels", lambda pixels, of: measured.append(of) or sample_pixels(pixels, of)
    )
    _, by_blocks, _ = seen(Image((large,), panel.channels), mapping=name)
    assert [block.shape for block in judged] == [(4, 256, 256)] * 16
    assert len(by_blocks.channels) < 4 and measured == [by_blocks.channels]
    _, part, _ = seen(Image((large[:, :640, :720],), panel.channels), mapping=name)
    assert part.channels == by_blocks.channels and np.allclose(part.weights, by_blocks.weights, atol=0.1)


def test_a_run_can_be_repeated_without_measuring(tmp_path):
    image = sample("multiplex")
    name = adapter(tmp_path / "mine")
    first = segment(image, mapping=name)
    recipe = Recipe.model_validate_json(first.recipe.model_dump_json())
    assert recipe.channel_weights and len(recipe.channel_weights) == len(recipe.channels)
    assert any(note.startswith("seen: ") and "%" in note for note in first.notes)
    again = segment(image, recipe)
    assert np.array_equal(first.nuclei.labels, again.nuclei.labels)
    other = recipe.model_copy(update={"mapping_hash": "0" * 64})
    with pytest.raises(SettingsError, match="other weights of"):
        segment(image, other)


def test_the_fixed_adapter_runs_on_each_tile_and_takes_so_many_channels(panel, tmp_path):
    name = adapter(tmp_path / "fixed", "fixed-adapter", channels=4)
    found, fitted, _ = seen(panel, mapping=name)
    assert found.shape == (3, 64, 72)
    part = fitted.scale(np.asarray(panel.pixels)[:, :32])
    assert np.allclose(part[:, :29], found[:, :29], atol=1e-5)  # but for where it is cut
    five = Image((np.concatenate([panel.pixels, panel.pixels[:1]]),), (*panel.channels, Channel("CD20")))
    with pytest.raises(SettingsError, match="takes at most 4 channels, and this image has 5"):
        seen(five, mapping=name)


def test_adapters_are_no_models_and_models_no_mappings(panel, tmp_path, monkeypatch):
    name = adapter(tmp_path / "mine")
    with pytest.raises(ModelError, match="adapter"):
        segment(panel, model=name)
    with pytest.raises(SettingsError, match="is a model and no mapping"):
        seen(panel, mapping="nucleus-student")
    with pytest.raises(ModelError, match=r"mapping 'nothing': choose nuclear, .* no model 'nothing'"):
        seen(panel, mapping="nothing")
    assert not any(model.role != "model" for model in list_models())
    assert set(BUILT_IN) < set(names()) | {"x"}


def test_what_is_for_fluorescence_is_refused_for_stains_and_the_other_way_round(panel):
    he = sample("he")
    for mapping in ("mean", "first", "blend"):
        with pytest.raises(SettingsError, match="is for fluorescence"):
            seen(he, HE, mapping=mapping)
    for mapping in ("haematoxylin", "macenko"):
        with pytest.raises(SettingsError, match="takes the stains"):
            seen(panel, mapping=mapping)


def painted(stains, shape=(40, 50), seed=0):
    """A colour picture of two stains in known amounts; returns it and the amounts."""
    rng = np.random.default_rng(seed)
    amounts = np.stack([ndimage.gaussian_filter(rng.random(shape) ** 4, 2) for _ in range(2)])
    amounts /= amounts.max((1, 2), keepdims=True)
    amounts[0, :, :10] = amounts[1, :, -10:] = 0
    directions = np.array([np.asarray(s) / np.linalg.norm(s) for s in stains])
    density = np.einsum("sc,syx->cyx", directions, amounts * 1.2)
    return np.exp(-density).astype(np.float32), amounts


@pytest.mark.parametrize(
    "stains", [((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)), ((0.60, 0.75, 0.30), (0.27, 0.57, 0.78))]
)
def test_stains_are_estimated_and_taken_apart(stains):
    picture, amounts = painted(stains)
    found = estimate_stains(picture.reshape(3, -1))
    for one, true in zip(found, stains, strict=True):
        assert np.dot(one, true) / np.linalg.norm(true) > 0.98
    assert np.corrcoef(haematoxylin(picture, stains).ravel(), amounts[0].clip(0, 0.25).ravel())[0, 1] > 0.85
    with pytest.raises(SettingsError, match="hardly anything in the picture is stained"):
        estimate_stains(np.ones((3, 500)))


def test_a_stain_is_seen_and_its_vectors_are_kept():
    he = sample("he")
    usual, _, _ = seen(he, HE, mapping="haematoxylin")
    assert np.array_equal(usual[0], usual[1]) and 0 <= usual.min() < usual.max() <= 1
    estimated, _, measured = seen(he, HE, mapping="macenko")
    given, _, _ = seen(he, HE, mapping="macenko", stains=measured["stains"])
    told = segment(he, segmenter="classical", modality=HE, mapping="macenko").notes
    assert any(f"stains {measured['stains'][0][0]:.2f} " in note for note in told)
    assert np.array_equal(estimated, given) and not np.array_equal(estimated, usual)
    assert json.loads(Recipe(stains=measured["stains"]).model_dump_json())["stains"][0][0] > 0.3


def test_what_the_network_sees_can_be_looked_at(tmp_path):
    name, part = adapter(tmp_path / "mine"), Region(10, 20, 110, 140)
    whole, recipe = pipeline.seen(sample("multiplex"), Recipe(mapping=name))
    cut, of_part = pipeline.seen(sample("multiplex"), Recipe(mapping=name, region=part))
    assert np.array_equal(cut, whole[:, *part.slices])
    assert sum(recipe.channel_weights) == pytest.approx(1, abs=1e-4)
    assert recipe.channel_weights == of_part.channel_weights


@pytest.mark.parametrize("stains", [((1, 1, 1), (2, 2, 2)), ((0, 0, 0), (1, 0, 0))])
def test_stains_that_cannot_be_taken_apart_are_refused(stains):
    with pytest.raises(SettingsError, match="they are alike"):
        seen(sample("he"), HE, mapping="haematoxylin", stains=stains)
    grey = Image((np.repeat(sample("he").pixels[:1], 3, 0),), sample("he").channels, rgb=True)
    with pytest.raises(SettingsError, match="they are alike"):
        seen(grey, HE, mapping="macenko")


def test_the_mean_of_very_many_channels_keeps_all():
    pixels = np.random.default_rng(0).integers(0, 999, (130, 8, 8))
    image = Image((pixels,), tuple(Channel(f"c{i}") for i in range(130)))
    _, fitted, _ = seen(image, mapping="mean")
    assert len(fitted.channels) == 130


def test_weights_of_another_mapping_are_not_kept(panel, tmp_path):
    left = {"channel_weights": (0.5, 0.5), "channels": (0, 1)}
    assert seen(panel, mapping="nuclear", **left)[2] == {"channel_weights": None}
    assert seen(panel, mapping="first", **left)[2] == {"channel_weights": None}
    fixed = adapter(tmp_path / "fixed", "fixed-adapter", channels=4)
    _, fitted, measured = seen(panel, mapping=fixed, **left)
    assert measured["channel_weights"] is None and not fitted.weights and fitted.last is not None


def test_a_stain_is_taken_apart_once_only():
    """What sees no colours takes the haematoxylin by itself, unless that is what it is given."""
    he = sample("he")
    itself = segment(he, segmenter="classical", modality=HE)
    given = segment(he, segmenter="classical", modality=HE, mapping="haematoxylin")
    assert itself.nuclei.count > 50
    assert np.array_equal(itself.nuclei.labels, given.nuclei.labels)


def test_only_the_chosen_planes_are_read(panel, tmp_path):
    """After the weights are known, a channel that hardly counts is not read any more."""
    dask = pytest.importorskip("dask.array")
    read = []

    def block(data, block_info=None):
        read.append(block_info[0]["chunk-location"][0])
        return data

    lazy = dask.from_array(panel.pixels, chunks=(1, 64, 72)).map_blocks(block, dtype=panel.pixels.dtype)
    image = Image((lazy,), panel.channels)
    settings = {"mapping": "blend", "channels": (0, 2), "channel_weights": (1.0, 0.0)}
    fitted, _ = fit_mapping(image, Recipe(**settings), FL, PERCENTILES)
    read.clear()
    fitted.apply(image.pixels)
    assert set(read) == {0}


def test_an_adapter_is_passed_on_as_a_package_only(tmp_path):
    model = load_model(adapter(tmp_path / "mine"))
    with pytest.raises(SettingsError, match="is an adapter and finds no nuclei"):
        finish(export_steps(model, tmp_path / "mine.onnx", "onnx"))
    finish(export_steps(model, tmp_path / "mine.zip", "zip"))
    assert (tmp_path / "mine.zip").stat().st_size > 1000
