"""What is verified and where it is kept; test_keep_window.py has the real window, crashes and two windows."""

import os
import shutil
import threading
import time

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_nucleus_kd.config import DecodeSettings
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.project import Project, is_project, project_folder
from napari_nucleus_kd.train.suggest import Surveyed
from napari_nucleus_kd.types import Modality, Progress, Region, finish
from napari_nucleus_kd.widgets import _keeping, _kept, _kept_steps, _suggesting, _taking_in
from napari_nucleus_kd.widgets._kept_steps import Whole, count, merged_steps
from napari_nucleus_kd.widgets._layers import FROM_KEY, RECIPE_KEY, camera_of
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._tools import PAINT, TOOLS, UNVERIFY, VERIFY
from napari_nucleus_kd.widgets.correct import CorrectWidget


def disks(shape, *circles):
    """Draw circles (y, x, radius) numbered 1, 2, ...; later ones do not cover earlier ones."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for number, (y, x, radius) in enumerate(circles, 1):
        labels[(np.hypot(yy - y, xx - x) <= radius) & (labels == 0)] = number
    return labels


SPLIT = next(tool for tool in TOOLS if tool.word == "Split")
LABELS = disks((182, 208), (40, 40, 12), (40, 61, 12), (100, 90, 8), (150, 20, 6), (90, 180, 15))


SOON_MS = _kept.SOON_MS  # as it is for people


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Save at once, so that tests need not wait."""
    monkeypatch.setattr(_kept, "SOON_MS", 50)
    monkeypatch.setattr(_kept, "AGAIN_MS", 100)


class Desk:
    """A viewer with an image of a file in hand, and the Correct widget."""

    def __init__(self, viewer, qtbot, settle):
        self.viewer, self.qtbot, self._settle = viewer, qtbot, settle
        self.session = session_of(viewer)
        self.session.workspace.set_recipe(segmenter="classical")
        self._settle(self.session)
        self.widget = CorrectWidget(viewer)
        self.widget.show()
        self.panel, self.keeping = self.widget.keep_panel, self.session.keeping

    def open(self, path):
        self.session.open(path)
        self.settle()
        return self

    def settle(self):
        self._settle(self.session)
        self.qtbot.wait(30)
        self._settle(self.session)

    def add_nuclei(self, labels=LABELS, **more):
        scale = self.viewer.layers[0].scale[-2:]
        layer = self.viewer.add_labels(
            labels.copy(), name="nuclei", scale=scale, units=self.viewer.layers[0].units[-2:], **more
        )
        self.viewer.layers.selection.active = layer
        return layer

    def box(self, first, last, tool=VERIFY):
        layer = self.viewer.layers.selection.active
        self.widget.corrections.act(tool, [tuple(layer.data_to_world(at)) for at in (first, last)])

    def review(self):
        """Review five of the nuclei that were added."""
        review = self.widget.corrections.review
        review.start(5)
        self.settle()
        return review

    def keep(self, path, first=(20, 20), last=(70, 80)):
        """Open an image and check a box of nuclei, which are kept; return their layer."""
        self.open(path)
        layer = self.add_nuclei()
        self.box(first, last)
        self.settle()
        self.saved()
        return layer

    def segment(self):
        self.session.workspace.whole_image = True
        self.session.runs.start(lambda _: None)
        self.settle()
        return self.viewer.layers.selection.active

    def decode(self, **thresholds):
        self.session.workspace.set_recipe(decode=DecodeSettings(**thresholds))
        self.qtbot.waitUntil(lambda: self.session.runs.wanted_decode() is None, timeout=30_000)
        self.settle()

    def saved(self):
        self.qtbot.waitUntil(lambda: self.keeping.kept is not None, timeout=20_000)
        self.qtbot.waitUntil(lambda: not self.keeping.kept.unsaved, timeout=20_000)

    def done(self):
        """Take the widget away, which closes what is open."""
        self.settle()
        if self.session._views:
            self.widget.deleteLater()
            self.qtbot.waitUntil(lambda: not self.session._views)


@pytest.fixture
def desk(qtbot, settle):
    """Return a function that sits a person at a new desk."""
    desks = []

    def sit():
        desks.append(Desk(ViewerModel(), qtbot, settle))
        return desks[-1]

    yield sit
    for each in desks:
        each.done()


def kept_in(folder):
    with Project(folder, write=False) as project:
        (image,) = project.images
        return finish(image.load_steps())


def test_counting_what_is_verified():
    verified = np.zeros(LABELS.shape, np.uint8)
    verified[20:70, 20:62] = 1  # the first completely, half of the second
    verified[140:160, 10:40] = 3
    counted = count(LABELS, verified)
    assert counted.nuclei == 2
    assert counted.share == pytest.approx((verified > 0).mean())
    assert count(LABELS, np.ones_like(verified)).nuclei == 5


def test_labels_of_a_part_as_if_of_the_whole():
    whole = Whole(LABELS[30:100, 20:150], (30, 20), LABELS.shape)
    expected = np.zeros_like(LABELS)
    expected[30:100, 20:150] = LABELS[30:100, 20:150]
    for part in (np.s_[:, :], np.s_[0:64, 0:64], np.s_[128:182, 64:208], np.s_[90:110, 140:160]):
        np.testing.assert_array_equal(whole[part], expected[part])


def test_new_labels_come_in_but_what_is_verified_stays():
    verified = np.zeros(LABELS.shape, bool)
    verified[20:70, 20:55] = True  # of the first one, and a bit of the second
    found = disks(LABELS.shape, (42, 42, 12), (42, 85, 9), (120, 30, 10), (100, 92, 8))
    merged, came, gone = finish(merged_steps(LABELS, verified, found, Region(0, 0, *LABELS.shape)))
    assert gone == {3, 4, 5} and set(came) == set(np.unique(merged)) - {0, 1, 2}
    assert all((found[merged == number] == was).all() for number, was in came.items())
    for number in (1, 2):
        np.testing.assert_array_equal(merged == number, LABELS == number)
    assert not np.isin([3, 4, 5], merged).any(), "what nobody verified is replaced"
    numbers = set(np.unique(merged)) - {0, 1, 2}
    assert len(numbers) == 3 and min(numbers) > 5
    assert (merged[found == 3] > 5).all() and (merged[found == 4] > 5).all()
    mine, _, gone = finish(merged_steps(LABELS, verified, found, Region(0, 0, *LABELS.shape), {4}))
    np.testing.assert_array_equal(mine == 4, LABELS == 4, "a person corrected it")
    assert gone == {3, 5}
    part = finish(merged_steps(LABELS, verified, found, Region(80, 80, 182, 208))).labels
    for number in (1, 2, 4, 5):  # the last one reaches out of the part
        np.testing.assert_array_equal(part == number, LABELS == number, "outside nothing was looked for")
    assert 3 not in part and (part[95:105, 92] > 5).all()
    inside = merged[(found == 2) & ~np.isin(LABELS, [1, 2]) & ~verified]
    assert len(set(inside)) == 1 and inside[0] > 5


def test_the_first_box_makes_a_project_beside_the_image_and_saves(desk, nuclei_file, monkeypatch):
    threads, keep_steps = set(), _keeping.keep_steps

    def seen(*arguments):
        threads.add(threading.get_ident())
        return (yield from keep_steps(*arguments))

    monkeypatch.setattr(_keeping, "keep_steps", seen)
    person = desk().open(nuclei_file)
    layer = person.add_nuclei()
    assert "in memory only" in person.panel.state.text()
    person.box((20, 20), (70, 80))
    person.settle()
    person.saved()
    assert threads and threading.get_ident() not in threads, "not in the thread of the window"
    labels, verified = kept_in(project_folder(nuclei_file))
    np.testing.assert_array_equal(labels, LABELS)
    expected = np.zeros(LABELS.shape, bool)
    expected[20:71, 20:81] = True
    np.testing.assert_array_equal(verified, expected)
    assert "Saved" in person.panel.state.text() and "two channels.nucleus-kd" in person.panel.state.text()
    assert "2 nuclei" in person.panel.verified.text()
    assert person.viewer.layers.selection.active is layer
    person.box((0, 0), (181, 40), UNVERIFY)
    layer.paint((160, 150), 9)
    person.widget.corrections.undo()
    person.widget.corrections.redo()
    person.saved()
    labels, verified = kept_in(project_folder(nuclei_file))
    np.testing.assert_array_equal(labels, layer.data)
    assert (labels == 9).any()
    assert not verified[:, :41].any() and verified[20:71, 41:81].all()


def test_who_paints_without_a_pause_is_saved_within_ten_seconds(desk, nuclei_file, monkeypatch, qtbot):
    person = desk()
    layer = person.keep(nuclei_file)
    monkeypatch.setattr(_kept, "SOON_MS", SOON_MS)
    before, began = person.keeping.kept.saved, time.monotonic()
    while person.keeping.kept.saved == before:
        assert time.monotonic() - began < 10
        layer.paint((150, 150), 9)
        layer.paint((150, 150), 8)
        qtbot.wait(200)
    assert np.isin(kept_in(project_folder(nuclei_file))[0], (8, 9)).any()


