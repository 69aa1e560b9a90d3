import shlex
from pathlib import Path

import numpy as np
import pytest

from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.io import read
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.types import Channel, Image, Modality, Region
from napari_nucleus_kd.widgets._reproduce import as_command, as_python


def _image(**more):
    more = {"name": "a b.tif", "source": Path("/data/a b.tif"), **more}
    return Image((np.zeros((2, 8, 8), np.uint8),), (Channel("DAPI"), Channel("CD3")), **more)


def test_the_command_holds_only_what_differs_from_the_defaults():
    words = shlex.split(as_command(_image(), Recipe(device="cpu", channels=("DAPI", 1))))
    assert words[:3] == ["nucleus-kd", "segment", "/data/a b.tif"]
    assert words[3:] == ["--output", "nuclei", "--channel", "DAPI", "--channel", "1", "--device", "cpu"]


def test_a_resolved_recipe_says_all_its_thresholds():
    recipe = Recipe(
        modality=Modality.HE, diameter_px=18.25, decode=DecodeSettings(split=0.25, fill_holes=False)
    )
    words = as_command(_image(), recipe).split()
    for option, value in (
        ("--modality", "he"),
        ("--diameter", "18.25"),
        ("--split", "0.25"),
        ("--min-area", "20"),
    ):
        assert words[words.index(option) + 1] == value
    assert "--keep-holes" in words


def test_the_plane_of_a_stack_is_said():
    words = as_command(_image(notes=("z plane 3 of 7, counted from 0",)), Recipe()).split()
    assert words[words.index("--z") + 1] == "3"


def test_an_image_without_a_file_has_no_command():
    with pytest.raises(SettingsError, match="save it"):
        as_command(_image(source=None), Recipe())


def test_the_python_text_gives_the_same_labels(nuclei_file):
    image, region = read(nuclei_file), Region(10, 20, 130, 180)
    result = segment(image, segmenter="classical", region=region)
    scope = {}
    exec(as_python(image, result.recipe, region, "unused"), scope)
    np.testing.assert_array_equal(scope["labels"], result.nuclei.labels)


def test_the_python_text_of_a_layer_takes_it_from_the_viewer(nuclei):
    layers = {"my picture": type("Layer", (), {"data": nuclei})}
    scope = {"viewer": type("Viewer", (), {"layers": layers})}
    expected = segment(nuclei, segmenter="classical")
    exec(as_python(_image(source=None), expected.recipe, None, "my picture"), scope)
    np.testing.assert_array_equal(scope["labels"], expected.nuclei.labels)
