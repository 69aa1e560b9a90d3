"""The docks in a napari window that is really drawn."""

import time

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QPushButton

from napari_nucleus_kd.io import read
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets import _steps
from napari_nucleus_kd.widgets._layers import camera_of
from napari_nucleus_kd.widgets._session import session_of

PLUGIN = "napari-nucleus-kd"
WIDTH = 400


@pytest.fixture
def shown(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical")
    yield viewer
    qtbot.waitUntil(lambda: not session.busy, timeout=60_000)


@pytest.mark.parametrize(
    "name",
    ["Open", "Channels", "Enhance", "Segment", "Correct", "Retrain", "Compare", "Measure", "Workbench"],
)
def test_each_dock_opens_quickly_and_fits(shown, qtbot, name):
    QApplication.processEvents()
    start = time.process_time()  # the wall clock also counts what else the machine does
    dock, widget = shown.window.add_plugin_dock_widget(PLUGIN, name)
    assert time.process_time() - start < 1.0
    assert widget.minimumSizeHint().width() <= WIDTH
    assert dock.widget() is not None
    button = {"Channels": "Load panel", "Correct": "Merge", "Workbench": "Segment"}.get(name, name)
    assert [b.text() for b in widget.findChildren(QPushButton) if button in b.text()]


def test_the_canvas_shows_image_and_nuclei(shown, qtbot, settle, nuclei):
    session = session_of(shown)
    _dock, widget = shown.window.add_plugin_dock_widget(PLUGIN, "Segment")
    image = shown.add_image(nuclei, name="nuclei", colormap="gray")
    settle(session)
    before = shown.screenshot(flash=False, canvas_only=True)[..., :3].astype(int)
    assert before.max() > 150, "the image is drawn"
    assert np.ptp(before, axis=-1).max() < 10, "a grey image has no colour"
    widget.step.start()
    settle(session)
    after = shown.screenshot(flash=False, canvas_only=True)[..., :3].astype(int)
    colored = np.ptp(after, axis=-1) > 40
    assert colored.mean() > 0.05, "the nuclei are drawn in colour"
    labels = shown.layers[-1]
    labels.visible = False
    again = shown.screenshot(flash=False, canvas_only=True)[..., :3].astype(int)
    assert np.abs(again - before).mean() < 2
    assert image.visible


def test_the_canvas_shows_who_errs_where(shown, settle, nuclei, draw):
    session, truth = session_of(shown), draw(*nuclei.shape)[1]
    shown.add_image(nuclei, name="nuclei", visible=False)
    missed = int(truth[truth > 0][0])
    less = np.where(truth == missed, 0, truth)
    for name, labels in (("truth", truth), ("one less", less), ("none", 0 * truth)):
        shown.add_labels(labels, name=name, visible=False)
    _dock, widget = shown.window.add_plugin_dock_widget(PLUGIN, "Compare")
    settle(session)
    compare = widget.step
    for name in compare.ticked():
        compare.tick(name, False)
    for name in ("Layer: one less", "Layer: none"):
        compare.tick(name)
    compare.truth.setCurrentIndex(compare.truth.findData("Layer: truth"))
    compare.start()
    settle(session)
    seen = {}
    for line in range(2):
        compare.found.table.selectRow(line)
        _, green, blue, _ = np.moveaxis(shown.screenshot(flash=False, canvas_only=True).astype(int), -1, 0)
        seen[compare.found.chosen()] = (blue > green + 20).sum(), (green > blue + 4).sum()  # missed, correct
    few, all_missed = (seen[f"Layer: {name}"] for name in ("one less", "none"))
    share = (truth == missed).sum() / (truth > 0).sum()
    assert 0.5 * share < few[0] / all_missed[0] < 2 * share, "one is blue in the one, all in the other"
    assert few[1] > 5 * few[0], "the others are green"


def test_what_i_see_follows_the_camera(shown, qtbot, settle):
    session = session_of(shown)
    big = np.zeros((1500, 1500), np.uint8)
    big[700:720, 700:720] = big[100:120, 100:120] = 200
    shown.add_image(big, name="big")
    settle(session)
    shown.window.add_plugin_dock_widget(PLUGIN, "Segment")
    camera = camera_of(shown)
    camera.center, camera.zoom = (0, 710, 710), 4
    qtbot.waitUntil(lambda: (shown.screenshot(flash=False), session.runs.region())[1] is not None)
    region = session.runs.region()
    assert region.y0 < 700 < 720 < region.y1 < 1100
    assert region.x0 < 700 < 720 < region.x1 < 1200
    session.runs.start(lambda _: None)
    settle(session)
    labels = shown.layers[-1]
    assert labels.data.shape == region.shape_yx
    assert labels.data.max() == 1
    centre = np.argwhere(labels.data).mean(axis=0)
    np.testing.assert_allclose(labels.data_to_world(centre), (709.5, 709.5), atol=0.6)


def test_closing_the_viewer_while_it_runs_is_harmless(make_napari_viewer, qtbot, nuclei, monkeypatch):
    viewer = make_napari_viewer(show=True)
    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical")
    viewer.window.add_plugin_dock_widget(PLUGIN, "Workbench")
    viewer.add_image(nuclei)

    def endless(*_):
        while True:
            time.sleep(0.01)
            yield Progress(1, 3, "working")

    monkeypatch.setattr(_steps, "memory_steps", endless)
    session.runs.start(lambda _: None)
    assert session.workspace.activity is not None
    viewer.close()
    qtbot.waitUntil(lambda: not session.busy, timeout=10_000)


def test_no_step_of_the_workbench_is_cut_off(shown, qtbot, settle):
    dock, workbench = shown.window.add_plugin_dock_widget(PLUGIN, "Workbench")
    shown.open_sample(PLUGIN, "fluorescence")
    settle(session_of(shown))
    window = shown.window._qt_window
    for fold in workbench.folds:
        fold.set_open(True)
        qtbot.wait(50)
        window.resizeDocks([dock], [200], Qt.Orientation.Horizontal)
        qtbot.waitUntil(lambda: workbench.viewport().width() >= workbench.widget().minimumSizeHint().width())
    assert workbench.width() <= 480


def test_the_workbench_says_of_a_run_behind_a_closed_step_how_far_it_is(shown):
    _, workbench = shown.window.add_plugin_dock_widget(PLUGIN, "Workbench")
    run, heading = workbench.retrain.retraining, workbench.folds[5].heading
    run._job, run.progress = object(), Progress(7, 100, "training")
    run.changed.emit()
    assert run.running and heading.text().endswith("Retrain – step 7 of 100")
    run._job = run.progress = None
    run.changed.emit()
    assert heading.text().endswith("Retrain")


def test_the_workbench_says_that_every_run_enhances_first(shown):
    _, workbench = shown.window.add_plugin_dock_widget(PLUGIN, "Workbench")
    heading = workbench.folds[2].heading
    assert heading.text() == "▸  3  Enhance"
    workbench.enhance.workspace.set_recipe(enhance="any")
    assert heading.text() == "▸  3  Enhance – on"
    workbench.enhance.workspace.set_recipe(enhance=None)
    assert heading.text() == "▸  3  Enhance"


def test_closed_docks_leave_no_widgets(shown, qtbot):
    QApplication.processEvents()
    before, gone = set(QApplication.topLevelWidgets()), []
    steps = "Open", "Channels", "Enhance", "Segment", "Correct", "Retrain", "Compare", "Measure"
    names = *steps, "Workbench"
    for name in names:
        dock, widget = shown.window.add_plugin_dock_widget(PLUGIN, name)
        widget.destroyed.connect(lambda *_: gone.append(1))
        shown.window.remove_dock_widget(dock)
        widget.deleteLater()
    qtbot.waitUntil(lambda: len(gone) == len(names))
    left = {w for w in QApplication.topLevelWidgets() if type(w).__module__.startswith("napari_nucleus_kd")}
    assert not left - before
    assert session_of(shown)._views == 0


def test_a_persons_way_from_menu_to_corrected_thresholds(shown, qtbot, settle):
    """File > Open Sample, Segment, a threshold, Measure with the mouse, an error."""
    session = session_of(shown)
    _, workbench = shown.window.add_plugin_dock_widget(PLUGIN, "Workbench")
    widget = workbench.segment
    shown.open_sample(PLUGIN, "fluorescence")
    settle(session)
    assert workbench.open.card.name.text().startswith("fluorescence")
    widget.task.button.click()
    settle(session)
    labels = shown.layers[-1]
    first = int(labels.data.max())
    assert first > 50
    assert len(labels.features) == first
    widget.settings.min_area.setValue(300)
    qtbot.waitUntil(lambda: labels.data.max() < first, timeout=30_000)
    settle(session)
    _drag_across(shown, qtbot, widget)
    assert session.workspace.recipe.diameter_px == pytest.approx(60, abs=3)
    session.workspace.set_recipe(segmenter="student", model="no-such-model")
    widget.task.button.click()
    settle(session)
    assert "no-such-model" in widget.problem.text.text()
    assert labels in shown.layers


def _drag_across(viewer, qtbot, widget):
    """Draw a line of 60 screen pixels, each one image pixel, with the Measure tool and a real mouse."""
    camera_of(viewer).zoom = 1 / viewer.layers[0].scale[-1]
    widget.diameter.measure.click()
    native = viewer.window._qt_viewer.canvas.native
    middle = native.rect().center()
    left = Qt.MouseButton.LeftButton
    qtbot.mousePress(native, left, pos=middle)
    for step in (20, 40, 60):
        move = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(middle + QPoint(step, 0)),
            QPointF(native.mapToGlobal(middle + QPoint(step, 0))),
            left,
            left,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(native, move)
        qtbot.wait(30)
    qtbot.mouseRelease(native, left, pos=middle + QPoint(60, 0))
    qtbot.waitUntil(lambda: not widget.diameter.tool.active)


def test_files_dropped_on_napari_are_read_by_us(shown, settle, nuclei_file):
    shown.open(nuclei_file, plugin=PLUGIN)
    session = session_of(shown)
    settle(session)
    assert session.workspace.image.source == nuclei_file
    assert next(layer.name for layer in shown.layers).startswith("DAPI")


def test_labels_are_saved_through_napari(shown, tmp_path):
    labels = np.zeros((40, 50), np.int32)
    labels[5:9, 7:20] = 3
    shown.add_labels(labels, scale=(0.5, 0.5), units=("um", "um"))
    (written,) = shown.layers.save(str(tmp_path / "saved.tif"), plugin=PLUGIN)
    image = read(written)
    np.testing.assert_array_equal(np.asarray(image.pixels[0]), labels)
    assert image.pixel_size_um == pytest.approx(0.5)
