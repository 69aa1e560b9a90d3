"""Measuring a nucleus: the person draws a line across it on a layer that goes away afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_nucleus_kd.widgets._layers import camera_of, shown_plane

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Layer, Shapes

    from napari_nucleus_kd.widgets._layers import Plane
    from napari_nucleus_kd.widgets._session import Session

LAYER_NAME = "line across a nucleus"
_LINE_PX = 2  # width of the line on the screen


class MeasureTool(QObject):
    """Asks for one line on the canvas.

    Signals
    -------
    measured : length of the line in full-resolution pixels of the image in hand.
    active_changed : True while a line is awaited.
    """

    measured = Signal(float)
    active_changed = Signal(bool)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._layer: Shapes | None = None
        self._plane: Plane | None = None
        self._before: Layer | None = None

    @property
    def active(self) -> bool:
        """True while a line is awaited."""
        return self._layer is not None

    def start(self) -> None:
        """Add the layer to draw on; does nothing without an image."""
        source = self._session.source
        if source is None or self.active:
            return
        viewer = self._session.viewer
        self._before = viewer.layers.selection.active
        self._plane = shown_plane(source, viewer)
        # In world coordinates, so that any transform of the image is taken into account at the end.
        self._layer = viewer.add_shapes(
            name=LAYER_NAME,
            ndim=2,
            edge_color="#e69f00",
            edge_width=_LINE_PX / camera_of(viewer).zoom,
            units=[source.layers[0].units[axis] for axis in self._plane.axes],
        )
        self._layer.mode = "add_line"
        self._layer.mouse_drag_callbacks.append(self._await_release)
        viewer.layers.events.removed.connect(self._on_removed)
        self.active_changed.emit(True)

    def stop(self) -> None:
        """Take the layer away again."""
        layer, self._layer = self._layer, None
        if layer is None:
            return
        viewer = self._session.viewer
        viewer.layers.events.removed.disconnect(self._on_removed)
        if layer in viewer.layers:
            viewer.layers.remove(layer)
        if self._before is not None and self._before in viewer.layers:
            viewer.layers.selection.active = self._before
        self._before = None
        self.active_changed.emit(False)

    def _await_release(self, layer: Shapes, event: Any) -> Generator[None, None, None]:
        yield
        while event.type == "mouse_move":
            yield
        # napari still finishes the line in this very event.
        QTimer.singleShot(0, self.finish)

    def finish(self) -> None:
        """Measure the line that was drawn, and take the layer away; a mere click is no line."""
        if self._layer is None or not len(self._layer.data):
            return
        length = line_length_px(self._layer.data[-1], self._plane) if self._plane is not None else 0.0
        if length < 1:
            self._layer.data = []
            return
        self.stop()
        self.measured.emit(length)

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self.stop()


def line_length_px(ends: np.ndarray[Any, Any], plane: Plane) -> float:
    """Return the length of a line in pixels of a plane.

    Parameters
    ----------
    ends : (2, 2) world coordinates along the displayed axes.
    """
    layer = plane.source.layers[0]
    world = np.array(layer.data_to_world(plane.point), float)
    points = []
    for end in np.asarray(ends, float):
        world[list(plane.axes)] = end
        points.append(np.asarray(layer.world_to_data(world))[list(plane.axes)])
    return float(np.linalg.norm(points[1] - points[0]))
