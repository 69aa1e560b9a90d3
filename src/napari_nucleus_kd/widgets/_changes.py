"""What changes in a Labels layer: painting, corrections, undo and redo; napari tells only the first two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Labels

Step = Literal["done", "undone", "redone"]


@dataclass(frozen=True, eq=False, slots=True)
class Change:
    """Pixels that got other numbers in one go.

    Attributes
    ----------
    index : for each axis of the data a slice or an array of positions.
    before, after : numbers of these pixels; one may stand for all.
    way : whether it was made, or undo or redo brought it.
    """

    index: tuple[Any, ...]
    before: Any
    after: Any
    way: Step = "done"

    def span(self, axis: int) -> tuple[int, int]:
        """Return the first position on an axis, and the one after the last."""
        part = self.index[axis]
        if isinstance(part, slice):
            return int(part.start), int(part.stop)
        return int(np.min(part)), int(np.max(part)) + 1

    def numbers(self) -> set[int]:
        """Return the nuclei that lost or got pixels."""
        both = np.concatenate([np.unique(self.before), np.unique(self.after)])
        return set(both.tolist()) - {0}

    def corrected(self) -> set[int]:
        """Return the nuclei that a person worked on: not those that one drawn partly over the background cut.

        A nucleus that is split loses pixels to new numbers only, and counts.
        """
        before, after = np.broadcast_arrays(self.before, self.after)
        lost = before if (before != 0).all() else before[after == 0]
        return set(np.unique(np.concatenate([np.unique(lost), np.unique(after)])).tolist()) - {0}


def changes_in(item: Any, way: Step = "done") -> Iterator[Change]:
    """Yield the changes in a step of napari's history.

    Newer versions of napari write painting as objects with a bounding box, all of them other changes as
    (index, before, after).
    """
    for atom in item:
        if hasattr(atom, "slice_key"):
            yield Change(tuple(atom.slice_key), atom.old_values, atom.new_value, way)
        elif np.size(atom[0][0]):
            yield Change(tuple(atom[0]), atom[1], atom[2], way)


class Changes:
    """Listens to one layer until it is closed.

    Signals
    -------
    stepped : a step was "done", "undone" or "redone"; just before `changed`.
    changed : tuple of Change; those of painting and corrections come just before the data change.
    replaced : the layer got other data.
    refreshed : it was drawn again, for whatever reason; its data may have been changed past napari.
    """

    stepped = Signal(str)
    changed = Signal(tuple)
    replaced = Signal()
    refreshed = Signal()

    def __init__(self, layer: Labels) -> None:
        self.layer = layer
        self._known = self._lengths()
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_data)
        layer.events.set_data.connect(self._on_drawn)
        layer.events.labels_update.connect(self._on_dab)

    def close(self) -> None:
        """Listen no more."""
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.set_data.disconnect(self._on_drawn)
        self.layer.events.labels_update.disconnect(self._on_dab)

    def _lengths(self) -> tuple[int, int]:
        return len(self.layer._undo_history), len(self.layer._redo_history)

    def _on_paint(self, event: Any) -> None:
        self._known = self._lengths()
        self.stepped.emit("done")
        self.changed.emit(tuple(changes_in(event.value)))

    def _on_data(self, event: Any) -> None:
        self._known = self._lengths()
        self.replaced.emit()

    def _on_dab(self, event: Any) -> None:
        """Hear of a brush stroke whose end napari tells only when the button is released."""
        self.refreshed.emit()

    def _on_drawn(self, event: Any) -> None:
        (undo, redo), (known_undo, known_redo) = self._lengths(), self._known
        self._known = undo, redo
        steps: list[Any] = []
        way: Step = "undone" if redo > known_redo else "redone"
        if redo > known_redo:
            steps = list(self.layer._redo_history)[known_redo - redo :]
        elif redo < known_redo and undo > known_undo:
            steps = list(self.layer._undo_history)[known_undo - undo :]
        for _ in steps:
            self.stepped.emit(way)
        if steps:
            self.changed.emit(tuple(change for step in steps for change in changes_in(step, way)))
        else:
            self.refreshed.emit()
