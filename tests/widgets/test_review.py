"""Reviewing nuclei in the order of doubt."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_nucleus_kd import pipeline
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.pipeline import segment, to_image
from napari_nucleus_kd.review import Doubt
from napari_nucleus_kd.types import Progress, finish, retold
from napari_nucleus_kd.widgets import _doubting, _review
from napari_nucleus_kd.widgets._doubting import measure_steps, mirror_steps
from napari_nucleus_kd.widgets._layers import RECIPE_KEY, camera_of
from napari_nucleus_kd.widgets._queue import Queue
from napari_nucleus_kd.widgets.correct import CorrectWidget


def disks(shape, *circles):
    """Draw circles (y, x, radius) numbered 1, 2, ...; later ones do not cover earlier ones."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for number, (y, x, radius) in enumerate(circles, 1):
        labels[(np.hypot(yy - y, xx - x) <= radius) & (labels == 0)] = number
    return labels


GRID = [(y, x, 8) for y in (15, 45, 75) for x in (15, 45, 75, 105)]
LABELS = disks((100, 130), *GRID, (45, 120, 2), (90, 60, 13))  # 13 is small, 14 is large
SMALL, LARGE = 13, 14


class Clock:
    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def queue():
    """Nuclei 1 to 6, of which five are wanted, and the clock that it goes by."""
    clock = Clock()
    queue = Queue([Doubt(n, 1 - n / 10, f"reason {n}") for n in range(1, 7)], 5, clock)
    queue.clock = clock
    queue.show(queue.waiting()[0])
    return queue


def numbers(queue):
    return [doubt.number for doubt in queue.waiting()]


def test_a_queue_counts_what_is_left_and_how_long_it_takes(queue):
    assert (queue.left, queue.done, queue.seconds_left) == (5, 0, None)
    for seconds in (4, 6, 500):  # the last one was a break
        queue.clock.at += seconds
        queue.accept(((0, 0),), ())
        queue.show(queue.waiting()[0])
    assert (queue.left, queue.done) == (2, 3)
    assert queue.seconds == 4 + 6 + 60
    assert queue.seconds_left == 2 * 6
    queue.lose(5)
    assert (queue.left, queue.done) == (1, 4)
    queue.find(5)
    assert numbers(queue) == [4, 5]


def test_what_is_corrected_with_a_nucleus_is_done_with_it_and_both_come_back(queue):
    queue.accept(((1, 1), (3, 3)), [1, 3, 99])
    assert numbers(queue) == [2, 4, 5] and queue.done == 2
    queue.show(queue.waiting()[0])
    queue.put_off()
    assert numbers(queue) == [4, 5, 2]
    assert queue.take_back() == ((1, 1), (3, 3))
    assert numbers(queue) == [1, 3, 4, 5, 2]
    assert queue.take_back() is None


def test_another_order_keeps_the_current_one_and_what_is_done(queue):
    queue.accept(((0, 0),), ())
    queue.show(queue.waiting()[0])
    queue.lose(3)
    queue.reorder([Doubt(n, 1.0, "mirror") for n in (6, 5, 4, 3, 2, 1)])
    assert numbers(queue) == [2, 6, 5] and queue.waiting()[1].reason == "mirror"
    assert queue.left + queue.done == 5


def test_what_was_put_off_stays_last_when_the_order_changes(queue):
    first, second = queue.waiting()[:2]
    queue.show(first)
    queue.put_off()
    queue.show(second)
    queue.reorder([Doubt(n, 1.0, "mirror") for n in (first.number, 6, 5, 4, 3, 2, 1)])
    assert numbers(queue)[0] == second.number and numbers(queue)[-1] == first.number
    assert len(numbers(queue)) == len(set(numbers(queue))) == 5


