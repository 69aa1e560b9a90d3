"""The samples open, and the drawing code still draws what is shipped, with exact labels."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from typer.testing import CliRunner

import napari_nucleus_kd as nk
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.errors import NucleusKDError, SettingsError
from napari_nucleus_kd.io import samples
from napari_nucleus_kd.io.samples import SAMPLES, sample, sample_labels
from napari_nucleus_kd.pairs import find_pairs

SAMPLE_DATA = Path(__file__).resolve().parent.parent / "sample_data"
DRAWN = [s.name for s in SAMPLES if s.file]
BUDGET_BYTES = 4_000_000


@pytest.fixture(scope="module")
def artists():
    """The drawing functions of sample_data/draw.py by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SAMPLE_DATA))
        yield runpy.run_path(str(SAMPLE_DATA / "draw.py"))["ARTISTS"]


@pytest.fixture(scope="module")
def shapes(artists):
    return importlib.import_module("drawing.shapes")


def test_the_command_writes_what_the_other_commands_take(tmp_path):
    def command(*arguments):
        return CliRunner().invoke(app, [str(each) for each in arguments])

    assert command("samples", "-o", tmp_path / "all").exit_code == 0
    for each in SAMPLES:
        picture, image = nk.read(tmp_path / "all" / f"{each.name}.ome.tif"), sample(each.name)
        assert np.array_equal(np.asarray(picture.pixels), np.asarray(image.pixels))
        assert [c.name for c in picture.channels] == [c.name for c in image.channels]
        assert (picture.rgb, picture.pixel_size_um) == (image.rgb, image.pixel_size_um)
    assert command("samples", "fluorescence", "lamin", "-o", tmp_path / "known").exit_code == 0
    pairs = find_pairs(tmp_path / "known")
    assert [picture.name for picture, _ in pairs] == ["fluorescence.ome.tif", "lamin.ome.tif"]
    assert np.array_equal(tifffile.imread(pairs[0][1]), sample_labels("fluorescence"))
    again = command("samples", "lamin", "-o", tmp_path / "known")
    assert again.exit_code == 1 and "--overwrite" in again.output
    assert command("samples", "lamin", "-o", tmp_path / "known", "--overwrite").exit_code == 0
    (tmp_path / "known" / "ihc_labels.tif").touch()  # of a run: nobody knows the nuclei of that sample
    assert command("samples", "ihc", "-o", tmp_path / "known").exit_code == 0
    assert "choose from" in " ".join(command("samples", "nope", "-o", tmp_path / "x").output.split())
    assert not (tmp_path / "x").exists()


def assert_exact(labels):
    """Labels are 1..n, none missing, each one piece."""
    count = labels.max()
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, count + 1))
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        assert ndimage.label(labels[window] == label, np.ones((3, 3)))[1] == 1, label


def nuclear_signal(name, pixels):
    """The plane in which nuclei are bright, (Y, X)."""
    return -pixels[0].astype(float) if name == "he" else pixels[0].astype(float)


@pytest.mark.parametrize("name", [s.name for s in SAMPLES])
def test_sample_opens_and_fits_its_labels(name):
    image, labels = sample(name), sample_labels(name)
    assert image.rgb == (name in ("he", "ihc"))
    assert len(image.channels) == image.pixels.shape[0]
    if labels is None:
        assert name == "ihc"
    else:
        assert labels.shape == image.shape_yx
        assert labels.dtype == np.int32


def test_file_says_pixel_size_and_channels():
    image = sample("multiplex")
    names = ["DAPI", "CD3", "CD8", "CD20", "CD68", "PanCK", "Ki67", "Autofluorescence"]
    assert [channel.name for channel in image.channels] == names
    assert image.channels[0].color == "#3c6eff"
    assert image.pixel_size_um == pytest.approx(0.5)
    assert sample("fluorescence").pixel_size_um == pytest.approx(0.325)
    assert sample("he").pixel_size_um == pytest.approx(0.25)
    assert sample("ihc").pixel_size_um is None


def test_the_panel_is_simulated_around_the_drawn_nuclei_and_always_the_same():
    image, nuclei = sample("panel"), np.asarray(sample("fluorescence").pixels[0], float)
    alike = [np.corrcoef(nuclei.ravel(), plane.ravel())[0, 1] for plane in np.asarray(image.pixels, float)]
    assert max(alike) > 0.9 > 0.5 > np.median(alike)
    assert image.pixel_size_um == pytest.approx(0.325)
    assert len({channel.name for channel in image.channels}) == 12
    assert np.array_equal(np.asarray(image.pixels), np.asarray(sample("panel").pixels))


def test_ihc_is_the_real_picture():
    from skimage import data

    assert np.array_equal(np.asarray(sample("ihc").pixels), np.moveaxis(data.immunohistochemistry(), -1, 0))


