import subprocess
import sys
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from napari.layers import Labels
from npe2 import PluginManifest

import napari_nucleus_kd
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import LabelsError
from napari_nucleus_kd.io import IMAGE_SUFFIXES, read
from napari_nucleus_kd.io.samples import SAMPLES
from napari_nucleus_kd.widgets import _contributions
from napari_nucleus_kd.widgets._layers import RECIPE_KEY

NAME = "napari-nucleus-kd"


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_file(Path(napari_nucleus_kd.__file__).parent / "napari.yaml")


def _called(manifest, command):
    (python_name,) = (c.python_name for c in manifest.contributions.commands if c.id == command)
    module, name = python_name.split(":")
    return getattr(import_module(module), name)


def test_every_command_leads_to_something(manifest):
    for command in manifest.contributions.commands:
        assert callable(_called(manifest, command.id))


def test_the_widgets_stand_in_the_menus(manifest):
    assert [w.display_name for w in manifest.contributions.widgets] == [
        "Workbench",
        "Open",
        "Channels",
        "Enhance",
        "Segment",
        "Correct",
        "Retrain",
        "Compare",
        "Measure",
    ]


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_readable_suffix_is_offered(manifest, suffix):
    (reader,) = manifest.contributions.readers
    assert reader.accepts_directories
    assert any(fnmatch(f"a{suffix}", pattern) for pattern in reader.filename_patterns)
    assert _contributions.get_reader(f"/somewhere/A{suffix.upper()}") is not None


@pytest.mark.parametrize("path", ["a.txt", "/folder", "a.tif.zip", ["a.tif", "b.tif"]])
def test_what_is_not_ours_is_left_to_other_readers(path):
    assert _contributions.get_reader(path) is None


def test_every_sample_opens(manifest):
    keys = [sample.key for sample in manifest.contributions.sample_data]
    assert keys == [sample.name for sample in SAMPLES]
    for sample in manifest.contributions.sample_data:
        layers = _called(manifest, sample.command)()
        assert len(layers) == {"multiplex": 8, "panel": 12}.get(sample.key, 1)
        for values, keywords, kind in layers:
            first = values[0] if keywords["multiscale"] else values
            assert kind == "image"
            assert min(first.shape[:2]) >= 256


def test_the_manifest_is_read_without_our_code():
    text = (Path(napari_nucleus_kd.__file__).parent / "napari.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["name"] == NAME


def test_a_file_becomes_scaled_channel_layers(nuclei_file, nuclei):
    read_layers = _contributions.get_reader(str(nuclei_file))
    dapi, cd3 = read_layers(str(nuclei_file))
    assert dapi[1]["name"] == "DAPI (two channels.ome.tif)"
    assert cd3[1]["scale"] == (0.5, 0.5)
    np.testing.assert_array_equal(np.asarray(dapi[0]), nuclei)


@pytest.mark.parametrize("name", ["labels.tif", "labels.ome.tif", "labels.ome.zarr"])
@pytest.mark.parametrize("shape", [(40, 50), (1, 40, 50)])
def test_labels_are_written_with_scale_and_recipe(tmp_path, name, shape):
    labels = np.zeros(shape, np.int32)
    labels[..., 5:9, 7:20] = 3
    meta = {
        "name": "nuclei",
        "scale": (0.5,) * len(shape),
        "units": ("micrometer",) * len(shape),
        "metadata": {RECIPE_KEY: Recipe(diameter_px=18)},
    }
    (written,) = _contributions.write_labels(str(tmp_path / name), labels, meta)
    image = read(written)
    np.testing.assert_array_equal(np.asarray(image.pixels).reshape(40, 50), labels.reshape(40, 50))
    assert image.pixel_size_um == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scale", "unit", "size_um"),
    [
        ((0.5, 0.5), "um", 0.5),
        ((250, 250), "nm", 0.25),
        ((0.001, 0.001), "mm", 1.0),
        ((1, 1), "pixel", 0.75),
        ((0.5, 0.25), "um", 0.75),
    ],
)
def test_the_pixel_size_is_the_layers_if_it_has_one_else_that_of_its_run(tmp_path, scale, unit, size_um):
    metadata = {RECIPE_KEY: Recipe(pixel_size_um=0.75)}
    layer = Labels(np.eye(40, dtype=int), scale=scale, units=(unit, unit), metadata=metadata)
    data, meta, _ = layer.as_layer_data_tuple()
    (written,) = _contributions.write_labels(str(tmp_path / "a.ome.tif"), data, meta)
    assert read(written).pixel_size_um == pytest.approx(size_um)


def test_of_a_pyramid_the_full_resolution_is_written(tmp_path):
    levels = [np.full((40, 40), 2), np.full((20, 20), 2)]
    (written,) = _contributions.write_labels(str(tmp_path / "a.tif"), levels, {"multiscale": True})
    assert read(written).shape_yx == (40, 40)


def test_a_volume_is_refused_with_its_name(tmp_path):
    with pytest.raises(LabelsError, match=r"my volume.*2-D"):
        _contributions.write_labels(str(tmp_path / "a.tif"), np.ones((3, 8, 8), int), {"name": "my volume"})


def test_reading_a_file_loads_neither_qt_nor_torch(nuclei_file):
    code = (
        "import sys; from napari_nucleus_kd.widgets import _contributions as c;"
        f"c.get_reader({str(nuclei_file)!r})({str(nuclei_file)!r});"
        "print([m for m in ('qtpy', 'torch', 'napari', 'superqt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr
