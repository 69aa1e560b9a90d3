"""Parts that the dock widgets share: their base, the run button with its progress, the error box."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QKeySequence, QPixmap, QResizeEvent, QShortcut
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._session import session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from psygnal import SignalInstance
    from qtpy.QtGui import QShowEvent

    from napari_nucleus_kd.types import Progress
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.workspace import Activity, Problem

# Blue and vermilion of Okabe and Ito: seen by the colour-blind, legible on napari's dark and light.
PRIMARY_STYLE = """
QPushButton { background: #0072b2; color: white; font-weight: bold; padding: 7px; border-radius: 3px; }
QPushButton:hover { background: #1a86c2; }
QPushButton:disabled { background: #8a8f96; color: #d5d7da; }
"""
BAR_STYLE = "QProgressBar::chunk { background: #0072b2; }"
PROBLEM_STYLE = "#problem { border: none; border-left: 4px solid #d55e00; padding-left: 4px; }"
FOLD_STYLE = """
QPushButton { text-align: left; border: none; background: transparent; padding: 3px 0px; font-weight: bold; }
QPushButton:hover { text-decoration: underline; }
"""
SMALL_STYLE = "QPushButton { padding: 4px 2px; }"  # of tools: three of them fit side by side
CANCEL_KEY = "Ctrl+."
_BUSY = 1000  # steps of the bar; fine enough to be smooth


class StepWidget(QWidget):
    """Base of the dock widgets: observes the session of its viewer, and lets go of it when destroyed."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.session: Session = session_of(viewer)
        self.workspace = self.session.workspace
        self._followed: list[tuple[SignalInstance, Callable[..., Any]]] = []
        self.session.attach()
        # The callable must not hold the widget: it runs when the widget is already gone.
        self.destroyed.connect(partial(_let_go, self.session, self._followed))

    def showEvent(self, event: QShowEvent) -> None:
        """Hear of the end of the window, which closes the projects."""
        from napari_nucleus_kd.widgets._closing import guard

        super().showEvent(event)
        guard(self, self.session.keeping)

    def follow(self, signal: SignalInstance, slot: Callable[..., Any]) -> None:
        """Call a slot at each signal, for as long as this widget lives."""
        signal.connect(slot)
        self._followed.append((signal, slot))

    def add_shortcut(self, keys: str, slot: Callable[[], None]) -> None:
        """Call a slot when keys are pressed anywhere in the window."""
        shortcut = QShortcut(QKeySequence(keys), self)
        shortcut.activated.connect(slot)
        # Two widgets of this kind may be open: Qt then tells only one of them at a time.
        shortcut.activatedAmbiguously.connect(slot)


def _let_go(session: Session, followed: list[tuple[SignalInstance, Callable[..., Any]]], *_: object) -> None:
    for signal, slot in followed:
        signal.disconnect(slot, missing_ok=True)
    followed.clear()
    session.detach()


class WordsLabel(QLabel):
    """A label for sentences, exactly as high as its wrapped text; the text can be selected.

    A plain QLabel asks for the height of a narrower column than it gets, which leaves gaps.
    """

    def __init__(self, text: str = "", text_format: Qt.TextFormat = Qt.TextFormat.PlainText) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(text_format)  # plain by default: names of files and channels are not markup
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setText(text)

    def setText(self, text: str) -> None:
        super().setText(text)
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self.setMinimumHeight(0)  # else the former height counts as needed
        self.setFixedHeight(max(0, self.heightForWidth(self.width())))


def button(
    text: str, tip: str, slot: Callable[[], object] | None = None, *, style: str = "", focus: bool = False
) -> QPushButton:
    """Make a button.

    Parameters
    ----------
    slot : called without arguments when it is pressed.
    style : a style sheet of Qt.
    focus : whether it takes the keyboard; else keys go on to the canvas after a click on it.
    """
    made = QPushButton(text)
    made.setToolTip(tip)
    if style:
        made.setStyleSheet(style)
    if not focus:
        made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    if slot is not None:
        made.clicked.connect(lambda: slot())
    return made


def named_controls(*controls: tuple[str, QWidget]) -> QGridLayout:
    """Return controls under each other, each with its name before it, which has its tooltip, too."""
    grid = QGridLayout()
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setColumnStretch(1, 1)
    for line, (text, control) in enumerate(controls):
        label = QLabel(text)
        label.setToolTip(control.toolTip())
        grid.addWidget(label, line, 0)
        grid.addWidget(control, line, 1)
    return grid


def row(*widgets: QWidget, stretch: int = 0) -> QWidget:
    """Put widgets side by side; the one numbered `stretch` takes the room that is left."""
    line = QWidget()
    beside(line, *widgets, stretch=stretch)
    return line


def beside(owner: QWidget, *widgets: QWidget, stretch: int = 0) -> None:
    """Lay widgets out side by side in another one; the one numbered `stretch` takes the room that is left."""
    layout = QHBoxLayout(owner)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if index == stretch else 0)


def narrow_combo(tip: str, letters: int = 8) -> QComboBox:
    """Make a combo box that long names cannot widen."""
    box = QComboBox()
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(letters)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def show_progress(bar: QProgressBar, progress: Progress | None) -> None:
    """Show how far something is; a moving bar where that is not known."""
    known = progress is not None and progress.total > 0
    bar.setRange(0, _BUSY if known else 0)
    if progress is not None and known:
        bar.setValue(round(_BUSY * progress.done / progress.total))


def pixmap(picture: Any) -> QPixmap:
    """Return (Y, X, 3 or 4) uint8 as what Qt shows."""
    height, width, channels = picture.shape
    kind = QImage.Format.Format_RGBA8888 if channels == 4 else QImage.Format.Format_RGB888
    return QPixmap.fromImage(QImage(picture.tobytes(), width, height, channels * width, kind).copy())


class Fold(QWidget):
    """A heading that shows or hides what is under it.

    superqt's QCollapsible fixes the height of its content when it opens; ours must grow, for errors
    and results appear in it.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, content: QWidget, *, tip: str = "", is_open: bool = False) -> None:
        super().__init__()
        self._title = title
        self.content = content
        self.heading = QPushButton()
        self.heading.setCheckable(True)
        self.heading.setChecked(is_open)
        self.heading.setStyleSheet(FOLD_STYLE)
        self.heading.setToolTip(tip)
        self.heading.toggled.connect(self._on_toggled)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.heading)
        layout.addWidget(content)
        self._on_toggled(is_open)

    def set_title(self, title: str) -> None:
        """Change the heading."""
        self._title = title
        self.heading.setText(f"{'▾' if self.heading.isChecked() else '▸'}  {title}")

    def set_open(self, is_open: bool) -> None:
        """Show or hide the content."""
        self.heading.setChecked(is_open)

    def _on_toggled(self, is_open: bool) -> None:
        self.set_title(self._title)
        self.content.setVisible(is_open)
        self.toggled.emit(is_open)


class TaskBar(QStackedWidget):
    """The primary button of a step; while its job runs, progress with time left and Cancel.

    Parameters
    ----------
    owner : the widget it stands in.
    step : whose jobs it shows; jobs of other steps only disable the button.
    text : on the button.
    tip : its tooltip.
    run : called when it is pressed.
    """

    def __init__(self, owner: StepWidget, step: str, text: str, tip: str, run: Callable[[], None]) -> None:
        super().__init__()
        self.step = step
        self._owner = owner
        self._available = True
        self.button = QPushButton(text)
        self.button.setToolTip(tip)
        self.button.setStyleSheet(PRIMARY_STYLE)
        self.button.clicked.connect(lambda: run())
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(BAR_STYLE)
        self.message = QElidingLabel()
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip(f"Stop at the next step; nothing is changed ({CANCEL_KEY})")
        self.cancel.clicked.connect(owner.session.cancel)
        self._running = QWidget()
        lines = QVBoxLayout(self._running)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setSpacing(2)
        lines.addWidget(row(self.bar, self.cancel))
        lines.addWidget(self.message)
        self.addWidget(self.button)
        self.addWidget(self._running)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        owner.follow(owner.workspace.events.activity, self._on_activity)
        owner.add_shortcut(CANCEL_KEY, owner.session.cancel)
        self._on_activity(owner.workspace.activity)

    def set_available(self, available: bool) -> None:
        """Say whether the step can be run at all now."""
        self._available = available
        self._on_activity(self._owner.workspace.activity)

    def _on_activity(self, activity: Activity | None) -> None:
        self.button.setEnabled(self._available and activity is None)
        if activity is None or activity.step != self.step:
            self.setCurrentWidget(self.button)
            return
        self.setCurrentWidget(self._running)
        self.cancel.setEnabled(not activity.stopping)
        self.message.setText(_words.progress(activity))
        show_progress(self.bar, activity.progress)


class ProblemBox(QFrame):
    """Says what went wrong in a step and what to do; the technical details are folded."""

    def __init__(self, owner: StepWidget, step: str) -> None:
        super().__init__()
        self._step = step
        self._workspace = owner.workspace
        self.setObjectName("problem")
        self.setStyleSheet(PROBLEM_STYLE)
        self.text = WordsLabel()
        self.details = WordsLabel()
        self.copy = QPushButton("Copy the details")
        self.copy.setToolTip("Put message and details on the clipboard, for a report to the developers")
        self.copy.clicked.connect(self._copy)
        inner = QWidget()
        lines = QVBoxLayout(inner)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.addWidget(self.copy)
        lines.addWidget(self.details)
        self.fold = Fold("Details", inner, tip="The technical details, for a report to the developers")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 2, 2)
        layout.addWidget(self.text)
        layout.addWidget(self.fold)
        owner.follow(owner.workspace.events.problem, self._on_problem)
        self._on_problem(owner.workspace.problem)

    def _on_problem(self, problem: Problem | None) -> None:
        mine = problem is not None and problem.step == self._step
        self.setVisible(mine)
        if problem is None or not mine:
            return
        self.text.setText(problem.text)
        self.details.setText(problem.details)
        self.fold.set_open(False)
        self.fold.setVisible(bool(problem.details))

    def _copy(self) -> None:
        QApplication.clipboard().setText(f"{self.text.text()}\n\n{self.details.text()}")
