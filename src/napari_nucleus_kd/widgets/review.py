"""The review in the Correct widget: the doubtful nuclei one after the other, and why they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._parts import WordsLabel, row
from napari_nucleus_kd.widgets._tools import BACK, LATER, REMOVE, RIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._tools import Tool

_MOST = 50  # nuclei, a few minutes
_STYLE = "QPushButton { padding: 4px 2px; }"
_RIGHT_STYLE = "QPushButton { padding: 4px 2px; background: #0072b2; color: white; font-weight: bold; }"


class ReviewPanel(QWidget):
    """Starts a review; while it runs, says why the nucleus is shown, and takes the answer."""

    def __init__(self, corrections: Corrections) -> None:
        super().__init__()
        self._corrections, self._review = corrections, corrections.review
        self.begin = QPushButton("Review the most doubtful")
        self.begin.setToolTip(
            "Go through the nuclei that are most likely wrong: of low score, unusual size or shape,\n"
            "or not seen by the model in the mirror picture. The view jumps to each of them.\n"
            "What is checked already is left out"
        )
        self.most = QSpinBox()
        self.most.setRange(1, 1_000_000)
        self.most.setValue(_MOST)
        self.most.setSuffix(" nuclei")
        self.most.setToolTip("How many nuclei to look at, the most doubtful first")
        self.reason = WordsLabel()
        self.reason.setStyleSheet("font-weight: bold;")
        self.count = WordsLabel()
        self.note = WordsLabel()
        self.buttons = {
            RIGHT: self._button(RIGHT, self._review.accept),
            REMOVE: self._button(REMOVE, self._review.delete),
            LATER: self._button(LATER, self._review.later),
            BACK: self._button(BACK, self._review.back),
        }
        self.buttons[RIGHT].setStyleSheet(_RIGHT_STYLE)
        self.end = QPushButton("End")
        self.end.setToolTip("End the review; what was accepted stays so")
        self._lay_out()
        self.begin.clicked.connect(lambda: self._review.start(self.most.value()))
        self.end.clicked.connect(self._review.stop)
        self.refresh()

    def _button(self, tool: Tool, slot: Callable[[], None]) -> QPushButton:
        button = QPushButton(f"{tool.word} ({tool.shown_key})")
        button.setToolTip(f"{tool.does} ({tool.shown_key})")
        button.setStyleSheet(_STYLE)
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys go on to the canvas after a click
        button.clicked.connect(lambda: slot())
        return button

    def _lay_out(self) -> None:
        self.begin.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.end.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.end.setStyleSheet(_STYLE)
        self.offer = row(self.begin, self.most)
        self.running = QWidget()
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, button in enumerate((*self.buttons.values(), self.end)):
            grid.addWidget(button, *divmod(place, 3))
        for column in range(3):
            grid.setColumnStretch(column, 1)
        lines = QVBoxLayout(self.running)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.addLayout(grid)
        for part in (self.reason, self.count, self.note):  # below the buttons, which stay under the mouse
            lines.addWidget(part)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.offer)
        layout.addWidget(self.running)

    def refresh(self) -> None:
        """Show how the review stands."""
        review, queue = self._review, self._review.queue
        self.offer.setVisible(queue is None)
        self.running.setVisible(queue is not None)
        self.begin.setEnabled(self._corrections.layer is not None)
        if queue is None or review.layer is None:
            return
        in_hand = review.in_hand
        for tool, button in self.buttons.items():
            button.setEnabled(in_hand and (tool is BACK or queue.current is not None))
        if not in_hand:
            self.reason.setText(f"The review of “{review.layer.name}” waits: select it, and its plane.")
        elif queue.current is None:
            self.reason.setText("All were looked at.")
        else:
            reason = queue.current.reason or "nothing speaks against it"
            self.reason.setText(f"Nucleus {queue.current.number}: {reason}.")
        self.count.setText(_words.review(queue.done, queue.left, queue.seconds, queue.seconds_left))
        self.note.setText(review.note)
        self.note.setVisible(bool(review.note))
