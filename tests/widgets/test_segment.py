import shlex
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication, QFileDialog, QTextBrowser

from napari_nucleus_kd import pipeline
from napari_nucleus_kd.config import DecodeSettings, Recipe
from napari_nucleus_kd.io import read
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.types import Progress, Region
from napari_nucleus_kd.widgets import _runs, _steps
from napari_nucleus_kd.widgets._layers import RECIPE_KEY, camera_of
from napari_nucleus_kd.widgets.segment import SegmentWidget


@pytest.fixture
def widget(viewer, session, qtbot, nuclei_file, settle):
    """The widget with `nuclei_file` in hand."""
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    session.open(nuclei_file)
    settle(session)
    return widget


@pytest.fixture
def segmented(widget, session, settle):
    """The widget after a run, and its labels layer."""
    widget.task.button.click()
    settle(session)
    assert session.workspace.problem is None
    return widget, widget.session.viewer.layers[-1]


def test_without_an_image_there_is_nothing_to_press(viewer, session, qtbot):
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    assert not widget.task.button.isEnabled()
    assert "No image" in widget.plan.text()


def test_a_tool_that_a_script_chose_is_shown_run_copied_and_left(widget, session, settle, fake_tool):
    weights = fake_tool()
    session.workspace.set_recipe(segmenter="cellpose", weights=weights, decode=None)
    assert widget.model.box.currentText() == f"Cellpose 3 with {weights}"
    widget.task.button.click()
    settle(session)
    assert session.workspace.problem is None and session.workspace.result.nuclei.count > 0
    widget.copy_command()
    assert f"--segmenter cellpose --weights {weights}" in QApplication.clipboard().text()
    assert session.workspace.preferences.weights == weights
    widget.model.box.setCurrentIndex(0)
    widget.model.box.activated.emit(0)
    recipe = session.workspace.recipe
    assert (recipe.segmenter, recipe.weights) == ("student", None)
    assert weights not in " ".join(widget.model.box.itemText(i) for i in range(widget.model.box.count()))


def test_a_run_gives_labels_over_their_image_with_features_and_recipe(segmented, session, nuclei_file):
    widget, layer = segmented
    expected = pipeline.segment(read(nuclei_file), segmenter="classical")
    np.testing.assert_array_equal(layer.data, expected.nuclei.labels)
    assert layer.data.max() > 20
    np.testing.assert_allclose(layer.scale, 0.5)
    assert layer.metadata[RECIPE_KEY].diameter_px == expected.diameter_px
    table = pipeline.measure_result(expected, session.workspace.image)
    for name in ("area_um2", "score", "centroid_y"):
        np.testing.assert_allclose(np.sort(layer.features[name]), np.sort(table[name]), rtol=1e-5)
    features = layer.features
    assert list(features["index"]) == list(range(1, layer.data.max() + 1))
    area = np.bincount(layer.data.ravel())[1:] * 0.25
    np.testing.assert_allclose(features["area_um2"], area)
    assert {"diameter_um", "eccentricity", "mean DAPI", "score"} <= set(features.columns)
    assert f"{layer.data.max()} nuclei" in widget.outcome.text()
    assert "µm" in widget.outcome.text()


def test_the_plan_names_what_will_be_done(widget, qtbot):
    qtbot.waitUntil(lambda: "two channels.ome.tif (DAPI)" in widget.plan.text())
    assert "0.5 µm/px" in widget.plan.text()
    assert "GB" in widget.plan.text()


def test_the_channels_are_ticked_and_can_be_changed(widget, session):
    assert widget.channels.chosen() == (0,)
    widget.channels.list.item(1).setCheckState(widget.channels.list.item(0).checkState())
    assert session.workspace.recipe.channels == (0, 1)


def test_no_channel_is_an_error_that_stands_in_the_widget(widget, session, settle):
    session.workspace.set_recipe(channels=())
    widget.start()
    settle(session)
    assert not widget.problem.isHidden()
    assert "no channel chosen" in widget.problem.text.text()
    assert widget.task.button.isEnabled()


def test_a_missing_model_is_an_error_that_names_it(widget, session, settle):
    session.workspace.set_recipe(segmenter="student", model="no-such-model")
    widget.start()
    settle(session)
    assert "no-such-model" in widget.problem.text.text()
    assert "not here" in widget.model.box.currentText()
    assert not widget.model.card.isEnabled()


def test_cancel_leaves_everything_as_it_was(widget, session, viewer, settle, monkeypatch):
    entered, gate, closed = threading.Event(), threading.Event(), threading.Event()

    def slow(*_):
        try:
            for done in range(100):
                entered.set()
                gate.wait(10)
                yield Progress(done, 100, "tile")
        finally:
            closed.set()

    monkeypatch.setattr(_steps, "memory_steps", slow)
    widget.start()
    assert widget.task.currentWidget() is not widget.task.button
    assert entered.wait(10)
    widget.task.cancel.click()
    assert "Stopping" in widget.task.message.text()
    gate.set()
    settle(session)
    assert closed.is_set()
    assert widget.task.currentWidget() is widget.task.button
    assert len(viewer.layers) == 2
    assert session.workspace.problem is None


def test_progress_is_shown_with_the_time_left(widget, session, settle, qtbot, monkeypatch):
    gate = threading.Event()

    def slow(*_):
        yield Progress(1, 4, "tile 1 of 4")
        gate.wait(10)
        raise ValueError("enough")

    monkeypatch.setattr(_steps, "memory_steps", slow)
    widget.start()
    qtbot.waitUntil(lambda: "Tile 1 of 4" in widget.task.message.text())
    assert widget.task.bar.value() == 250
    gate.set()
    settle(session)
    assert "ValueError: enough" in widget.problem.text.text()
    assert "Traceback" in widget.problem.details.text()


def _decodes(session, qtbot, settle):
    qtbot.waitUntil(lambda: session.runs.wanted_decode() is None, timeout=30_000)
    settle(session)


def test_a_threshold_decodes_again_at_once_without_the_network(
    segmented, session, qtbot, settle, monkeypatch
):
    widget, layer = segmented
    before, name = layer.data.copy(), layer.name

    def never(*_):
        raise AssertionError("the network must not run again")

    monkeypatch.setattr(pipeline, "segment_steps", never)
    widget.settings.min_area.setValue(200)
    _decodes(session, qtbot, settle)
    assert session.viewer.layers[-1] is layer
    assert layer.name == name
    assert 0 < layer.data.max() < before.max()
    assert len(layer.features) == layer.data.max()
    assert layer.metadata[RECIPE_KEY].decode.min_area_px == 200
    widget.settings.defaults.click()
    _decodes(session, qtbot, settle)
    np.testing.assert_array_equal(layer.data, before)


def test_many_changes_end_with_the_newest(segmented, session, qtbot, settle):
    widget, layer = segmented
    for area in (30, 60, 90, 150):
        widget.settings.min_area.setValue(area)
        qtbot.wait(120)
    _decodes(session, qtbot, settle)
    assert layer.metadata[RECIPE_KEY].decode.min_area_px == 150


def test_edits_of_a_person_are_never_overwritten(segmented, session, viewer, qtbot, settle):
    widget, layer = segmented
    layer.data_setitem((np.array([0, 0]), np.array([0, 1])), 999)
    edited = layer.data.copy()
    widget.settings.min_area.setValue(200)
    _decodes(session, qtbot, settle)
    np.testing.assert_array_equal(layer.data, edited)
    new = viewer.layers[-1]
    assert new is not layer
    assert new.data.max() < edited.max()
    assert layer.name in widget.outcome.text()


def test_an_undone_edit_is_none(segmented, session):
    _, layer = segmented
    layer.paint((5, 5), 999)
    assert session.runs.is_edited()
    layer.undo()
    assert not session.runs.is_edited()


def test_a_deleted_result_comes_back_as_a_new_layer(segmented, session, viewer, qtbot, settle):
    widget, layer = segmented
    viewer.layers.remove(layer)
    widget.settings.min_area.setValue(200)
    _decodes(session, qtbot, settle)
    assert viewer.layers[-1].data.max() > 0
    assert "edits" not in widget.outcome.text()


def test_a_second_run_hides_the_first_and_keeps_it(segmented, session, viewer, settle):
    widget, first = segmented
    widget.start()
    settle(session)
    second = viewer.layers[-1]
    assert first in viewer.layers
    assert not first.visible
    assert second.visible


def test_a_result_without_maps_says_that_a_run_is_needed(segmented, session, viewer):
    widget, _layer = segmented
    session.workspace.result = replace(session.workspace.result, maps=None)
    assert "need a new run" in widget.settings.state.text()
    widget.settings.min_area.setValue(200)
    assert "Press Segment" in widget.settings.state.text()
    assert session.workspace.result.recipe.decode.min_area_px != 200