def test_a_nucleus_that_a_part_cuts_is_judged_where_it_is_whole(monkeypatch):
    """Two nuclei that the mirror picture takes as one; the side of a part lies between them."""
    labels = disks((40, 160), (20, 70, 12), (20, 95, 12))
    both = (labels > 0).astype(np.int32)
    both[12:29, 70:95] = 1

    def steps(image, recipe):
        yield Progress(1, 1)
        x0, x1 = 160 - recipe.region.x1, 160 - recipe.region.x0
        return SimpleNamespace(nuclei=SimpleNamespace(labels=both[:, x0:x1][:, ::-1], scores=None))

    monkeypatch.setattr(pipeline, "segment_steps", steps)
    monkeypatch.setattr(_doubting, "_PART_PX", 60)
    monkeypatch.setattr(_doubting, "_HALO_PX", 26)
    measured = finish(measure_steps(labels, {}))
    order = finish(mirror_steps(measured, to_image(np.zeros((40, 160), np.uint8)), Recipe(), (0, 0)))
    assert all(doubt.doubt > 0.4 and "mirror" in doubt.reason for doubt in order)


def test_nuclei_without_a_score_get_that_of_what_the_model_sees_in_their_place(monkeypatch):
    labels = disks((40, 160), (20, 30, 12), (20, 70, 12), (20, 110, 12))

    def steps(image, recipe):
        yield Progress(1, 1)
        return SimpleNamespace(
            nuclei=SimpleNamespace(labels=labels[:, ::-1], scores=np.array([0.2, 0.3, 0.9], np.float32))
        )

    monkeypatch.setattr(pipeline, "segment_steps", steps)
    measured = finish(measure_steps(labels, {2: 0.8}))  # the others were drawn, or opened from a project
    order = finish(mirror_steps(measured, to_image(np.zeros((40, 160), np.uint8)), Recipe(), (0, 0)))
    found = {doubt.number: (round(doubt.doubt, 2), doubt.reason) for doubt in order}
    assert found == {1: (0.8, "low score, 0.20"), 2: (0.2, "low score, 0.80"), 3: (0.1, "low score, 0.90")}


@pytest.mark.parametrize(("part_px", "parts"), [(4096, 1), (80, 6)])
def test_a_nucleus_that_the_mirror_picture_does_not_show_is_doubted(draw, monkeypatch, part_px, parts):
    monkeypatch.setattr(_doubting, "_PART_PX", part_px)
    monkeypatch.setattr(_doubting, "_HALO_PX", 20)
    pixels, _ = draw(200, 240)
    found = segment(pixels, segmenter="classical")
    labels = found.nuclei.labels[30:180, 20:210].copy()
    labels[np.isin(labels, np.flatnonzero(np.bincount(labels.ravel()) < 20))] = 0
    measured = finish(measure_steps(labels, {}))
    usual = measured.order[-1]
    assert usual.doubt < 0.1
    without = pixels.copy()
    without[30:180, 20:210][labels == usual.number] = 20  # now nobody sees a nucleus here
    recipe = found.recipe.model_copy(update={"scaling_low": None, "scaling_high": None})
    told = []
    steps = retold(mirror_steps(measured, to_image(without), recipe, (30, 20)), lambda p: told.append(p) or p)
    order = finish(steps)
    assert {p.total for p in told} == {parts} and max(p.done for p in told) == parts - 1
    asked = {doubt.number: doubt for doubt in order}
    assert asked[usual.number].doubt > 0.9 and "mirror" in asked[usual.number].reason
    alone = {doubt.number: doubt.doubt for doubt in measured.order}
    grown = [doubt.doubt - alone[doubt.number] for doubt in order if doubt.number != usual.number]
    assert np.median(grown) < 0.2, "most nuclei are seen there, too"


@pytest.fixture
def widget(viewer, session, settle, qtbot):
    settle(session)
    widget = CorrectWidget(viewer)
    qtbot.addWidget(widget)
    widget.show()
    return widget