def test_what_was_kept_is_found_with_the_image(desk, nuclei_file):
    first = desk()
    first.keep(nuclei_file)
    first.done()
    person = desk().open(nuclei_file)
    kept = person.keeping.kept
    np.testing.assert_array_equal(kept.target.layer.data, LABELS)
    assert kept.mask.pixels[20:71, 20:81].all()
    assert person.viewer.layers.selection.active is kept.target.layer
    assert "Found in two channels.nucleus-kd" in person.panel.state.text()
    assert "2 nuclei" in person.panel.verified.text()
    assert "not closed properly" not in person.panel.state.text()
    layer = kept.target.layer
    np.testing.assert_allclose(layer.scale, person.viewer.layers[0].scale)
    layer.paint((160, 150), 9)
    person.saved()
    np.testing.assert_array_equal(kept_in(project_folder(nuclei_file))[0], layer.data)


def test_nuclei_accepted_in_a_review_are_verified_and_taken_back(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer = person.add_nuclei()
    review = person.review()
    number = review.queue.current.number
    review.accept()
    person.settle()
    mask = next(iter(person.keeping.verifying.masks.values())).pixels
    nucleus = LABELS == number
    assert mask[nucleus].all()
    assert mask.sum() > nucleus.sum() and not mask[(LABELS > 0) & ~nucleus].any()
    rows, cols = np.nonzero(mask)
    inner_rows, inner_cols = np.nonzero(nucleus)
    assert rows.min() >= inner_rows.min() - 4 and cols.max() <= inner_cols.max() + 4
    review.back()
    assert not mask.any()
    review.accept()
    review.start(5)
    person.settle()
    assert review.queue.left == 4, "what is verified is not asked again"
    assert number not in [doubt.number for doubt in review.queue.waiting()]
    np.testing.assert_array_equal(layer.data, LABELS)


def test_going_back_in_a_review_leaves_what_was_checked_before(desk, nuclei_file):
    person = desk().open(nuclei_file)
    person.add_nuclei()
    review = person.review()
    y, x = np.argwhere(LABELS == review.queue.current.number).mean(axis=0).round().astype(int)
    person.box((y, x), (y + 25, x + 20))  # a part of the nucleus and of the background around it
    person.settle()
    mask = next(iter(person.keeping.verifying.masks.values())).pixels
    before = mask.copy()
    review.accept()
    assert (mask != before).any()
    review.back()
    np.testing.assert_array_equal(mask, before)


def test_undo_after_accepting_asks_for_the_nucleus_again(desk, nuclei_file):
    person = desk().open(nuclei_file)
    person.add_nuclei()
    review = person.review()
    first = review.queue.current.number
    review.accept()
    person.settle()
    second = review.queue.current.number
    review.accept()
    for number, left in ((second, 4), (first, 5)):
        person.widget.undo.click()
        assert (review.queue.current.number, review.queue.left) == (number, left)
    assert not person.keeping.kept.mask.pixels.any()
    person.widget.undo.click()
    assert review.queue.left == 5, "nothing is left to undo"
    review.accept()
    assert person.keeping.kept.mask.pixels.any() and review.queue.left == 4


def test_redo_of_a_mark_accepts_the_nucleus_again(desk, nuclei_file):
    person = desk().open(nuclei_file)
    person.add_nuclei()
    review = person.review()
    first = review.queue.current.number
    review.accept()
    person.settle()
    person.widget.undo.click()
    person.widget.redo.click()
    assert review.queue.left == 4 and review.queue.current.number != first
    review.back()
    assert review.queue.current.number == first and not person.keeping.kept.mask.pixels.any()


def test_undo_asks_again_though_a_neighbour_stays_checked(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer = person.add_nuclei()
    review = person.review()
    first = review.queue.current.number
    other = next(n for n in (1, 3, 4, 5) if n != first)
    y, x = (at[0] for at in np.nonzero(LABELS == other))
    person.box((y - 3, x - 20), (y + 40, x + 40))  # the other one is verified
    person.settle()
    layer.data_setitem((np.array([y - 1]), np.array([x])), other)
    review.accept()
    person.widget.undo.click()
    assert review.queue.current.number == first


def test_undo_and_redo_go_through_corrections_and_marks_in_their_order(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer = person.add_nuclei()
    widget = person.widget
    layer.data_setitem((np.array([0]), np.array([0])), 9)
    person.box((20, 20), (70, 80))
    person.settle()
    mask = person.keeping.kept.mask
    mask.layer.visible = False
    layer.data_setitem((np.array([1]), np.array([0])), 9)
    person.box((100, 20), (110, 80), UNVERIFY)  # nothing is green there: no step
    person.box((20, 20), (40, 80), UNVERIFY)

    def state():
        return (
            int(layer.data[0, 0]),
            bool(mask.pixels[60, 60]),
            int(layer.data[1, 0]),
            bool(mask.pixels[30, 30]),
        )

    undone = [state()]
    for _ in range(5):
        widget.undo.click()
        undone.append(state())
    assert undone == [
        (9, True, 9, False),
        (9, True, 9, True),
        (9, True, 0, True),
        (9, False, 0, False),
        (0, False, 0, False),
        (0, False, 0, False),
    ]
    assert mask.layer.visible, "what is undone is seen"
    redone = []
    for _ in range(5):
        widget.redo.click()
        redone.append(state())
    assert redone == [*undone[3::-1], undone[0]]
    assert "nothing to make again" in widget.said.text()
    widget.undo.click()
    assert "what is verified was taken back" in widget.said.text()
    layer.data_setitem((np.array([2]), np.array([0])), 9)
    before = state()
    widget.redo.click()
    assert state() == before, "after a new step nothing is made again"


def test_the_order_of_steps_survives_another_layer_in_hand(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer = person.add_nuclei()
    person.box((20, 20), (70, 80))
    person.settle()
    mask = person.keeping.kept.mask
    layer.data_setitem((np.array([0]), np.array([0])), 9)
    person.viewer.layers.selection.active = mask.layer
    mask.layer.paint((100, 100), 1)
    person.viewer.layers.selection.active = layer
    person.widget.undo.click()
    assert not mask.pixels[100, 100] and layer.data[0, 0] == 9
    person.widget.undo.click()
    assert mask.pixels[30, 30] and not layer.data[0, 0]
    person.widget.redo.click()
    assert layer.data[0, 0] == 9 and not mask.pixels[100, 100]
    person.widget.redo.click()
    assert mask.pixels[100, 100]


def test_undo_of_a_box_brings_back_what_was_verified_in_it(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer = person.add_nuclei()
    person.box((20, 20), (40, 40))
    person.saved()
    mask = person.keeping.kept.mask.pixels
    former = mask.copy()
    layer.data_setitem((np.array([0]), np.array([0])), 9)
    person.box((0, 0), (181, 207))
    assert mask.all()
    person.saved()
    person.widget.undo.click()
    np.testing.assert_array_equal(mask != 0, former != 0)
    assert layer.data[0, 0] == 9 and "what is verified was taken back" in person.widget.said.text()
    person.saved()
    np.testing.assert_array_equal(kept_in(project_folder(nuclei_file))[1], former != 0)
    person.widget.redo.click()
    assert mask.all()
    person.box((0, 0), (181, 207), UNVERIFY)
    assert not mask.any()
    person.widget.undo.click()
    assert mask.all()


def test_a_box_that_nearly_reaches_the_border_reaches_it(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer, (height, width) = person.add_nuclei(), LABELS.shape
    camera_of(person.viewer).zoom = 1 / layer.scale[-1]  # a pixel of the screen for one of the image
    person.box((5, 6), (height - 6, width - 7))
    person.settle()
    expected = np.zeros(LABELS.shape, bool)
    expected[:, 6 : width - 6] = True
    np.testing.assert_array_equal(person.keeping.kept.mask.pixels != 0, expected)


def test_who_draws_a_nucleus_did_not_correct_its_neighbour(desk, nuclei_file):
    person = desk()
    layer = person.keep(nuclei_file, (0, 0), (3, 3))
    corrected, labels = person.keeping.kept.corrected, layer.data.copy()
    y, x = np.argwhere(labels == 4)[0]
    layer.data_setitem((np.array([y, y]), np.array([x, x + 1])), np.array([3, 3]))
    assert corrected == {3}, "nucleus 4 was only cut"
    layer.data_setitem((np.array([y + 1]), np.array([x])), 0)
    assert corrected == ({3, 4} if labels[y + 1, x] == 4 else {3})
    layer.undo()
    layer.undo()
    assert not corrected


def test_all_parts_of_a_nucleus_that_was_split_stay_when_others_are_taken_in(desk, nuclei_file):
    person = desk()
    layer = person.keep(nuclei_file, (0, 0), (3, 3))
    corrected, whole = person.keeping.kept.corrected, layer.data == 1
    (y0, x0), (y1, x1) = np.argwhere(whole).min(0), np.argwhere(whole).max(0)
    for x in (x0 + (x1 - x0) / 3, x0 + 2 * (x1 - x0) / 3):
        stroke = [tuple(layer.data_to_world(at)) for at in ((y0 - 2, x), (y1 + 2, x))]
        person.widget.corrections.act(SPLIT, stroke)
    parts = set(np.unique(layer.data[whole]).tolist()) - {0}
    assert len(parts) == 3 and parts <= corrected
    before = layer.data.copy()
    person.add_nuclei(np.where(whole, 1, 0))
    person.keeping.taking_in.start()
    person.settle()
    found = person.keeping.kept.target.layer.data
    for part in parts:
        np.testing.assert_array_equal(found == part, before == part)


def test_one_button_and_key_goes_to_painting_what_is_checked_and_back(desk, nuclei_file):
    person = desk().open(nuclei_file)
    nuclei = person.add_nuclei()
    button = person.widget.buttons[PAINT]
    button.click()
    person.settle()
    person.saved()
    layer = person.keeping.kept.mask.layer
    assert person.viewer.layers.selection.active is layer and layer.mode == "paint"
    assert layer.selected_label == 1 and button.isChecked() and button.isEnabled()
    layer.brush_size = 10
    layer.paint((100, 100), layer.selected_label)
    button.click()
    assert person.viewer.layers.selection.active is nuclei and layer.mode == "pan_zoom"
    assert not button.isChecked() and not layer.keymap
    person.widget.undo.click()
    assert not layer.data.any(), "painting was the newest step"

    def press(where):
        next(slot for key, slot in where.keymap.items() if str(key) == PAINT.key)(where)

    press(nuclei)
    assert person.viewer.layers.selection.active is layer
    person.viewer.layers.selection.active = None
    assert not layer.keymap
    person.viewer.layers.selection.active = layer  # by the list of layers
    assert button.isChecked()
    press(layer)
    assert person.viewer.layers.selection.active is nuclei
    press(nuclei)
    person.widget.hide()
    assert not layer.keymap


def test_painting_on_the_verified_layer_is_saved_and_corrections_leave_it_alone(desk, nuclei_file):
    person = desk()
    person.keep(nuclei_file, (20, 20), (30, 30))
    mask = person.keeping.kept.mask
    person.viewer.layers.selection.active = mask.layer
    assert "brush" in person.widget.about.text() and not person.widget.tools.isEnabled()
    mask.layer.brush_size = 10
    mask.layer.paint((100, 100), 1)
    person.saved()
    assert kept_in(project_folder(nuclei_file))[1][96:104, 98:102].all()


def test_labels_of_a_part_are_kept_where_they_lie(desk, nuclei_file):
    person = desk().open(nuclei_file)
    scale = np.array(person.viewer.layers[0].scale[-2:])
    person.add_nuclei(LABELS[30:120, 20:190], translate=scale * (30, 20))
    person.box((5, 5), (50, 60))
    person.settle()
    person.saved()
    labels, verified = kept_in(project_folder(nuclei_file))
    np.testing.assert_array_equal(labels[30:120, 20:190], LABELS[30:120, 20:190])
    assert not labels[:30].any()
    assert verified[35:81, 25:81].all() and verified.sum() == 46 * 56


def test_new_labels_are_taken_in_on_request(desk, nuclei_file):
    person = desk()
    kept_layer = person.keep(nuclei_file, (20, 20), (60, 60))
    kept_layer.features = {"index": range(1, 6), "centroid_y": [float(n) for n in range(1, 6)]}
    kept_layer.data_setitem((np.array([95]), np.array([95])), 4)  # a stroke: nobody said that it is right
    new = person.add_nuclei(disks(LABELS.shape, (120, 120, 14)))
    new.features = {"index": [1], "centroid_y": [120.0], "score": [0.5]}
    assert "not kept" in person.panel.state.text() and not person.panel.take_in.isHidden()
    person.box((100, 100), (140, 140))
    assert "not kept" in person.widget.problem.text.text()
    person.panel.take_in.click()
    person.settle()
    person.saved()
    labels, _ = kept_in(project_folder(nuclei_file))
    assert (labels[120, 120] > 5) and (labels == 1).sum() == (LABELS == 1).sum()
    assert not (labels == 5).any() and not new.visible and (labels == 4).any(), "corrected ones stay, too"
    table, there = kept_layer.features.set_index("index"), np.unique(labels[labels > 0]).tolist()
    expected = {n: 120.0 if n > 5 else float(n) for n in there}
    assert table["centroid_y"].to_dict() == expected and len(expected) > 2
    assert table["score"].notna().sum() == 1
    assert person.viewer.layers.selection.active is kept_layer
    np.testing.assert_array_equal(labels, kept_layer.data)
    former = next(layer for layer in person.viewer.layers if "before taking in" in layer.name)
    person.viewer.layers.selection.active, former.visible = former, True
    person.panel.take_in.click()
    person.settle()
    np.testing.assert_array_equal(kept_layer.data > 0, former.data > 0, "the way back")


def test_data_that_are_replaced_while_a_save_begins_are_saved(desk, nuclei_file, monkeypatch):
    person = desk()
    layer = person.keep(nuclei_file)
    true, begun, gate = _kept.save_steps, threading.Event(), threading.Event()

    def late(*arguments):
        begun.set()
        gate.wait(20)
        return (yield from true(*arguments))

    monkeypatch.setattr(_kept, "save_steps", late)
    layer.data_setitem((np.array([160]), np.array([150])), 9)
    person.qtbot.waitUntil(begun.is_set)
    layer.data = np.where(layer.data == 4, 44, layer.data)
    gate.set()
    person.saved()
    np.testing.assert_array_equal(kept_in(project_folder(nuclei_file))[0], layer.data)


def test_a_second_window_only_looks_and_may_open_again(desk, nuclei_file):
    first = desk()
    first.keep(nuclei_file)
    second = desk().open(nuclei_file)
    kept = second.keeping.kept
    assert not kept.project.writable
    assert "process" in second.panel.state.text() and "close it there" in second.panel.state.text()
    second.viewer.layers.selection.active = kept.target.layer
    assert "only shown" in second.widget.about.text()
    assert not kept.target.layer.editable
    second.widget.corrections.choose(VERIFY)
    assert "only shown" in second.widget.problem.text.text(), "a button that does nothing says why"
    first.keeping.kept.target.layer.paint((160, 150), 9)
    first.saved()
    first.done()
    second.panel.again.click()
    second.settle()
    kept = second.keeping.kept
    assert kept.project.writable and (kept.target.layer.data == 9).any()
    assert kept.target.layer.editable


def test_a_disk_that_refuses_is_told_and_tried_again(desk, nuclei_file, monkeypatch):
    person = desk()
    layer = person.keep(nuclei_file)
    kept = person.keeping.kept
    refused = []

    def full(labels, verified):
        refused.append(1)
        raise WriteError("entry 2 cannot be written: No space left on device; check space and permissions")

    with monkeypatch.context() as patch:
        patch.setattr(kept.image, "save", full)
        layer.paint((160, 150), 9)
        person.qtbot.waitUntil(lambda: len(refused) > 1, timeout=10_000)
        assert "No space left" in person.panel.unsaved.text() and not person.panel.unsaved.isHidden()
    person.saved()
    assert person.panel.unsaved.isHidden()
    assert (kept_in(project_folder(nuclei_file))[0] == 9).any()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(desk, nuclei_file):
    nuclei_file.parent.chmod(0o555)
    try:
        person = desk().open(nuclei_file)
        person.add_nuclei()
        person.box((20, 20), (70, 80))
        person.settle()
        assert "cannot be made" in person.panel.problem.text.text()
        assert person.keeping.verifying.masks, "what was marked stays in memory"
    finally:
        nuclei_file.parent.chmod(0o755)


def test_a_folder_that_refuses_is_told_and_nothing_marked_is_lost(desk, nuclei_file, monkeypatch):
    def refuse(*_, **__):
        raise WriteError("the folder cannot be made: Permission denied; choose another folder")
        yield

    monkeypatch.setattr(_keeping, "keep_steps", refuse)
    person = desk().open(nuclei_file)
    person.add_nuclei()
    person.box((20, 20), (70, 80))
    person.settle()
    assert "Permission denied" in person.panel.problem.text.text()
    (mask,) = person.keeping.verifying.masks.values()
    assert mask.pixels.any() and not person.panel.keep.isHidden()


def test_an_image_in_no_file_is_written_first(desk, nuclei, tmp_path):
    person = desk()
    person.viewer.add_image(nuclei, name="array")
    person.settle()
    person.add_nuclei()
    person.box((20, 20), (70, 80))
    person.settle()
    assert person.keeping.kept is None and person.panel.keep.text() == "Keep in a file…"
    path = tmp_path / "array.ome.tif"
    person.keeping.keep(save_as=path)
    person.settle()
    person.saved()
    assert kept_in(project_folder(path))[1][20:71, 20:81].all()
    person.done()
    again = desk().open(path)
    np.testing.assert_array_equal(again.keeping.kept.target.layer.data, LABELS)
    np.testing.assert_array_equal(np.asarray(again.viewer.layers[0].data), nuclei)


def test_a_part_of_a_slide_is_kept_as_an_image_of_its_own(desk, nuclei_file, nuclei, monkeypatch, tmp_path):
    person = desk().open(nuclei_file)
    monkeypatch.setattr(_keeping, "_too_large", lambda image, _: "it is" * (image.shape_yx == LABELS.shape))
    recipe = person.segment().metadata[RECIPE_KEY].model_copy(update={"region": Region(20, 10, 120, 150)})
    scale, key = np.array(person.viewer.layers[0].scale[-2:]), person.session.source.key
    layer = person.add_nuclei(
        LABELS[20:120, 10:150], translate=scale * (20, 10), metadata={FROM_KEY: key, RECIPE_KEY: recipe}
    )
    person.box((10, 10), (60, 60))
    assert not person.keeping.verifying.masks, "no layer as large as a slide"
    assert "“Keep this part in a file…”" in person.widget.problem.text.text()
    layer.data_setitem((np.array([0]), np.array([0])), 900)
    person.settle()
    assert "“Keep this part" in person.panel.problem.text.text() and person.keeping.unsaved()
    asked = []
    chosen = tmp_path / "elsewhere" / "part.ome.tif"
    chosen.parent.mkdir()
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *words: asked.append(words[2]) or (str(chosen), "")
    )
    assert person.panel.keep.text() == "Keep this part in a file…"
    person.panel.keep.click()
    person.settle()
    assert asked == [str(nuclei_file.parent / "two channels_y20_x10.ome.tif")]
    assert person.session.workspace.image.source == chosen and not layer.visible
    kept = person.keeping.kept
    np.testing.assert_array_equal(kept.target.layer.data, layer.data)
    np.testing.assert_array_equal(
        np.asarray(person.session.workspace.image.pixels),
        np.asarray(tifffile.imread(nuclei_file))[..., 20:120, 10:150],
    )
    assert kept.image.record.recipe.region is None and kept.image.record.recipe.scaling_low is not None
    person.viewer.layers.selection.active = kept.target.layer
    person.box((10, 10), (60, 60))
    person.saved()
    assert kept_in(project_folder(chosen))[1][10:61, 10:61].all()
    assert person.keeping.unsaved() == []


def test_corrections_of_a_part_that_could_not_be_kept_are_not_forgotten(
    desk, nuclei_file, monkeypatch, tmp_path
):
    def refuse(*_, **__):
        yield Progress(0, 0)
        raise WriteError("the disk is full; make room")

    person = desk().open(nuclei_file)
    layer = person.add_nuclei(metadata={FROM_KEY: person.session.source.key})
    monkeypatch.setattr(_keeping, "_too_large", lambda image, most: "it is" * (most == 5))
    layer.data_setitem((np.array([0]), np.array([0])), 900)
    person.settle()
    assert person.keeping.unsaved()
    monkeypatch.setattr(_keeping, "keep_steps", refuse)
    person.keeping.keep_part(tmp_path / "part.ome.tif")
    assert person.keeping.unsaved(), "not yet"
    person.settle()
    assert "the disk is full" in person.panel.problem.text.text() and person.keeping.unsaved()


def test_parts_of_a_slide_do_not_overlap(desk, nuclei_file, monkeypatch, tmp_path):
    monkeypatch.setattr(_keeping, "_too_large", lambda image, _: "it is" * (image.shape_yx == LABELS.shape))
    for number, (y, x), told in ((0, (0, 0), ""), (1, (60, 70), "0.ome.tif"), (2, (0, 100), "")):
        person = desk().open(nuclei_file)
        scale, key = np.array(person.viewer.layers[0].scale[-2:]), person.session.source.key
        part = LABELS[y : y + 80, x : x + 100]
        person.add_nuclei(part, translate=scale * (y, x), metadata={FROM_KEY: key})
        path = tmp_path / f"{number}.ome.tif"
        person.keeping.keep_part(path)
        person.settle()
        assert path.exists() == (not told) and told in person.panel.problem.text.text()
        person.done()
    with Project(tmp_path / "0.nucleus-kd") as project:
        assert [(i.record.part.y0, i.record.part.x0) for i in project.images] == [(0, 0), (0, 100)]


def test_what_is_to_be_kept_is_of_the_image_under_the_labels(desk, nuclei_file, nuclei, monkeypatch):
    monkeypatch.setattr(_keeping, "_too_large", lambda image, _: "it is" * (image.shape_yx == LABELS.shape))
    person = desk().open(nuclei_file)
    layer = person.add_nuclei(metadata={FROM_KEY: person.session.source.key})
    small = nuclei_file.with_name("small.tif")
    tifffile.imwrite(small, nuclei[:50, :60])
    person.open(small)
    assert person.panel.keep.text() == "Keep"
    layer.visible = True
    person.viewer.layers.selection.active = layer
    person.keeping.changed.emit()
    assert person.panel.keep.text() == "Keep this part in a file…"


def test_a_part_does_not_replace_the_slide_that_it_is_of(desk, nuclei_file, monkeypatch):
    person = desk().open(nuclei_file)
    person.add_nuclei()
    before = nuclei_file.read_bytes()
    person.keeping.keep_part(nuclei_file)
    assert "is the image itself" in person.panel.problem.text.text()
    monkeypatch.setattr(_keeping, "_too_large", lambda *_: "it needs 9 GB")
    person.keeping.keep_part(nuclei_file.with_name("part.ome.tif"))
    assert "a smaller region" in person.panel.problem.text.text()
    assert nuclei_file.read_bytes() == before and len(list(nuclei_file.parent.glob("*.tif"))) == 1


def test_closing_a_kept_layer_saves_and_frees_the_project(desk, nuclei_file):
    person = desk()
    layer = person.keep(nuclei_file)
    layer.paint((160, 150), 9)
    person.viewer.layers.remove(layer)
    assert person.keeping.kept is None and "two channels.nucleus-kd" in person.panel.state.text()
    assert (kept_in(project_folder(nuclei_file))[0] == 9).any()
    with Project(project_folder(nuclei_file), write=True):
        pass


def test_widgets_that_go_save_what_is_left(desk, nuclei_file):
    person = desk()
    layer = person.keep(nuclei_file)
    layer.paint((160, 150), 9)
    person.done()
    assert (kept_in(project_folder(nuclei_file))[0] == 9).any()


def test_images_of_one_kind_in_one_folder_share_a_project(desk, nuclei_file, nuclei):
    other = nuclei_file.with_name("other.ome.tif")
    tifffile.imwrite(other, nuclei[:150, :160].copy(), metadata={"axes": "YX"})
    person = desk().open(nuclei_file)
    person.session.workspace.suggestion = (Modality.FLUORESCENCE, "")
    person.add_nuclei()
    person.box((20, 20), (70, 80))
    person.settle()
    person.saved()
    person.open(other)
    person.session.workspace.suggestion = (Modality.FLUORESCENCE, "")
    layer = person.viewer.add_labels(LABELS[:150, :160].copy())
    person.box((100, 100), (120, 120))
    person.settle()
    person.saved()
    project = person.keeping.kept.project
    assert [image.find()[0].name for image in project.images] == [nuclei_file.name, other.name]
    layer.paint((120, 120), 9)
    person.saved()
    person.done()
    with Project(project_folder(nuclei_file), write=True) as project:
        first, second = (finish(image.load_steps()) for image in project.images)
    np.testing.assert_array_equal(first[0], LABELS)
    assert (second[0] == 9).any() and second[1].sum() == 21 * 21


def test_own_labels_are_kept_with_the_image_type_that_was_chosen(desk, nuclei, tmp_path):
    path = tmp_path / "stained.tif"
    tifffile.imwrite(path, np.stack([255 - nuclei] * 3, -1), photometric="rgb")
    person = desk().open(path)
    person.session.workspace.suggestion = (Modality.HE, "")
    person.session.workspace.set_recipe(modality=Modality.IHC)
    person.add_nuclei()
    person.panel.keep.click()
    person.settle()
    person.saved()
    assert person.keeping.kept.image.record.modality is Modality.IHC


def test_own_labels_are_kept_with_the_channels_that_were_chosen(desk, nuclei, tmp_path):
    path = tmp_path / "unnamed.ome.tif"
    tifffile.imwrite(path, np.stack([nuclei] * 4), photometric="minisblack", metadata={"axes": "CYX"})
    first = desk().open(path)
    first.session.workspace.set_recipe(channels=(2,), diameter_px=31)
    first.add_nuclei()
    first.panel.keep.click()
    first.settle()
    first.saved()
    recipe = first.keeping.kept.image.record.recipe
    assert recipe.channels == (2,) and recipe.diameter_px is None, "no run measured any"
    first.done()
    person = desk().open(path)
    layer = person.keeping.kept.target.layer
    assert RECIPE_KEY not in layer.metadata, "else a file of these labels would say that a model made them"


def test_own_labels_of_another_image_do_not_take_what_was_chosen_for_the_one_in_hand(
    desk, nuclei, nuclei_file
):
    person = desk().open(nuclei_file)
    layer = person.add_nuclei(metadata={FROM_KEY: person.session.source.key})
    other = nuclei_file.with_name("other.tif")
    tifffile.imwrite(other, np.stack([nuclei] * 3, -1), photometric="rgb")
    person.open(other)
    person.session.workspace.suggestion = (Modality.HE, "")
    person.session.workspace.set_recipe(modality=Modality.IHC, channels=(0, 1, 2))
    layer.visible = True
    person.viewer.layers.selection.active = layer
    person.panel.keep.click()
    person.settle()
    ((_, kept),) = person.keeping.all()
    assert (kept.image.record.modality, kept.image.record.recipe) == (Modality.FLUORESCENCE, None)


def test_images_of_a_project_are_counted_anew_when_it_is_opened_again(desk, nuclei_file, nuclei):
    other = nuclei_file.with_name("other.ome.tif")
    tifffile.imwrite(other, nuclei, metadata={"axes": "YX"})
    first = desk()
    first.keep(nuclei_file)
    first.done()
    with Project(project_folder(nuclei_file)) as project:
        reference = project.refer_to(other)
        finish(project.add_steps(reference, LABELS, modality=Modality.FLUORESCENCE))
    person = desk().open(nuclei_file)

    def counted_elsewhere():
        person.keeping.counts(person.keeping.kept.project)
        person.settle()
        _, (name, counted) = person.keeping.counts(person.keeping.kept.project)
        assert name == other.name
        return counted.nuclei

    assert counted_elsewhere() == 0
    person.viewer.layers.remove(person.keeping.kept.target.layer)
    person.settle()
    with Project(project_folder(nuclei_file)) as project:  # another window, or a script
        image = project.images[1]
        image.touch()
        image.save(LABELS, np.ones(LABELS.shape, bool))
    person.panel.again.click()
    person.settle()
    assert counted_elsewhere() == 5


def test_a_lost_image_is_told_and_pointed_to(desk, nuclei_file, tmp_path):
    first = desk()
    first.keep(nuclei_file)
    first.done()
    moved = tmp_path / "moved" / "new name.ome.tif"
    moved.parent.mkdir()
    nuclei_file.rename(moved)
    person = desk()
    projects = person.keeping.projects
    projects.choose(project_folder(nuclei_file), lambda names: None, person.panel.refresh)
    person.settle()
    assert "not there any more" in person.panel.problem.text.text()
    assert not person.panel.point.isHidden()
    projects.point_to(moved, person.panel.refresh)
    person.settle()
    np.testing.assert_array_equal(person.keeping.kept.target.layer.data, LABELS)
    assert person.keeping.kept.project.folder == project_folder(nuclei_file)
    assert person.panel.point.isHidden()
    projects.choose(tmp_path, lambda names: None, person.panel.refresh)
    person.settle()
    assert "is no project" in person.panel.problem.text.text()


def test_what_a_script_changed_is_saved_too(desk, nuclei_file):
    person = desk()
    layer = person.keep(nuclei_file)
    layer.data[150:160, 100:110] = 77  # and did not draw it again
    person.done()
    assert (kept_in(project_folder(nuclei_file))[0][150:160, 100:110] == 77).all()


def test_what_a_script_changed_and_drew_is_saved_within_ten_seconds(desk, nuclei_file, monkeypatch, qtbot):
    person = desk()
    layer = person.keep(nuclei_file)
    monkeypatch.setattr(_kept, "SOON_MS", SOON_MS)
    before = person.keeping.kept.saved
    layer.data[150:160, 100:110] = 77
    layer.refresh()
    qtbot.waitUntil(lambda: person.keeping.kept.saved != before, timeout=10_000)
    assert (kept_in(project_folder(nuclei_file))[0][150:160, 100:110] == 77).all()


@pytest.fixture
def large(desk, nuclei_file, monkeypatch):
    """Return a person, kept nuclei that count as a large image, and the parts of it that are touched."""
    person = desk()
    layer = person.keep(nuclei_file)
    person.keeping.kept._look()
    person.saved()
    monkeypatch.setattr(_kept, "_LOOK_PX", 1)
    monkeypatch.setattr(_kept, "SOON_MS", 60_000)
    image, touched = person.keeping.kept.image, []
    touch = image.touch
    monkeypatch.setattr(image, "touch", lambda part=None: (touched.append(part), touch(part)))
    return person, layer, touched


def test_a_large_image_that_is_closed_is_not_looked_through(large, nuclei_file):
    """The window would stand still meanwhile; what napari told of is saved all the same."""
    person, layer, touched = large
    layer.paint((160, 150), 9)
    with layer.block_history():  # as the brush does
        layer.paint((170, 150), 10)
        layer.paint((172, 150), 10)
    person.box((90, 80), (110, 100))
    person.widget.corrections.undo()
    layer.undo()
    layer.redo()
    person.qtbot.wait(50)
    person.viewer.layers.remove(layer)
    assert touched and None not in touched
    labels, verified = kept_in(project_folder(nuclei_file))
    np.testing.assert_array_equal(labels, layer.data)
    assert np.isin([9, 10], labels).all() and not verified[95, 90]


def test_a_stroke_that_does_not_end_is_saved_when_a_large_image_is_closed(large, nuclei_file):
    person, layer, touched = large
    with layer.block_history():
        layer.paint((160, 150), 9)
        person.keeping.kept.flush()
    assert None not in touched
    assert (kept_in(project_folder(nuclei_file))[0] == 9).any()


def test_what_a_script_drew_is_saved_when_a_large_image_is_closed(large, nuclei_file):
    person, layer, touched = large
    layer.data[150:160, 100:110] = 77
    layer.refresh()
    layer.paint((20, 150), 9)
    person.viewer.layers.remove(layer)
    assert None in touched
    assert (kept_in(project_folder(nuclei_file))[0][150:160, 100:110] == 77).all()


def test_a_damaged_save_is_told_and_set_aside_on_request(desk, nuclei_file):
    first = desk()
    layer = first.keep(nuclei_file)
    layer.paint((160, 150), 9)
    first.saved()
    first.done()
    journal = project_folder(nuclei_file) / "image-0001" / "journal"
    newest = max(journal.glob("*.zip"))
    newest.write_bytes(newest.read_bytes()[:-20])
    person = desk().open(nuclei_file)
    assert "is damaged" in person.panel.problem.text.text() and not person.panel.aside.isHidden()
    found = person.keeping.kept.target.layer
    assert not (found.data == 9).any(), "what was saved before the damage is there"
    found.paint((10, 150), 12)
    person.panel.aside.click()
    person.settle()
    person.saved()
    person.done()
    assert (kept_in(project_folder(nuclei_file))[0] == 12).any()
    assert list((project_folder(nuclei_file) / "image-0001").glob("damaged-*/*.zip"))


def test_a_change_during_a_save_is_saved_by_the_next_one(desk, nuclei_file, monkeypatch):
    """A save that begins between napari's word of a change and the change itself takes the old pixels."""
    person = desk()
    layer = person.keep(nuclei_file)
    kept, saves = person.keeping.kept, []

    def save_at_once(event):
        kept.write()
        saves.append(1)

    layer.events.paint.connect(
        save_at_once, position="last"
    )  # after ours: the blocks are touched, the data not yet changed
    layer.data_setitem((np.array([160]), np.array([150])), 9)
    layer.events.paint.disconnect(save_at_once)
    assert saves
    person.qtbot.wait(200)
    person.saved()
    assert (kept_in(project_folder(nuclei_file))[0] == 9).any()


def test_each_plane_of_a_stack_is_kept_for_itself(desk, stack_file):
    person = desk().open(stack_file)
    first = person.session.workspace.image.notes
    person.session.show_plane(2)
    person.settle()
    layer = person.add_nuclei()
    layer.metadata[FROM_KEY] = person.session.source.key
    person.box((20, 20), (70, 80))
    person.settle()
    person.saved()
    assert person.keeping.kept.image.record.reference.z == 2
    person.session.show_plane(3)
    person.settle()
    assert person.session.workspace.image.notes == first, "it is the plane that was opened first"
    assert person.keeping.kept is None and not layer.visible
    other = person.add_nuclei(disks(LABELS.shape, (120, 120, 14)))
    person.box((100, 100), (140, 140))
    person.settle()
    person.saved()
    project = person.keeping.kept.project
    assert [image.record.reference.z for image in project.images] == [2, 3]
    assert person.keeping.kept.target.layer is other
    person.session.show_plane(2)
    person.settle()
    assert person.keeping.kept.target.layer is layer and layer.visible
    person.done()
    with Project(project_folder(stack_file), write=True) as project:
        first, second = (finish(image.load_steps()) for image in project.images)
    np.testing.assert_array_equal(first[0], LABELS)
    assert second[1].sum() == 41 * 41


@pytest.mark.parametrize("in_file", [True, False])
def test_no_threshold_changes_labels_that_were_checked(desk, nuclei_file, nuclei, in_file):
    person = desk()
    if in_file:
        person.open(nuclei_file)
    else:
        person.viewer.add_image(nuclei)
        person.settle()
    layer = person.segment()
    person.box((20, 20), (70, 80))
    person.settle()
    before = layer.data.copy()
    person.decode(min_area_px=200)
    np.testing.assert_array_equal(layer.data, before)
    new = person.viewer.layers.selection.active
    assert new is not layer and not layer.visible and 0 < new.data.max() < before.max()
    assert layer.name in person.session.workspace.outcome
    person.decode(min_area_px=100)
    assert person.viewer.layers.selection.active is new, "nobody verified these: they are changed in place"
    person.box((20, 20), (70, 80))
    assert layer.name in person.widget.problem.text.text(), "what is green was verified in the other ones"
    if in_file:
        assert person.keeping.kept.target.layer is layer
        person.saved()
        np.testing.assert_array_equal(kept_in(project_folder(nuclei_file))[0], before)


def test_a_box_over_the_whole_image_is_saved_and_counted_soon(desk, nuclei_file):
    person = desk()
    person.keep(nuclei_file, (20, 20), (30, 30))
    person.box((0, 0), (181, 207))
    assert person.keeping.kept.unsaved
    person.saved()
    assert kept_in(project_folder(nuclei_file))[1].all() and person.keeping.kept.counted.nuclei == 5


def test_retraining_learns_from_what_a_script_changed_too(desk, nuclei_file):
    person = desk()
    layer = person.keep(nuclei_file)
    layer.data[150:160, 100:110] = 77
    layer.refresh()
    person.keeping.kept.write()  # as Retrain does before it reads the project
    assert (kept_in(project_folder(nuclei_file))[0][150:160, 100:110] == 77).all()


@pytest.mark.parametrize("remains", [True, False])
def test_an_image_that_is_opened_once_more_goes_on_with_its_layers(desk, nuclei_file, remains):
    person = desk()
    layer = person.keep(nuclei_file)
    kept, images = person.keeping.kept, list(person.viewer.layers[:2])
    if not remains:
        for image in images:
            person.viewer.layers.remove(image)
    person.open(nuclei_file)
    assert person.keeping.kept is kept and list(person.keeping._kept.values()) == [kept]
    assert [each for each in person.viewer.layers if each.name == layer.name] == [layer]
    assert person.viewer.layers.selection.active is layer and layer.visible
    assert person.viewer.layers[-1] is layer, "above the image"
    assert "open already" in person.panel.state.text()
    person.box((90, 80), (110, 100))
    layer.paint((160, 150), 9)
    person.saved()
    if remains:  # the first of the two again
        first = next(s for s in person.session.sources() if images[0] in s.layers)
        person.session.choose(first)
        person.settle()
        assert person.keeping.kept is kept
        layer.paint((170, 150), 10)
        person.saved()
    labels, verified = kept_in(project_folder(nuclei_file))
    np.testing.assert_array_equal(labels, layer.data)
    assert (labels == 9).any() and verified[95, 90] and verified[30, 30]


def test_nothing_is_marked_while_the_project_is_looked_for(desk, nuclei_file, monkeypatch):
    """What was found would lie over other nuclei than those that the person saw."""
    first = desk()
    first.keep(nuclei_file)
    first.done()
    gate, find = threading.Event(), _kept_steps.find_steps

    def slow(*arguments):
        gate.wait(20)
        return (yield from find(*arguments))

    monkeypatch.setattr(_kept_steps, "find_steps", slow)
    person = desk()
    person.session.open(nuclei_file)
    person.qtbot.waitUntil(lambda: person.keeping.key_in_hand is not None, timeout=20_000)
    person.add_nuclei(disks(LABELS.shape, (120, 120, 14)))
    person.box((100, 100), (140, 140))
    assert "is being looked for" in person.widget.problem.text.text()
    gate.set()
    person.settle()
    assert person.keeping.kept.mask.pixels.sum() == 51 * 61


def test_what_is_changed_while_new_labels_are_taken_in_is_not_lost(desk, nuclei_file, monkeypatch):
    person = desk()
    kept_layer = person.keep(nuclei_file, (20, 20), (60, 60))
    new = person.add_nuclei(disks(LABELS.shape, (120, 120, 14)))
    merged, gate = threading.Event(), threading.Event()

    def slow(*arguments):
        found = yield from merged_steps(*arguments)
        merged.set()
        gate.wait(20)
        return found

    monkeypatch.setattr(_taking_in, "merged_steps", slow)
    person.panel.take_in.click()
    assert merged.wait(20)
    new.data_setitem((np.array([160] * 3), np.array([150, 151, 152])), 50)
    person.viewer.layers.selection.active = kept_layer
    person.box((70, 160), (110, 200))  # nucleus 5 is right
    gate.set()
    person.settle()
    assert not person.keeping.doing
    assert kept_layer.data[160, 151] > 5, "drawn in the new ones meanwhile"
    assert (kept_layer.data == 5).sum() == (LABELS == 5).sum(), "verified meanwhile"
    assert 4 not in kept_layer.data
    former = person.viewer.layers["nuclei before taking in"]
    np.testing.assert_array_equal(former.data, LABELS)
    assert not former.visible and former.name in person.panel.state.text()


def test_labels_of_another_image_are_not_taken_in(desk, nuclei_file, nuclei):
    other = nuclei_file.with_name("other.ome.tif")
    tifffile.imwrite(other, nuclei, metadata={"axes": "YX"})
    person = desk()
    person.keep(nuclei_file, (20, 20), (60, 60))
    first = person.session.source
    wrong = person.add_nuclei(disks(LABELS.shape, (120, 120, 14)))
    wrong.metadata[FROM_KEY] = first.key
    person.open(other)
    person.add_nuclei().scale = (1, 1)
    person.box((20, 20), (60, 60))
    person.settle()
    person.saved()
    kept = person.keeping.kept
    wrong.visible = True
    person.viewer.layers.selection.active = wrong
    person.keeping.taking_in.start()
    person.settle()
    np.testing.assert_array_equal(kept.target.layer.data, LABELS)
    assert "two channels" in person.panel.problem.text.text()


def test_the_panel_speaks_of_the_labels_in_hand(desk, nuclei_file, nuclei):
    """Not of the image in hand, which may be another one."""
    other = nuclei_file.with_name("other.ome.tif")
    tifffile.imwrite(other, nuclei, metadata={"axes": "YX"})
    person = desk()
    layer = person.keep(nuclei_file, (20, 20), (60, 60))
    first = person.keeping.kept
    layer.metadata[FROM_KEY] = person.session.source.key
    person.open(other)

    def correct_the_first():
        layer.visible = True
        person.viewer.layers.selection.active = layer
        layer.paint((160, 150), int(layer.data.max()) + 1)
        person.qtbot.waitUntil(lambda: not first.unsaved)
        return person.panel

    panel = correct_the_first()
    assert person.keeping.kept is None and "Saved" in panel.state.text()
    assert "in memory only" not in panel.state.text() and panel.keep.isHidden()
    assert "Verified: 1 nucleus" in panel.verified.text()
    person.add_nuclei().scale = (1, 1)
    person.box((0, 0), (181, 207))
    person.settle()
    person.saved()
    assert "5 nuclei" in panel.verified.text()
    panel = correct_the_first()
    assert "not kept" not in panel.state.text() and panel.take_in.isHidden()
    assert "Verified: 1 nucleus" in panel.verified.text()
    person.add_nuclei().scale = (1, 1)
    assert "not kept" in panel.state.text() and not panel.take_in.isHidden()


@pytest.mark.parametrize("which", ["nuclei", "verified"])
def test_with_one_kept_layer_the_other_is_closed_and_both_are_opened_again(desk, nuclei_file, which):
    person = desk()
    person.keep(nuclei_file)
    kept = person.keeping.kept
    person.viewer.layers.remove(kept.target.layer if which == "nuclei" else kept.mask.layer)
    person.settle()
    assert not any(layer in person.viewer.layers for layer in kept.layers)
    assert "Open again" in person.panel.state.text() and person.panel.keep.isHidden()
    new = person.add_nuclei()
    person.box((20, 20), (30, 30))
    assert "Open again" in person.widget.problem.text.text(), "nothing is marked beside the project"
    person.viewer.layers.remove(new)
    person.panel.again.click()
    person.settle()
    again = person.keeping.kept
    np.testing.assert_array_equal(again.target.layer.data, LABELS)
    assert again.mask.pixels.sum() == 51 * 61 and person.panel.again.isHidden()
    again.target.layer.paint((160, 150), 9)
    person.saved()
    assert (kept_in(project_folder(nuclei_file))[0] == 9).any()


def test_both_kept_layers_are_closed_at_once(desk, nuclei_file):
    person = desk()
    person.keep(nuclei_file)
    kept = person.keeping.kept
    person.viewer.layers.selection = set(kept.layers)
    person.viewer.layers.remove_selected()
    person.settle()
    assert person.keeping.kept is None and not person.panel.again.isHidden()


def test_a_layer_that_cannot_be_saved_is_not_closed(desk, nuclei_file, monkeypatch):
    person = desk()
    layer = person.keep(nuclei_file)
    kept = person.keeping.kept

    def full(labels, verified):
        raise WriteError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kept.image, "save", full)
        layer.paint((160, 150), 9)
        person.viewer.layers.remove(layer)
        person.settle()
        assert layer in person.viewer.layers and person.keeping.kept is kept
    person.saved()
    assert (kept_in(project_folder(nuclei_file))[0] == 9).any()


def test_a_box_ends_where_the_labels_end(desk, nuclei_file):
    person = desk().open(nuclei_file)
    scale = np.array(person.viewer.layers[0].scale[-2:])
    person.add_nuclei(LABELS[30:120, 20:190], translate=scale * (30, 20))
    person.box((-25, -15), (50, 60))
    person.settle()
    person.saved()
    person.keeping.kept.mask.layer.paint((160, 150), 1)  # where there are no labels
    person.saved()
    _, verified = kept_in(project_folder(nuclei_file))
    expected = np.zeros(LABELS.shape, bool)
    expected[30:81, 20:81] = True
    np.testing.assert_array_equal(verified, expected)
    person.box((100, 10), (140, 50))
    assert "no pixel of these labels" in person.widget.problem.text.text()


def test_labels_of_another_plane_are_told_from_those_in_hand(desk, stack_file):
    person = desk().open(stack_file)
    person.session.show_plane(2)
    person.settle()
    layer = person.segment()
    person.session.show_plane(3)
    person.settle()
    layer.visible = True
    person.viewer.layers.selection.active = layer
    person.box((20, 20), (70, 80))
    assert "is of z plane 2" in person.widget.problem.text.text()
    assert "z plane 3" in person.widget.problem.text.text()
    assert not person.keeping.verifying.masks
    person.session.show_plane(2)
    person.settle()
    layer.visible = True
    person.box((20, 20), (70, 80))
    person.settle()
    person.saved()
    assert person.keeping.kept.image.record.reference.z == 2


def test_the_plane_that_opens_first_is_verified_after_another_one_was_shown(desk, nuclei, tmp_path):
    path = tmp_path / "full.ome.tif"
    tifffile.imwrite(path, np.stack([nuclei] * 7), metadata={"axes": "ZYX"})
    person = desk().open(path)
    layer = person.segment()
    for z in (4, 3):
        person.session.show_plane(z)
        person.settle()
    layer.visible = True
    person.viewer.layers.selection.active = layer
    person.box((20, 20), (70, 80))
    person.settle()
    person.saved()
    assert person.widget.problem.isHidden()
    for z in (4, 3):
        person.session.show_plane(z)
        person.settle()
    person.viewer.layers.selection.active = layer
    kept = person.keeping.kept
    before = kept.mask.pixels.sum()
    person.review().accept()
    assert person.widget.problem.isHidden() and kept.mask.pixels.sum() > before
    assert [image.record.reference.z for image in kept.project.images] == [3]


@pytest.mark.parametrize("older", [True, False])
def test_what_a_script_kept_of_a_stack_is_opened_with_it_and_kept_once(desk, stack_file, older):
    folder = project_folder(stack_file)
    with Project.create(folder) as project:
        reference = project.refer_to(stack_file)
        added = finish(project.add_steps(reference, LABELS, modality=Modality.FLUORESCENCE))
        if older:  # as versions before noted it
            reference = added.record.reference.model_copy(update={"z": None})
            project.put(added.record.model_copy(update={"reference": reference}))
    person = desk().open(stack_file)
    kept = person.keeping.kept
    np.testing.assert_array_equal(kept.target.layer.data, LABELS)
    person.box((20, 20), (70, 80))
    person.saved()
    person.session.show_plane(4)
    person.settle()
    assert person.keeping.kept is None
    person.session.show_plane(3)
    person.settle()
    assert person.keeping.kept is kept and len(kept.project.images) == 1
    person.done()
    assert kept_in(folder)[1].sum() == 51 * 61


def test_labels_of_an_array_are_verified_in_the_file_that_it_was_written_to(desk, nuclei, tmp_path):
    person = desk()
    person.viewer.add_image(np.stack([nuclei] * 4), name="stack")
    person.viewer.dims.set_point(0, 2)
    person.settle()
    person.add_nuclei()
    person.keeping.keep(save_as=tmp_path / "plane.ome.tif")
    person.settle()
    person.saved()
    kept = person.keeping.kept
    person.open(tmp_path / "plane.ome.tif")
    assert "open already" in person.panel.state.text()
    person.box((20, 20), (70, 80))
    assert person.widget.problem.isHidden() and kept.mask.pixels.any()


def test_a_file_that_was_exchanged_is_told_until_it_is_accepted(desk, nuclei_file, nuclei):
    first = desk()
    first.keep(nuclei_file)
    first.done()
    tifffile.imwrite(nuclei_file, nuclei[::-1].copy(), metadata={"axes": "YX"})
    person = desk().open(nuclei_file)
    kept = person.keeping.kept
    assert "not the file that was labelled" in person.panel.problem.text.text()
    assert not person.panel.point.isHidden() and person.panel.take_in.isHidden()
    assert not any(layer.editable for layer in kept.layers)
    person.box((90, 80), (110, 100))
    assert "only shown" in person.widget.problem.text.text() and not kept.mask.pixels[95, 90]
    person.keeping.projects.point_to(nuclei_file, person.panel.refresh)
    person.settle()
    kept = person.keeping.kept
    np.testing.assert_array_equal(kept.target.layer.data, LABELS)
    assert all(layer.editable for layer in kept.layers) and person.panel.point.isHidden()
    assert sum(layer.name == kept.target.layer.name for layer in person.viewer.layers) == 1
    person.box((90, 80), (110, 100))
    person.saved()
    assert kept_in(project_folder(nuclei_file))[1][95, 90]
    person.done()
    assert desk().open(nuclei_file).panel.point.isHidden()


def test_no_image_is_written_over_unasked(desk, nuclei, tmp_path, monkeypatch):
    person = desk()
    person.viewer.add_image(nuclei, name="array")
    person.settle()
    person.add_nuclei()
    path, asked = tmp_path / "array.ome.tif", []
    path.write_bytes(b"of somebody else")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "array"), ""))
    monkeypatch.setattr(
        QMessageBox, "question", lambda *words: asked.append(words[-1]) or QMessageBox.StandardButton.No
    )
    person.panel.keep.click()
    person.settle()
    assert "array.ome.tif" in asked[0] and path.read_bytes() == b"of somebody else"
    assert person.keeping.kept is None


def test_an_image_that_a_project_has_is_not_written_over(desk, nuclei, nuclei_file):
    first = desk()
    first.keep(nuclei_file)
    first.done()
    before = nuclei_file.read_bytes()
    person = desk()
    person.viewer.add_image(nuclei[::-1], name="array")
    person.settle()
    person.add_nuclei()
    person.keeping.keep(save_as=nuclei_file)
    person.settle()
    assert nuclei_file.read_bytes() == before
    assert "Choose another name" in person.panel.problem.text.text()


def test_nuclei_found_here_are_kept_from_the_first_correction_on(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer = person.segment()
    assert not is_project(project_folder(nuclei_file)), "nothing is worth keeping yet"
    layer.paint((160, 150), 900)
    person.settle()
    person.saved()
    labels, verified = kept_in(project_folder(nuclei_file))
    np.testing.assert_array_equal(labels, layer.data)
    assert (labels == 900).any() and not verified.any()
    assert "first correction" in person.panel.state.text()
    assert person.viewer.layers.selection.active is layer
    layer.undo()
    person.saved()
    assert not (kept_in(project_folder(nuclei_file))[0] == 900).any()
    assert person.keeping.unsaved() == []


def test_corrections_that_cannot_be_kept_are_said_once_and_named_at_the_end(desk, nuclei_file, monkeypatch):
    tried = []

    def refuse(*_, **__):
        tried.append(1)
        raise WriteError("the folder cannot be made: Permission denied; choose another folder")
        yield

    monkeypatch.setattr(_keeping, "keep_steps", refuse)
    person = desk().open(nuclei_file)
    layer = person.segment()
    assert person.keeping.unsaved() == []
    for x in (150, 160):
        layer.paint((160, x), 900)
        person.settle()
    assert len(tried) == 1 and "Permission denied" in person.panel.problem.text.text()
    (text,) = person.keeping.unsaved()
    assert layer.name in text and "in memory only" in text


def test_what_an_image_in_no_file_has_is_named_at_the_end(desk, nuclei):
    person = desk()
    person.viewer.add_image(nuclei, name="array")
    person.settle()
    layer = person.add_nuclei()
    person.box((20, 20), (70, 80))
    layer.paint((160, 150), 9)
    person.settle()
    verified, corrected = person.keeping.unsaved()
    assert "array verified" in verified and layer.name in corrected
    person.viewer.layers.remove(layer)
    person.settle()
    assert person.keeping.unsaved() == [] and "array verified" not in person.viewer.layers


def test_what_was_corrected_in_a_former_session_stays_when_nuclei_are_taken_in(desk, nuclei_file):
    first = desk()
    layer = first.keep(nuclei_file, (0, 0), (3, 3))
    number = int(LABELS.max())
    at = np.argwhere(LABELS == number)[0]
    layer.paint((at[0], at[1] + 30), number)  # not verified
    first.saved()
    first.done()
    person = desk().open(nuclei_file)
    kept = person.keeping.kept
    assert number in kept.corrected
    corrected = kept.target.layer.data == number
    person.add_nuclei(np.zeros_like(LABELS))
    person.keeping.taking_in.start()
    person.settle()
    found = person.keeping.kept.target.layer.data
    np.testing.assert_array_equal(found == number, corrected)
    assert set(np.unique(found)) == {0, number}, "the others, which nobody touched, are replaced"


def test_what_was_undone_was_not_corrected(desk, nuclei_file):
    first = desk()
    layer = first.keep(nuclei_file, (0, 0), (3, 3))
    layer.paint((160, 150), 4)
    first.saved()
    first.done()
    person = desk().open(nuclei_file)
    kept = person.keeping.kept
    layer = kept.target.layer
    assert kept.corrected == {4}
    layer.paint((160, 153), 4)
    layer.data_setitem(np.nonzero(layer.data == 2), 0)
    layer.paint((10, 190), 9)
    assert kept.corrected == {2, 4, 9}
    for left in ({2, 4}, {4}, {4}):
        layer.undo()
        assert kept.corrected == left, "of the former session it stays"
    layer.redo()
    layer.redo()
    assert kept.corrected == {2, 4}
    layer.undo()
    person.saved()
    person.add_nuclei(np.zeros_like(LABELS))
    person.keeping.taking_in.start()
    person.settle()
    assert set(np.unique(person.keeping.kept.target.layer.data)) == {0, 4}
    person.saved()
    assert person.keeping.kept.image.record.corrected == (4,)


def test_after_taking_in_thresholds_act_on_nothing_hidden(desk, nuclei_file):
    person = desk()
    kept = person.keep(nuclei_file, (0, 0), (3, 3))
    found, session = person.segment(), person.session
    assert session.workspace.result.maps is not None
    person.keeping.taking_in.start()
    person.settle()
    assert not found.visible and kept.visible
    before, session.workspace.outcome = found.data.copy(), "as it was"
    session.workspace.set_recipe(decode=DecodeSettings(min_area_px=300))
    assert session.runs.wanted_decode() is not None, "a new run would have them"
    person.settle()
    assert not session.runs._timer.isActive() and session.workspace.outcome == "as it was"
    np.testing.assert_array_equal(found.data, before)


def test_nuclei_are_kept_from_the_first_correction_on_also_while_correct_is_hidden(desk, nuclei_file):
    person = desk().open(nuclei_file)
    layer = person.segment()
    person.widget.hide()
    layer.paint((150, 150), 900)
    person.saved()
    assert (kept_in(project_folder(nuclei_file))[0] == 900).any()
    assert 900 in person.keeping.kept.corrected


def test_nuclei_of_an_image_that_was_closed_are_not_kept_with_another_one(desk, nuclei_file, tmp_path):
    person = desk().open(nuclei_file)
    layer = person.segment()
    other = tmp_path / "other.ome.tif"
    shutil.copy(nuclei_file, other)
    for image in [each for each in person.viewer.layers if each is not layer]:
        person.viewer.layers.remove(image)
    person.open(other)
    person.viewer.layers.selection.active = layer
    layer.visible = True
    layer.paint((150, 150), 900)
    person.settle()
    assert not project_folder(other).exists() and person.keeping.kept is None


def test_a_stroke_that_does_not_end_is_saved_within_ten_seconds(desk, nuclei_file, monkeypatch, qtbot):
    person = desk()
    layer = person.keep(nuclei_file)
    monkeypatch.setattr(_kept, "SOON_MS", SOON_MS)
    began = time.monotonic()
    with layer.block_history():  # as from press to release
        while not (kept_in(project_folder(nuclei_file))[0] == 9).any():
            assert time.monotonic() - began < 10
            layer.paint((150, 150), 9, refresh=True)
            qtbot.wait(200)


def test_an_image_cannot_be_pointed_to_another_one_of_its_project(desk, nuclei_file, tmp_path):
    first = desk()
    first.keep(nuclei_file)
    other = tmp_path / "other.ome.tif"
    pixels = tifffile.imread(nuclei_file)[..., ::-1]
    tifffile.imwrite(other, pixels, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}})
    first.done()
    folder = project_folder(nuclei_file)
    with Project(folder, write=True) as project:
        finish(project.add_steps(project.refer_to(other), LABELS, modality=Modality.FLUORESCENCE))
    nuclei_file.rename(tmp_path / "elsewhere.tif")
    person = desk()
    person.keeping.projects.choose(folder, lambda names: 0, person.panel.refresh)
    person.settle()
    person.keeping.projects.point_to(other, person.panel.refresh)
    person.settle()
    assert "another image of this project" in person.panel.problem.text.text()
    assert person.keeping.projects.lost is not None


