"""The Workbench: the steps in their order, in one dock; they show the same state as docks of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_nucleus_kd.widgets._parts import Fold
from napari_nucleus_kd.widgets.open import OpenWidget
from napari_nucleus_kd.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from napari import Viewer


class WorkbenchWidget(QScrollArea):
    """Open and Segment, one under the other, each under a heading that folds it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.open = OpenWidget(napari_viewer)
        self.segment = SegmentWidget(napari_viewer)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(4, 0, 4, 0)
        layout.setSpacing(0)
        for number, (title, step) in enumerate((("Open", self.open), ("Segment", self.segment)), 1):
            layout.addWidget(Fold(f"{number}  {title}", step, is_open=True))
        layout.addStretch(1)
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