@pytest.fixture
def reviewing(widget, viewer, settle, qtbot, monkeypatch):
    """A review of LABELS that has begun, without the mirror picture: there is no image."""
    layer = viewer.add_labels(LABELS.copy(), name="nuclei")
    widget.review.most.setValue(6)
    widget.review.begin.click()
    settle(widget.session)
    review = widget.corrections.review
    assert review.layer is layer and review.queue.left == 6
    return review


def press(layer, key):
    layer.keymap[next(k for k in layer.keymap if str(k) == key)](layer)


def soon(qtbot):
    qtbot.wait(10)


def test_the_odd_ones_come_first_with_their_reason_in_view(reviewing, widget, viewer):
    first = reviewing.queue.current.number
    assert first in (SMALL, LARGE)
    text = widget.review.reason.text()
    assert f"Nucleus {first}" in text and "times the median area" in text
    assert "6 left" in widget.review.count.text()
    assert "no image" in widget.review.note.text()
    y, x = np.argwhere(LABELS == first).mean(axis=0)
    np.testing.assert_allclose(camera_of(viewer).center[-2:], (y, x), atol=1)
    size = np.ptp(np.argwhere(LABELS == first)[:, 0]) + 1
    share = 2 * size * camera_of(viewer).zoom / widget.corrections.canvas_px
    assert 0.2 < share < 0.5, "it and as much around it are about a third of the view"
    assert viewer.layers[0].selected_label == first


def test_keys_accept_delete_put_off_and_go_back(reviewing, widget, viewer, qtbot):
    layer, queue = viewer.layers[0], reviewing.queue
    heard = []
    reviewing.accepted.connect(lambda target, places: heard.append([LABELS[at] for at in places]))
    reviewing.taken_back.connect(lambda target, places: heard.append("back"))
    first = queue.current.number
    press(layer, "Y")
    assert heard == [[first]] and queue.left == 5
    second = queue.current.number
    press(layer, "Shift+D")
    soon(qtbot)
    assert not (layer.data == second).any() and queue.left == 4
    third = queue.current.number
    press(layer, "U")
    assert queue.current.number != third and numbers(queue)[-1] == third
    press(layer, "Shift+Y")
    assert heard[-1] == "back" and queue.current.number == first and queue.left == 5
    layer.undo()
    soon(qtbot)
    assert second in numbers(queue) and queue.current.number == first, "undo brings it back to the queue"
    layer.redo()
    soon(qtbot)
    assert second not in numbers(queue)
    for _ in range(5):
        press(layer, "Y")
    assert queue.left == 0 and "All were looked at" in widget.review.reason.text()
    assert "6 done" in widget.review.count.text()
    widget.review.end.click()
    assert reviewing.queue is None and not widget.review.offer.isHidden()
    assert not {"Y", "U", "Shift+D"} & {str(key) for key in layer.keymap}, "the keys are given back"


def test_a_tool_then_right_accepts_what_was_corrected(reviewing, widget, viewer, qtbot):
    layer, queue, heard = viewer.layers[0], reviewing.queue, []
    reviewing.accepted.connect(lambda target, places: heard.append({layer.data[at] for at in places}))
    waiting = numbers(queue)
    first, other = waiting[0], waiting[2]
    y, x = GRID[other - 1][:2] if other <= len(GRID) else (45, 120)
    layer.data_setitem(tuple(np.array([[y], [x]])), other + 100)  # painted into another one
    layer.paint((60, 30), 50)  # and a new one
    soon(qtbot)
    assert queue.current.number == first
    press(layer, "Y")
    assert heard == [{first, other, other + 100, 50}]
    assert other not in numbers(queue)