def test_choosing_another_model_leaves_the_nuclei_that_are_shown(segmented, session, viewer, qtbot, settle):
    widget, layer = segmented
    widget.settings.min_area.setValue(200)
    _decodes(session, qtbot, settle)
    layer.data_setitem((np.array([0, 0]), np.array([0, 1])), 999)
    edited = layer.data.copy()
    session.workspace.set_recipe(segmenter="student", model="another", decode=None)
    assert not session.runs._timer.isActive() and session.runs.wanted_decode() is None
    assert layer.visible and viewer.layers[-1] is layer
    np.testing.assert_array_equal(layer.data, edited)
    assert widget.settings.state.isHidden(), "thresholds do not act on nuclei of a former model"


def test_the_probability_is_added_when_asked_for(widget, session, viewer, settle):
    widget.settings.probability.setChecked(True)
    widget.start()
    settle(session)
    probability = viewer.layers[-2]
    assert "probability" in probability.name
    assert 0 <= probability.data.min() <= probability.data.max() <= 1
    assert widget.image.box.count() == 1, "a result is not offered as an image"


def test_a_network_runs_and_its_card_is_shown(widget, session, viewer, settle, spots, qtbot):
    session.workspace.set_recipe(segmenter="student", model=str(spots), device="cpu")
    widget.start()
    settle(session, 120)
    assert session.workspace.problem is None
    assert viewer.layers[-1].data.max() > 20
    session.set_models((load_model(spots),))
    assert widget.model.box.currentText() == "spots 1"
    dialog = widget.model.show_card()
    qtbot.addWidget(dialog)
    assert "Spots" in dialog.findChild(QTextBrowser).toPlainText()


def test_the_settings_are_remembered_after_a_run(segmented, session):
    assert session.workspace.preferences.segmenter == "classical"
    assert len(session.workspace.preferences.seconds_per_megapixel) == 1


def test_the_command_gives_the_same_labels(segmented, session, tmp_path):
    widget, layer = segmented
    widget.copy_command()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:2] == ["nucleus-kd", "segment"]
    code = "import sys; from napari_nucleus_kd.cli import main; sys.argv[0] = 'nucleus-kd'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "nuclei").glob("*_labels.tif")
    np.testing.assert_array_equal(np.asarray(read(written).pixels[0]), layer.data)


def test_the_python_text_is_copied(segmented):
    widget, _ = segmented
    widget.copy_python()
    text = QApplication.clipboard().text()
    compile(text, "clipboard", "exec")
    assert "segment(" in text
    assert "region" not in text, "the whole image was run"


def test_a_layer_without_a_file_has_python_but_no_command(viewer, session, qtbot, nuclei, settle):
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_image(nuclei, name="plain")
    settle(session)
    widget.copy_command()
    assert "save it" in widget.problem.text.text()
    widget.copy_python()
    assert "viewer.layers['plain']" in QApplication.clipboard().text()


@pytest.mark.parametrize("rgb", [False, True])
def test_plain_layers_are_segmented(viewer, session, qtbot, nuclei, settle, rgb):
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    pixels = 255 - np.stack([nuclei] * 3, -1) if rgb else nuclei
    viewer.add_image(pixels, rgb=rgb, name="plain", translate=(10, 20))
    settle(session)
    widget.start()
    settle(session)
    assert session.workspace.problem is None
    labels = viewer.layers[-1]
    assert labels.data.max() > 20
    np.testing.assert_allclose(labels.translate, (10, 20))
    assert "area_px2" in labels.features


def test_changed_thresholds_show_while_they_are_folded_away(widget, session):
    assert widget.more.heading.text() == "▸  More"
    session.workspace.set_recipe(decode=DecodeSettings(split=0.7))
    assert "thresholds changed" in widget.more.heading.text()
    widget.more.set_open(True)
    assert widget.more.heading.text().startswith("▾  More (")
    session.workspace.set_recipe(decode=None)
    assert widget.more.heading.text() == "▾  More"


