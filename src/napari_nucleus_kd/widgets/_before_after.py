"""Two pictures of one place, one left and the other right of a line that can be moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QResizeEvent
from qtpy.QtWidgets import QWidget

from napari_nucleus_kd.widgets._parts import pixmap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from qtpy.QtGui import QPixmap

_HEIGHTS_PX = 240, 420
_STEP = 0.05  # of the width, for a key
_LINE_PX, _KNOB_PX, _MARGIN_PX = 2, 7, 6
_LINE, _ACTIVE, _SHADE = QColor("white"), QColor("#56b4e9"), QColor(0, 0, 0, 150)


class BeforeAfter(QWidget):
    """Shows a picture before and after; hidden while it has none.

    Parameters
    ----------
    before, after : names of the two, painted on them.
    """

    def __init__(self, before: str, after: str) -> None:
        super().__init__()
        self.divider = 0.5  # where the line is, as a share of the width
        self._names = before, after
        self._pictures: tuple[QPixmap, QPixmap] | None = None
        self.setToolTip("Drag to compare")
        self.setAccessibleName(f"{before} and {after}, side by side")
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumHeight(_HEIGHTS_PX[0])
        self.hide()

    @property
    def has_pictures(self) -> bool:
        """True if there is something to show."""
        return self._pictures is not None

    def set_pictures(self, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> None:
        """Show two pictures, (Y, X, 3) uint8 of one shape."""
        self._pictures = pixmap(before), pixmap(after)
        self._fit()
        self.show()
        self.update()

    def clear(self) -> None:
        """Let go of the pictures."""
        self._pictures = None
        self.hide()

    def set_divider(self, share: float) -> None:
        """Move the line to a share of the width of the pictures."""
        self.divider = min(1.0, max(0.0, share))
        self.update()

    def area(self) -> QRect:
        """Return where the pictures are painted: as large as they fit, in the middle."""
        if self._pictures is None:
            return QRect()
        size = self._pictures[0].size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        left, top = (self.width() - size.width()) // 2, (self.height() - size.height()) // 2
        return QRect(left, top, max(1, size.width()), max(1, size.height()))

    def _fit(self) -> None:
        """Be as high as the pictures are in this width."""
        if self._pictures is not None:
            size: QSize = self._pictures[0].size()
            low, high = _HEIGHTS_PX
            self.setFixedHeight(min(high, max(low, self.width() * size.height() // size.width())))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take the line to the mouse."""
        self._to(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Let the line follow the mouse while a button is pressed."""
        self._to(event)

    def _to(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            area = self.area()
            self.set_divider((event.position().x() - area.left()) / max(1, area.width()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move the line with the arrows."""
        steps = {Qt.Key.Key_Left: -_STEP, Qt.Key.Key_Right: _STEP}
        if event.key() in steps:
            self.set_divider(self.divider + steps[Qt.Key(event.key())])
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the one left and the other right of the line, with their names."""
        if self._pictures is None:
            return
        area = self.area()
        left = round(self.divider * area.width())
        parts = (
            QRect(area.left(), area.top(), left, area.height()),
            QRect(area.left() + left, area.top(), area.width() - left, area.height()),
        )
        painter = QPainter(self)
        painter.setRenderHints(QPainter.RenderHint.SmoothPixmapTransform | QPainter.RenderHint.Antialiasing)
        for place, (part, picture, name) in enumerate(zip(parts, self._pictures, self._names, strict=True)):
            painter.setClipRect(part)
            painter.drawPixmap(area, picture)
            self._paint_name(painter, area, part, name, is_right=bool(place))
        painter.setClipping(False)
        self._paint_line(painter, area, area.left() + left)
        painter.end()

    def _paint_name(self, painter: QPainter, area: QRect, part: QRect, name: str, *, is_right: bool) -> None:
        """Paint the name of a part in its outer corner, if the line leaves room for it."""
        size = painter.fontMetrics().size(0, name) + QSize(_MARGIN_PX, _MARGIN_PX // 2)
        left = area.right() - size.width() - _MARGIN_PX if is_right else area.left() + _MARGIN_PX
        box = QRect(left, area.top() + _MARGIN_PX, size.width(), size.height())
        if not part.contains(box):
            return
        painter.fillRect(box, _SHADE)
        painter.setPen(_LINE)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, name)

    def _paint_line(self, painter: QPainter, area: QRect, x: int) -> None:
        middle = area.center()
        middle.setX(x)
        for colour, more in ((_SHADE, 2), (_ACTIVE if self.hasFocus() else _LINE, 0)):
            painter.setPen(QPen(colour, _LINE_PX + more))
            painter.drawLine(x, area.top(), x, area.bottom())
            painter.setBrush(colour)
            painter.drawEllipse(middle, _KNOB_PX, _KNOB_PX)
