from __future__ import annotations

import json

import numpy as np
import pytest
from skimage.io import imread

from napari_nucleus_kd import demo
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.samples import SAMPLES, sample


def test_demo_writes_pictures_labels_and_recipes_of_every_sample(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert demo.main(["--segmenter", "classical", "--output", str(tmp_path), "--no-window"]) == 0
    shown = capsys.readouterr().out
    for entry in [each for each in SAMPLES if each.learnt]:
        assert entry.name in shown
        labels = np.asarray(read(tmp_path / f"{entry.name}_labels.tif").pixels[0])
        picture = imread(tmp_path / f"{entry.name}_overlay.png")
        assert labels.max() > 50
        assert picture.shape == (*sample(entry.name).shape_yx, 3)
        outlined = (picture == demo._OUTLINE).all(axis=-1)
        assert outlined.any()
        assert labels[outlined].all()  # outlines lie on nuclei
        (recipe,) = tmp_path.glob(f"{entry.name}*_recipe.json")
        assert json.loads(recipe.read_text())["segmenter"] == "classical"


def test_demo_without_its_model_ends_with_one_message(tmp_path, capsys):
    assert demo.main(["--segmenter", "nobody", "--output", str(tmp_path), "--no-window"]) == 1
    assert "nobody" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "system", "expected"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":0", "CI": "true"}, "linux", False),
        ({}, "darwin", True),
        ({}, "win32", True),
        ({"CI": "1"}, "win32", False),
    ],
)
def test_a_window_opens_only_before_a_person(environment, system, expected):
    assert demo.can_show(environment, system) is expected


def test_a_window_that_fails_does_not_fail_the_demo(tmp_path, capsys, monkeypatch):
    from rich.console import Console

    monkeypatch.setattr(demo.sys, "executable", "/bin/false")
    demo._show(tmp_path, Console())
    assert "could not show" in capsys.readouterr().out