def test_what_undo_brings_back_is_not_accepted_unseen(reviewing, widget, viewer, qtbot):
    layer, queue, heard = viewer.layers[0], reviewing.queue, []
    reviewing.accepted.connect(lambda target, places: heard.append({layer.data[at] for at in places}))
    first = queue.current.number
    others = [n for n in range(1, 15) if n != first]
    layer.data_setitem(np.nonzero(np.isin(layer.data, others)), 0)  # as “Small…” does
    soon(qtbot)
    assert queue.left == 1
    layer.undo()
    soon(qtbot)
    assert queue.current.number == first and queue.left == 6
    layer.redo()
    layer.undo()
    soon(qtbot)
    press(layer, "Y")
    assert heard == [{first}], "of the others nobody has seen any"
    assert queue.left == 5


def test_a_nucleus_deleted_by_tool_or_merged_leaves_the_queue(reviewing, widget, viewer, qtbot):
    layer, queue = viewer.layers[0], reviewing.queue
    first = queue.current.number
    widget.corrections.act(
        next(tool for tool in widget.buttons if tool.word == "Delete"),
        [tuple(np.argwhere(LABELS == first)[5])],
    )
    soon(qtbot)
    assert queue.current.number != first and queue.left == 5
    second = queue.current.number
    layer.data_setitem(np.nonzero(layer.data == second), 77)  # as merging into a neighbour does
    soon(qtbot)
    assert queue.current.number == second, "what took its place is still to be judged"
    third = numbers(queue)[1]
    layer.data_setitem(np.nonzero(layer.data == third), 0)
    soon(qtbot)
    assert third not in numbers(queue)


def test_the_review_waits_for_its_layer_and_ends_with_it(reviewing, widget, viewer):
    layer = viewer.layers[0]
    other = viewer.add_image(np.zeros((100, 130), np.uint8))
    viewer.layers.selection.active = other
    assert "waits" in widget.review.reason.text() and not reviewing.in_hand
    viewer.layers.selection.active = layer
    assert reviewing.in_hand and "Nucleus" in widget.review.reason.text()
    assert {"Y", "U"} <= {str(key) for key in layer.keymap}
    layer.data = LABELS.copy()
    assert reviewing.queue is None, "other data: the queue means nothing any more"
    widget.review.begin.click()
    viewer.layers.remove(layer)
    assert reviewing.layer is None


def test_the_review_goes_on_when_its_plane_is_shown_again(widget, viewer, settle):
    viewer.add_labels(np.stack([LABELS, LABELS]), name="nuclei")
    viewer.dims.set_point(0, 0)
    widget.review.most.setValue(6)
    widget.review.begin.click()
    viewer.dims.set_point(0, 1)
    settle(widget.session)
    review = widget.corrections.review
    assert review.queue.left == 6 and review.queue.current is None
    viewer.dims.set_point(0, 0)
    assert review.queue.current is not None and "Nucleus" in widget.review.reason.text()
    viewer.dims.set_point(0, 1)
    assert "waits" in widget.review.reason.text()


def test_the_mirror_picture_is_asked_beside_and_reorders(widget, viewer, settle, draw, monkeypatch):
    pixels, _ = draw(150, 160)
    result = segment(pixels, segmenter="classical")
    viewer.add_image(pixels)
    layer = viewer.add_labels(result.nuclei.labels.copy(), metadata={RECIPE_KEY: result.recipe})
    settle(widget.session)
    count = int(result.nuclei.count)
    assert count > 10
    asked = []

    def mirror(measured, image, recipe, corner):
        asked.append((image.shape_yx, recipe, corner))
        yield from ()
        return [Doubt(n, 0.9, "seen differently in the mirror picture") for n in range(count, 0, -1)]

    monkeypatch.setattr(_review, "mirror_steps", mirror)
    widget.review.begin.click()
    settle(widget.session)
    assert asked == [((150, 160), result.recipe, (0, 0))]
    waiting = numbers(widget.corrections.review.queue)
    assert waiting[1:] == [n for n in range(count, 0, -1) if n != waiting[0]]
    assert "asked, too" in widget.review.note.text()
    press(layer, "Y")
    assert "seen differently" in widget.review.reason.text()
