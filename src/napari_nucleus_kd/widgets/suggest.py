"""What to check next, in the Correct widget: a list of tiles, best first, each with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._parts import row
from napari_nucleus_kd.widgets._suggesting import MOST

if TYPE_CHECKING:
    from napari_nucleus_kd.widgets._parts import StepWidget

_STYLE = "QPushButton { padding: 4px 2px; }"
_LINE_STYLE = "QPushButton { padding: 3px 6px; text-align: left; }"


class SuggestPanel(QWidget):
    """Asks for tiles, lists them, and goes to the one that is clicked."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._corrections, self._suggesting = owner.session.corrections, owner.session.suggesting
        self.ask = QPushButton("Where next?")
        self.ask.setToolTip(
            "Let the model say where checking helps it most: tiles of about 256 px that it is unsure of\n"
            "and sees differently in the mirror picture. Click a box in the picture, or a line here,\n"
            "to go there"
        )
        self.hide_all = QPushButton("Hide boxes")
        self.hide_all.setToolTip("Take the boxes away")
        self.lines = [self._line(index) for index in range(MOST)]
        for button in (self.ask, self.hide_all, *self.lines):
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys go on to the canvas after a click
        for button in (self.ask, self.hide_all):
            button.setStyleSheet(_STYLE)
        self.ask.clicked.connect(self._suggesting.start)
        self.hide_all.clicked.connect(self._suggesting.stop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(row(self.ask, self.hide_all))
        for line in self.lines:
            layout.addWidget(line)
        owner.follow(self._suggesting.changed, self.refresh)
        self.refresh()

    def _line(self, index: int) -> QPushButton:
        line = QPushButton()
        line.setStyleSheet(_LINE_STYLE)
        line.setToolTip("Go to this tile; check all of it, then mark it with a box (C)")
        line.clicked.connect(lambda: self._suggesting.go(index))
        return line

    def refresh(self) -> None:
        """Show what is suggested now."""
        tiles = self._suggesting.tiles if self._suggesting.shown() else []
        self.ask.setEnabled(self._corrections.layer is not None)
        self.hide_all.setVisible(bool(tiles))
        for index, line in enumerate(self.lines):
            line.setVisible(index < len(tiles))
            if index < len(tiles):
                tile = tiles[index]
                why = _words.suggested(tile.nuclei, tile.uncertainty, tile.disagreement)
                line.setText(f"{index + 1}   {why}")
