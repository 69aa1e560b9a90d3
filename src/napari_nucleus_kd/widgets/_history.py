"""Undo and redo in one order over nuclei and what is verified: napari has a history for each layer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets._changes import Changes
from napari_nucleus_kd.widgets._target import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Labels

    from napari_nucleus_kd.widgets._changes import Step
    from napari_nucleus_kd.widgets._corrections import Corrections


class History:
    """Knows which layer got each step, of all that are watched; the steps themselves are napari's."""

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self._done: list[Labels] = []  # the newest last
        self._undone: list[Labels] = []
        self._watched: dict[Labels, Changes] = {}

    def watch(self, layers: Iterable[Labels]) -> None:
        """Note the steps of layers from now on; those that a layer has already are taken for the oldest."""
        for layer in layers:
            if layer in self._watched:
                continue
            self._watched[layer] = changes = Changes(layer)
            changes.stepped.connect(partial(self._on_step, layer))
            self._done[:0] = [layer] * len(layer._undo_history)
            self._undone[:0] = [layer] * len(layer._redo_history)

    def attach(self) -> None:
        """Note the steps of the layers that say what is verified, and of those that are watched."""
        session = self._corrections.session
        session.keeping.changed.connect(self._on_keeping)
        layers = session.viewer.layers
        layers.events.removed.connect(self._on_removed)
        self._forget(tuple(layer for layer in self._watched if layer not in layers))
        self._on_keeping()

    def detach(self) -> None:
        """Watch no further layers; the order of the steps of those that are watched is still noted."""
        session = self._corrections.session
        session.keeping.changed.disconnect(self._on_keeping)
        viewer = session.viewer_if_there
        if viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_removed)

    def _on_keeping(self) -> None:
        self.watch(mask.layer for mask in self._corrections.session.keeping.verifying.masks.values())

    def _on_removed(self, event: Any) -> None:
        self._forget((event.value,))

    def _forget(self, layers: tuple[Labels, ...]) -> None:
        for layer in layers:
            changes = self._watched.pop(layer, None)
            if changes is not None:
                changes.close()
        self._done = [layer for layer in self._done if layer in self._watched]
        self._undone = [layer for layer in self._undone if layer in self._watched]

    def undo(self) -> None:
        """Take back the newest step of the nuclei in hand, or of what is verified of their image."""
        layer = _newest(self._done, self._together(), "_undo_history")
        if layer is None:
            self._corrections.say("There is nothing to take back in this layer.")
            return
        layer.visible = True  # a hidden layer tells nobody, and a person would not see it
        layer.undo()
        self._say(layer, "taken back", undone=True)

    def redo(self) -> None:
        """Make again the step of these that was taken back last."""
        layer = _newest(self._undone, self._together(), "_redo_history")
        if layer is None:
            self._corrections.say("There is nothing to make again in this layer.")
            return
        layer.visible = True
        layer.redo()
        self._say(layer, "made again", undone=False)

    def _together(self) -> tuple[Labels, ...]:
        """Return the layers whose steps are undone in one order now."""
        layer, session = self._corrections.layer, self._corrections.session
        if layer is None:
            return ()
        try:
            mask = session.keeping.verifying.mask_of(target_of(session.viewer))
        except EditError:
            mask = None
        return (layer,) if mask is None else (layer, mask.layer)

    def _say(self, layer: Labels, what: str, *, undone: bool) -> None:
        if layer is self._corrections.layer:
            self._corrections.say(f"The newest correction was {what}.")
            return
        self._corrections.say(f"The newest change of what is verified was {what}.")
        self._corrections.review.note_marks(undone=undone)

    def _on_step(self, layer: Labels, step: Step) -> None:
        if step == "undone":
            _move(layer, self._done, self._undone)
        elif step == "redone":
            _move(layer, self._undone, self._done)
        else:
            self._done.append(layer)
            together = {layer, *self._together()} if self._undone else ()
            self._undone = [each for each in self._undone if each not in together]


def _move(layer: Labels, one: list[Labels], other: list[Labels]) -> None:
    """Move the newest step of a layer."""
    if layer in one:
        del one[len(one) - 1 - one[::-1].index(layer)]
    other.append(layer)


def _newest(order: list[Labels], layers: tuple[Labels, ...], history: str) -> Labels | None:
    """Return which of some layers got the newest step of those that napari still has."""
    for layer in layers:
        for _ in range(order.count(layer) - len(getattr(layer, history))):
            order.remove(layer)  # napari keeps a hundred steps of a layer
    return next((layer for layer in reversed(order) if layer in layers), None)