def test_a_project_that_could_not_be_opened_can_be_opened_again(desk, nuclei_file):
    first = desk()
    first.keep(nuclei_file)
    first.done()
    file = project_folder(nuclei_file) / "project.json"
    content = file.read_text()
    file.write_text("{")
    person = desk().open(nuclei_file)
    assert person.keeping.kept is None and not person.panel.again.isHidden()
    file.write_text(content)
    person.panel.again.click()
    person.settle()
    assert person.keeping.kept is not None and person.panel.problem.isHidden()


def test_a_project_that_opens_late_does_not_cover_another_plane(desk, stack_file, monkeypatch, qtbot):
    first = desk().open(stack_file)
    first.session.show_plane(2)
    first.settle()
    first.add_nuclei().metadata[FROM_KEY] = first.session.source.key
    first.box((20, 20), (70, 80))
    first.settle()
    first.saved()
    first.done()
    release, find = threading.Event(), _kept_steps.find_steps

    def late(path, z, *rest):
        while z == 2 and not release.wait(0.02):
            yield Progress(0, 0, "waiting")
        return (yield from find(path, z, *rest))

    monkeypatch.setattr(_kept_steps, "find_steps", late)
    person = desk().open(stack_file)
    for z in (2, 3):
        person.session.show_plane(z)
        qtbot.waitUntil(lambda z=z: person.session.workspace.image.z == z)
    active = person.viewer.layers.selection.active
    release.set()
    person.settle()
    qtbot.waitUntil(lambda: len(person.keeping.all()) == 1)
    ((_, kept),) = person.keeping.all()
    assert not any(layer.visible for layer in kept.layers)
    assert person.viewer.layers.selection.active is active
    person.session.show_plane(2)
    person.settle()
    assert all(layer.visible for layer in kept.layers) and person.keeping.kept is kept


