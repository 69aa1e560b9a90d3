"""Enhancement of images of any size: polarity, windows without seams, runs in memory and on disk."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage
from typer.testing import CliRunner

import napari_nucleus_kd as nk
from napari_nucleus_kd import enhancer as enhancer_module
from napari_nucleus_kd import package
from napari_nucleus_kd._cli_recipe import build_recipe
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.enhancer import Enhancer, open_enhancer, seen_by_enhancers, usual_polarity
from napari_nucleus_kd.errors import ModelError, SettingsError, WriteError
from napari_nucleus_kd.io.samples import sample, sample_labels
from napari_nucleus_kd.ondisk import partial_path
from napari_nucleus_kd.package import list_models, load_model, save_model
from napari_nucleus_kd.pairs import find_pairs
from napari_nucleus_kd.pipeline import segment, segment_to_zarr_steps
from napari_nucleus_kd.stains import DAB, HAEMATOXYLIN
from napari_nucleus_kd.types import Channel, Image, Modality, Region, finish

FL, HE = Modality.FLUORESCENCE, Modality.HE


@pytest.fixture
def folder(random_enhancer):
    return random_enhancer


def spots(height, width, seed=0):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width), np.float32), 3)
    return (smooth - smooth.min()) / max(np.ptp(smooth), 1e-6)


def opened(folder, *, dark=False):
    recipe = nk.Recipe(enhance=folder, device="cpu", polarity="dark" if dark else "bright")
    return open_enhancer(recipe, FL, lambda: pytest.fail("it is said"))


@pytest.mark.parametrize(
    ("modality", "mapping", "expected"),
    [
        (FL, "nuclear", None),
        (HE, "nuclear", "dark"),
        (Modality.IHC, "nuclear", "dark"),
        (HE, "haematoxylin", "bright"),
    ],
)
def test_the_polarity_follows_the_kind_of_image_unless_it_is_said(modality, mapping, expected):
    recipe = nk.Recipe(mapping=mapping, enhance="any")
    assert usual_polarity(recipe, modality) == expected
    assert usual_polarity(recipe.model_copy(update={"polarity": "dark"}), modality) == "dark"


@pytest.mark.parametrize("offset", [0, 100, 3000])
def test_in_grey_pictures_the_pixels_tell_the_polarity(folder, draw, offset):
    bright = draw(150, 170)[0].astype(np.uint16) // 2 + offset  # as weak camera pictures are
    assert segment(bright, enhance=folder, segmenter="classical").recipe.polarity == "bright"
    dark = bright.max() + offset - bright
    found = segment(dark, enhance=folder, segmenter="classical")
    assert found.recipe.polarity == "dark" and found.recipe.modality is FL
    assert any("nuclei were taken as dark on bright" in note for note in found.notes)
    said = segment(dark, enhance=folder, segmenter="classical", polarity="bright")
    assert said.recipe.polarity == "bright", "a person knows better"


def test_the_polarity_is_found_anew_for_another_image(folder, tmp_path, draw):
    pixels = draw(90, 100)[0]
    for name, values in (("dark", 255 - pixels), ("bright", pixels)):
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
    given = ["-o", tmp_path / "out", "--segmenter", "classical"]
    assert command("segment", tmp_path / "dark.tif", "--enhance", folder, *given).exit_code == 0
    recipe = tmp_path / "out" / "dark_recipe.json"
    assert json.loads(recipe.read_text())["polarity"] == "dark"
    for ask in ("enhance", "segment"):
        kept = command(ask, tmp_path / "bright.tif", "--recipe", recipe, "-o", tmp_path / "kept")
        assert "for other images add --refit" in " ".join(kept.output.split())
    other = build_recipe(nk.Recipe.model_validate_json(recipe.read_text()), {"channels": ("DAPI",)})
    assert other.polarity == "auto", "it is that of the channels before"
    again = command("segment", tmp_path / "bright.tif", "--recipe", recipe, "--refit", *given)
    assert again.exit_code == 0 and "--refit" not in again.output, again.output
    assert json.loads((tmp_path / "out" / "bright_recipe.json").read_text())["polarity"] == "bright"


def test_weights_and_stains_reach_the_enhancer(folder, tmp_path, draw):
    first, second = draw(90, 100)[0], draw(90, 100, seed=3)[0]
    tifffile.imwrite(tmp_path / "two.ome.tif", np.stack([first, second]), metadata={"axes": "CYX"})
    given = ["enhance", tmp_path / "two.ome.tif", "--enhancer", folder, "--mapping", "blend"]
    given += ["-c", 0, "-c", 1, "-o"]
    for name, weights in (("a", (1, 0)), ("b", (0, 1))):
        more = [part for weight in weights for part in ("--channel-weight", weight)]
        done = command(*given, tmp_path / name, *more)
        assert done.exit_code == 0, done.output
    a, b = (np.asarray(nk.read(tmp_path / n / "two_enhanced.ome.tif").pixels) for n in "ab")
    assert not np.array_equal(a, b)
    tifffile.imwrite(tmp_path / "he.tif", np.stack([255 - first] * 2 + [255 - second], -1), photometric="rgb")
    stains = (0.65, 0.7, 0.29, 0.07, 0.99, 0.11)
    given = ["enhance", tmp_path / "he.tif", "--enhancer", folder, "--modality", "he", "-o", tmp_path / "he"]
    done = command(*given, "--mapping", "haematoxylin", "--stains", *stains)
    assert done.exit_code == 0, done.output
    recipe = nk.Recipe.model_validate_json((tmp_path / "he" / "he_enhancement_recipe.json").read_text())
    assert recipe.stains == (stains[:3], stains[3:]) and recipe.polarity == "bright"


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (33, 512), (512, 47)])
def test_the_network_sees_beyond_the_edges_and_draws_what_is_within(folder, shape):
    given = []

    class Echo:
        def run(self, grey):
            given.append(grey)
            return grey

    picture = np.repeat(spots(*shape)[None], 3, 0)
    found = Enhancer(opened(folder).model, Echo(), dark=False, stained=False)(picture)
    seen = seen_by_enhancers(picture, dark=False, stained=False)
    assert np.allclose(found[0], seen, atol=1e-6)
    (whole,) = given
    for edge, inside in zip(whole.shape[1:], shape, strict=True):
        assert edge % 16 == 0 and edge >= inside + 64
    assert whole[0, 31, 31] == whole[0, 32, 32] == seen[0, 0], "mirrored, not black"


def test_dark_and_bright_nuclei_look_alike_to_the_network(folder):
    picture = np.clip(np.repeat(1.6 * spots(80, 90)[None] - 0.4, 3, 0), 0, 1)  # from 0, as it is stretched
    bright = picture**2  # its square root is seen
    assert np.allclose(opened(folder)(bright), opened(folder, dark=True)(1 - picture), atol=2e-2)


@pytest.mark.parametrize("dark", [False, True])
def test_only_of_stained_tissue_red_is_seen_alone(dark):
    density = np.zeros((3, 60, 60), np.float32)
    density[:, 10:20, 10:20] = np.reshape(HAEMATOXYLIN, (3, 1, 1))
    density[:, 30:40, 10:20] = np.reshape(DAB, (3, 1, 1))
    density[:, 30:40, 30:40] = np.reshape([0.07, 0.99, 0.11], (3, 1, 1))  # eosin
    seen = seen_by_enhancers(np.exp(-density), dark=True, stained=True)
    assert seen[15, 15] > 0.9 and seen[35, 15] > 0.4 and seen[35, 35] < 0.2
    channels = np.full((3, 60, 60), float(dark), np.float32)
    channels[1, 10:20, 10:20] = not dark  # nuclei of the second channel of three
    assert seen_by_enhancers(channels, dark=dark, stained=False)[15, 15] > 0.8


def test_faint_nuclei_show_beside_bright_ones():
    picture = np.zeros((3, 60, 60), np.float32)
    picture[:, 10:20, 10:20], picture[:, 30:40, 30:40] = 1, 0.09
    seen = seen_by_enhancers(picture, dark=False, stained=False)
    assert seen[15, 15] == 1 and seen[35, 35] == pytest.approx(0.3) and not seen[:10].any()


def test_weak_contrast_is_stretched_but_not_noise():
    pale = 0.6 - 0.5 * np.repeat(spots(200, 210)[None], 3, 0)  # nuclei absorb half of the light at most
    seen = seen_by_enhancers(pale, dark=True, stained=True)
    assert seen.dtype == np.float32 and seen.shape == (200, 210)
    assert seen.min() == 0 and seen.max() == 1
    assert np.corrcoef(seen.ravel(), spots(200, 210).ravel())[0, 1] > 0.99
    noise = 0.02 * np.random.default_rng(0).random((3, 60, 60), np.float32)
    assert seen_by_enhancers(noise, dark=False, stained=False).max() < 0.3
    assert not seen_by_enhancers(np.full((3, 4, 5), 0.7, np.float32), dark=True, stained=True).any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 700), (33, 47), (512, 512), (513, 900), (1300, 640)])
def test_pictures_of_any_size_are_enhanced_whole(folder, shape):
    picture = np.repeat(spots(*shape)[None], 3, 0)
    found = opened(folder)(picture)
    assert found.shape == (3, *shape) and found.dtype == np.float32 and np.isfinite(found).all()
    assert 0 <= found.min() and found.max() <= 1 and np.array_equal(found[0], found[2])


def test_what_is_read_in_bands_is_what_is_read_at_once(folder):
    picture, enhance = np.repeat(spots(1100, 600)[None], 3, 0), opened(folder)
    rows, asked, last = [], [], 0
    for done, band in enhance.bands(lambda p: asked.append(p) or picture[:, *p.slices], (1100, 600)):
        assert done == last + 1
        last = done
        rows.append(band)
    assert last == enhance.windows((1100, 600)) == 3 * 2
    assert np.array_equal(np.concatenate(rows), enhance(picture)[0])
    assert {part.shape_yx for part in asked} == {(512, 512)}  # never a whole row of a wide image


def test_there_are_no_seams_where_windows_meet(folder, monkeypatch):
    """Windows are judged as wholes; here each is drawn as the mean of all it sees."""
    monkeypatch.setattr(Enhancer, "_drawn", lambda self, grey: np.full_like(grey, grey.mean()))
    denser = np.random.default_rng(0).random((700, 1500)) < np.linspace(0, 1, 1500)
    picture = np.repeat(denser[None].astype(np.float32), 3, 0)
    drawn, enhance = [], opened(folder)
    for overlap in (enhancer_module._OVERLAP_PX, 1):
        monkeypatch.setattr(enhancer_module, "_OVERLAP_PX", overlap)
        drawn.append(np.abs(np.diff(enhance(picture)[0], axis=1)).max())
    assert 0 < drawn[0] < 0.02 < drawn[1]  # one fades into the next, or there is a step


def test_a_run_sees_the_enhanced_image_and_can_be_repeated(folder, draw):
    pixels = draw(150, 170)[0]
    picture = nk.enhance(pixels, enhance=folder)
    assert picture.pixels.shape == (1, 150, 170) and picture.pixels.dtype == np.uint8
    found = segment(pixels, enhance=folder, segmenter="classical")
    assert found.recipe.polarity == "bright" and found.recipe.enhance_hash == load_model(folder).hash
    assert any(note.startswith("enhanced by drawer 1 on ") for note in found.notes)
    again = segment(pixels, nk.Recipe.model_validate_json(found.recipe.model_dump_json()))
    assert np.array_equal(again.nuclei.labels, found.nuclei.labels)
    with pytest.raises(ModelError, match="made with other weights of"):
        segment(pixels, found.recipe.model_copy(update={"enhance_hash": "0" * 64}))
    for wrong, words in (("nucleus-student", "is no enhancer but a model"), ("drawr", "no model 'drawr'")):
        with pytest.raises(ModelError, match=words):
            segment(pixels, enhance=wrong)


def test_enhance_sees_what_a_run_of_the_same_settings_sees(folder, make_model, tmp_path, draw, monkeypatch):
    seen, student = [], shutil.copytree(make_model(), tmp_path / "student")
    spec = json.loads((student / "model.json").read_text())
    (student / "model.json").write_text(json.dumps(spec | {"percentiles": [5.0, 95.0]}))
    monkeypatch.setattr(Enhancer, "_drawn", lambda self, grey: seen.append(grey) or grey)
    segment(draw(90, 100)[0], enhance=folder, model=str(student))
    nk.enhance(draw(90, 100)[0], enhance=folder, model=str(student))
    nk.enhance(draw(90, 100)[0], enhance=folder)
    assert np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])


def test_an_image_in_colour_is_enhanced_as_grey_with_dark_nuclei(folder, monkeypatch):
    image, seen = sample("he"), []
    monkeypatch.setattr(Enhancer, "_drawn", lambda self, grey: seen.append(grey) or grey)
    found = segment(image, enhance=folder, segmenter="classical")
    assert found.recipe.polarity == "dark" and found.recipe.modality is HE
    nuclei = sample_labels("he")[:512, :512] > 0
    assert seen[0].shape == nuclei.shape and seen[0][nuclei].mean() > seen[0][~nuclei].mean() + 0.1


@pytest.mark.parametrize("tall", [True, False])
def test_large_images_are_enhanced_once_in_memory_and_on_disk(folder, tmp_path, monkeypatch, tall):
    pixels = (spots(*((2300, 300) if tall else (300, 2300))) * 60000).astype(np.uint16)
    image = Image((pixels[None],), (Channel("DAPI"),))
    recipe = nk.Recipe(enhance=folder, segmenter="classical", tile_px=1024)
    calls = []
    drawn = Enhancer._drawn
    monkeypatch.setattr(Enhancer, "_drawn", lambda self, grey: calls.append(1) or drawn(self, grey))
    whole = segment(image, recipe)
    assert len(calls) == 6  # not again to measure the nuclei
    place = finish(segment_to_zarr_steps(image, tmp_path / "labels.ome.zarr", recipe))
    import zarr

    assert np.array_equal(zarr.open_array(str(place / "0"))[:], whole.nuclei.labels)
    assert not (place / "enhanced.zarr").exists() and len(calls) == 12


def test_a_broken_run_on_disk_enhances_once(folder, tmp_path, monkeypatch):
    image = Image(((spots(900, 700) * 60000).astype(np.uint16)[None],), (Channel("DAPI"),))
    recipe = nk.Recipe(enhance=folder, segmenter="classical", diameter_px=20, tile_px=256)
    path, calls = tmp_path / "labels.ome.zarr", []
    drawn = Enhancer._drawn
    monkeypatch.setattr(Enhancer, "_drawn", lambda self, grey: calls.append(1) or drawn(self, grey))
    steps = segment_to_zarr_steps(image, path, recipe)
    while not next(steps).message.startswith("tile 2"):
        pass
    steps.close()
    assert (partial_path(path) / "enhanced.zarr").exists()  # kept for the next sitting
    before = len(calls)
    finish(segment_to_zarr_steps(image, path, recipe))
    assert len(calls) == before == 3 * 2


def command(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_command_writes_pictures_that_read_gives_back(folder, tmp_path, draw):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(images / f"{name}.tif", draw(90, 100)[0])
    (images / "broken.tif").write_bytes(b"none")
    done = command("enhance", images, "-o", out, "--enhancer", folder)
    assert done.exit_code == 1 and "broken" in done.output and "2 of 3 enhanced" in done.output
    written = nk.read(out / "a_enhanced.ome.tif")
    assert [c.name for c in written.channels] == ["enhanced"]
    assert np.array_equal(
        np.asarray(written.pixels), nk.enhance(nk.read(images / "a.tif"), enhance=folder).pixels
    )
    recipe = json.loads((out / "a_enhancement_recipe.json").read_text())
    assert recipe["polarity"] == "bright" and recipe["enhance_hash"] == load_model(folder).hash
    (images / "broken.tif").unlink()
    again = command("enhance", images, "-o", out, "--enhancer", folder)
    assert again.exit_code == 0 and again.output.count("done before") == 2
    finer = images.parent / "finer.json"  # what segments does not change the picture
    finer.write_text(json.dumps({"tile_px": 512, "decode": {"split": 0.9}, "diameter_px": 30}))
    same = command("enhance", images, "-o", out, "--enhancer", folder, "--recipe", finer)
    assert same.exit_code == 0 and same.output.count("done before") == 2
    other = command("enhance", images, "-o", out, "--enhancer", folder, "--polarity", "dark")
    assert other.exit_code == 1 and "--overwrite" in other.output
    assert "polarity was auto and is dark now" in " ".join(other.output.split())
    assert (
        command(
            "enhance", images, "-o", out, "--enhancer", folder, "--polarity", "dark", "--overwrite"
        ).exit_code
        == 0
    )
    ends = ("enhanced.ome.tif", "enhancement_recipe.json", "enhancement_run.json")
    written = sorted(f"{name}_{end}" for name in "ab" for end in ends)
    assert sorted(path.name for path in out.iterdir()) == written
    repeated = command(
        "enhance", images / "a.tif", "-o", tmp_path / "x", "--recipe", out / "a_enhancement_recipe.json"
    )
    assert repeated.exit_code == 0 and '"dark"' in (tmp_path / "x" / "a_enhancement_recipe.json").read_text()


def test_the_recipe_of_a_run_draws_what_was_segmented(folder, tmp_path, draw):
    image, out = tmp_path / "a.tif", tmp_path / "out"
    tifffile.imwrite(image, draw(90, 100)[0])
    assert command("segment", image, "--enhance", folder, "-o", out).exit_code == 0  # by the shipped student
    done = command("enhance", image, "--recipe", out / "a_recipe.json", "-o", out)
    assert done.exit_code == 0, done.output
    found = nk.Recipe.model_validate_json((out / "a_recipe.json").read_text())
    drawn = nk.Recipe.model_validate_json((out / "a_enhancement_recipe.json").read_text())
    assert found.model_hash is not None and drawn.model_hash == found.model_hash
    assert (drawn.segmenter, drawn.scaling_high) == (found.segmenter, found.scaling_high)


def test_a_replacement_that_fails_is_not_done_before(folder, tmp_path, draw):
    image, out = tmp_path / "a.tif", tmp_path / "out"
    tifffile.imwrite(image, draw(90, 100)[0])
    given = ["enhance", image, "-o", out, "--enhancer", folder]
    assert command(*given).exit_code == 0
    (out / "a_enhancement_recipe.json").unlink()
    (out / "a_enhancement_recipe.json").mkdir()  # which cannot be written
    assert command(*given, "--polarity", "dark", "--overwrite").exit_code == 1
    (out / "a_enhancement_recipe.json").rmdir()
    again = command(*given)
    assert again.exit_code == 1 and "nothing beside it says how it was made" in " ".join(again.output.split())


def test_enhanced_pictures_and_their_images_share_a_folder(folder, tmp_path, draw):
    tifffile.imwrite(tmp_path / "kidney.tif", draw(90, 100)[0])
    tifffile.imwrite(tmp_path / "other_enhanced.ome.tif", draw(90, 100)[0])  # by a person
    given = ["enhance", tmp_path, "-o", tmp_path, "--enhancer", folder]
    assert "2 of 2 enhanced" in command(*given).output
    again = command(*given)
    assert "2 of 2 enhanced" in again.output and again.output.count("done before") == 2
    by = ["-o", tmp_path, "--segmenter", "classical"]
    assert "kidney_enhanced" not in command("segment", tmp_path, *by).output
    assert "kidney_enhanced" not in command("segment", tmp_path / "*.tif", *by).output
    drawn = command("segment", tmp_path / "kidney_enhanced.ome.tif", *by)
    assert drawn.exit_code == 0 and (tmp_path / "kidney_enhanced_recipe.json").exists()
    assert command(*given).output.count("done before") == 2, "its records are those of the picture still"
    (tmp_path / "kidney.tif").unlink()
    assert "kidney_enhanced" in command("segment", tmp_path, *by).output, "its image is not there"


def test_what_is_asked_of_images_is_no_recipe(folder, tmp_path, draw):
    tifffile.imwrite(tmp_path / "a.tif", draw(90, 100)[0])
    given = ["enhance", tmp_path / "a.tif", "-o", tmp_path / "out", "--enhancer", folder]
    assert command(*given).exit_code == 0
    refused = command(*given, "--recipe", tmp_path / "out" / "a_enhancement_run.json")
    assert refused.exit_code == 2 and "*_recipe.json" in refused.output
    assert "--refit is for --recipe" in " ".join(command(*given, "--refit").output.split())


def test_an_enhanced_picture_is_saved(folder, tmp_path, draw):
    picture = nk.enhance(draw(90, 100)[0], enhance=folder)
    assert any("nuclei were taken as bright on dark" in note for note in picture.notes)
    place = nk.save(picture, tmp_path / "x.ome.tif")
    again = nk.read(place)
    assert np.array_equal(np.asarray(again.pixels), picture.pixels)
    assert again.channels[0].name == "enhanced"
    with pytest.raises(WriteError, match="exists; choose another name"):
        nk.save(picture, place)
    with pytest.raises(SettingsError, match="takes what segment, read or enhance return, not ndarray"):
        nk.save(np.zeros((9, 9), int), tmp_path / "y.tif")
    with pytest.raises(WriteError, match=r"let the name end with \.ome\.tif"):
        nk.save(picture, tmp_path / "x.ome.zarr")


def test_a_part_keeps_its_place(folder, tmp_path):
    channels = Channel("DAPI"), Channel("CD3")
    image = Image((np.zeros((2, 90, 100), np.uint8),), channels, pixel_size_um=0.5)
    part = nk.enhance(image, enhance=folder, region=Region(20, 30, 60, 80))
    assert part.corner_yx == (20, 30) and part.shape_yx == (40, 50)
    with tifffile.TiffFile(nk.save(part, tmp_path / "part.ome.tif")) as file:
        assert 'PositionX="15.0"' in file.ome_metadata and 'PositionY="10.0"' in file.ome_metadata
    whole = nk.save(replace(image, corner_yx=(4, 6)), tmp_path / "whole.ome.tif")
    with tifffile.TiffFile(whole) as file:
        assert file.ome_metadata.count('PositionX="3.0"') == 2
    assert nk.read(whole).pixels.shape == (2, 90, 100)


def test_an_enhancer_is_shown_as_what_it_is(folder):
    shown = command("models", "show", folder)
    assert "taken as they are" in shown.output and "decoding" not in shown.output


def test_another_plane_is_not_done_before(folder, tmp_path):
    stack = np.stack([(spots(64, 70, seed) * 255).astype(np.uint8) for seed in (0, 1)])
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, metadata={"axes": "ZYX"})
    given = ["enhance", tmp_path / "s.ome.tif", "-o", tmp_path / "out", "--enhancer", folder, "--z"]
    first = command(*given, 0)
    assert first.exit_code == 0 and "z plane 0 of 2" in first.output
    other = command(*given, 1)
    assert other.exit_code == 1 and "another plane" in " ".join(other.output.split())
    in_place = ["enhance", tmp_path, "-o", tmp_path, "--enhancer", folder, "--z", 0]
    assert command(*in_place).exit_code == 0
    again = command(*in_place)
    assert again.exit_code == 0 and "1 of 1 enhanced" in again.output and "done before" in again.output


def test_a_retrained_enhancer_is_not_done_before(folder, tmp_path, draw):
    image, mine = tmp_path / "a.tif", tmp_path / "mine"
    tifffile.imwrite(image, draw(90, 100)[0])
    shutil.copytree(folder, mine)
    given = ["segment", image, "--segmenter", "classical", "-o", tmp_path / "out", "--enhance", mine]
    assert command(*given).exit_code == 0
    model = load_model(str(mine))
    network = model.network()
    with torch.no_grad():
        network.body[-1].bias += 0.1
    save_model(mine, network, model.spec, "", np.zeros((3, 64, 64), np.float32), overwrite=True)
    changed = command(*given)
    assert changed.exit_code == 1 and "enhance_hash was" in " ".join(changed.output.split())


@pytest.mark.parametrize("option", [("--mapping", "haematoxylin"), ("--modality", "fluorescence")])
def test_a_polarity_that_was_told_by_another_kind_is_forgotten(folder, option):
    resolved = nk.Recipe(enhance=folder, polarity="dark", modality=HE)
    name, value = option[0].removeprefix("--"), option[1]
    assert build_recipe(resolved, {name: FL if name == "modality" else value}).polarity == "auto"


def test_segment_takes_an_enhancer_and_says_what_is_wrong(folder, tmp_path, draw):
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, draw(90, 100)[0])
    given = ["segment", image, "--segmenter", "classical", "-o"]
    assert command(*given, tmp_path / "out", "--enhance", folder, "--polarity", "dark").exit_code == 0
    recipe = json.loads((tmp_path / "out" / "a_recipe.json").read_text())
    assert recipe["polarity"] == "dark"
    wrong = command(*given, tmp_path / "x", "--polarity", "dark")
    assert wrong.exit_code == 2 and "--polarity is for --enhance" in " ".join(wrong.output.split())
    missing = command(*given, tmp_path / "x", "--enhance", "drawr")
    assert missing.exit_code == 2 and "no model 'drawr'" in missing.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there_ends_it_before_the_first_image(folder, tmp_path, draw):
    tifffile.imwrite(tmp_path / "a.tif", draw(90, 100)[0])
    given = ["enhance", tmp_path / "a.tif", "-o", tmp_path / "out", "--enhancer", folder, "--device", "cuda"]
    assert command(*given).exit_code == 2


def test_what_may_go_wrong_is_told(folder, draw):
    doubts = nk.enhance(sample("ihc"), enhance=folder).notes
    assert any("haematoxylin takes the stains apart" in note for note in doubts)
    taken_apart = nk.enhance(sample("ihc"), enhance=folder, mapping="haematoxylin").notes
    assert not any("takes the stains apart first" in note for note in taken_apart)
    once = nk.enhance(draw(90, 100)[0], enhance=folder)
    twice = nk.enhance(once, enhance=folder)
    assert not any("already" in n for n in once.notes) and any("already" in n for n in twice.notes)


def test_enhanced_pictures_are_no_images_of_a_data_set(folder, tmp_path, draw):
    pixels, labels = draw(90, 100)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    assert command("enhance", tmp_path, "-o", tmp_path, "--enhancer", folder).exit_code == 0
    assert [image.name for image, _ in find_pairs(tmp_path)] == ["a.tif"]


def test_evaluate_judges_with_an_enhancer(folder, tmp_path, draw):
    pixels, labels = draw(90, 100)
    for name, array in (("images/a.tif", pixels), ("labels/a.tif", labels.astype(np.uint16))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, array)
    given = ["evaluate", "--data", tmp_path, "--segmenter", "classical"]
    judged = [command(*given, *more) for more in ((), ("--enhance", folder))]
    assert all(each.exit_code == 0 and "PQ" in each.output for each in judged)
    assert judged[0].output != judged[1].output  # random weights enhance nothing


def test_enhancers_are_listed_apart(folder, monkeypatch):
    assert enhancer_module.names() == tuple(m.spec.name for m in list_models("enhancer"))
    shipped, _ = package.model_roots()
    monkeypatch.setattr(package, "model_roots", lambda: (shipped, Path(folder).parent))
    assert "drawer" in enhancer_module.names() and "drawer" not in {m.spec.name for m in list_models()}
    with pytest.raises(SettingsError, match="is an enhancer and finds no nuclei"):
        from napari_nucleus_kd.export import export_steps

        finish(export_steps(load_model(folder), "x.onnx", "onnx"))
