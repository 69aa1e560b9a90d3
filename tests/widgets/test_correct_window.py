"""Correcting in a napari window that is really drawn, with real keys and a real mouse."""

import time

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_nucleus_kd import edit
from napari_nucleus_kd.widgets._layers import camera_of, center_on
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._stroke import StrokeView
from napari_nucleus_kd.widgets._tools import BORDER, TOOLS, Gesture

PLUGIN = "napari-nucleus-kd"
LEFT, NOTHING = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
NO_KEY = Qt.KeyboardModifier.NoModifier
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


def disks(shape, *circles):
    """Draw circles (y, x, radius) numbered 1, 2, ...; later ones do not cover earlier ones."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for number, (y, x, radius) in enumerate(circles, 1):
        labels[(np.hypot(yy - y, xx - x) <= radius) & (labels == 0)] = number
    return labels


LABELS = disks((160, 200), (40, 40, 14), (40, 66, 14), (100, 50, 18), (110, 130, 16), (30, 150, 10))


class Person:
    """Somebody with a mouse and a keyboard in front of a window."""

    def __init__(self, viewer, qtbot, dock="Correct"):
        self.viewer, self.qtbot = viewer, qtbot
        self.dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, dock)
        self.widget = getattr(widget, "step", None) or widget.correct
        self.native = viewer.window._qt_viewer.canvas.native
        self.session = session_of(viewer)

    def look(self, y, x, zoom=2.0):
        self.qtbot.waitUntil(self.widget.isVisible)
        camera = camera_of(self.viewer)
        camera.center, camera.zoom = (0.0, y, x), zoom
        self.viewer.screenshot(flash=False)  # so that the canvas knows

    def _pos(self, at):
        camera = camera_of(self.viewer)
        y, x = (np.asarray(at, float) - camera.center[-2:]) * camera.zoom
        middle = self.native.rect()
        return QPoint(round(middle.width() / 2 + x), round(middle.height() / 2 + y))

    def move(self, at, held=NOTHING):
        pos = self._pos(at)
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(pos),
            QPointF(self.native.mapToGlobal(pos)),
            NOTHING if held is NOTHING else LEFT,
            held,
            NO_KEY,
        )
        self.qtbot.wait(15)  # vispy drops moves in quick succession
        QApplication.sendEvent(self.native, event)
        self.qtbot.wait(15)  # and napari waits for a moment

    def key(self, key, modifier=NO_KEY):
        self.qtbot.keyClick(self.native, key, modifier)

    def drag(self, *path, see=None):
        self.move(path[0])
        self.qtbot.mousePress(self.native, LEFT, pos=self._pos(path[0]))
        for at in path[1:]:
            self.move(at, LEFT)
        if see is not None:
            see()
        self.qtbot.mouseRelease(self.native, LEFT, pos=self._pos(path[-1]))

    def click(self, at):
        self.drag(at)

    def choose(self, word):
        next(b for tool, b in self.widget.buttons.items() if tool.word == word).click()


@pytest.fixture
def shown(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1200, 800)
    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical")
    qtbot.waitUntil(lambda: not session.busy, timeout=30_000)
    yield viewer
    qtbot.waitUntil(lambda: not session.busy, timeout=30_000)


@pytest.fixture
def person(shown, qtbot):
    layer = shown.add_labels(LABELS.copy(), name="nuclei")
    person = Person(shown, qtbot)
    person.look(80, 100)
    assert shown.layers.selection.active is layer
    return person


def test_keys_act_under_the_cursor_and_undo_goes_with_painting(person, shown):
    layer = shown.layers[0]
    heard = []
    layer.events.labels_update.connect(lambda event: heard.append(event))
    person.move((40, 66))
    person.key(Qt.Key.Key_D)
    deleted = LABELS.copy()
    edit.delete(deleted, (40, 66)).apply(deleted)
    np.testing.assert_array_equal(layer.data, deleted)
    assert heard
    layer.paint((80, 150), 9)  # napari's own brush
    painted = layer.data.copy()
    assert (painted == 9).sum() > 10
    person.move((100, 50))
    person.key(Qt.Key.Key_Period)
    grown = painted.copy()
    edit.grow(grown, (100, 50), 1).apply(grown)
    np.testing.assert_array_equal(layer.data, grown)
    for expected in (painted, deleted, LABELS):
        person.key(Qt.Key.Key_Z, CTRL)
        np.testing.assert_array_equal(layer.data, expected)
    person.key(Qt.Key.Key_Z, CTRL | SHIFT)
    np.testing.assert_array_equal(layer.data, deleted)


def test_a_key_acts_on_what_lies_under_the_mouse_when_the_program_has_moved_the_view(person, shown):
    layer = shown.layers[0]
    person.move((40, 66))
    center_on(shown, layer, (100 + 2 * (80 - 40) / 4, 50 + 2 * (100 - 66) / 4), zoom=4.0)
    person.key(Qt.Key.Key_D)
    assert set(np.unique(LABELS)) - set(np.unique(layer.data)) == {3}


def test_small_nuclei_are_shown_and_removed_by_keys(person, shown, settle):
    layer, small = shown.layers[0], edit.small(LABELS, 400)
    person.widget.below.setValue(400)
    person.move((40, 66))
    for key, modifier in ((Qt.Key.Key_S, SHIFT), (Qt.Key.Key_Return, NO_KEY)):
        np.testing.assert_array_equal(layer.data, LABELS)
        person.key(key, modifier)
        settle(person.session)
    assert small
    np.testing.assert_array_equal(layer.data, np.where(np.isin(LABELS, small), 0, LABELS))


def test_strokes_cut_join_and_draw(person, shown, tmp_path):
    layer = shown.layers[0]
    person.move((80, 100))
    person.key(Qt.Key.Key_S)
    assert "drag across" in person.widget.hint.text()
    seen = []

    def see():
        (glass,) = person.native.findChildren(StrokeView)
        picture = person.native.grab().toImage()
        seen.append((glass.isVisible(), picture.pixelColor(person._pos((100, 35))).name()))

    names = [known.name for known in shown.layers]
    person.drag((100, 20), (100, 50), (100, 80), see=see)
    assert seen == [(True, "#f0e442")], "the stroke is drawn"
    assert [known.name for known in shown.layers] == names
    assert set(np.unique(layer.data[80:120, 30:70])) == {0, 3, 6}
    person.drag((110, 110), (110, 150))  # the tool stays in hand
    assert set(np.unique(layer.data[90:130, 110:150])) == {0, 4, 7}
    person.key(Qt.Key.Key_G)
    person.drag((40, 40), (40, 66))
    assert np.array_equal(layer.data == 1, (LABELS == 1) | (LABELS == 2))
    person.key(Qt.Key.Key_R)
    person.drag((70, 150), (70, 180), (90, 180), (90, 150))
    assert layer.data[80, 165] == 8
    person.key(Qt.Key.Key_Escape)
    assert person.widget.corrections.armed is None
    assert layer.mode == "pan_zoom"
    before, camera = layer.data.copy(), camera_of(shown).center
    person.drag((20, 100), (40, 120))
    np.testing.assert_array_equal(layer.data, before)
    assert camera_of(shown).center != camera, "drags move the view again"
    for _ in range(4):
        person.widget.undo.click()
    np.testing.assert_array_equal(layer.data, LABELS)


def test_buttons_wait_for_clicks_also_quick_ones(person, shown):
    layer, widget = shown.layers[0], person.widget
    person.choose("Grow")
    zoom = camera_of(shown).zoom
    person.click((100, 50))
    person.qtbot.mouseDClick(person.native, LEFT, pos=person._pos((100, 50)))
    expected = LABELS.copy()
    for _ in range(2):
        edit.grow(expected, (100, 50), 1).apply(expected)
    np.testing.assert_array_equal(layer.data, expected)
    assert camera_of(shown).zoom == zoom
    person.choose("Grow")
    assert widget.corrections.armed is None and layer.mode == "pan_zoom"
    person.choose("Delete")
    before = layer.data.copy()
    person.click((80, 100))
    assert "There is no nucleus at y 80, x 100" in widget.problem.text.text()
    assert not widget.problem.isHidden()
    assert layer.selected_label == before[100, 50], "the background was not picked"
    person.click((30, 150))
    assert not (layer.data == 5).any() and widget.problem.isHidden()


def test_space_moves_the_view_while_a_tool_is_in_hand(person, shown):
    layer = shown.layers[0]
    person.key(Qt.Key.Key_S)
    person.qtbot.keyPress(person.native, Qt.Key.Key_Space)
    before = camera_of(shown).center
    person.drag((100, 20), (100, 50), (100, 80))
    assert camera_of(shown).center != before
    person.qtbot.keyRelease(person.native, Qt.Key.Key_Space)
    np.testing.assert_array_equal(layer.data, LABELS)
    person.look(80, 100)
    person.drag((100, 20), (100, 50), (100, 80))
    assert layer.data.max() == 6


def test_next_and_previous_go_there_and_select(person, shown, settle):
    layer = shown.layers[0]
    person.look(20, 20)
    layer.selected_label = 5
    person.key(Qt.Key.Key_N)
    settle(person.session)
    seen = [layer.selected_label]
    for _ in range(4):
        person.key(Qt.Key.Key_N)
        seen.append(layer.selected_label)
    assert sorted(seen) == [1, 2, 3, 4, 5]
    y, x = np.argwhere(LABELS == layer.selected_label).mean(axis=0)
    np.testing.assert_allclose(camera_of(shown).center[-2:], (y, x), atol=1)
    person.key(Qt.Key.Key_N, SHIFT)
    assert layer.selected_label == seen[-2]
    person.key(Qt.Key.Key_D)  # the mouse did not move: the nucleus gone to is meant
    assert not (layer.data == seen[-2]).any()
    assert (layer.data > 0).sum() == (LABELS > 0).sum() - (LABELS == seen[-2]).sum()


def test_nothing_stays_when_the_dock_is_hidden_or_closed(person, shown, qtbot):
    layer = shown.layers[0]

    def ours():
        slots = (
            *layer.mouse_drag_callbacks,
            *layer.mouse_double_click_callbacks,
            *layer.mouse_move_callbacks,
        )
        return [slot for slot in slots if slot.__module__.startswith("napari_nucleus_kd")]

    assert layer.keymap and len(ours()) == 2 and person.native.findChildren(StrokeView)
    person.dock.hide()
    assert not layer.keymap and not ours()
    person.dock.show()
    assert layer.keymap and len(ours()) == 2
    person.choose("Split")
    gone = []
    widget = person.widget
    widget.destroyed.connect(lambda *_: gone.append(1))
    shown.window.remove_dock_widget(person.dock)
    qtbot.waitUntil(lambda: bool(gone))
    assert not layer.keymap and layer.mode == "pan_zoom"
    assert not ours()
    qtbot.waitUntil(lambda: not person.native.findChildren(StrokeView))
    person.move((40, 66))
    person.key(Qt.Key.Key_D)
    np.testing.assert_array_equal(layer.data, LABELS)
    assert person.session.corrections._views == 0


def test_a_large_layer_stays_responsive(shown, qtbot):
    rng = np.random.default_rng(0)
    large = np.zeros((2000, 2000), np.int32)
    yy, xx = np.mgrid[-12:13, -12:13]
    disk = np.hypot(yy, xx) <= 11
    for number, (y, x) in enumerate(np.argwhere(np.ones((70, 70))) * 28 + 20, 1):
        y, x = (np.array([y, x]) + rng.integers(-2, 3, 2)).tolist()
        large[y - 12 : y + 13, x - 12 : x + 13][disk] = number
    layer = shown.add_labels(large)
    person = Person(shown, qtbot)
    person.look(1000, 1000)
    corrections, seconds = person.session.corrections, {}
    near = large[900:1100, 900:1100]
    points = [np.argwhere(near == n).mean(axis=0) + 900 for n in np.unique(near[50:150, 50:150])[1:]]
    for i, tool in enumerate(t for t in TOOLS if t.change is not None):
        at = points[i]
        path = [at] if tool.gesture is Gesture.CLICK else [np.add(at, (0, dx)) for dx in (-30, 0, 30)]
        if tool.gesture is Gesture.OUTLINE:
            path = [np.add(at, d) for d in ((-8, -8), (-8, 8), (8, 8), (8, -8))]
        corrections.act(tool, [tuple(p) for p in path])  # what is compiled is compiled
        best = np.inf
        assert person.session.workspace.problem is None or tool.word == "At waist", tool
        for _ in range(3):
            layer.undo()
            start = time.perf_counter()
            corrections.act(tool, [tuple(p) for p in path])
            best = min(best, time.perf_counter() - start)
        seconds[tool.word] = best
    assert max(seconds.values()) < 0.1, seconds


def test_help_is_a_key_away_and_the_dock_fits(person, shown, qtbot):
    widget = person.widget
    shown.window._qt_window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is not None)
    assert widget.keys.content.isHidden()
    qtbot.keyClick(person.native, Qt.Key.Key_Question, SHIFT)
    assert not widget.keys.content.isHidden()
    assert widget.minimumSizeHint().width() <= 380
    qtbot.keyClick(person.native, Qt.Key.Key_Question)
    assert widget.keys.content.isHidden()


def test_in_the_workbench_keys_work_while_the_step_is_open(shown, qtbot):
    layer = shown.add_labels(LABELS.copy())
    _, workbench = shown.window.add_plugin_dock_widget(PLUGIN, "Workbench")
    QApplication.processEvents()
    assert not layer.keymap
    workbench.folds[4].set_open(True)
    qtbot.waitUntil(lambda: bool(layer.keymap))
    workbench.folds[4].set_open(False)
    assert not layer.keymap


def test_the_model_is_asked_by_a_key_and_by_a_box(shown, qtbot, settle, draw):
    pixels, truth = draw(160, 200)
    shown.add_image(pixels)
    layer = shown.add_labels(np.zeros(truth.shape, np.int32))
    person = Person(shown, qtbot)
    settle(person.session)
    person.look(80, 100)
    first, second = np.unique(truth[60:120, 60:150])[1:3]
    person.move(np.argwhere(truth == first).mean(axis=0))
    person.key(Qt.Key.Key_A)
    (glass,) = person.native.findChildren(StrokeView)
    assert glass.isVisible() and "Looking" in person.widget.said.text()
    (mark,) = glass.marks()
    pos = person._pos(np.argwhere(truth == first).mean(axis=0))
    assert abs(mark.x() - pos.x()) < 3 and abs(mark.y() - pos.y()) < 3
    settle(person.session)
    assert not glass.isVisible()
    assert _iou(layer.data == 1, truth == first) > 0.6
    person.key(Qt.Key.Key_A, SHIFT)
    low, high = (f(np.argwhere(truth == second), axis=0) for f in (np.min, np.max))
    person.drag(low - 2, low + 4, high + 2)
    settle(person.session)
    assert _iou(layer.data == 2, truth == second) > 0.6
    person.key(Qt.Key.Key_A)  # under the mouse is what was just added, or its rim: no third one
    settle(person.session)
    person.widget.undo.click()
    person.widget.undo.click()
    assert not layer.data.any()


def _iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_closing_the_viewer_with_a_tool_in_hand_is_harmless(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    layer = viewer.add_labels(LABELS.copy())
    person = Person(viewer, qtbot)
    person.look(80, 100)
    person.choose("Split")
    person.choose(BORDER.word)
    viewer.close()
    qtbot.waitUntil(lambda: not person.session.busy, timeout=10_000)
    assert not layer.keymap
