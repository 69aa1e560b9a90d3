from dataclasses import replace

import numpy as np
import pytest

from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.errors import ReadError, SettingsError
from napari_nucleus_kd.types import Channel, Image, Progress
from napari_nucleus_kd.workspace import (
    MAX_RECENT,
    Activity,
    Preferences,
    Problem,
    Workspace,
    load_preferences,
    save_preferences,
    speed_key,
)


@pytest.fixture
def image():
    return Image((np.zeros((1, 8, 8), np.uint8),), (Channel("DAPI"),), pixel_size_um=0.5)


def test_a_change_of_a_field_is_told_once(image):
    workspace, seen = Workspace(), []
    workspace.events.image.connect(seen.append)
    workspace.image = image
    workspace.image = image
    assert seen == [image]


def test_equal_images_with_arrays_are_told_apart_by_identity(image):
    workspace, seen = Workspace(image=image), []
    workspace.events.image.connect(seen.append)
    workspace.image = replace(image)
    assert len(seen) == 1


def test_settings_that_nobody_set_stay_unset():
    workspace = Workspace()
    workspace.set_recipe(device="cpu")
    assert workspace.recipe.model_fields_set == {"device"}
    assert workspace.chosen_decode() is None
    workspace.set_recipe(decode=DecodeSettings(split=0.2))
    assert workspace.chosen_decode() == DecodeSettings(split=0.2)
    workspace.set_recipe(decode=None)
    assert workspace.chosen_decode() is None


def test_thresholds_given_back_are_told_although_equal():
    workspace = Workspace()
    workspace.set_recipe(decode=DecodeSettings())
    seen = []
    workspace.events.recipe.connect(seen.append)
    workspace.set_recipe(decode=None)
    assert len(seen) == 1


def test_a_value_out_of_range_names_itself_and_changes_nothing():
    workspace = Workspace()
    with pytest.raises(SettingsError, match=r"tile_px = 3.*128"):
        workspace.set_recipe(tile_px=3)
    assert workspace.recipe == Recipe()


def test_another_image_lets_go_of_what_belonged_to_the_former(image):
    workspace = Workspace()
    workspace.set_recipe(channels=(0,), diameter_px=18.0, pixel_size_um=0.3, device="cpu")
    workspace.outcome = "3 nuclei"
    workspace.take(image)
    assert workspace.image is image
    assert workspace.outcome == ""
    assert workspace.recipe.model_fields_set == {"device"}


@pytest.mark.parametrize(("size_um", "kept"), [(0.5, 8.0), (None, None)])
def test_a_diameter_in_um_goes_on_to_an_image_of_known_scale(image, size_um, kept):
    workspace = Workspace()
    workspace.set_recipe(diameter_um=8.0)
    workspace.take(replace(image, pixel_size_um=size_um))
    assert workspace.recipe.diameter_um == kept


def test_preferences_are_remembered(tmp_path):
    path = tmp_path / "deep" / "preferences.json"
    workspace = Workspace.remembered(path)
    workspace.set_recipe(device="cpu", segmenter="classical")
    workspace.remember_run(2.0, 6.0)
    workspace.remember_file(tmp_path / "a.tif")
    again = Workspace.remembered(path)
    assert again.recipe.device == "cpu"
    assert again.recipe.segmenter == "classical"
    assert again.preferences.recent == (str(tmp_path / "a.tif"),)
    assert again.preferences.seconds_per_megapixel == {speed_key(again.recipe): 3.0}
    assert [p.name for p in path.parent.iterdir()] == ["preferences.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"recent": 3}', '{"unknown": 1}', "\x00\xff"])
def test_a_broken_preferences_file_gives_the_defaults(tmp_path, text):
    path = tmp_path / "preferences.json"
    path.write_text(text, encoding="utf-8")
    assert load_preferences(path) == Preferences()


def test_an_unwritable_place_is_let_pass(tmp_path):
    (tmp_path / "file").write_text("")
    save_preferences(Preferences(), tmp_path / "file" / "preferences.json")
    assert (tmp_path / "file").read_text() == ""


def test_recent_files_are_newest_first_without_repeats(tmp_path):
    workspace = Workspace()
    for index in (*range(MAX_RECENT + 3), 5):
        workspace.remember_file(tmp_path / f"{index}.tif")
    recent = workspace.preferences.recent
    assert len(recent) == MAX_RECENT == len(set(recent))
    assert recent[0].endswith("5.tif")


@pytest.mark.parametrize(("seconds", "expected"), [((2, 4), 3.0), ((80, 2), 2.0), ((80, 2, 4), 3.0)])
def test_a_faster_run_is_believed_at_once_and_a_slower_one_in_part(seconds, expected):
    workspace = Workspace()
    for measured in seconds:
        workspace.remember_run(1.0, float(measured))
    assert workspace.preferences.seconds_per_megapixel[speed_key(workspace.recipe)] == expected


@pytest.mark.parametrize(
    ("progress", "left"),
    [
        (None, None),
        (Progress(0, 4), None),
        (Progress(1, 0), None),
        (Progress(1, 4), 30.0),
        (Progress(4, 4), 0.0),
    ],
)
def test_time_left_follows_from_the_work_done(progress, left):
    assert Activity("segment", "Segmenting", progress, started=0.0).seconds_left(now=10.0) == left


def test_our_errors_speak_for_themselves_and_others_are_faults_to_report():
    assert Problem.from_error("open", ReadError("a.tif is cut short")).text == "a.tif is cut short"
    other = Problem.from_error("segment", IndexError("3"), "Traceback")
    assert "IndexError: 3" in other.text
    assert "report" in other.text
    assert other.details == "Traceback"
    assert "memory" in Problem.from_error("segment", MemoryError()).text


def test_speeds_are_kept_apart_where_they_differ():
    assert speed_key(Recipe(device="cpu")) != speed_key(Recipe(device="cuda"))
    assert speed_key(Recipe(segmenter="classical", model="a")) == speed_key(Recipe(segmenter="classical"))
