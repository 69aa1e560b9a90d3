"""What to verify next, in the Correct widget: a list of tiles, best first, each with the reason."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._parts import SMALL_STYLE, button, row
from napari_nucleus_kd.widgets._suggesting import MOST

if TYPE_CHECKING:
    from napari_nucleus_kd.widgets._parts import StepWidget

_LINE_STYLE = "QPushButton { padding: 3px 6px; text-align: left; }"


class SuggestPanel(QWidget):
    """Asks for tiles, lists them, and goes to the one that is clicked."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._corrections, self._suggesting = owner.session.corrections, owner.session.suggesting
        self.ask = button(
            "Where next?",
            "Let the model say where correcting helps it most: tiles of about 256 px that it is unsure of\n"
            "and sees differently in the mirror picture. Click a box in the picture, or a line here,\n"
            "to go there",
            self._suggesting.start,
            style=SMALL_STYLE,
        )
        self.hide_all = button("Hide boxes", "Take the boxes away", self._suggesting.stop, style=SMALL_STYLE)
        tip = (
            "Go to this tile; correct all of it, then press “Verified”.\n"
            "“Judges only”: one tile in five is kept to compare the new model with the old one on it"
        )
        self.lines = [
            button("", tip, partial(self._suggesting.go, index), style=_LINE_STYLE) for index in range(MOST)
        ]
        self.marks = [
            button(
                "Verified",
                "Mark all of this tile as verified: each nucleus in it is right, and none is missing",
                partial(self._suggesting.verify, index),
                style=SMALL_STYLE,
            )
            for index in range(MOST)
        ]
        for line in self.lines:  # a long one ends at the edge of a narrow dock, and pushes no button out
            line.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(row(self.ask, self.hide_all))
        for line, mark in zip(self.lines, self.marks, strict=True):
            layout.addWidget(row(line, mark))
        owner.follow(self._suggesting.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is suggested now."""
        tiles = self._suggesting.tiles if self._suggesting.shown() else []
        self.ask.setEnabled(self._corrections.layer is not None)
        self.hide_all.setVisible(bool(tiles))
        for index, (line, mark) in enumerate(zip(self.lines, self.marks, strict=True)):
            line.setVisible(index < len(tiles))
            # Only where the person is: nobody has looked at the others.
            mark.setVisible(index < len(tiles) and tiles[index].region == self._suggesting.gone_to)
            if index < len(tiles):
                tile = tiles[index]
                why = _words.suggested(tile.nuclei, tile.uncertainty, tile.disagreement, judges=tile.judges)
                line.setText(f"{index + 1}   {why}")