def test_what_was_written_to_a_file_to_be_kept_is_opened_again(desk, nuclei, tmp_path):
    person = desk()
    person.viewer.add_image(nuclei, name="array")
    person.settle()
    person.add_nuclei()
    person.keeping.keep(save_as=tmp_path / "array.ome.tif")
    person.settle()
    person.saved()
    person.viewer.layers.remove(person.keeping.kept.target.layer)
    person.settle()
    assert person.keeping.kept is None and not person.panel.again.isHidden()
    person.panel.again.click()
    person.settle()
    np.testing.assert_array_equal(person.keeping.kept.target.layer.data, LABELS)


def test_corrections_of_the_nuclei_that_are_taken_in_stay_when_others_are(desk, nuclei_file):
    person = desk()
    person.keep(nuclei_file, (0, 0), (3, 3))
    assert not person.keeping.kept.corrected
    found = person.add_nuclei(disks(LABELS.shape, (120, 120, 14), (60, 150, 10)))
    found.paint((120, 145), 1)
    found.paint((170, 190), 30)
    found.undo()
    person.keeping.taking_in.start()
    person.settle()
    kept = person.keeping.kept
    labels = kept.target.layer.data
    drawn = labels == labels[120, 145]
    assert drawn[120, 120] and kept.corrected == {labels[120, 145]}
    assert person.keeping.unsaved() == []
    kept.corrected.add(99)  # was added and deleted
    person.add_nuclei(disks(LABELS.shape, (60, 60, 8)))
    person.keeping.taking_in.start()
    person.settle()
    labels = person.keeping.kept.target.layer.data
    np.testing.assert_array_equal(labels == labels[120, 145], drawn)
    assert labels[60, 60] == 100, "a new nucleus has no number that a person corrected"


