from pathlib import Path

import numpy as np
import pytest

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.types import Channel, Image, Progress, Region
from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.workspace import Activity, Workspace, speed_key


def _image(names=("DAPI",), **more):
    more = {"name": "a.tif", "source": Path("a.tif"), **more}
    return Image((np.zeros((len(names), 1000, 2000), np.uint8),), tuple(map(Channel, names)), **more)


def test_the_plan_names_image_channels_scale_model_time_and_memory():
    workspace = Workspace(image=_image(("DAPI", "CD3"), pixel_size_um=0.5))
    workspace.remember_run(1.0, 4.0)
    text = _words.plan(workspace, None, on_disk=False)
    for part in (
        "a.tif (DAPI)",
        "0.5 µm/px",
        "2000 × 1000 px",
        "whole image",
        "nucleus-student",
        "about 8 s",
        "GB",
    ):
        assert part in text
    assert "not yet measured" not in text


def test_the_plan_of_a_part_counts_only_that_part():
    workspace = Workspace(image=_image())
    workspace.preferences = workspace.preferences.model_copy(
        update={"seconds_per_megapixel": {speed_key(workspace.recipe): 100.0}}
    )
    text = _words.plan(workspace, Region(0, 0, 100, 1000), on_disk=False)
    assert "1000 × 100 px" in text
    assert "about 10 s" in text
    assert "pixel size unknown" in text


def test_a_guess_is_called_one():
    said = _words.plan(Workspace(image=_image()), None, on_disk=False)
    assert "not yet measured here; opening the model takes some seconds more" in said


def test_the_plan_says_that_a_file_will_be_asked_for():
    assert "OME-Zarr" in _words.plan(Workspace(image=_image()), None, on_disk=True)


def test_the_plan_says_that_the_image_is_enhanced_first():
    workspace = Workspace(image=_image())
    plain = _words.plan(workspace, None, on_disk=False)
    workspace.set_recipe(enhance="/models/drawer")
    text = _words.plan(workspace, None, on_disk=False)
    assert "whole image, enhanced first by drawer.\n" in text and "enhanced" not in plain
    assert "about 4 s" in plain and "about 8 s" in text, "the enhancer takes its time, too"
    assert speed_key(workspace.recipe) != speed_key(Recipe())


def test_without_an_image_the_plan_says_what_to_do():
    assert "open one" in _words.plan(Workspace(), None, on_disk=False)


@pytest.mark.parametrize(
    ("image", "recipe", "said"),
    [
        (_image(("CD3", "CD8")), Recipe(), "no nuclear channel chosen yet"),
        (_image(("CD3", "DAPI")), Recipe(), "DAPI"),
        (_image(("CD3", "DAPI")), Recipe(channels=(0, "DAPI")), "CD3 + DAPI"),
        (_image(("r", "g", "b"), rgb=True), Recipe(), "colour"),
        (_image(("a.tif",)), Recipe(), ""),
    ],
)
def test_channels_in_words(image, recipe, said):
    assert _words.channels(image, recipe) == said


def test_the_time_left_is_that_of_what_is_counted_now():
    activity = Activity("enhance", "Both", Progress(9, 10, "enhancing"), started=-1e9, reported=-100.0)
    later = activity.after(Progress(1, 2, "running the network"))
    assert later.started == -100.0, "it began with the report before"
    assert activity.after(Progress(10, 10, "enhancing")).started == -1e9
    assert later.after(Progress(2, 2)).started == -100.0


def test_progress_says_the_time_left_and_that_it_stops():
    activity = Activity("segment", "Segmenting", Progress(1, 4, "tile 1 of 4"), started=-1e9)
    assert _words.progress(activity).startswith("Tile 1 of 4: ")
    assert _words.progress(Activity("segment", "Segmenting")) == "Segmenting…"
    assert "Stopping" in _words.progress(Activity("segment", "Segmenting", stopping=True))