def test_outlines_or_filled_for_all_nuclei_now_and_later(widget, session, viewer, settle, tmp_path):
    viewer.add_labels(np.eye(9, dtype=int), name="a person's own")
    widget.start()
    settle(session)
    ours = viewer.layers[-1]
    assert ours.contour and ours.opacity == 1
    colors = np.array([ours.get_color(label) for label in range(1, 60)])[:, :3]
    assert colors.max(axis=1).min() == 1, "no colour is dark"
    assert len(np.unique(colors, axis=0)) > 40
    widget.outlines.click()
    assert not ours.contour and ours.opacity < 1
    assert "a person's own" in viewer.layers and viewer.layers["a person's own"].opacity == 0.7
    widget.start()
    settle(session)
    assert viewer.layers[-1] is not ours and not viewer.layers[-1].contour
    other = SegmentWidget(viewer)
    assert not other.outlines.isChecked(), "it is remembered"
    other.outlines.click()
    assert widget.outlines.isChecked() and ours.contour and viewer.layers[-1].contour
    other.close()


def test_the_shown_plane_of_a_stack_is_segmented(viewer, session, qtbot, nuclei, settle):
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    stack = np.zeros((4, *nuclei.shape), np.uint8)
    stack[2] = nuclei
    viewer.add_image(stack, name="stack")
    settle(session)
    viewer.dims.set_current_step(0, 2)
    widget.start()
    viewer.dims.set_current_step(0, 0)
    settle(session)
    labels = viewer.layers[-1]
    assert labels.data.shape == (1, *nuclei.shape)
    assert labels.data.max() > 20
    assert labels.translate[0] == 2


def test_layers_deleted_and_renamed_while_it_runs(widget, session, viewer, settle, monkeypatch):
    gate, real = threading.Event(), _steps.memory_steps

    def slow(*args):
        yield Progress(0, 0, "waiting")
        gate.wait(10)
        return (yield from real(*args))

    monkeypatch.setattr(_steps, "memory_steps", slow)
    widget.start()
    viewer.layers[1].name = "renamed"
    del viewer.layers[0]
    gate.set()
    settle(session)
    assert session.workspace.problem is None
    assert viewer.layers[-1].data.max() > 20
    viewer.layers.clear()
    assert session.workspace.image is None
    assert not widget.task.button.isEnabled()


def test_all_layers_deleted_while_it_runs(widget, session, viewer, settle):
    widget.start()
    viewer.layers.clear()
    settle(session)
    assert session.workspace.problem is None
    assert session.workspace.result is None, "the result belongs to an image that is not in hand"


def test_another_image_can_be_chosen(widget, session, viewer, settle, nuclei):
    viewer.add_image(nuclei, name="second")
    assert session.workspace.image.name == "two channels.ome.tif", "layers of others do not push in"
    index = widget.image.box.findText("second")
    widget.image.box.setCurrentIndex(index)
    widget.image.box.activated.emit(index)
    settle(session)
    assert session.workspace.image.name == "second"
    assert widget.channels.word.text() == "second"


def test_a_large_image_goes_to_a_file_and_is_shown_lazily(
    widget, session, viewer, settle, monkeypatch, tmp_path
):
    monkeypatch.setattr(_runs, "ON_DISK_EDGE_PX", 100)
    session.workspace.whole_image = True
    assert session.runs.on_disk()
    target = tmp_path / "labels"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    widget.start()
    settle(session, 120)
    assert session.workspace.problem is None
    written = tmp_path / "labels.ome.zarr"
    assert written.is_dir()
    layer = viewer.layers[-1]
    levels = layer.data if layer.multiscale else [layer.data]
    assert not isinstance(levels[0], np.ndarray)
    expected = pipeline.segment(session.workspace.image, Recipe(segmenter="classical"))
    assert np.asarray(levels[0]).max() == expected.nuclei.count
    np.testing.assert_allclose(layer.scale, 0.5)
    assert str(written) in widget.outcome.text()
    assert f"{expected.nuclei.count} nuclei" in widget.outcome.text()
    assert layer.metadata[RECIPE_KEY].diameter_px == expected.diameter_px
    table = pipeline.measure_result(expected, session.workspace.image)
    for name in ("area_um2", "score", "centroid_y"):
        np.testing.assert_allclose(np.sort(layer.features[name]), np.sort(table[name]), rtol=1e-5)


@pytest.mark.parametrize("corners", [[[0, 207], [181, 207]], [[181, 0], [181, 207]], [[0, 0], [0, 0]]])
def test_an_image_out_of_view_is_not_segmented_whole(widget, session, viewer, corners):
    if corners == [[0, 0], [0, 0]]:  # as before anything was drawn; but the camera looks elsewhere
        camera_of(viewer).center = (0, -500, -500)
    viewer.layers[0].corner_pixels = np.array(corners)
    widget._update_plan()
    assert "in view" in widget.plan.text()
    widget.start()
    assert session.workspace.activity is None and "Home" in widget.problem.text.text()
    session.workspace.whole_image = True
    widget._update_plan()
    assert "in view" not in widget.plan.text()


