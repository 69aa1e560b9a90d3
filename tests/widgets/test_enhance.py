"""The Enhance widget: its settings, the layer that it adds, before and after, and what enhancing changes."""

import threading

import numpy as np
import pytest
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_nucleus_kd.enhancer import Enhancer
from napari_nucleus_kd.mistakes import COLOURS, Verdict, mistakes, picture
from napari_nucleus_kd.pipeline import enhance, segment
from napari_nucleus_kd.types import Modality, Progress, Region, finish
from napari_nucleus_kd.widgets import _enhancing, _runs, _steps
from napari_nucleus_kd.widgets import enhance as enhance_module
from napari_nucleus_kd.widgets._before_after import BeforeAfter
from napari_nucleus_kd.widgets._layers import FROM_KEY, RECIPE_KEY
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._verdicts import ERRORS_KEY
from napari_nucleus_kd.widgets.compare import CompareWidget
from napari_nucleus_kd.widgets.enhance import EnhanceWidget
from napari_nucleus_kd.widgets.segment import SegmentWidget
from napari_nucleus_kd.workspace import Workspace

BRIGHT, DARK = "Bright on dark", "Dark on bright"


_ROUNDED = 25  # of 255: in another thread a random network rounds otherwise


@pytest.fixture
def folder(random_enhancer):
    return random_enhancer