def test_labels_of_a_whole_plane_of_a_stack_are_taken_in_and_saved(desk, nuclei, tmp_path):
    person = desk()
    person.viewer.add_image(np.stack([nuclei] * 4), name="stack")
    person.viewer.dims.set_point(0, 2)
    person.settle()
    part = person.viewer.add_labels(LABELS[None, :100, :100].copy(), translate=(2, 0, 0))
    person.viewer.layers.selection.active = part
    person.keeping.keep(save_as=tmp_path / "plane.ome.tif")
    person.settle()
    person.saved()
    whole = person.viewer.add_labels(LABELS[None].copy(), translate=(2, 0, 0))
    person.viewer.layers.selection.active = whole
    person.keeping.taking_in.start()
    person.settle()
    kept = person.keeping.kept
    assert kept.labels.shape == LABELS.shape
    kept.target.layer.data_setitem((np.array([0]), np.array([170]), np.array([190])), 50)
    person.saved()
    person.qtbot.waitUntil(lambda: kept_in(project_folder(tmp_path / "plane.ome.tif"))[0][170, 190] == 50)
    assert kept.problem == ""


def test_another_plane_of_the_labels_is_not_marked_in_place_of_the_kept_one(desk, nuclei_file):
    person = desk().open(nuclei_file)
    scale = person.viewer.layers[0].scale[-2:]
    layer = person.viewer.add_labels(
        np.stack([LABELS, LABELS * 2]), scale=(1, *scale), units=("um", *person.viewer.layers[0].units[-2:])
    )
    person.viewer.layers.selection.active = layer
    mark = person.widget.corrections.act
    person.viewer.dims.set_point(0, 0)
    mark(VERIFY, [tuple(layer.data_to_world((0, *at))) for at in ((20, 20), (70, 80))])
    person.settle()
    person.saved()
    seen = person.keeping.kept.mask.pixels.sum()
    person.viewer.dims.set_point(0, 1)
    mark(VERIFY, [tuple(layer.data_to_world((1, *at))) for at in ((100, 100), (140, 140))])
    person.settle()
    assert "another plane of" in person.widget.problem.text.text().lower()
    assert person.keeping.kept.mask.pixels.sum() == seen


