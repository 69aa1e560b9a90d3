"""The Segment widget: what it will act on, five controls, one button; the nuclei become a Labels layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFileDialog,
    QPushButton,
    QVBoxLayout,
)

from napari_nucleus_kd.errors import NucleusKDError
from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._controls import (
    ChannelControl,
    ImageControl,
    ModelControl,
    RegionControl,
)
from napari_nucleus_kd.widgets._diameter import DiameterControl
from napari_nucleus_kd.widgets._more import MoreControls
from napari_nucleus_kd.widgets._parts import (
    Fold,
    ProblemBox,
    StepWidget,
    TaskBar,
    WordsLabel,
    named_controls,
    row,
)
from napari_nucleus_kd.widgets._reproduce import as_command, as_python
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from napari import Viewer

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.workspace import Preferences

SEGMENT_KEY, OUTLINES_KEY = "Ctrl+Return", "Ctrl+Shift+F"
_SETTLE_MS = 200  # a camera that moves is not measured at each of its steps
_COPIED_MS = 1500  # how long a button says that it copied


class SegmentWidget(StepWidget):
    """Finds the nuclei of the image in hand."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.runs = self.session.runs
        self.plan = WordsLabel()
        self.image = ImageControl(self)
        self.channels = ChannelControl(self)
        self.model = ModelControl(self)
        self.diameter = DiameterControl(self)
        self.region = RegionControl(self)
        self.settings = MoreControls(self, self.runs)
        self.more = Fold("More", self.settings, tip="Thresholds, device, tiles and probability")
        self.task = TaskBar(
            self,
            "segment",
            "Segment",
            f"Find the nuclei and show them as a new Labels layer ({SEGMENT_KEY})",
            self.start,
        )
        self.problem = ProblemBox(self, "segment")
        self.outcome = WordsLabel()
        self.outlines = QCheckBox("Outlines")
        self.outlines.setToolTip(f"Draw nuclei as outlines, so that the image stays visible ({OUTLINES_KEY})")
        self.outlines.setChecked(self.workspace.preferences.outlines)
        self.outlines.toggled.connect(self.runs.draw)
        self.command = QPushButton("Copy as command")
        self.command.setToolTip("Put on the clipboard a command line that repeats this run")
        self.command.clicked.connect(self.copy_command)
        self.python = QPushButton("Copy as Python")
        self.python.setToolTip("Put on the clipboard a Python script that repeats this run")
        self.python.clicked.connect(self.copy_python)
        self.copies = row(self.command, self.python)
        self._lay_out()
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self._update_plan)
        self._watch()

    def _lay_out(self) -> None:
        grid = named_controls(
            ("Image", self.image),
            ("Nuclei in", self.channels),
            ("Model", self.model),
            ("Diameter", self.diameter),
            ("Region", self.region),
        )
        layout = QVBoxLayout(self)
        layout.addWidget(self.plan)
        layout.addLayout(grid)
        for part in (self.more, self.task, self.problem, self.outcome, self.outlines, self.copies):
            layout.addWidget(part)
        layout.addStretch(1)

    def _watch(self) -> None:
        events = self.workspace.events
        for signal in (events.image, events.recipe, events.whole_image, events.preferences, events.result):
            self.follow(signal, self._update_soon)
        self.follow(events.guessed, self._update_soon)
        self.follow(self.session.view_changed, self._update_soon)
        self.follow(self.session.sources_changed, self._update_soon)
        self.follow(events.image, self._on_image)
        self.follow(events.outcome, self._on_outcome)
        self.follow(events.recipe, self._on_recipe)
        self.add_shortcut(SEGMENT_KEY, self.start)
        self.add_shortcut(OUTLINES_KEY, self.outlines.toggle)
        self.follow(events.preferences, self._on_preferences)
        self._on_image(self.workspace.image)
        self._on_recipe(self.workspace.recipe)
        self._on_outcome(self.workspace.outcome)
        self._update_plan()

    def start(self) -> None:
        """Segment; asks for a file where the result is too large for memory."""
        self.runs.start(self.ask_path)

    def ask_path(self, suggested: str) -> Path | None:
        """Ask where the OME-Zarr of a large image goes; None if the person thought better of it."""
        image = self.workspace.image
        folder = image.source.parent if image is not None and image.source is not None else Path()
        name, _ = QFileDialog.getSaveFileName(
            self, "Where do the labels go?", str(folder / suggested), "OME-Zarr (*.ome.zarr *.zarr)"
        )
        if not name:
            return None
        return Path(name if name.lower().endswith(".zarr") else f"{name}.ome.zarr")

    def copy_command(self) -> None:
        """Put the run on the clipboard as a command line."""
        image = self.session.refresh()
        if image is None:
            return
        try:
            self._copy(self.command, as_command(image, self._recipe()))
        except NucleusKDError as error:
            self.workspace.problem = Problem.from_error("segment", error)

    def copy_python(self) -> None:
        """Put the run on the clipboard as Python."""
        segmented = self.runs.segmented()
        if segmented is None:
            return
        image, plane = segmented
        self._copy(self.python, as_python(image, self._recipe(), plane))

    def _copy(self, button: QPushButton, text: str) -> None:
        """Put text on the clipboard, and say so on the button for a moment."""
        QApplication.clipboard().setText(text)
        caption = {self.command: "Copy as command", self.python: "Copy as Python"}[button]
        button.setText("Copied")
        QTimer.singleShot(_COPIED_MS, button, lambda: button.setText(caption))

    def _recipe(self) -> Recipe:
        """Return the settings of the newest result, resolved; before the first, those chosen."""
        result = self.workspace.result
        if result is not None:
            return result.recipe
        return self.runs.settled_recipe()

    def _on_image(self, image: Image | None) -> None:
        self.task.set_available(image is not None)
        self.copies.setEnabled(image is not None)

    def _on_recipe(self, _: Recipe) -> None:
        # Thresholds stay for the next image: that must be seen while they are folded away.
        changed = self.workspace.chosen_decode() is not None
        self.more.set_title("More (thresholds changed)" if changed else "More")

    def _on_preferences(self, known: Preferences) -> None:
        self.outlines.setChecked(known.outlines)

    def _on_outcome(self, text: str) -> None:
        self.outcome.setText(text)
        self.outcome.setVisible(bool(text))

    def _update_soon(self, *_: object) -> None:
        self._settle.start()

    def _update_plan(self) -> None:
        plan = _words.plan(self.workspace, self.runs.region(), self.runs.on_disk())
        self.plan.setText(self.runs.refusal() or plan)
