"""Correcting labels in the window: tools on the selected layer, each correction one step to undo."""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets._asking import Asking
from napari_nucleus_kd.widgets._bindings import Bindings, pressed
from napari_nucleus_kd.widgets._changes import Changes
from napari_nucleus_kd.widgets._hand import Hand
from napari_nucleus_kd.widgets._history import History
from napari_nucleus_kd.widgets._numbers import Numbers
from napari_nucleus_kd.widgets._painting import Painting
from napari_nucleus_kd.widgets._remeasuring import Remeasuring
from napari_nucleus_kd.widgets._removal import Removal
from napari_nucleus_kd.widgets._review import Review
from napari_nucleus_kd.widgets._target import PASSING_KEY, target_of
from napari_nucleus_kd.widgets._tools import (
    ADD,
    BOX,
    NEXT,
    PAINT,
    PREVIOUS,
    REMOVALS,
    TOOLS,
    UNVERIFY,
    VERIFY,
    Tool,
)
from napari_nucleus_kd.widgets._visits import Visits
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Labels, Layer

    from napari_nucleus_kd.edit import Edit
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._target import Target
    from napari_nucleus_kd.widgets._tools import Path

STEP = "correct"
_CANVAS_PX = 600
_COMMAND = "Meta" if sys.platform == "darwin" else "Control"  # as in napari's own keys
_UNDO_KEY, _REDO_KEY = f"{_COMMAND}-Z", f"{_COMMAND}-Shift-Z"
_TELLING = ("visible", "editable", "data")  # events after which a layer may be another case


