"""What is drawn over the canvas: the stroke of a tool, where the model is asked, what to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, QSizeF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_nucleus_kd.widgets._layers import camera_of

if TYPE_CHECKING:
    from napari_nucleus_kd.types import Region
    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._target import Target

_DARK, _BRIGHT = QColor(0, 0, 0, 200), QColor("#f0e442")  # one of them is seen on every picture
_LINE_PX, _RIM_PX = 2, 4
_MARK_PX = 11  # radius
_TAG = QSizeF(20, 20)  # with the number of a tile
_GAP_PX, _ARM_PX = 10, 14  # of the frame around a nucleus, and of its corners


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
        self._measure()
        self.hide()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            self.setGeometry(self.parentWidget().rect())
            self._measure()
        return False

    def _measure(self) -> None:
        self._corrections.canvas_px = max(1, min(self.width(), self.height()))

    def draw(self, corners: tuple[tuple[float, ...], ...], closed: bool) -> None:
        """Show a stroke through corners (x, y) in pixels of the canvas; none shows nothing."""
        self._corners, self._closed = corners, closed
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Draw again; with nothing to show the glass is taken away."""
        waiting = self._corrections.asking.waiting
        shown = waiting or self._corrections.review.framed or self._corrections.session.suggesting.shown()
        self.setVisible(bool(self._corners or shown))
        self.raise_()
        self.update()

    def marks(self) -> list[QPointF]:
        """Return where on the canvas the model is being asked."""
        return [self._point(target, at) for target, at in self._corrections.asking.waiting]

    def frame(self) -> QRectF | None:
        """Return where on the canvas the nucleus under review lies, with a margin; None without one."""
        framed = self._corrections.review.framed
        if framed is None:
            return None
        return self._around(*framed).adjusted(-_GAP_PX, -_GAP_PX, _GAP_PX, _GAP_PX)

    def tiles(self) -> list[QRectF]:
        """Return where on the canvas the tiles are that should be verified next, the best first."""
        return [self._around(*shown) for shown in self._corrections.session.suggesting.shown()]

    def _around(self, target: Target, part: Region) -> QRectF:
        """Return where on the canvas a part of a plane is."""
        first = self._point(target, (part.y0 - 0.5, part.x0 - 0.5))
        last = self._point(target, (part.y1 - 0.5, part.x1 - 0.5))
        return QRectF(first, last).normalized()

    def _point(self, target: Target, at: tuple[float, float]) -> QPointF:
        """Return where on the canvas a pixel (y, x) of a plane is."""
        viewer = self._corrections.session.viewer
        camera = camera_of(viewer)
        offset = viewer.dims.ndim - target.layer.ndim
        world = target.world(at)
        y, x = (
            (world[axis - offset] - center) * camera.zoom + length / 2
            for axis, center, length in zip(
                viewer.dims.displayed[-2:], camera.center[-2:], (self.height(), self.width()), strict=True
            )
        )
        return QPointF(x, y)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        shape = QPolygonF([QPointF(*corner[:2]) for corner in self._corners])
        marks, frame, tiles = self.marks(), self.frame(), self.tiles()
        for color, width in ((_DARK, _RIM_PX), (_BRIGHT, _LINE_PX)):
            painter.setPen(QPen(color, width, Qt.PenStyle.SolidLine))
            if self._closed:
                painter.drawPolygon(shape)
            else:
                painter.drawPolyline(shape)
            for tile in tiles:
                painter.drawRect(tile)
            for corner in () if frame is None else _corners(frame):
                painter.drawPolyline(corner)
            if color is _BRIGHT:
                painter.setPen(QPen(color, width, Qt.PenStyle.DashLine))
            for mark in marks:
                painter.drawEllipse(mark, _MARK_PX, _MARK_PX)
        _draw_numbers(painter, tiles)
        painter.end()


def _draw_numbers(painter: QPainter, tiles: list[QRectF]) -> None:
    """Write 1, 2, ... into the corners of tiles."""
    font = painter.font()
    font.setBold(True)
    painter.setFont(font)
    painter.setPen(_DARK)
    for number, tile in enumerate(tiles, 1):
        tag = QRectF(tile.topLeft(), _TAG)
        painter.fillRect(tag, _BRIGHT)
        painter.drawText(tag, Qt.AlignmentFlag.AlignCenter, str(number))


def _corners(frame: QRectF) -> list[QPolygonF]:
    """Return the corners of a frame; its sides are left open, so that little of the picture is hidden."""
    found = []
    for corner, dx, dy in (
        (frame.topLeft(), 1, 1),
        (frame.topRight(), -1, 1),
        (frame.bottomRight(), -1, -1),
        (frame.bottomLeft(), 1, -1),
    ):
        arm, other = QPointF(dx * _ARM_PX, 0), QPointF(0, dy * _ARM_PX)
        found.append(QPolygonF([corner + arm, corner, corner + other]))
    return found
