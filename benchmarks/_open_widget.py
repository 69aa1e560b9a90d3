"""Opens napari with a sample image, then the Segment widget; prints the seconds until the widget is drawn."""

from __future__ import annotations

import time

import napari
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication

_PATIENCE_S = 60.0


class Painted(QObject):
    """Notes when a widget is drawn for the first time."""

    done = False

    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
        """Look at an event and let it pass."""
        self.done = self.done or event.type() == QEvent.Type.Paint
        return False


def main() -> None:
    """Measure once."""
    viewer = napari.Viewer()
    viewer.open_sample("napari-nucleus-kd", "fluorescence")
    _settle()
    painted = Painted()
    began = time.perf_counter()
    _, widget = viewer.window.add_plugin_dock_widget("napari-nucleus-kd", "Segment")
    widget.installEventFilter(painted)
    while not painted.done:
        QApplication.processEvents()
        if time.perf_counter() - began > _PATIENCE_S:
            raise SystemExit(f"the widget was not drawn within {_PATIENCE_S:.0f} s")
    print(time.perf_counter() - began, flush=True)
    _settle()
    viewer.close()


def _settle(seconds: float = 0.5) -> None:
    """Let what napari put off be done."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        QApplication.processEvents()


if __name__ == "__main__":
    main()
