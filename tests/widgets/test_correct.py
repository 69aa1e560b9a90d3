"""What the Correct widget does to layers of every kind; test_correct_window.py has keys, mouse and canvas."""

import re

import dask.array
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.action_manager import action_manager
from napari.utils.shortcuts import default_shortcuts
from scipy.ndimage import distance_transform_edt

from napari_nucleus_kd import edit
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.widgets import _copying, _numbers
from napari_nucleus_kd.widgets._layers import FROM_KEY, RECIPE_KEY, source_key
from napari_nucleus_kd.widgets._removal import LAYER_NAME
from napari_nucleus_kd.widgets._tools import (
    ADD,
    BORDER,
    BOX,
    NEXT,
    PREVIOUS,
    SMALL,
    TOOLS,
    UNVERIFY,
    VERIFY,
    key_help,
)
from napari_nucleus_kd.widgets.correct import CorrectWidget

BY_WORD = {tool.word: tool for tool in TOOLS}


def disks(shape, *circles):
    """Draw circles (y, x, radius) numbered 1, 2, ...; later ones do not cover earlier ones."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for number, (y, x, radius) in enumerate(circles, 1):
        labels[(np.hypot(yy - y, xx - x) <= radius) & (labels == 0)] = number
    return labels


LABELS = disks((90, 110), (40, 40, 12), (40, 61, 12), (15, 90, 8), (0, 20, 6), (80, 80, 2))


@pytest.fixture
def widget(viewer, session, settle, qtbot):
    """The widget, shown, so that keys are bound; no layer yet."""
    settle(session)  # a thread that imports torch touches the filters of warnings
    widget = CorrectWidget(viewer)
    qtbot.addWidget(widget)
    widget.show()
    return widget


@pytest.fixture
def act(widget):
    """Return a function that uses a tool, by its word, along points of the selected layer."""

    def use(word, *points):
        layer = widget.session.viewer.layers.selection.active
        offset = (0,) * (layer.ndim - 2)
        places = [tuple(layer.data_to_world((*offset, *at))) for at in points]
        if layer.ndim > 2:
            shown = widget.session.viewer.dims.point
            places = [(*shown[:-2], *place[-2:]) for place in places]
        widget.corrections.act(BY_WORD[word], places)

    return use


def done(labels, change):
    after = labels.copy()
    change.apply(after)
    return after


PATHS = {
    "Merge": ([(40, 40), (40, 61)], lambda a: edit.merge(a, [(40, 40), (40, 61)])),
    "Split": ([(20, 40), (60, 40)], lambda a: edit.split(a, [(20, 40), (60, 40)], 6)),
    "Delete": ([(15, 90)], lambda a: edit.delete(a, (15, 90))),
    "Smooth": ([(40, 40)], lambda a: edit.smooth(a, (40, 40))),
    "Grow": ([(15, 90)], lambda a: edit.grow(a, (15, 90), 1)),
    "Shrink": ([(15, 90)], lambda a: edit.grow(a, (15, 90), -1)),
    "Redraw": (
        [(60, 20), (60, 40), (80, 40), (80, 20)],
        lambda a: edit.redraw(a, [(60, 20), (60, 40), (80, 40), (80, 20)], 6),
    ),
}


@pytest.mark.parametrize("word", PATHS)
def test_each_tool_does_what_its_function_does_in_one_step(widget, viewer, act, word):
    layer = viewer.add_labels(LABELS.copy(), scale=(0.5, 0.5), translate=(3, 4))
    path, change = PATHS[word]
    steps = []
    layer.events.paint.connect(steps.append)
    act(word, *path)
    np.testing.assert_array_equal(layer.data, done(LABELS, change(LABELS)))
    assert len(steps) == 1 and "changed" in widget.said.text()
    widget.undo.click()
    np.testing.assert_array_equal(layer.data, LABELS)
    widget.redo.click()
    np.testing.assert_array_equal(layer.data, done(LABELS, change(LABELS)))


def test_waists_and_holes(widget, viewer, act):
    labels = np.where(LABELS == 2, 1, LABELS)
    labels[15, 90] = 0
    layer = viewer.add_labels(labels.copy())
    act("At waist", (40, 45))
    np.testing.assert_array_equal(layer.data, done(labels, edit.split_at_waist(labels, (40, 45), 6)))
    assert "2 nuclei now" in widget.said.text()
    act("Merge", (40, 40), (40, 61))
    assert "2 nuclei joined" in widget.said.text()
    widget.corrections.undo()
    assert widget.said.text() == "The newest correction was taken back."
    act("Fill holes", (14, 90))
    assert layer.data[15, 90] == 3 and layer.selected_label == 3
    act("Fill holes", (14, 90))
    assert "nothing to change" in widget.said.text()


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
def test_a_stack_is_corrected_in_the_plane_that_is_shown(
    widget, viewer, act, settle, session, tmp_path, kind
):
    stack = np.stack([np.zeros_like(LABELS), LABELS, np.where(LABELS == 3, 40, 0)]).astype(np.int32)
    data = stack.copy()
    if kind == "zarr":
        data = zarr.create_array(
            tmp_path / "labels.zarr", shape=stack.shape, dtype="int32", chunks=(1, 64, 64)
        )
        data[:] = stack
    layer = viewer.add_labels(data, scale=(2, 1, 1))
    settle(session)
    viewer.dims.set_current_step(0, 1)
    act("Delete", (15, 90))
    act("Split", (20, 40), (60, 40))
    assert session.workspace.problem is None
    expected = done(LABELS, edit.delete(LABELS, (15, 90)))
    expected = done(expected, edit.split(expected, [(20, 40), (60, 40)], 41))
    np.testing.assert_array_equal(layer.data[1], expected)
    np.testing.assert_array_equal(layer.data[2], stack[2])
    np.testing.assert_array_equal(np.asarray(layer._slice.image.raw), expected)
    layer.undo()
    layer.undo()
    np.testing.assert_array_equal(np.asarray(layer.data[:]), stack)


def test_other_axes_of_a_stack_are_planes_too(widget, viewer, session):
    stack = np.stack([LABELS, LABELS, np.zeros_like(LABELS)])
    layer = viewer.add_labels(stack.copy(), scale=(2, 1, 1))
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 15)
    widget.corrections.act(BY_WORD["Delete"], [(2, 15, 90)])
    assert session.workspace.problem is None
    expected = stack.copy()
    expected[:, 15][expected[:, 15] == 3] = 0
    np.testing.assert_array_equal(layer.data, expected)
    layer.undo()
    np.testing.assert_array_equal(layer.data, stack)


def test_new_numbers_are_never_in_use(widget, viewer, act):
    layer = viewer.add_labels(LABELS.copy())
    numbers = widget.corrections
    assert numbers.fresh() == 6
    layer.selected_label = 50
    layer.paint((70, 20), 50)
    assert numbers.fresh() == 51
    layer.undo()
    assert numbers.fresh() == 51, "it may be redone"
    act("Split", (20, 40), (60, 40))
    assert layer.data.max() == 51 and numbers.fresh() == 52
    layer.data_setitem((np.array([70, 71]), np.array([5, 5])), np.array([80, 90]))
    assert numbers.fresh() == 91
    layer.data = LABELS * 30
    assert numbers.fresh() == 151
    layer.selected_label = 151
    with layer.block_history():  # as while a person draws a stroke
        layer.paint((70, 20), 151)
        assert numbers.fresh() == 152


def test_a_number_that_was_made_again_or_written_by_a_script_is_in_use(widget, viewer, act):
    layer = viewer.add_labels(LABELS.copy())
    act("Split", (20, 40), (60, 40))
    assert layer.data.max() == 6
    widget.corrections.undo()
    viewer.layers.selection.active = viewer.add_labels(
        LABELS.copy()
    )  # numbers are looked for anew afterwards
    viewer.layers.selection.active = layer
    widget.corrections.redo()
    act("Split", (20, 61), (60, 61))
    assert layer.data.max() == 7 and len(edit.extent(layer.data, (40, 33)).shape_yx) == 2
    layer.data[85, 5] = 200
    layer.refresh()
    assert widget.corrections.fresh() == 201


def test_the_order_of_steps_is_known_after_the_widget_was_hidden(widget, viewer, act, settle):
    viewer.add_image(np.zeros(LABELS.shape, np.uint8))
    settle(widget.session)
    layer = viewer.add_labels(LABELS.copy())
    widget.corrections.act(VERIFY, [(30, 30), (60, 60)])
    settle(widget.session)
    act("Delete", (15, 90))
    widget.hide()
    widget.show()
    widget.corrections.undo()
    np.testing.assert_array_equal(layer.data, LABELS)
    (mask,) = widget.session.keeping.verifying.masks.values()
    assert mask.pixels.sum() == 31 * 31, "the mark is older"
    widget.corrections.undo()
    assert not mask.pixels.any()


def test_a_large_layer_is_looked_through_in_a_thread(widget, viewer, act, session, settle, monkeypatch):
    monkeypatch.setattr(_numbers, "_AT_ONCE", 10)
    monkeypatch.setattr(_numbers, "_BLOCK", 2000)
    layer = viewer.add_labels(LABELS.copy())
    act("Split", (20, 40), (60, 40))
    assert "still looking which numbers" in widget.problem.text.text().lower()
    act("Delete", (15, 90))  # needs no number
    assert not (layer.data == 3).any()
    settle(session)
    act("Split", (20, 40), (60, 40))
    assert layer.data.max() == 6 and session.workspace.problem is None


def test_numbers_that_do_not_fit_are_refused_in_words(widget, viewer, act):
    layer = viewer.add_labels(np.where(LABELS == 3, 255, LABELS).astype(np.uint8))
    act("Split", (20, 40), (60, 40))
    assert "uint8 and end at 255" in widget.problem.text.text()
    assert not widget.problem.isHidden() and widget.problem.fold.isHidden(), "no details: it is no fault"
    act("Delete", (40, 61))
    assert widget.problem.isHidden() and not (layer.data == 2).any()


def _image(viewer):
    viewer.add_image(LABELS.astype(np.float32), name="picture")


def _pyramid(viewer):
    viewer.add_labels([LABELS, LABELS[::2, ::2]], multiscale=True, name="pyramid")


def _hidden(viewer):
    viewer.add_labels(LABELS.copy(), name="mine", visible=False)


def _volume(viewer):
    viewer.add_labels(np.stack([LABELS] * 3))
    viewer.dims.ndisplay = 3


def _read_only(viewer):
    fixed = LABELS.copy()
    fixed.flags.writeable = False
    viewer.add_labels(fixed)


def _other_plane(viewer):
    viewer.add_image(np.zeros((9, 90, 110)))
    viewer.add_labels(LABELS[None].copy(), translate=(4, 0, 0), name="thin")
    viewer.dims.set_current_step(0, 7)


def _locked(viewer):
    viewer.add_labels(LABELS.copy()).editable = False


@pytest.mark.parametrize(
    ("make", "words", "copy"),
    [
        (lambda viewer: None, "Select the Labels layer", False),
        (_image, "“picture” is a layer of kind Image.*Convert to Labels", False),
        (lambda viewer: viewer.add_points(name="points"), "kind Points.*select the Labels layer", False),
        (_pyramid, "“pyramid” cannot be changed: it is a pyramid.*copy it to memory", True),
        (lambda viewer: viewer.add_labels(dask.array.from_array(LABELS)), "piece by piece .dask.", True),
        (_read_only, "opened for reading only; copy", True),
        (_hidden, "“mine” is hidden; show it with the eye", False),
        (_volume, "shows a volume; switch to planes", False),
        (_other_plane, "“thin” has nothing in the plane", False),
        (_locked, "is locked", False),
    ],
)
def test_what_cannot_be_corrected_says_what_to_do(widget, viewer, make, words, copy):
    make(viewer)
    assert re.search(words, widget.about.text()), widget.about.text()
    assert not widget.tools.isEnabled() and not widget.removal.isEnabled()
    assert widget.copy.isHidden() is not copy
    assert not any(layer.keymap for layer in viewer.layers)
    widget.corrections.press(BY_WORD["Delete"])
    assert not widget.problem.isHidden()


def test_a_remedy_works_at_once(widget, viewer, act):
    _hidden(viewer)
    (layer,) = viewer.layers
    layer.visible = True
    assert widget.tools.isEnabled() and layer.keymap
    act("Delete", (15, 90))
    assert not (layer.data == 3).any()


@pytest.mark.parametrize("kind", ["pyramid", "dask", "zarr"])
def test_labels_in_a_file_are_copied_to_memory(
    widget, viewer, session, settle, act, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(_numbers, "_BLOCK", 2000)
    keywords = {"scale": (0.5, 0.5), "translate": (3, 1), "metadata": {FROM_KEY: "x", "path": "there"}}
    if kind == "pyramid":
        levels = [dask.array.from_array(LABELS), dask.array.from_array(LABELS[::2, ::2])]
        layer = viewer.add_labels(levels, multiscale=True, **keywords)
    elif kind == "dask":
        layer = viewer.add_labels(dask.array.from_array(LABELS), **keywords)
    else:
        array = zarr.create_array(tmp_path / "labels.zarr", shape=LABELS.shape, dtype="int32")
        array[:] = LABELS
        layer = viewer.add_labels(zarr.open_array(tmp_path / "labels.zarr", mode="r"), **keywords)
    widget.copy.click()
    settle(session)
    copy = viewer.layers[-1]
    assert not layer.visible and viewer.layers.selection.active is copy
    assert isinstance(copy.data, np.ndarray) and copy.metadata == {FROM_KEY: "x"}
    np.testing.assert_array_equal(copy.data, LABELS)
    np.testing.assert_array_equal(copy.translate, layer.translate)
    np.testing.assert_array_equal(copy.scale, layer.scale)
    act("Delete", (15, 90))
    assert not (copy.data == 3).any() and session.workspace.problem is None


def test_labels_too_large_for_memory_are_not_copied(widget, viewer, monkeypatch):
    viewer.add_labels(dask.array.from_array(LABELS))
    monkeypatch.setattr(_copying, "_SHARE", 0)
    widget.copy.click()
    assert "of memory" in widget.problem.text.text() and len(viewer.layers) == 1


# Many at once


def test_small_nuclei_are_shown_then_removed_in_one_step(widget, viewer, session, settle):
    layer = viewer.add_labels(LABELS.copy(), scale=(0.5, 0.5))
    widget.below.setValue(100)
    widget.buttons[SMALL].click()
    settle(session)
    shown = viewer.layers[LAYER_NAME]
    small = np.isin(LABELS, edit.small(LABELS, 100))
    np.testing.assert_array_equal(shown.data > 0, small)
    np.testing.assert_array_equal(shown.scale, layer.scale)
    assert viewer.layers.selection.active is layer and layer.keymap
    assert widget.task.button.text() == "Remove 2 nuclei below 100 px²" and widget.offer.isVisible()
    widget.task.button.click()
    assert LAYER_NAME not in viewer.layers
    np.testing.assert_array_equal(layer.data, np.where(small, 0, LABELS))
    assert "Removed 2 nuclei" in widget.said.text() and widget.offer.isHidden()
    layer.undo()
    np.testing.assert_array_equal(layer.data, LABELS)
    widget.corrections.undo()
    assert "nothing to take back" in widget.said.text()
    widget.buttons[SMALL].click()
    settle(session)
    widget.keep.click()
    assert widget.said.text() == "Nothing was removed." and widget.offer.isHidden()


def test_nuclei_of_another_plane_are_not_offered_for_removal(widget, viewer, session, settle):
    viewer.add_labels(np.stack([LABELS, LABELS * 2]))
    viewer.dims.set_point(0, 0)
    widget.below.setValue(100)
    widget.buttons[SMALL].click()
    viewer.dims.set_point(0, 1)
    settle(session)
    assert LAYER_NAME not in viewer.layers and widget.offer.isHidden()
    assert "another plane was shown" in widget.problem.text.text().lower()


def test_enter_ends_a_polygon_of_naparis_and_removes_nothing(widget, viewer, session, settle):
    layer = viewer.add_labels(LABELS.copy())
    widget.below.setValue(100)
    widget.buttons[SMALL].click()
    settle(session)
    assert any(str(key) == "Enter" for key in layer.keymap)
    layer.mode = "pan_zoom"
    assert LAYER_NAME in viewer.layers
    layer.mode = "polygon"
    assert LAYER_NAME not in viewer.layers and not any(str(key) == "Enter" for key in layer.keymap)


def test_nuclei_at_the_border_can_be_kept(widget, viewer, session, settle):
    layer = viewer.add_labels(LABELS.copy())
    widget.buttons[BORDER].click()
    settle(session)
    assert "Remove 1 nucleus at the border" in widget.task.button.text()
    widget.keep.click()
    assert LAYER_NAME not in viewer.layers and widget.offer.isHidden()
    np.testing.assert_array_equal(layer.data, LABELS)


def test_small_nuclei_go_and_those_at_the_border_stay_by_keys(widget, viewer, session, settle):
    layer = viewer.add_labels(LABELS.copy())
    widget.below.setValue(100)

    def press(key):
        next(slot for known, slot in layer.keymap.items() if str(known) == key)(layer)
        settle(session)

    press("Shift+B")
    assert widget.buttons[BORDER].isChecked() and widget.offer.isVisible()
    press("Shift+B")
    assert widget.said.text() == "Nothing was removed." and not widget.buttons[BORDER].isChecked()
    assert "Enter" not in map(str, layer.keymap), "the key is napari's own again"
    press("Shift+S")
    press("Enter")
    np.testing.assert_array_equal(layer.data, np.where(np.isin(LABELS, edit.small(LABELS, 100)), 0, LABELS))
    assert "Enter" not in map(str, layer.keymap) and LAYER_NAME not in viewer.layers


def test_a_second_look_before_the_first_is_answered_leaves_nothing(widget, viewer, session, settle):
    layer = viewer.add_labels(LABELS.copy())
    widget.buttons[BORDER].click()
    widget.buttons[SMALL].click()
    assert not widget.buttons[SMALL].isChecked(), "nothing is shown yet"
    settle(session)
    assert [each.name for each in viewer.layers].count(LAYER_NAME) == 1
    widget.hide()
    assert LAYER_NAME not in viewer.layers and not layer.keymap


def test_another_size_is_looked_for_at_once(widget, viewer, session, settle):
    viewer.add_labels(LABELS.copy())
    for size, found in ((100, 2), (10_000, 5)):
        widget.below.setValue(size)
        widget.buttons[SMALL].click()
        settle(session)
        assert session.corrections.removal.offered == found


@pytest.mark.parametrize("change", ["edit", "undo", "paint", "mark", "layer", "hide"])
def test_what_is_shown_goes_when_the_labels_change(widget, viewer, session, settle, act, change):
    layer = viewer.add_labels(LABELS.copy())
    act("Grow", (15, 90))
    widget.buttons[BORDER].click()
    settle(session)
    assert LAYER_NAME in viewer.layers
    {
        "edit": lambda: act("Delete", (40, 40)),
        "undo": layer.undo,
        "paint": lambda: layer.paint((70, 20), 2),
        "mark": lambda: viewer.layers.remove(LAYER_NAME),
        "layer": lambda: viewer.add_labels(LABELS.copy()),
        "hide": widget.hide,
    }[change]()
    assert LAYER_NAME not in viewer.layers
    assert session.corrections.removal.offered == 0
    assert not [known for known in layer.events.set_data.callbacks if "Removal" in repr(known)]


def test_nothing_to_remove_is_said(widget, viewer, session, settle):
    viewer.add_labels(LABELS.copy())
    widget.below.setValue(1)
    widget.buttons[SMALL].click()
    settle(session)
    assert "no nuclei below 1 px²" in widget.said.text() and widget.offer.isHidden()


# Asking the model


@pytest.fixture
def missed(widget, viewer, session, settle, draw, spots):
    """Return the labels layer of a run of the spots model, two nuclei taken out, and what these were."""
    pixels, _ = draw(200, 220)
    image = viewer.add_image(pixels, name="cells", scale=(0.5, 0.5))
    settle(session)
    session.workspace.set_recipe(segmenter="student", model=str(spots), device="cpu")
    result = segment(pixels, session.workspace.recipe)
    labels = result.nuclei.labels.copy()
    middle = [n for n in np.unique(labels[60:140, 60:160]) if n][:2]
    gone = [labels == n for n in middle]
    labels[np.isin(labels, middle)] = 0
    layer = viewer.add_labels(
        labels[20:, 30:].copy(),
        scale=(0.5, 0.5),
        translate=(10, 15),
        metadata={
            RECIPE_KEY: result.recipe,
            FROM_KEY: source_key(image),
        },
    )
    return layer, [mask[20:, 30:] for mask in gone]


def inside(mask):
    rows, cols = np.nonzero(mask)
    i = np.hypot(rows - rows.mean(), cols - cols.mean()).argmin()
    return int(rows[i]), int(cols[i])


def test_the_model_adds_what_is_clicked_one_after_the_other(widget, missed, session, settle, act):
    layer, gone = missed
    largest = layer.data.max()
    for mask in gone:
        act("Add here", inside(mask))
    assert len(session.corrections.asking.waiting) == 2 and "Looking" in widget.said.text()
    settle(session)
    assert session.workspace.problem is None and not session.corrections.asking.waiting
    for number, mask in enumerate(gone, largest + 1):
        found = layer.data == number
        assert (found & mask).sum() / (found | mask).sum() > 0.9
    layer.undo()
    layer.undo()
    assert layer.data.max() == largest


def test_the_model_adds_what_is_in_a_box(widget, missed, session, settle, act):
    layer, (mask, _) = missed
    low, high = np.argwhere(mask).min(axis=0) - 2, np.argwhere(mask).max(axis=0) + 2
    act("Add in box", low, high)
    settle(session)
    found = layer.data == layer.data.max()
    assert (found & mask).sum() / (found | mask).sum() > 0.8
    act("Add in box", low, low + 1)
    assert "encloses no nucleus" in widget.problem.text.text()


def test_the_model_stays_open_between_clicks(widget, missed, session, settle, act):
    _, gone = missed
    act("Add here", inside(gone[0]))
    settle(session)
    adder = session.corrections.asking._adder
    act("Add here", inside(gone[1]))
    settle(session)
    assert session.corrections.asking._adder is adder


def test_what_the_model_cannot_add_is_said(widget, missed, viewer, session, settle, act):
    layer, gone = missed
    before = layer.data.copy()
    act("Add here", inside(layer.data == layer.data[layer.data > 0][0]))
    assert "There is a nucleus already" in widget.problem.text.text()
    empty = (layer.data == 0) & ~gone[0] & ~gone[1]
    far = np.unravel_index(distance_transform_edt(empty).argmax(), empty.shape)
    act("Add here", tuple(far))
    settle(session)
    assert "draw its outline" in widget.problem.text.text()
    np.testing.assert_array_equal(layer.data, before)
    other = viewer.add_labels(LABELS.copy(), scale=(0.7, 0.7))
    act("Add here", (70, 20))
    assert "differ in size" in widget.problem.text.text()
    viewer.layers.remove(other)
    viewer.layers.remove("cells")
    viewer.layers.selection.active = layer
    act("Add here", tuple(far))
    assert "no image" in widget.problem.text.text()


def test_the_model_adds_to_the_plane_of_a_stack(widget, viewer, session, settle, act, draw, spots):
    pixels, truth = draw(120, 120)
    viewer.add_image(np.stack([np.zeros_like(pixels), pixels, np.zeros_like(pixels)]))
    layer = viewer.add_labels(np.zeros((3, 120, 120), np.int32))
    settle(session)
    session.workspace.set_recipe(segmenter="student", model=str(spots), device="cpu", diameter_px=18.0)
    viewer.dims.set_current_step(0, 1)
    number = truth[60, 60] or np.unique(truth)[5]
    act("Add here", inside(truth == number))
    viewer.dims.set_current_step(0, 2)  # the answer goes where the question was asked
    settle(session)
    found, mask = layer.data[1] == 1, truth == number
    assert (found & mask).sum() / (found | mask).sum() > 0.5 and layer.data.sum() == found.sum()
    layer.undo()
    assert not layer.data.any()


def test_an_answer_for_a_layer_that_is_gone_is_dropped(widget, missed, viewer, session, settle, act):
    layer, gone = missed
    before = layer.data.copy()
    act("Add here", inside(gone[0]))
    viewer.layers.remove(layer)
    settle(session)
    np.testing.assert_array_equal(layer.data, before)
    assert not session.corrections.asking.waiting


# From one to the next


def test_the_next_nucleus_may_be_new_changed_gone_or_back(widget, viewer, session, settle, act):
    layer = viewer.add_labels(LABELS.copy())

    def tour(tool=NEXT):
        seen = []
        for _ in range(len(np.unique(layer.data)) - 1):
            widget.corrections.choose(tool)
            settle(session)
            seen.append(layer.selected_label)
        return seen

    assert tour() == [2, 5, 3, 4, 1], "from left to right, from 1 on"
    assert tour(PREVIOUS) == [4, 3, 5, 2, 1]
    for _ in range(3):
        act("Shrink", (15, 90))  # the pixel that was known of it is gone
    act("Delete", (40, 61))
    act("Split", (20, 40), (60, 40))
    layer.paint((70, 20), 99)
    assert sorted(tour()) == [1, 3, 4, 5, 6, 99]
    for _ in range(3):
        layer.undo()
    assert sorted(tour()) == [1, 2, 3, 4, 5]
    layer.data = np.zeros_like(LABELS)
    widget.corrections.choose(NEXT)
    settle(session)
    assert "no nucleus" in widget.said.text()


# Keys


def test_no_key_is_one_of_naparis():
    theirs = {str(key) for kind in (Labels, ViewerModel) for key in kind.class_keymap}
    for name, action in action_manager._actions.items():
        if action.keymapprovider in (Labels, ViewerModel):
            theirs |= {str(key) for key in default_shortcuts.get(name, ())}
    assert {"E", "P", "M", "Ctrl+Z", "Space"} <= theirs
    ours = {key.replace("Shift-", "Shift+") for tool in TOOLS for key in (tool.key, tool.also) if key}
    assert not ours & theirs
    assert len(ours) == len(TOOLS) + 1, "no key twice"


def test_the_help_names_every_key(widget):
    rows = dict(key_help())
    for tool in TOOLS:
        assert any(tool.shown_key in keys.split(" or ") for keys in rows)
        assert tool.shown_key in widget.buttons[tool].text()
        assert f"({tool.shown_key}" in widget.buttons[tool].toolTip()
    assert widget.keys.content.isHidden()
    widget.show_keys()
    assert not widget.keys.content.isHidden() and "narrowest" in widget.keys.content.text()


def test_keys_follow_the_selected_layer_and_give_back_what_was_bound(widget, viewer):
    mine = []
    first = viewer.add_labels(LABELS.copy())
    assert first.keymap
    viewer.layers.selection.active = None
    assert not first.keymap
    first.bind_key("D", lambda layer: mine.append(1))
    viewer.layers.selection.active = first
    second = viewer.add_labels(LABELS.copy())
    assert second.keymap and [str(key) for key in first.keymap] == ["D"]
    next(iter(first.keymap.values()))(first)
    assert mine == [1]
    widget.corrections.choose(BY_WORD["Split"])
    viewer.layers.remove(second)
    assert not second.keymap and second.mode == "pan_zoom" and widget.corrections.armed is None
    ours = [c for c in second.mouse_drag_callbacks if c.__module__.startswith("napari_nucleus_kd")]
    assert not ours


def test_two_widgets_share_the_tools(widget, viewer, qtbot):
    layer = viewer.add_labels(LABELS.copy())
    other = CorrectWidget(viewer)
    qtbot.addWidget(other)
    other.show()
    other.buttons[BY_WORD["Merge"]].click()
    assert widget.buttons[BY_WORD["Merge"]].isChecked()
    other.hide()
    assert layer.keymap and widget.corrections.armed is BY_WORD["Merge"]
    widget.hide()
    assert not layer.keymap and widget.corrections.armed is None


def test_taking_a_brush_puts_the_tool_away(widget, viewer):
    layer = viewer.add_labels(LABELS.copy())
    widget.buttons[BY_WORD["Split"]].click()
    layer.mode = "paint"
    assert widget.corrections.armed is None and layer.mode == "paint"
    widget.buttons[BY_WORD["Split"]].click()
    widget.buttons[BY_WORD["Split"]].click()
    assert layer.mode == "paint", "it goes back to what it was"


def test_the_tools_of_the_model_are_no_plain_changes():
    others = {ADD.word, BOX.word, VERIFY.word, UNVERIFY.word}  # the last two mark, and change no nucleus
    assert {tool.word for tool in TOOLS if tool.change is None and tool.ask} == others