@pytest.fixture
def draws_half(monkeypatch):
    """Let any enhancer draw what it is given, but for the left half."""

    def half(self, grey):
        drawn = grey.copy()
        drawn[:, : grey.shape[1] // 2] = 0
        return drawn

    monkeypatch.setattr(Enhancer, "_drawn", half)


@pytest.fixture
def make(viewer, session, qtbot, settle, folder, monkeypatch):
    """Return a function that opens the widget; these enhancers are there."""

    def opened(names=(folder,)):
        monkeypatch.setattr(enhance_module, "names", lambda: names)
        made = EnhanceWidget(viewer)
        qtbot.addWidget(made)
        made.resize(360, 700)
        made.show()
        settle(session)
        return made

    return opened


@pytest.fixture
def widget(make, viewer, nuclei):
    """The widget with an image in hand, at a place and a scale of its own."""
    viewer.add_image(nuclei, name="cells", scale=(0.5, 0.5), translate=(3, 7), units=("um", "um"))
    return make()


def choose(box, index):
    box.setCurrentIndex(index)
    box.activated.emit(index)


def listed(box):
    return [box.itemText(i) for i in range(box.count())]


def run(widget, settle, start=None):
    (start or widget.task.button).click()
    settle(widget.session)
    assert widget.workspace.problem is None, widget.workspace.problem


# Settings


def test_without_an_enhancer_it_says_what_to_do(make, viewer, nuclei, settle):
    viewer.add_image(nuclei)
    widget = make(names=())
    assert "nucleus-kd train --kind enhancer" in widget.plan.text()
    assert "nucleus-kd models install" in widget.plan.text()
    for part in (widget.enhancer, widget.always, widget.task.button, widget.both):
        assert not part.isEnabled()
    widget.start()
    assert "No enhancer is here" in widget.problem.text.text()


def test_without_an_image_there_is_nothing_to_press(make):
    widget = make()
    assert "No image" in widget.plan.text()
    assert not widget.task.button.isEnabled() and not widget.both.isEnabled()
    assert widget.enhancer.currentText() == "drawer" and widget.pictures.isHidden()
    widget.start()
    assert widget.workspace.activity is None and widget.workspace.problem is None


def test_enhancers_are_looked_for_only_once_it_is_seen(viewer, session, qtbot, settle, monkeypatch):
    asked = []
    monkeypatch.setattr(enhance_module, "names", lambda: asked.append(1) or ("one", "nucleus-enhancer"))
    widget = EnhanceWidget(viewer)
    qtbot.addWidget(widget)
    settle(session)
    assert not asked and not widget.enhancer.count()
    widget.show()
    settle(session)
    assert len(asked) == 1 and listed(widget.enhancer) == ["one", "nucleus-enhancer"]
    assert widget.chosen() == "nucleus-enhancer", "the shipped one is the first choice"


def test_closing_it_while_it_looks_is_harmless(viewer, session, settle, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(enhance_module, "names", lambda: gate.wait(10) and ("one",))
    widget = EnhanceWidget(viewer)
    widget.show()
    keeps_the_session = EnhanceWidget(viewer)
    widget.deleteLater()
    QApplication.sendPostedEvents(widget, QEvent.Type.DeferredDelete.value)
    assert not isalive(widget)
    gate.set()
    settle(session)
    assert session.workspace.problem is None
    keeps_the_session.deleteLater()


def test_the_tick_makes_every_run_enhance_and_is_remembered(
    widget, session, viewer, qtbot, folder, settle, preferences
):
    assert not widget.always.isChecked() and session.workspace.recipe.enhance is None
    segment_widget = SegmentWidget(viewer)
    qtbot.addWidget(segment_widget)
    widget.always.click()
    assert session.workspace.recipe.enhance == folder
    qtbot.waitUntil(lambda: "enhanced first by drawer" in segment_widget.plan.text())
    segment_widget.start()
    settle(session)
    assert any(note.startswith("enhanced by drawer") for note in session.workspace.result.notes)
    assert Workspace.remembered(preferences).recipe.enhance == folder
    widget.always.click()
    assert session.workspace.recipe.enhance is None and widget.chosen() == folder


def test_another_enhancer_is_taken_at_once_if_it_is_on(make, session):
    widget = make(names=("one", "two"))
    choose(widget.enhancer, 1)
    assert session.workspace.recipe.enhance is None and widget.chosen() == "two"
    widget.always.click()
    choose(widget.enhancer, 0)
    assert session.workspace.recipe.enhance == "one"
    session.workspace.set_recipe(enhance="/a/folder/mine")
    assert listed(widget.enhancer) == ["one", "two", "mine"] and widget.chosen() == "/a/folder/mine"
    assert widget.always.isChecked()


def test_the_polarity_follows_the_image_unless_it_is_said(widget, session, viewer, settle, nuclei):
    assert listed(widget.polarity) == ["Automatic", BRIGHT, DARK]
    choose(widget.polarity, 2)
    assert session.workspace.recipe.polarity == "dark"
    session.open_sample("he")
    settle(session)
    assert listed(widget.polarity)[0] == "Automatic (dark)"
    assert session.workspace.recipe.polarity == "auto", "it was said of images of another kind"
    session.workspace.set_recipe(mapping="haematoxylin")
    assert widget.polarity.currentText() == "Automatic (bright)"
    session.workspace.set_recipe(modality=Modality.HE, mapping=None)
    assert widget.polarity.currentText() == "Automatic (dark)"
    viewer.layers.clear()
    viewer.add_image(255 - nuclei, name="bright-field")
    settle(session)
    assert widget.polarity.currentText() == "Automatic"
    run(widget, settle)
    assert "Nuclei were taken for dark in the image." in widget.outcome.text()


# The layer


def test_the_layer_lies_on_its_image_and_is_an_image_of_its_own(
    widget, session, viewer, settle, nuclei, folder, qtbot
):
    run(widget, settle)
    source, layer = viewer.layers
    assert layer.name == "cells enhanced" and layer.colormap.name == "gray"
    drawn = enhance(nuclei, enhance=folder).pixels[0]
    np.testing.assert_allclose(layer.data, drawn.astype(float), atol=_ROUNDED)
    assert layer.data.dtype == np.uint8 and layer.contrast_limits == [0, 255]
    for name in ("scale", "translate", "units"):
        assert tuple(getattr(layer, name)) == tuple(getattr(source, name))
    assert RECIPE_KEY not in layer.metadata
    assert session.source.name == "cells", "the image stays in hand"
    run(widget, settle)
    assert [each.name for each in viewer.layers] == ["cells", "cells enhanced"], "the former one is replaced"
    made = SegmentWidget(viewer)
    qtbot.addWidget(made)
    assert listed(made.image.box) == ["cells", "cells enhanced"]


def test_the_enhanced_layer_can_be_segmented(widget, session, viewer, settle, draws_half, qtbot):
    run(widget, settle)
    made, layer = SegmentWidget(viewer), viewer.layers[-1]
    qtbot.addWidget(made)
    choose(made.image.box, 1)
    settle(session)
    assert session.source.layers == (layer,) and session.workspace.suggestion[0] is Modality.FLUORESCENCE
    assert session.workspace.image.pixel_size_um == pytest.approx(0.5)
    made.start()
    settle(session)
    assert session.workspace.problem is None
    labels = viewer.layers[-1]
    np.testing.assert_array_equal(labels.data, segment(layer.data, segmenter="classical").nuclei.labels)
    assert labels.data.max() > 5 and not labels.data[:, :90].any()
    assert tuple(labels.translate) == tuple(layer.translate) and labels.name == "cells enhanced nuclei"


def test_the_layer_of_a_part_and_of_a_stack_lies_in_its_place(
    make, viewer, session, settle, nuclei, folder, monkeypatch
):
    stack = np.zeros((4, *nuclei.shape), np.uint8)
    stack[2] = nuclei
    viewer.add_image(stack, name="stack", scale=(2, 0.5, 0.5))
    viewer.dims.set_current_step(0, 2)
    widget, part = make(), Region(20, 30, 120, 150)
    monkeypatch.setattr(_runs._layers, "visible_region", lambda *_: part)
    run(widget, settle)
    layer = viewer.layers[-1]
    assert layer.data.shape == (1, 100, 120) and tuple(layer.translate) == (4, 10, 15)
    drawn = enhance(nuclei, enhance=folder, region=part).pixels[0]
    np.testing.assert_allclose(layer.data[0], drawn.astype(float), atol=_ROUNDED)
    session.workspace.whole_image = True
    run(widget, settle)
    assert viewer.layers[-1].data.shape == (1, *nuclei.shape) and len(viewer.layers) == 2


def test_the_former_layer_may_be_in_hand(widget, viewer, session, settle, monkeypatch):
    run(widget, settle)
    gate = threading.Event()
    steps = _enhancing.enhanced_steps

    def held(*arguments):
        gate.wait(10)
        return (yield from steps(*arguments))

    monkeypatch.setattr(_enhancing, "enhanced_steps", held)
    widget.start()
    session.choose(session.sources()[-1])
    gate.set()
    settle(session)
    assert [each.name for each in viewer.layers] == ["cells", "cells enhanced"]
    assert session.source.layers == (viewer.layers[-1],) and session.workspace.problem is None


def test_a_colour_image_is_enhanced_as_dark_nuclei(make, viewer, session, settle, monkeypatch):
    given = []
    monkeypatch.setattr(Enhancer, "_drawn", lambda self, grey: given.append(self.dark) or grey)
    widget = make()
    session.open_sample("he")
    settle(session)
    run(widget, settle)
    layer = viewer.layers[-1]
    assert set(given) == {True} and not layer.rgb and layer.data.ndim == 2
    before, after = (p.toImage().pixelColor(40, 40) for p in widget.pictures._pictures)
    assert len({before.red(), before.green(), before.blue()}) > 1, "the image is shown in its colours"
    assert after.red() == after.green() == after.blue()


def test_an_image_too_large_for_memory_is_refused_in_words(widget, session, viewer, settle, monkeypatch):
    monkeypatch.setattr(_runs, "ON_DISK_EDGE_PX", 200)
    for start in (widget.task.button, widget.both):
        session.workspace.problem = None
        start.click()
        said = widget.problem.text.text()
        assert "208 × 182 px" in said and "nucleus-kd enhance" in said and "Enhance before segmenting" in said
        assert session.workspace.activity is None and len(viewer.layers) == 1


def test_out_of_view_is_said(widget, session, monkeypatch):
    monkeypatch.setattr(_runs._layers, "is_in_view", lambda *_: False)
    widget.task.button.click()
    assert "Nothing of the image is in view" in widget.problem.text.text()


def test_what_fails_stands_in_the_widget(make, viewer, session, nuclei, settle):
    viewer.add_image(nuclei)
    widget = make(names=("nucleus-student",))
    widget.task.button.click()
    settle(session)
    assert "is no enhancer but a model" in widget.problem.text.text() and widget.task.button.isEnabled()
    assert len(viewer.layers) == 1 and widget.pictures.isHidden()


@pytest.mark.parametrize("which", ["enhance", "both"])
def test_cancel_leaves_everything_as_it_was(widget, session, viewer, settle, qtbot, monkeypatch, which):
    entered, gate, drawn = threading.Event(), threading.Event(), Enhancer._drawn

    def slow(self, grey):
        entered.set()
        gate.wait(10)
        return drawn(self, grey)

    monkeypatch.setattr(Enhancer, "_drawn", slow)
    (widget.task.button if which == "enhance" else widget.both).click()
    assert widget.task.currentWidget() is not widget.task.button and not widget.both.isEnabled()
    assert entered.wait(30)
    widget.task.cancel.click()
    gate.set()
    settle(session)
    assert len(viewer.layers) == 1 and session.workspace.problem is None
    assert widget.pictures.isHidden() and widget.outcome.isHidden()
    assert widget.task.currentWidget() is widget.task.button and widget.both.isEnabled()


def test_it_says_how_many_parts_are_done_and_waits_for_other_jobs(
    make, viewer, session, qtbot, settle, draw, monkeypatch
):
    viewer.add_image(draw(700, 600)[0])
    widget, gate, drawn = make(), threading.Event(), Enhancer._drawn
    calls = []

    def slow(self, grey):
        calls.append(1)
        if len(calls) == 2:
            gate.wait(10)
        return drawn(self, grey)

    monkeypatch.setattr(Enhancer, "_drawn", slow)
    widget.task.button.click()
    qtbot.waitUntil(lambda: "Enhancing: part 1 of 4" in widget.task.message.text(), timeout=30_000)
    widget.segment_both()
    assert session.workspace.activity.title == "Enhancing Image" and not session.workspace.activity.following
    gate.set()
    settle(session)
    assert len(calls) == 4 and viewer.layers[-1].data.shape == (700, 600)


# Before and after


def test_both_pictures_are_shown_and_go_with_their_image(widget, session, viewer, settle, nuclei, draws_half):
    run(widget, settle)
    assert widget.pictures.isVisible() and widget.pictures.height() >= 240
    before, after = (p.toImage() for p in widget.pictures._pictures)
    assert (before.width(), before.height()) == (nuclei.shape[1], nuclei.shape[0]) == (208, 182)
    assert before.size() == after.size()
    y, x = (int(n) for n in np.argwhere(nuclei == nuclei[:, :90].max())[0])
    assert before.pixelColor(x, y).red() > 200 and after.pixelColor(x, y).red() == 0, "the left half is empty"
    session.refresh()
    assert widget.pictures.isVisible(), "it is the same image"
    viewer.add_image(nuclei, name="another")
    session.choose(session.sources()[-1])
    settle(session)
    assert widget.pictures.isHidden() and not widget.pictures.has_pictures and widget.outcome.isHidden()


@pytest.mark.parametrize(
    "changed", [{"percentiles": (5.0, 95.0)}, {"polarity": "dark"}, {"modality": Modality.HE}]
)
def test_pictures_that_would_be_others_now_are_let_go(widget, session, settle, folder, changed):
    run(widget, settle)
    for segments in ({"diameter_px": 30.0}, {"segmenter": "classical"}, {"enhance": folder}):
        session.workspace.set_recipe(**segments)
        assert widget.pictures.has_pictures and widget.outcome.text(), "what segments does not count"
    session.workspace.set_recipe(**changed)
    assert not widget.pictures.has_pictures and not widget.outcome.text()


def test_layers_are_told_of_while_they_are_there(widget, viewer, session, settle, draws_half):
    run(widget, settle, widget.both)
    told = widget.differences.text()
    choose(widget.polarity, 2)
    run(widget, settle)
    assert "only without" in told and widget.differences.text() == told and widget.legend.isVisible()
    assert "“cells enhanced” is a layer now" in widget.outcome.text()
    assert [each.name for each in viewer.layers][:2] == ["cells", "cells enhanced"], "labels are seen on it"
    del viewer.layers["cells enhanced"]
    assert widget.outcome.isHidden() and not widget.pictures.has_pictures
    assert widget.differences.text() == told and widget.legend.isVisible()
    del viewer.layers["Where they differ (cells)"]
    assert widget.differences.isHidden() and widget.legend.isHidden()


def test_nuclei_of_an_enhanced_image_are_called_so(widget, viewer, session, settle, folder):
    session.workspace.set_recipe(enhance=folder)
    session.runs.start(lambda _: None)
    settle(session)
    assert viewer.layers[-1].name == "cells nuclei, enhanced"


def test_another_plane_of_a_stack_lets_go_of_the_picture(make, viewer, settle, nuclei):
    viewer.add_image(np.stack([nuclei] * 3))
    widget = make()
    run(widget, settle)
    assert widget.pictures.has_pictures
    viewer.dims.set_current_step(0, 0 if viewer.dims.current_step[0] else 1)
    assert not widget.pictures.has_pictures


def test_pictures_are_made_smaller_by_means():
    small = _enhancing._small(np.arange(2 * 2050 * 4, dtype=np.float32).reshape(1, 2050, 8) % 256)
    assert small.shape == (683, 2, 1)
    assert small[0, 0, 0] == np.round(np.mean([[0, 1, 2], [8, 9, 10], [16, 17, 18]]))
    assert _enhancing._small(np.full((3, 1, 5000), 7, np.uint8)).shape == (1, 1000, 3)


@pytest.fixture
def pair(qtbot):
    """Black before and white after, twice as wide as high, in a widget that is higher."""
    made = BeforeAfter("image", "enhanced")
    qtbot.addWidget(made)
    made.resize(300, 240)
    made.set_pictures(np.zeros((100, 200, 3), np.uint8), np.full((100, 200, 3), 255, np.uint8))
    return made


def share_after(pair):
    """Return how much of a row of pixels shows the picture after."""
    picture, area = pair.grab().toImage(), pair.area()
    row = [picture.pixelColor(x, area.bottom() - 20).red() for x in range(area.left(), area.right())]
    return np.mean(np.array(row) > 200)


def test_the_pictures_keep_their_shape_and_the_line_parts_them(pair):
    area = pair.area()
    assert pair.height() == 240 and (area.width(), area.height()) == (300, 150)
    assert abs(area.top() - (240 - 150) // 2) <= 1
    assert share_after(pair) == pytest.approx(0.5, abs=0.03)
    assert pair.toolTip() == "Drag to compare"
    assert pair.cursor().shape() == Qt.CursorShape.SplitHCursor
    pair.set_pictures(np.zeros((900, 100, 3), np.uint8), np.zeros((900, 100, 3), np.uint8))
    assert pair.height() <= 420 and pair.area().height() <= pair.height()
    assert pair.area().width() == pytest.approx(pair.area().height() / 9, abs=1)


def test_the_line_follows_the_mouse(pair, qtbot):
    left, y = Qt.MouseButton.LeftButton, pair.area().center().y()
    qtbot.mousePress(pair, left, pos=QPoint(75, y))
    assert pair.divider == pytest.approx(0.25) and share_after(pair) == pytest.approx(0.75, abs=0.03)
    for x, expected in ((240, 0.8), (900, 1.0), (-50, 0.0)):
        at = QPointF(x, y)
        move = QMouseEvent(
            QMouseEvent.Type.MouseMove, at, pair.mapToGlobal(at), left, left, Qt.KeyboardModifier.NoModifier
        )
        QApplication.sendEvent(pair, move)
        assert pair.divider == pytest.approx(expected)
    qtbot.mouseRelease(pair, left, pos=QPoint(75, y))
    qtbot.mouseMove(pair, QPoint(150, y))
    assert pair.divider == 0, "no button is pressed"


def test_the_line_follows_the_keys(pair, qtbot):
    for _ in range(2):
        qtbot.keyClick(pair, Qt.Key.Key_Right)
    assert pair.divider == pytest.approx(0.6)
    for _ in range(20):
        qtbot.keyClick(pair, Qt.Key.Key_Left)
    assert pair.divider == 0 and share_after(pair) > 0.95
    assert pair.focusPolicy() & Qt.FocusPolicy.TabFocus


# Both


def test_both_are_segmented_and_their_differences_told(
    widget, session, viewer, settle, nuclei, folder, draws_half
):
    before = viewer.add_labels(np.ones((9, 9), int), metadata={FROM_KEY: session.source.key})
    run(widget, settle, widget.both)
    plain, enhanced, differ = list(viewer.layers)[-3:]
    assert [each.name for each in (plain, enhanced, differ)] == [
        "cells nuclei",
        "cells nuclei, enhanced",
        "Where they differ (cells)",
    ]
    first = segment(nuclei, segmenter="classical").nuclei.labels
    second = segment(nuclei, segmenter="classical", enhance=folder).nuclei.labels
    np.testing.assert_array_equal(plain.data, first)
    np.testing.assert_array_equal(enhanced.data, second)
    np.testing.assert_array_equal(differ.data, picture(first, second))
    assert plain.metadata[RECIPE_KEY].enhance is None and enhanced.metadata[RECIPE_KEY].enhance == folder
    assert [each.visible for each in (before, plain, enhanced, differ)] == [False, False, False, True]
    assert not differ.editable and tuple(differ.translate) == (3, 7)
    found = mistakes(first, second)
    alike, lost = ((found.true == v).sum() for v in (Verdict.CORRECT, Verdict.MISSED))
    assert 0 < lost < first.max() == len(found.true)
    said = widget.differences.text()
    counts = f"{first.max()} nuclei without, {second.max()} enhanced"
    assert said.startswith(f"{counts}: {alike} alike, {lost} only without")
    assert COLOURS[Verdict.MISSED] in widget.legend.text() and widget.legend.isVisible()
    assert session.workspace.recipe.enhance is None, "the setting is left as it was"
    chosen = session.source
    session.choose(None)
    assert widget.differences.isHidden() and widget.legend.isHidden()
    session.choose(chosen)
    assert widget.differences.text() == said and widget.legend.isVisible(), "told again with its image"
    run(widget, settle, widget.both)
    assert [each.name for each in viewer.layers].count("Where they differ (cells)") == 1
    assert differ not in viewer.layers
    session.choose(None)
    del viewer.layers["Where they differ (cells)"]
    session.choose(chosen)
    assert widget.differences.isHidden(), "of what is gone nothing is told"


def test_the_words_count_the_nuclei_that_were_found_without():
    first, second = np.zeros((2, 10, 60), np.int32)
    first[2:8, 2:8], first[2:8, 10:22], first[2:8, 24:30], first[2:8, 30:36] = 1, 2, 3, 4
    first[2:8, 40:46] = 5
    second[2:8, 2:8], second[2:8, 10:16], second[2:8, 16:22], second[2:8, 24:36] = 1, 2, 3, 4
    second[2:8, 50:56] = 5
    both = _enhancing.Both(None, None, mistakes(first, second), first)
    assert both.words() == (
        "5 nuclei without, 5 enhanced: 1 alike, 1 only without, 1 only enhanced, 1 split into 2, "
        "2 merged into 1."
    )


def test_progress_says_which_of_both_is_segmented(monkeypatch):
    def steps(image, recipe):
        yield Progress(1, 3, f"tile, {recipe.enhance}")
        raise RuntimeError

    monkeypatch.setattr(_steps, "memory_steps", steps)
    from napari_nucleus_kd.config import Recipe

    running = _enhancing.both_steps(None, Recipe(enhance="any", enhance_hash="0"))
    assert next(running) == Progress(1, 3, "as it is: tile, None")
    with pytest.raises(RuntimeError):
        finish(running)


def test_compare_leaves_the_differences_alone_and_enhances_if_it_is_on(
    widget, session, viewer, settle, qtbot, folder, draws_half, draw
):
    run(widget, settle, widget.both)
    differ = viewer.layers[-1]
    made = CompareWidget(viewer)
    qtbot.addWidget(made)
    assert not any("differ" in name for name in made.choices())
    assert "enhanced" not in made.plan.text()
    widget.always.click()
    assert made.plan.text() == "On cells, enhanced first by drawer: tick what to compare."
    for name in made.ticked():
        made.tick(name, False)
    made.tick("Classical (no network)")
    made.truth.setCurrentIndex(made.truth.findData("Layer: cells nuclei, enhanced"))
    made.start()
    settle(session)
    assert session.workspace.problem is None
    (standing,) = made.found.compared.standings
    assert standing.means["pq"][0] == pytest.approx(1), "it found what was found enhanced"
    assert "enhanced first by drawer" in made.found.compared.comparison.cases[0].about
    assert differ in viewer.layers and differ.visible and not differ.metadata[ERRORS_KEY]


def test_two_windows_of_the_step_show_the_same(widget, make, session, folder):
    other = make()
    widget.always.click()
    assert other.always.isChecked() and other.chosen() == folder
    choose(other.polarity, 1)
    assert widget.polarity.currentText() == BRIGHT


def test_closing_it_while_it_runs_keeps_what_comes(widget, viewer, session, settle, folder, monkeypatch):
    gate, drawn = threading.Event(), Enhancer._drawn
    monkeypatch.setattr(Enhancer, "_drawn", lambda self, grey: (gate.wait(10), drawn(self, grey))[1])
    closed = EnhanceWidget(viewer)
    session.workspace.set_recipe(enhance=folder)
    closed.start()
    assert session.workspace.activity is not None
    closed.deleteLater()
    QApplication.sendPostedEvents(closed, QEvent.Type.DeferredDelete.value)
    assert not isalive(closed)
    gate.set()
    settle(session)
    assert viewer.layers[-1].name == "cells enhanced" and session_of(viewer).workspace.problem is None


def test_the_widget_is_not_wider_than_its_dock(widget, settle):
    run(widget, settle, widget.both)
    run(widget, settle)
    assert widget.minimumSizeHint().width() <= 360
    for part in (widget.task, widget.both, widget.pictures, widget.polarity, widget.always):
        assert part.geometry().right() <= widget.width()