class Corrections:
    """The tools of one session; keys and mouse are bound while a widget of them is shown.

    Signals
    -------
    changed : what the widgets show: the layer, the tool in hand, what was done last.
    drawn : the stroke so far in pixels of the canvas (x, y), and whether it is closed; empty at its end.

    Attributes
    ----------
    bindings : keys of the layer in hand; None if none is.
    """

    changed = Signal()
    drawn = Signal(tuple, bool)

    def __init__(self, session: Session) -> None:
        self.session = session
        self.layer: Labels | None = None
        self.refusal = ""
        self.said = ""
        self.hand = Hand(self)
        self.asking = Asking(self)
        self.removal = Removal(self)
        self.remeasuring = Remeasuring(self)
        self.visits = Visits(self)
        self.review = Review(self)
        self.history = History(self)
        self.painting = Painting(self)
        self.canvas_px = _CANVAS_PX  # shorter edge of the canvas; the glass over it tells when it changes
        self._views = 0
        self._numbers: Numbers | None = None
        self.bindings: Bindings | None = None
        self._changes: Changes | None = None
        self._steady = False
        self._watched: Layer | None = None

    @property
    def armed(self) -> Tool | None:
        """The tool in hand."""
        return self.hand.tool

    # Widgets come and go

    def attach(self) -> None:
        """Count a widget in that is shown; with the first one keys and mouse are bound."""
        self._views += 1
        if self._views == 1:
            viewer = self.session.viewer
            viewer.layers.selection.events.active.connect(self._follow)
            viewer.dims.events.connect(self._follow)
            self.history.attach()
            self._follow()

    def detach(self) -> None:
        """Count a widget out; with the last one nothing is bound any more."""
        self._views -= 1
        if self._views:
            return
        self.asking.forget()
        self._let_go()
        self._watch(None)
        self.painting.follow(None)
        self.history.detach()
        viewer = self.session.viewer_if_there
        if viewer is not None:
            viewer.layers.selection.events.active.disconnect(self._follow)
            viewer.dims.events.disconnect(self._follow)

    def look_again(self) -> None:
        """Look whether the selected layer can be corrected now."""
        if self._views:
            self._follow()

    def _follow(self, event: Any = None) -> None:
        """Turn to the layer that is selected now."""
        active = self.session.viewer.layers.selection.active
        if self._steady or (active is not None and PASSING_KEY in active.metadata):
            return
        self._watch(active)
        self.painting.follow(active)
        try:
            layer, refusal = target_of(self.session.viewer).layer, ""
        except EditError as error:
            layer, refusal = None, str(error)
        if layer is self.layer and refusal == self.refusal:
            self.review.follow_plane()
            return
        if layer is not self.layer:
            self._let_go()
            if layer is not None:
                self._take(layer)
            self.said = ""
            self._forgive()
        self.refusal = refusal
        self.changed.emit()

    def _watch(self, layer: Layer | None) -> None:
        """Hear when the selected layer becomes one that can be corrected, or none."""
        former, self._watched = self._watched, layer
        if layer is former:
            return
        for name in _TELLING:
            if former is not None:
                getattr(former.events, name).disconnect(self._follow)
            if layer is not None:
                getattr(layer.events, name).connect(self._follow)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Stay with the layer in hand while others are added and selected."""
        self._steady = True
        try:
            yield
        finally:
            self._steady = False

    def _take(self, layer: Labels) -> None:
        self.layer = layer
        if self._numbers is None or self._numbers.layer is not layer:
            self._drop_numbers()
            self._numbers = Numbers(layer, self.session)
        self.bindings = Bindings(layer)
        for tool in TOOLS:
            for key in filter(None, (tool.key, tool.also)):
                self.bindings.bind(key, pressed(partial(self.press, tool)))
        self.bindings.bind(_UNDO_KEY, pressed(self.undo))
        self.bindings.bind(_REDO_KEY, pressed(self.redo))
        self.history.watch([layer])
        self.hand.over(layer, self.bindings)
        self.bind_review()
        layer.events.data.connect(self.visits.forget)
        layer.events.paint.connect(self.visits.on_paint)
        self._changes = Changes(layer)
        self._changes.changed.connect(self.review.note_changes)
        self._changes.replaced.connect(self.review.stop)

    def bind_review(self) -> None:
        """Bind the keys of the review, if it is of the layer in hand."""
        if self.layer is not None and self.bindings is not None:
            self.review.over(self.layer, self.bindings)

    def _let_go(self) -> None:
        """Leave the layer as it was found."""
        self.hand.leave()
        self.removal.cancel()
        self.visits.forget()
        layer, self.layer = self.layer, None
        if layer is not None:
            layer.events.data.disconnect(self.visits.forget)
            layer.events.paint.disconnect(self.visits.on_paint)
        if self._changes is not None:
            self._changes.close()
            self._changes = None
        self.review.leave()
        if self.bindings is not None:
            self.bindings.release()
            self.bindings = None
        viewer, numbers = self.session.viewer_if_there, self._numbers
        if not self._views or viewer is None or (numbers is not None and numbers.layer not in viewer.layers):
            self._drop_numbers()

    def _drop_numbers(self) -> None:
        if self._numbers is not None:
            self._numbers.close()
            self._numbers = None

    # Keys and buttons

    def press(self, tool: Tool) -> None:
        """Do what the key of a tool does: act where the cursor is, or take the tool in hand."""
        if tool.at_once:
            self.act(tool, [self.visits.cursor()])
        else:
            self.choose(tool)

    def choose(self, tool: Tool) -> None:
        """Do what the button of a tool does: take it in hand, or put it away."""
        if tool is PAINT and self.painting.layer is not None:
            self.painting.end()
        elif self.layer is None:
            self._guarded(lambda _: None)  # says why
            self.changed.emit()  # the button springs back
        elif tool is PAINT:
            self._guarded(self.painting.begin)
        elif tool in (PREVIOUS, NEXT):
            self._guarded(lambda target: self.visits.go(target, 1 if tool is NEXT else -1))
        elif tool in REMOVALS:
            self._guarded(lambda target: self.removal.look(tool, target))
        elif self.armed is tool:
            self.hand.drop()
        else:
            self.hand.take(tool)

    # Corrections

    def act(self, tool: Tool, path: list[tuple[float, ...]]) -> None:
        """Use a tool along a path in the world; a problem stands in the widget."""

        def use(target: Target) -> None:
            points: Path = [target.at(position) for position in path]
            if tool in (VERIFY, UNVERIFY):
                self._mark(target, points, on=tool is VERIFY)
            elif tool in (ADD, BOX):
                self.asking.ask(target, points, in_box=tool is BOX)
            elif tool.change is not None:
                self.apply(target, tool.change(target.labels, points, self.fresh), tool.word)

        self._guarded(use)

    def _mark(self, target: Target, points: Path, *, on: bool) -> None:
        """Mark the box from the first to the last of some points as verified or not."""
        self.session.keeping.verifying.box(target, [points[0], points[-1]], on=on)
        self.say("Marked as verified." if on else "Not marked as verified any more.")

    def plane_in_hand(self) -> Target | None:
        """Return the plane of labels that is shown and corrected now; None if there is none."""
        try:
            now = target_of(self.session.viewer)
        except EditError:
            return None
        return now if now.layer is self.layer else None

    def is_in_hand(self, target: Target) -> bool:
        """Tell whether a plane of labels is the one that is shown and corrected now."""
        now = self.plane_in_hand()
        return now is not None and now.layer is target.layer and now.key == target.key

    def fresh(self) -> int:
        """Return a number that no nucleus has.

        Raises
        ------
        EditError : it is not known yet, or no layer is in hand.
        """
        if self._numbers is None:
            raise EditError("no layer is in hand; select a Labels layer")
        return self._numbers.fresh()

    def apply(self, target: Target, change: Edit, word: str, *, select: bool = True) -> None:
        """Make a correction in the layer, and select the nucleus that it was about if wished."""
        said = f"{word}: {_outcome(target, change)}"  # as the labels are before it
        if len(change.rows):
            target.apply(change)
        if change.number and select:
            target.layer.selected_label = change.number
        self.say(said)

    def say(self, text: str) -> None:
        """Tell what was done."""
        self._forgive()
        self.said = text
        self.changed.emit()

    def undo(self) -> None:
        """Take back the newest step of the layer in hand, or mark of what is verified, painting included."""
        self.history.undo()

    def redo(self) -> None:
        """Make again the step that was taken back last."""
        self.history.redo()

    def _guarded(self, work: Any) -> None:
        try:
            work(target_of(self.session.viewer))
        except EditError as error:
            self.complain(str(error))
        except Exception as error:  # a fault of ours or of the layer's data: no traceback over the canvas
            self.said = ""
            details = "".join(traceback.format_exception(error))
            self.session.workspace.problem = Problem.from_error(STEP, error, details)
            self.changed.emit()

    def complain(self, text: str) -> None:
        """Say in the widget why something cannot be done."""
        self.said = ""
        self.session.workspace.problem = Problem(STEP, f"{text[:1].upper()}{text[1:]}")
        self.changed.emit()

    def _forgive(self) -> None:
        problem = self.session.workspace.problem
        if problem is not None and problem.step == STEP:
            self.session.workspace.problem = None


def _outcome(target: Target, change: Edit) -> str:
    """Say what a correction changes."""
    if not len(change.rows):
        return "nothing to change there."
    before, after = (set(numbers.tolist()) - {0} for numbers in (change.before, change.after))
    said = f"{len(change.rows)} px² changed."
    if not after or not before - after:
        return said
    around = tuple(slice(max(0, at.min() - 1), at.max() + 2) for at in (change.rows, change.cols))
    parts = len(after - set(np.unique(target.labels[around]).tolist()))  # with numbers that were not there
    if parts:
        return f"{parts + 1} nuclei now, {said}" if change.before.all() else said
    return f"{len(before - after) + 1} nuclei joined, {said}" if len(after) == 1 else said