@pytest.mark.parametrize("kind", ["labels of all planes", "labels of one plane", "a file"])
def test_a_suggested_tile_is_verified_in_its_plane_only(desk, nuclei, stack_file, monkeypatch, kind):
    tile = Surveyed(Region(0, 0, 100, 100), 0.4, 0.5, np.zeros(3, np.float32), 12)

    def survey(image, recipe):
        yield from ()
        return [tile]

    monkeypatch.setattr(_suggesting, "_survey_steps", survey)
    person = desk()
    if kind == "a file":
        person.open(stack_file)
    else:
        person.viewer.add_image(np.stack([nuclei] * 7), name="stack")
        person.settle()
    layer = person.add_nuclei()
    if kind == "labels of all planes":
        person.viewer.layers.remove(layer)
        person.viewer.add_labels(np.stack([LABELS] * 7))

    def go(z):
        if kind == "a file":
            person.session.show_plane(z)
        else:
            person.viewer.dims.set_point(0, z)
        person.settle()

    panel, masks = person.widget.suggest, person.keeping.verifying.masks
    go(3)
    panel.ask.click()
    person.settle()
    panel.lines[0].click()
    assert not panel.marks[0].isHidden()
    go(4)
    assert panel.lines[0].isHidden() and panel.marks[0].isHidden()
    person.session.suggesting.verify(0)
    assert not masks
    go(3)
    assert not panel.lines[0].isHidden()
    panel.marks[0].click()
    ((_, (note, *_)),) = masks
    (mask,) = masks.values()
    assert "plane 3 of 7" in note and mask.pixels.sum() == 100 * 100
