"""Reviewing: nuclei in the order of doubt, one after the other, each accepted, corrected or deleted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_nucleus_kd import edit
from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets._bindings import pressed
from napari_nucleus_kd.widgets._doubting import measure_steps, mirror_steps
from napari_nucleus_kd.widgets._layers import RECIPE_KEY
from napari_nucleus_kd.widgets._places import place_now
from napari_nucleus_kd.widgets._queue import Queue
from napari_nucleus_kd.widgets._target import image_under, target_of
from napari_nucleus_kd.widgets._tools import BACK, LATER, REMOVE, RIGHT

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_nucleus_kd.review import Doubt
    from napari_nucleus_kd.types import Progress, Region
    from napari_nucleus_kd.widgets._bindings import Bindings
    from napari_nucleus_kd.widgets._changes import Change
    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._doubting import Measured
    from napari_nucleus_kd.widgets._places import Place
    from napari_nucleus_kd.widgets._target import Target
    from napari_nucleus_kd.widgets._worker import Job

_ASKING = "The mirror picture is being asked"


class Review:
    """The queue of one layer; its keys are bound while it runs and its layer is in hand.

    Attributes
    ----------
    layer : whose nuclei are reviewed; None while no review runs.
    queue : None while no review runs.
    frame : where the current nucleus lies in its plane; None without one.
    note : on the comparison with the mirror picture, for a person; "" if there is nothing to say.

    Signals
    -------
    begun : another queue is there.
    accepted : the plane, and a pixel of each nucleus that was found right or corrected.
    taken_back : the same, when this was a mistake.
    """

    begun = Signal()
    accepted = Signal(object, tuple)
    taken_back = Signal(object, tuple)

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self.layer: Labels | None = None
        self.queue: Queue | None = None
        self.frame: Region | None = None
        self.note = ""
        self._key: tuple[int, ...] = ()
        self._was_in_hand = False
        self._places: dict[int, Place] = {}
        self._touched: dict[int, Place] = {}  # corrected since the current one was shown
        self._job: Job | None = None
        self._bound: tuple[Bindings, tuple[str, ...]] | None = None

    @property
    def in_hand(self) -> bool:
        """Whether the layer and plane under review are those that corrections act on."""
        return self._target() is not None

    @property
    def framed(self) -> tuple[Target, Region] | None:
        """The plane under review and where the current nucleus lies in it; None while it is not in hand."""
        target = self._target()
        return None if target is None or self.frame is None else (target, self.frame)

    # Beginning and end

    def start(self, most: int) -> None:
        """Review so many nuclei of the layer in hand, the most doubtful."""
        self.stop()
        session = self._corrections.session
        try:
            target = target_of(session.viewer)
        except EditError as error:
            self._corrections.complain(str(error))
            return
        verified = session.keeping.verifying.seen_in(target)
        steps = measure_steps(target.labels, _scores(target.layer), verified)
        session.run_main("correct", "Measuring the nuclei", steps, partial(self._begin, target, most))

    def stop(self) -> None:
        """End the review; what was accepted stays so."""
        if self._job is not None:
            self._job.cancel()
        self._unbind()
        self.layer, self.queue, self.frame, self.note = None, None, None, ""
        self._places, self._touched = {}, {}
        self._corrections.changed.emit()

    def _begin(self, target: Target, most: int, measured: Measured) -> None:
        if target.layer is not self._corrections.layer:
            return
        if not measured.order:
            none = "All nuclei here are verified." if measured.done else "There is no nucleus in this plane."
            self._corrections.say(none)
            return
        self.layer, self._key = target.layer, target.key
        self.queue, self._places = Queue(measured.order, most), measured.places
        self.begun.emit()
        self._corrections.bind_review()
        self._corrections.say("")
        self._ask_mirror(target, measured)
        self._was_in_hand = self.in_hand
        self._go_on()

    def follow_plane(self) -> None:
        """Wait while another plane is shown, and go on when this one is shown again."""
        if self.queue is None or self.in_hand == self._was_in_hand:
            return
        self._was_in_hand = self.in_hand
        if self.queue.current is None:
            self._go_on()
        self._corrections.changed.emit()

    def over(self, layer: Labels, bindings: Bindings) -> None:
        """Bind the keys if this is the layer under review."""
        self._unbind()
        if self.layer is not None and self.layer not in self._corrections.session.viewer.layers:
            self.stop()  # it was removed while another one was in hand
        if layer is not self.layer:
            return
        slots = {RIGHT: self.accept, REMOVE: self.delete, LATER: self.later, BACK: self.back}
        for tool, slot in slots.items():
            bindings.bind(tool.key, pressed(slot))
        self._bound = bindings, tuple(tool.key for tool in slots)

    def leave(self) -> None:
        """Stop if the layer under review is gone from the viewer; else wait until it is in hand again."""
        self._bound = None  # the bindings are released by who made them
        viewer = self._corrections.session.viewer_if_there
        if self.layer is not None and (viewer is None or self.layer not in viewer.layers):
            self.stop()

    def _unbind(self) -> None:
        if self._bound is not None:
            bindings, keys = self._bound
            for key in keys:
                bindings.free(key)
            self._bound = None

    # The mirror picture

    def _ask_mirror(self, target: Target, measured: Measured) -> None:
        session = self._corrections.session
        try:
            under = image_under(target, session)
        except EditError:
            self.note = "There is no image under these nuclei: only size, shape and score were looked at."
            return
        recipe = target.layer.metadata.get(RECIPE_KEY) or session.runs.settled_recipe()
        self.note = f"{_ASKING}; the order may change."
        steps = mirror_steps(measured, under.image, recipe, under.corner)
        queue = self.queue
        self._job = session.run_beside(
            steps,
            self._reorder,
            ended=lambda: self._mirror_ended(queue),
            step="correct",
            progress=partial(self._mirror_goes_on, queue),
        )

    def _mirror_goes_on(self, queue: Queue | None, progress: Progress) -> None:
        note = f"{_ASKING}, part {progress.done + 1} of {progress.total}; the order may change."
        if queue is self.queue and progress.total > 1 and note != self.note:
            self.note = note
            self._corrections.changed.emit()

    def _reorder(self, order: list[Doubt]) -> None:
        if self.queue is not None:
            self.queue.reorder(order)
            self.note = "The mirror picture was asked, too."

    def _mirror_ended(self, queue: Queue | None) -> None:
        if queue is not self.queue:
            return  # another review was begun meanwhile
        self._job = None
        if self.note.startswith(_ASKING):
            self.note = ""  # it failed or was cancelled
        self._corrections.changed.emit()

    # One nucleus after the other

    def accept(self) -> None:
        """Take the current nucleus, and what was corrected while it was looked at, as right; go on."""
        target, queue = self._target(), self.queue
        if target is None or queue is None or queue.current is None:
            return
        found = {number: place_now(target.labels, number, place) for number, place in self._touched.items()}
        found[queue.current.number] = self._place_of(target, queue.current)
        places = tuple(place for place in found.values() if place is not None)
        queue.accept(places, [number for number, place in found.items() if place is not None])
        self.accepted.emit(target, places)
        self._go_on()

    def delete(self) -> None:
        """Remove the current nucleus, and go on."""
        target, queue = self._target(), self.queue
        if target is None or queue is None or queue.current is None:
            return
        place = self._place_of(target, queue.current)
        if place is not None:  # the queue notices that it is gone
            self._corrections.apply(target, edit.delete(target.labels, place), "Delete")

    def later(self) -> None:
        """Leave the current nucleus for the end, and go on."""
        if self.queue is not None and self._target() is not None:
            self.queue.put_off()
            self._go_on()

    def back(self) -> None:
        """Go back to the nucleus that was accepted last; it is not accepted any more."""
        target = self._target()
        if target is None or self.queue is None:
            return
        places = self.queue.take_back()
        if places is None:
            self._corrections.say("There is nothing to go back to; Undo brings back what was deleted.")
            return
        self.taken_back.emit(target, places)
        self._go_on()

    def note_marks(self, *, undone: bool) -> None:
        """Take in that a mark of what is verified was undone, or made again.

        The nucleus that was accepted last is asked for again if it is not marked any more; the one that is
        asked for is accepted if it is now.
        """
        target, queue = self._target(), self.queue
        seen = None if target is None else self._corrections.session.keeping.verifying.seen_in(target)
        if target is None or queue is None or seen is None:
            return
        last = queue.accepted_last
        if undone and last and not all(seen[place] for place in last):
            queue.take_back()
            self._go_on()
        elif not undone and queue.current is not None:
            place = self._place_of(target, queue.current)
            if place is not None and seen[place]:
                queue.accept((place,), ())
                self._go_on()

    def note_changes(self, changes: tuple[Change, ...]) -> None:
        """Take in that pixels of the layer in hand changed, or are about to."""
        target = self._target()
        if target is None:
            return
        y, x = target.axes
        numbers: set[int] = set()
        for change in changes:
            middle = sum(change.span(y)) // 2, sum(change.span(x)) // 2
            for number in change.numbers():
                numbers.add(number)
                if change.way != "done":  # what undo brought back, nobody has looked at
                    self._touched.pop(number, None)
                else:
                    self._touched.setdefault(number, self._places.get(number, middle))
        QTimer.singleShot(0, partial(self._look_again, numbers))  # when the data have changed

    def _look_again(self, numbers: set[int]) -> None:
        """Find out which of some nuclei are still there."""
        target, queue = self._target(), self.queue
        if target is None or queue is None:
            return
        for doubt in queue.unsettled():
            if doubt.number in numbers and doubt is not queue.current:
                there = place_now(target.labels, doubt.number, self._places[doubt.number])
                (queue.lose if there is None else queue.find)(doubt.number)
        if queue.current is not None and self._place_of(target, queue.current) is None:
            queue.lose(queue.current.number)
            self._go_on()
            return
        if queue.current is None and queue.left:  # undo brought one back
            self._go_on()
            return
        self._frame(target)
        self._corrections.changed.emit()

    def _go_on(self) -> None:
        """Show the first nucleus that is left."""
        target, queue = self._target(), self.queue
        if target is None or queue is None:
            return
        queue.show(None)
        for doubt in queue.waiting():
            place = place_now(target.labels, doubt.number, self._places[doubt.number])
            if place is None:
                queue.lose(doubt.number)
                continue
            queue.show(doubt)
            target.layer.selected_label = doubt.number
            self._corrections.visits.show(target, place, alone=True)
            break
        self._touched = {}
        self._frame(target)
        self._corrections.changed.emit()

    def _target(self) -> Target | None:
        """Return the plane under review if it is the one in hand."""
        now = self._corrections.plane_in_hand()
        return now if now is not None and now.layer is self.layer and now.key == self._key else None

    def _place_of(self, target: Target, doubt: Doubt) -> Place | None:
        """Return a pixel of a nucleus as it is now, whatever number it got when it was corrected."""
        place = self._places[doubt.number]
        found = place_now(target.labels, doubt.number, place)
        return place if found is None and int(target.labels[place]) else found

    def _frame(self, target: Target) -> None:
        doubt = None if self.queue is None else self.queue.current
        place = None if doubt is None else self._place_of(target, doubt)
        self.frame = None if place is None else edit.extent(target.labels, place)


def _scores(layer: Labels) -> dict[int, float]:
    """Return what a run said of its nuclei; {} of other labels."""
    table: Any = layer.features
    if "index" not in table or "score" not in table:
        return {}
    return dict(zip(table["index"].tolist(), table["score"].tolist(), strict=True))
