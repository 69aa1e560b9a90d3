import shlex
from pathlib import Path

import numpy as np
import pytest
import zarr
from qtpy.QtWidgets import QApplication

from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.io import read
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.types import Channel, Image, Modality, Region
from napari_nucleus_kd.widgets._reproduce import as_command, as_python
from napari_nucleus_kd.widgets.segment import SegmentWidget


def _image(**more):
    more = {"name": "a b.tif", "source": Path("/data/a b.tif"), **more}
    return Image((np.zeros((2, 8, 8), np.uint8),), (Channel("DAPI"), Channel("CD3")), **more)


def test_the_command_holds_only_what_differs_from_the_defaults():
    words = shlex.split(as_command(_image(), Recipe(device="cpu", channels=("DAPI", 1))))
    assert words[:3] == ["nucleus-kd", "segment", "/data/a b.tif"]
    assert words[3:] == ["--output", "nuclei", "--channel", "DAPI", "--channel", "CD3", "--device", "cpu"]


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


def test_percentiles_are_said_if_they_are_not_the_default():
    assert as_command(_image(), Recipe(percentiles=(5, 99.5))).endswith("--percentiles 5 99.5")
    assert "--percentiles" not in as_command(_image(), Recipe(percentiles=(1, 99.8)))


def test_the_mapping_is_said_and_what_it_judged_is_left_to_it():
    judged = Recipe(mapping="nucleus-adapter", channels=(1,), channel_weights=(1.0,))
    words = shlex.split(as_command(_image(), judged))
    assert words[-2:] == ["--mapping", "nucleus-adapter"] and "--channel" not in words
    allowed = shlex.split(as_command(_image(), judged.model_copy(update={"adapter_channels": (1,)})))
    assert allowed[-2:] == ["--channel", "CD3"]
    of_all = shlex.split(as_command(_image(), Recipe(mapping="mean", channels=(0, 1))))
    assert of_all[-2:] == ["--mapping", "mean"]


def test_weights_and_stains_that_a_person_set_are_said():
    mixed = Recipe(mapping="blend", channels=(0, 1), channel_weights=(1, 0.25))
    words = shlex.split(as_command(_image(), mixed))
    assert words[-4:] == ["--channel-weight", "1", "--channel-weight", "0.25"]
    stains = ((0.65, 0.7, 0.29), (0.07, 0.99, 0.11))
    words = shlex.split(as_command(_image(), Recipe(mapping="haematoxylin", stains=stains)))
    assert words[words.index("--stains") + 1 :][:6] == ["0.65", "0.7", "0.29", "0.07", "0.99", "0.11"]


def test_enhancement_is_said():
    dark = Recipe(enhance="nucleus-enhancer", polarity="dark", enhance_hash="0" * 64)
    words = shlex.split(as_command(_image(), dark))
    assert words[words.index("--enhance") + 1 :] == ["nucleus-enhancer", "--polarity", "dark"]
    assert "enhance='nucleus-enhancer'" in as_python(_image(), dark, plane=None)
    assert "polarity='dark'" in as_python(_image(), dark, plane=None)
    assert "--polarity" not in as_command(_image(), Recipe(enhance="nucleus-enhancer"))
    off = Recipe(polarity="dark")
    assert "--polarity" not in as_command(_image(), off), "it is for an enhancer"
    assert "polarity" not in as_python(_image(), off, plane=None)


def test_how_pixels_become_nuclei_is_said():
    assert "--decode components" in as_command(_image(), Recipe(decode=DecodeSettings(by="components")))


def test_the_part_of_the_image_is_said():
    words = as_command(_image(), Recipe(region=Region(1, 20, 300, 4000))).split()
    at = words.index("--region")
    assert words[at + 1 : at + 5] == ["1", "20", "300", "4000"]


def test_the_plane_of_a_stack_is_said():
    words = as_command(_image(z_plane=(3, 7)), Recipe()).split()
    assert words[words.index("--z") + 1] == "3"


def test_an_image_without_a_file_has_no_command():
    with pytest.raises(SettingsError, match="save it"):
        as_command(_image(source=None), Recipe())


def test_the_python_text_gives_the_same_labels(nuclei_file):
    image, region = read(nuclei_file), Region(10, 20, 130, 180)
    result = segment(image, segmenter="classical", region=region)
    scope = {}
    exec(as_python(image, result.recipe, plane=None), scope)
    np.testing.assert_array_equal(scope["labels"], result.nuclei.labels)


def _stack(nuclei):
    stack = np.zeros((4, *nuclei.shape), nuclei.dtype)
    stack[2] = nuclei
    return stack


def _floats(nuclei):
    return 1 - np.stack([nuclei] * 3, -1).astype(np.float32) / 255


LAYERS = {
    "plain": (lambda n: n, {}),
    "plane of a stack": (_stack, {}),
    "plane of a transposed stack": (lambda n: np.moveaxis(_stack(n), 0, 1), {}),
    "multiscale": (lambda n: [_stack(n), _stack(n)[:, ::2, ::2]], {"multiscale": True}),
    "colour": (lambda n: 255 - np.stack([n] * 3, -1), {"rgb": True}),
    "colour with alpha, not uint8": (lambda n: np.dstack([_floats(n), np.ones(n.shape)]), {"rgb": True}),
    "zarr": (lambda n: zarr.array(_stack(n)), {}),
    "scaled": (lambda n: n, {"scale": (0.5, 0.5), "units": ("um", "um")}),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_python_text_of_a_layer_takes_what_was_segmented(viewer, session, settle, qtbot, nuclei, kind):
    make, more = LAYERS[kind]
    layer = viewer.add_image(make(nuclei), name="my 'picture'", contrast_limits=(0, 255), **more)
    if "transposed" in kind:
        viewer.dims.order = (1, 0, 2)
    if layer.ndim == 3:
        viewer.dims.set_current_step(1 if "transposed" in kind else 0, 2)
    settle(session)
    session.workspace.whole_image = True  # without a window nobody knows what is seen of a transposed layer
    if kind == "scaled":
        session.workspace.set_recipe(diameter_um=9)
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    widget.copy_python()
    before = QApplication.clipboard().text()
    widget.start()
    settle(session)
    assert session.workspace.problem is None
    labels = session.workspace.result.nuclei.labels
    assert labels.shape == nuclei.shape
    assert labels.max() > 20
    viewer.dims.set_current_step(0, 0)
    widget.copy_python()
    for text in (before, QApplication.clipboard().text()):
        scope = {"viewer": viewer}
        exec(text, scope)
        np.testing.assert_array_equal(scope["labels"], labels)


def test_the_python_text_of_a_sample_takes_all_its_channels(viewer, session, settle, qtbot):
    session.open_sample("multiplex")
    settle(session)
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    session.workspace.set_recipe(channels=(1,))
    widget.start()
    settle(session)
    widget.copy_python()
    scope = {"viewer": viewer}
    exec(QApplication.clipboard().text(), scope)
    np.testing.assert_array_equal(scope["labels"], session.workspace.result.nuclei.labels)