def test_a_part_too_large_for_memory_goes_to_a_file_and_lies_in_its_place(
    widget, session, viewer, settle, monkeypatch, tmp_path
):
    monkeypatch.setattr(_runs, "ON_DISK_EDGE_PX", 100)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "part.ome.zarr"), ""))
    # All but some rows at the edge of the canvas.
    viewer.layers[0].corner_pixels = np.array([[10, 0], [181, 207]])
    assert session.runs.region() == Region(10, 0, 182, 208)
    widget._update_plan()
    assert "asked for a file" in widget.plan.text()
    widget.start()
    settle(session, 120)
    assert session.workspace.problem is None
    layer = viewer.layers[-1]
    assert layer.data[0].shape[-2:] == (172, 208) if layer.multiscale else layer.data.shape == (172, 208)
    np.testing.assert_allclose(layer.translate, [5.0, 0])


def test_no_file_chosen_means_no_run(widget, session, monkeypatch):
    monkeypatch.setattr(_runs, "ON_DISK_EDGE_PX", 100)
    session.workspace.whole_image = True
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    widget.start()
    assert session.workspace.activity is None


def test_two_widgets_show_the_same_state(widget, session, viewer, qtbot):
    other = SegmentWidget(viewer)
    qtbot.addWidget(other)
    widget.region.box.activated.emit(1)
    widget.settings.split.setValue(0.25)
    widget.diameter.value.setValue(17)
    assert other.region.box.currentData() is True
    assert other.settings.split.value() == 0.25
    assert other.diameter.value.value() == 17
    assert other.image.box.currentText() == widget.image.box.currentText()


def test_a_closed_widget_hears_nothing_any_more(widget, session, viewer, qtbot):
    other = SegmentWidget(viewer)
    gone = []
    other.destroyed.connect(lambda *_: gone.append(1))
    other.deleteLater()
    qtbot.waitUntil(lambda: gone == [1])
    session.workspace.set_recipe(device="cpu")
    session.workspace.outcome = "still fine"
    assert widget.outcome.text() == "still fine"


@pytest.mark.parametrize(("unit", "field", "value"), [(0, "diameter_px", 18.0), (1, "diameter_um", 9.0)])
def test_the_diameter_is_kept_in_the_unit_it_is_given_in(widget, session, unit, field, value):
    widget.diameter.unit.setCurrentIndex(unit)
    widget.diameter.value.setValue(value)
    assert getattr(session.workspace.recipe, field) == value
    widget.diameter.value.setValue(0)
    assert getattr(session.workspace.recipe, field) is None
    assert widget.diameter.value.text().startswith("estimated")


def test_the_diameter_is_converted_between_units(widget, session):
    widget.diameter.value.setValue(18)
    widget.diameter.unit.setCurrentIndex(1)
    widget.diameter.unit.activated.emit(1)
    assert session.workspace.recipe.diameter_um == 9.0
    assert widget.diameter.value.value() == 9.0


def test_a_model_change_gives_the_thresholds_back_to_the_model(widget, session):
    widget.settings.split.setValue(0.25)
    assert session.workspace.chosen_decode().split == 0.25
    widget.model.box.activated.emit(widget.model.box.findText("Classical (no network)"))
    assert session.workspace.chosen_decode() is None


def test_everything_has_a_tooltip(widget):
    parts = (widget.task.button, widget.task.cancel, widget.command, widget.python, widget.model.card,
             widget.image.box, widget.channels.list, widget.diameter.value, widget.diameter.measure,
             widget.region.box, widget.settings.device, widget.settings.foreground, widget.settings.split,
             widget.settings.min_area, widget.settings.tile, widget.settings.probability)  # fmt: skip
    assert all(len(part.toolTip()) > 10 for part in parts)


def test_a_copy_button_says_that_it_copied_and_forgets_it_again(segmented, qtbot):
    widget, _ = segmented
    QApplication.clipboard().clear()
    widget.command.click()
    assert widget.command.text() == "Copied"
    assert QApplication.clipboard().text().startswith("nucleus-kd segment")
    assert widget.python.text() == "Copy as Python"
    qtbot.waitUntil(lambda: widget.command.text() == "Copy as command", timeout=5000)
