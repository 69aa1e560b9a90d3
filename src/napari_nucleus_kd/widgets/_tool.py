"""Asks for what another tool needs before it finds nuclei: an environment, and weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLabel,
    QProgressBar,
    QVBoxLayout,
)

from napari_nucleus_kd import baselines
from napari_nucleus_kd.errors import NucleusKDError
from napari_nucleus_kd.widgets._parts import BAR_STYLE, WordsLabel, button, row
from napari_nucleus_kd.widgets._worker import one_step, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from qtpy.QtWidgets import QWidget

    from napari_nucleus_kd.types import Progress
    from napari_nucleus_kd.widgets._worker import Job

# Names of models that the tools download themselves.
KNOWN = {
    "cellpose": ("cyto3", "nuclei", "cyto2"),
    "cellpose4": ("cpsam",),
    "stardist": ("2D_versatile_fluo", "2D_versatile_he", "2D_paper_dsb2018"),
}
_WIDTH_PX = 420


class ToolDialog(QDialog):
    """Where a tool is, or how to get it, and which weights it takes.

    Parameters
    ----------
    name : of the tool, as a segmenter.
    weights : to show at first.

    Signals
    -------
    chosen : weights, once the tool is there and the person took them.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget, name: str, weights: str | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._tool, self._is_there = baselines.TOOLS[name], False
        self._jobs: list[Job] = []
        self.setWindowTitle(self._tool.title)
        self.setFixedWidth(_WIDTH_PX)
        self.where = WordsLabel()
        self.install = button(
            "Install", "Make an environment of its own for it; downloads hundreds of megabytes", self.get
        )
        self.have = button(
            "I have it already…", "Choose the Python of the environment where it is", self.take
        )
        self.ways = row(self.install, self.have)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setStyleSheet(BAR_STYLE)
        self.bar.setRange(0, 0)
        self.weights = QComboBox()
        self.weights.setEditable(True)
        self.weights.addItems(KNOWN[name])
        self.weights.setToolTip("A file or folder, or the name of a model that the tool downloads itself")
        self.weights.setCurrentText(weights or "")
        self.weights.lineEdit().setPlaceholderText("choose a name, or a file of yours")
        self.browse = button("Browse…", "Choose weights on this computer", self.choose)
        self.note = WordsLabel(
            f"{self._tool.title} fetches the models of this list itself, at the first use. Weights of other "
            "tools can run programs when they are opened: take files only from people you trust."
        )
        self.answer = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.answer.accepted.connect(self.accept)
        self.answer.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        for part in (self.where, self.ways, self.bar, QLabel("Weights"), row(self.weights, self.browse)):
            layout.addWidget(part)
        layout.addWidget(self.note)
        layout.addWidget(self.answer)
        self.weights.currentTextChanged.connect(self._update)
        self.destroyed.connect(partial(_cancel, self._jobs))  # by its parent, without a close
        self.finished.connect(partial(_cancel, self._jobs))
        self.look()

    def look(self) -> None:
        """Find out whether the tool is there."""
        self.where.setText(f"Looking whether {self._tool.title} is here…")
        self._run(one_step(lambda: baselines.find(self._tool.name)))

    def get(self) -> None:
        """Install the tool into an environment of its own."""
        self._run(baselines.install_steps(self._tool.name))

    def take(self) -> None:
        """Take the tool from an environment of the person's."""
        chosen, _ = QFileDialog.getOpenFileName(self, f"The Python that has {self._tool.title}")
        if chosen:
            self._run(one_step(lambda: baselines.use(self._tool.name, Path(chosen))))

    def choose(self) -> None:
        """Choose weights on this computer."""
        title = f"Weights of {self._tool.title}"
        if self._tool.served_as == "stardist":  # its models are folders
            chosen = QFileDialog.getExistingDirectory(self, title)
        else:
            chosen, _ = QFileDialog.getOpenFileName(self, title)
        if chosen:
            self.weights.setCurrentText(chosen)

    def accept(self) -> None:
        """Take the weights."""
        self.chosen.emit(self.weights.currentText().strip())
        super().accept()

    def _run(self, steps: Generator[Progress, None, Any]) -> None:
        self._is_there = False
        self.ways.hide()
        self.bar.show()
        self._jobs.append(
            run_in_thread(
                steps,
                done=self._on_found,
                failed=self._on_missing,
                progress=self._on_progress,
                ended=self._update,
            )
        )
        self._update()

    def _on_progress(self, progress: Progress) -> None:
        self.where.setText(progress.message)

    def _on_found(self, found: baselines.Found) -> None:
        self._is_there = True
        self.where.setText(f"{self._tool.title}, version {found.version}, {found.how}:\n{found.python}")

    def _on_missing(self, error: BaseException, details: str) -> None:
        known = isinstance(error, NucleusKDError)
        said = str(error) if known else f"{self._tool.title} cannot be had: {error}\n{details}"
        self.where.setText(said.split(": nucleus-kd ")[0])  # commands; here are buttons
        self.ways.show()

    def _update(self, *_: object) -> None:
        self.bar.setVisible(any(job.running for job in self._jobs))
        ready = self._is_there and bool(self.weights.currentText().strip())
        self.answer.button(QDialogButtonBox.StandardButton.Ok).setEnabled(ready)
        self.adjustSize()


def _cancel(jobs: list[Job], *_: object) -> None:
    for job in jobs:
        job.cancel()
        job.end_waiting()  # an installer may say nothing for minutes


def ask(parent: QWidget, name: str, weights: str | None, taken: Callable[[str], object]) -> ToolDialog:
    """Show the dialog beside the work; what the person takes is told to `taken`."""
    dialog = ToolDialog(parent, name, weights)
    dialog.chosen.connect(taken)
    dialog.show()
    return dialog