@pytest.mark.parametrize("function", [sample, sample_labels])
def test_unknown_name_lists_the_names(function):
    with pytest.raises(SettingsError, match=r"'liver'.*fluorescence, he, ihc, multiplex, panel, lamin"):
        function("liver")


@pytest.mark.parametrize("function", [sample, sample_labels])
def test_missing_file_says_what_to_do(function, monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "FOLDER", tmp_path)
    with pytest.raises(NucleusKDError, match="install napari-nucleus-kd again"):
        function("he")


def test_damaged_labels_say_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "he_labels.tif").write_bytes(b"not a TIFF")
    monkeypatch.setattr(samples, "FOLDER", tmp_path)
    with pytest.raises(NucleusKDError, match="damaged"):
        sample_labels("he")


def test_shipped_files_are_small_and_all_used():
    used = {file for s in SAMPLES for file in (s.file, s.labels_file) if file}
    assert {path.name for path in samples.FOLDER.iterdir()} == used
    assert sum(path.stat().st_size for path in samples.FOLDER.iterdir()) < BUDGET_BYTES


@pytest.mark.parametrize("name", DRAWN)
def test_shipped_files_are_what_the_script_draws(name, artists):
    drawing = artists[name]()
    labels = sample_labels(name)
    shipped = tifffile.imread(samples.FOLDER / f"{name}.ome.tif").reshape(drawing.pixels.shape)
    # Another numpy, scipy or processor may round a few pixels otherwise; another picture differs in most.
    assert np.mean(labels == drawing.labels) > 0.999
    assert np.mean(shipped == drawing.pixels) > 0.99


@pytest.mark.parametrize("name", DRAWN)
def test_shipped_labels_are_exact(name):
    labels = sample_labels(name)
    assert labels.max() > 200
    assert_exact(labels)


@pytest.mark.parametrize("name", DRAWN)
def test_labels_lie_on_the_nuclei_to_the_pixel(name):
    pixels, labels = np.asarray(sample(name).pixels), sample_labels(name)
    signal = nuclear_signal(name, pixels)
    match = {
        (dy, dx): np.corrcoef(np.roll(labels > 0, (dy, dx), (0, 1)).ravel(), signal.ravel())[0, 1]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    assert max(match, key=match.get) == (0, 0)


@pytest.mark.parametrize("name", DRAWN)
def test_touching_nuclei_are_there(name):
    labels = sample_labels(name)
    pieces = ndimage.label(labels > 0)[1]
    assert pieces < 0.9 * labels.max()


@pytest.mark.parametrize("size", [96, 136])
@pytest.mark.parametrize("name", DRAWN)
def test_drawing_repeats_and_stays_exact(name, size, artists):
    first, second, other = (artists[name](seed=seed, size=size) for seed in (1, 1, 2))
    assert first.labels.shape == (size, size)
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.labels, second.labels)
    assert not np.array_equal(first.labels, other.labels)
    assert_exact(first.labels)


def test_drawn_histology_refuses_a_size_that_jpeg_blocks_do_not_fit(artists):
    with pytest.raises(ValueError, match="multiple of 8"):
        artists["he"](size=100)


@pytest.mark.parametrize("diameter", [12.0, 27.3, 60.5])
def test_circle_covers_its_area_at_its_place(shapes, diameter):
    zero = np.zeros(shapes.HARMONICS.size)
    centre = 50.3, 49.8
    circle = shapes.Outline(*centre, diameter, diameter, 0.4, 0.0, zero, zero)
    drawn = shapes.stamp(circle, (100, 100))
    area = np.pi * diameter**2 / 4
    assert drawn.mask.sum() == pytest.approx(area, rel=0.03)
    assert drawn.cover.sum() == pytest.approx(area, rel=0.01)
    corner = [axis.start for axis in drawn.window]
    assert np.add(ndimage.center_of_mass(drawn.mask), corner) == pytest.approx(centre, abs=0.3)


def test_script_writes_what_it_names(tmp_path):
    script = [sys.executable, str(SAMPLE_DATA / "draw.py"), "fluorescence", "--out", str(tmp_path)]
    subprocess.run(script, check=True, capture_output=True, timeout=60)
    for file in ("fluorescence.ome.tif", "fluorescence_labels.tif"):
        assert np.mean(tifffile.imread(tmp_path / file) == tifffile.imread(samples.FOLDER / file)) > 0.99


def test_script_names_the_samples_it_knows(tmp_path):
    script = [sys.executable, str(SAMPLE_DATA / "draw.py"), "liver", "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "'liver'; choose from fluorescence, he, lamin, multiplex" in done.stderr
