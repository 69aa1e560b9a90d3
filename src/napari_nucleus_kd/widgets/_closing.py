"""When layers or the window are closed: what is kept is saved, and what is saved nowhere is asked about."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QMainWindow, QMessageBox, QWidget

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets._changes import Changes
from napari_nucleus_kd.widgets._layers import FROM_KEY, VERIFIED_KEY
from napari_nucleus_kd.widgets._stroke import canvas_of
from napari_nucleus_kd.widgets._target import image_under, target_of
from napari_nucleus_kd.widgets._verifying import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels, Layer

    from napari_nucleus_kd.widgets._changes import Change
    from napari_nucleus_kd.widgets._keeping import Keeping
    from napari_nucleus_kd.widgets._kept import Kept
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._verifying import Key


class Closing:
    """Sees to what a person made when its layers are closed.

    Attributes
    ----------
    closed : images whose layers were closed; their project is known, and can be opened again.
    window : returns the window that shows the layers, if one does.
    """

    def __init__(self, session: Session, keeping: Keeping) -> None:
        self._session, self._keeping = session, keeping
        self.closed: set[Key] = set()
        self.window: Callable[[], QMainWindow | None] = lambda: None
        session.viewer.layers.events.removed.connect(self._on_removed)

    def _on_removed(self, event: Any) -> None:
        keeping, layer = self._keeping, event.value
        for key, kept in keeping.all():
            if kept.holds(layer):  # of a stack it may hold several planes
                self.close_with(key, layer)
        green = keeping.verifying.forget(layer)
        if green is not None:
            QTimer.singleShot(0, partial(self.close_layer, green))
        keeping.changed.emit()

    def close_with(self, key: Key, layer: Labels) -> None:
        """Close the partner of a kept layer with it: alone it would look as if it were still saved."""
        keeping = self._keeping
        kept = keeping.kept_of(key)
        assert kept is not None
        partner = next(each for each in kept.layers if each is not layer)
        kept.flush()
        # Afterwards: napari may be closing several layers, this one's partner among them.
        if kept.problem:
            keeping.note = f"“{layer.name}” stays, it cannot be saved: {kept.problem}"
            QTimer.singleShot(0, partial(self._put_back, kept, layer))
            return
        keeping.drop(key)
        self.closed.add(key)
        keeping.note = (
            f"“{layer.name}” was closed, and “{partner.name}” with it. All is saved in {kept.folder_name}; "
            "“Open again” shows it."
        )
        QTimer.singleShot(0, partial(self.close_layer, partner))

    def _put_back(self, kept: Kept, layer: Labels) -> None:
        viewer = self._session.viewer_if_there
        if viewer is not None and self._keeping.key_of(kept.image) is not None and layer not in viewer.layers:
            viewer.add_layer(layer)

    def close_layers(self, key: Key) -> None:
        """Save an image, keep it no more, and close its layers."""
        kept = self._keeping.drop(key)
        for layer in kept.layers:
            self.close_layer(layer)

    def close_layer(self, layer: Labels) -> None:
        """Close a layer if it is there.

        The canvas is drawn before: Mesa's software renderer (llvmpipe 22.3) dies when it draws after two
        layers of labels went between two drawings.
        """
        viewer = self._session.viewer_if_there
        if viewer is None or layer not in viewer.layers:
            return
        window = self.window()
        canvas = None if window is None else canvas_of(window)
        if canvas is not None:
            canvas.repaint()
        viewer.layers.remove(layer)


class Corrected:
    """Notes which labels a person corrected; those found here are kept from the first correction on.

    Other labels, which need not be nuclei, are kept when the person says so or marks something as verified.

    Attributes
    ----------
    layers : that were corrected.
    numbers : of the nuclei in each that were corrected; of one that is kept, also in former sessions.
    """

    def __init__(self, session: Session, keeping: Keeping) -> None:
        self._session, self._keeping = session, keeping
        self.layers: WeakSet[Labels] = WeakSet()
        self.numbers: WeakKeyDictionary[Labels, set[int]] = WeakKeyDictionary()
        # How often each was corrected since the layer came, but for those that were known before.
        self._times: WeakKeyDictionary[Labels, dict[int, int]] = WeakKeyDictionary()
        self._tried: set[Key] = set()
        self._watched: list[Changes] = []
        session.corrections.changed.connect(self._on_hand)
        session.viewer.layers.events.inserted.connect(self._on_inserted)
        session.viewer.layers.events.removed.connect(self._on_removed)

    def _on_inserted(self, event: Any) -> None:
        """Watch nuclei that were found here or opened from a project, whichever widget is open."""
        if FROM_KEY in event.value.metadata and VERIFIED_KEY not in event.value.metadata:
            self._watch(event.value)

    def _on_hand(self) -> None:
        layer = self._session.corrections.layer
        if layer is not None:
            self._watch(layer)

    def _watch(self, layer: Layer) -> None:
        if type(layer).__name__ != "Labels" or any(changes.layer is layer for changes in self._watched):
            return
        changes = Changes(layer)
        changes.changed.connect(partial(self._on_changed, layer))
        self._watched.append(changes)

    def _on_removed(self, event: Any) -> None:
        for changes in [each for each in self._watched if each.layer is event.value]:
            changes.close()
            self._watched.remove(changes)

    def _on_changed(self, layer: Labels, changes: tuple[Change, ...]) -> None:
        self.layers.add(layer)
        numbers, times = self.numbers.setdefault(layer, set()), self._times.setdefault(layer, {})
        for change in changes:
            for number in change.corrected():
                if change.way != "undone" and (number in times or number not in numbers):
                    numbers.add(number)
                    times[number] = times.get(number, 0) + 1
                elif number in times:
                    times[number] -= 1
                    if not times[number]:  # all that was done to it was undone
                        numbers.discard(number)
                        del times[number]
        if not numbers:
            self.layers.discard(layer)
        QTimer.singleShot(0, partial(self._keep, layer))  # when the data have changed

    def _keep(self, layer: Labels) -> None:
        """Keep labels if that is possible; why it is not is said once."""
        keeping, viewer = self._keeping, self._session.viewer_if_there
        if FROM_KEY not in layer.metadata or keeping.doing or viewer is None:
            return
        if viewer.layers.selection.active is not layer:
            return
        try:
            target = target_of(viewer)
            under = image_under(target, self._session)
            key = key_of(under)
            keeping.verifying.require_open(key)
        except EditError:
            return  # without an image, or while its project is looked for: at another correction perhaps
        if key in self._tried or keeping.kept_of(key) is not None:
            return
        self._tried.add(key)
        try:
            keeping.keep_labels(target, under, note="Kept from the first correction on.")
        except EditError as error:
            keeping.complain(str(error))


class Guard(QObject):
    """Asks before a window closes while something that a person made is saved nowhere."""

    def __init__(self, window: QMainWindow, keeping: Keeping) -> None:
        super().__init__(window)
        self._window, self._keeping = window, keeping
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stop the event that closes the window if the person wants to stay."""
        if event.type() == QEvent.Type.Close and not self._may_close():
            event.ignore()
            return True
        return bool(super().eventFilter(watched, event))

    def _may_close(self) -> bool:
        canvas = canvas_of(self._window)
        if canvas is None or not canvas.isVisible():
            return True  # a program closes it: it has closed the canvas, and nobody may be there to answer
        unsaved = self._keeping.unsaved()
        return not unsaved or wants_to_close(self._window, unsaved)


def guard(widget: QWidget, keeping: Keeping) -> None:
    """Hear of the end of the window that a widget is in, once."""
    window: QWidget | None = widget
    while window is not None and not isinstance(window, QMainWindow):
        window = window.parentWidget()
    if window is not None and not keeping.guarded:
        keeping.guarded = True
        keeping.closing.window = ref(window)
        window.destroyed.connect(keeping.close)
        Guard(window, keeping)


def wants_to_close(window: QWidget, unsaved: list[str]) -> bool:
    """Ask whether to close a window although something is not saved."""
    lines = "\n".join(f"• {text}" for text in unsaved)
    found = QMessageBox.warning(
        window,
        "Not everything is saved",
        f"This will be lost:\n{lines}",
        QMessageBox.StandardButton.Discard | QMessageBox.StandardButton.Cancel,
        QMessageBox.StandardButton.Cancel,
    )
    return bool(found == QMessageBox.StandardButton.Discard)
