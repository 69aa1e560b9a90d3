"""The review in the Correct widget: the doubtful nuclei one after the other, and why they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QSpinBox, QVBoxLayout, QWidget

from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._parts import SMALL_STYLE, WordsLabel, button, row
from napari_nucleus_kd.widgets._tools import BACK, LATER, REMOVE, RIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QPushButton

    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._tools import Tool

_MOST = 50  # nuclei, a few minutes
_RIGHT_STYLE = "QPushButton { padding: 4px 2px; background: #0072b2; color: white; font-weight: bold; }"


class ReviewPanel(QWidget):
    """Starts a review; while it runs, says why the nucleus is shown, and takes the answer."""

    def __init__(self, corrections: Corrections) -> None:
        super().__init__()
        self._corrections, self._review = corrections, corrections.review
        self.begin = button(
            "Review the most doubtful",
            "Go through the nuclei that are most likely wrong: of low score, unusual size or shape,\n"
            "or not seen by the model in the mirror picture. The view jumps to each of them.\n"
            "What is verified already is left out",
            lambda: self._review.start(self.most.value()),
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
            RIGHT: _tool_button(RIGHT, self._review.accept, _RIGHT_STYLE),
            REMOVE: _tool_button(REMOVE, self._review.delete),
            LATER: _tool_button(LATER, self._review.later),
            BACK: _tool_button(BACK, self._review.back),
        }
        self.end = button(
            "End", "End the review; what was accepted stays so", self._review.stop, style=SMALL_STYLE
        )
        self._lay_out()
        self.refresh()

    def _lay_out(self) -> None:
        self.offer = row(self.begin, self.most)
        self.running = QWidget()
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, each in enumerate((*self.buttons.values(), self.end)):
            grid.addWidget(each, *divmod(place, 3))
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
        for tool, each in self.buttons.items():
            each.setEnabled(in_hand and (tool is BACK or queue.current is not None))
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


def _tool_button(tool: Tool, slot: Callable[[], None], style: str = SMALL_STYLE) -> QPushButton:
    return button(f"{tool.word} ({tool.shown_key})", f"{tool.does} ({tool.shown_key})", slot, style=style)
