"""What is drawn over the canvas while a tool is used: the stroke, and where the model is being asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QPointF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_nucleus_kd.widgets._layers import camera_of

if TYPE_CHECKING:
    from napari_nucleus_kd.widgets._corrections import Corrections

_DARK, _BRIGHT = QColor(0, 0, 0, 200), QColor("#f0e442")  # one of them is seen on every picture
_LINE_PX, _RIM_PX = 2, 4
_MARK_PX = 11  # radius


def canvas_of(widget: QWidget) -> QWidget | None:
    """Return the canvas of the window that a dock belongs to, floating or not; None outside of a window."""
    parent: QWidget | None = widget
    while parent is not None and not isinstance(parent, QMainWindow):
        parent = parent.parentWidget()
    if parent is None or parent.centralWidget() is None:
        return None
    canvas: QWidget | None = parent.centralWidget().findChild(QOpenGLWidget)
    return canvas


class StrokeView(QWidget):
    """A glass over the canvas; the mouse goes through it. It leaves the list of layers alone."""

    def __init__(self, canvas: QWidget, corrections: Corrections) -> None:
        super().__init__(canvas)
        self._corrections = corrections
        self._corners: tuple[tuple[float, ...], ...] = ()
        self._closed = False
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setGeometry(canvas.rect())
        canvas.installEventFilter(self)
        self.hide()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            self.setGeometry(self.parentWidget().rect())
        return False

    def draw(self, corners: tuple[tuple[float, ...], ...], closed: bool) -> None:
        """Show a stroke through corners (x, y) in pixels of the canvas; none shows nothing."""
        self._corners, self._closed = corners, closed
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Draw again; with nothing to show the glass is taken away."""
        self.setVisible(bool(self._corners or self._corrections.asking.waiting))
        self.raise_()
        self.update()

    def marks(self) -> list[QPointF]:
        """Return where on the canvas the model is being asked."""
        viewer = self._corrections.session.viewer
        camera, found = camera_of(viewer), []
        for target, at in self._corrections.asking.waiting:
            offset = viewer.dims.ndim - target.layer.ndim
            world = target.world(at)
            y, x = (
                (world[axis - offset] - center) * camera.zoom + length / 2
                for axis, center, length in zip(
                    viewer.dims.displayed[-2:], camera.center[-2:], (self.height(), self.width()), strict=True
                )
            )
            found.append(QPointF(x, y))
        return found

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        shape = QPolygonF([QPointF(*corner[:2]) for corner in self._corners])
        marks = self.marks()
        for color, width in ((_DARK, _RIM_PX), (_BRIGHT, _LINE_PX)):
            painter.setPen(QPen(color, width, Qt.PenStyle.SolidLine))
            if self._closed:
                painter.drawPolygon(shape)
            else:
                painter.drawPolyline(shape)
            if color is _BRIGHT:
                painter.setPen(QPen(color, width, Qt.PenStyle.DashLine))
            for mark in marks:
                painter.drawEllipse(mark, _MARK_PX, _MARK_PX)
        painter.end()
