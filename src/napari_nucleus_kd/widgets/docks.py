"""The docks of the plugin menu: each step alone, and the workbench with all steps in their order.

All of them scroll, so that none forces the window to grow, and show the state of their viewer's session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS
from napari_nucleus_kd.widgets._parts import Fold
from napari_nucleus_kd.widgets._retrain_steps import TRAINING
from napari_nucleus_kd.widgets.channels import ChannelsWidget
from napari_nucleus_kd.widgets.compare import CompareWidget
from napari_nucleus_kd.widgets.correct import CorrectWidget
from napari_nucleus_kd.widgets.enhance import EnhanceWidget
from napari_nucleus_kd.widgets.measure import MeasureWidget
from napari_nucleus_kd.widgets.open import OpenWidget
from napari_nucleus_kd.widgets.retrain import RetrainWidget
from napari_nucleus_kd.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from napari import Viewer


_FRAME_PX = 2  # between what scrolls and its bar
_WIDTHS_PX = 360, 400, 460  # few, so that the canvas does not move with every word
_CHANNELS, _ENHANCE, _RETRAIN = 1, 2, 5  # of the steps


class _Scrolled(QScrollArea):
    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        """Return what Qt does, but wide enough for what is inside: nothing would scroll sideways."""
        content, bar = self.widget(), self.verticalScrollBar()
        hint = super().minimumSizeHint()
        if content is None or bar is None:
            return hint
        width = content.minimumSizeHint().width() + bar.sizeHint().width() + _FRAME_PX
        steady = next((step for step in _WIDTHS_PX if step >= width), width)
        return hint.expandedTo(QSize(steady, 0))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for more room when what is inside got wider, as when a step is opened."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))


class OpenDock(_Scrolled):
    """Choose an image and see what is known of it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = OpenWidget(napari_viewer)
        super().__init__(self.step)


class ChannelsDock(_Scrolled):
    """Say what each channel of the image in hand is for."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = ChannelsWidget(napari_viewer)
        super().__init__(self.step)


class EnhanceDock(_Scrolled):
    """Draw the nuclei of the image in hand as they would be seen best."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = EnhanceWidget(napari_viewer)
        super().__init__(self.step)


class SegmentDock(_Scrolled):
    """Find the nuclei of the image in hand."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = SegmentWidget(napari_viewer)
        super().__init__(self.step)


class CorrectDock(_Scrolled):
    """Correct the nuclei of the selected layer."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = CorrectWidget(napari_viewer)
        super().__init__(self.step)


class RetrainDock(_Scrolled):
    """Make a model one's own."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = RetrainWidget(napari_viewer)
        super().__init__(self.step)


class CompareDock(_Scrolled):
    """Compare segmenters on the image in hand."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = CompareWidget(napari_viewer)
        super().__init__(self.step)


class MeasureDock(_Scrolled):
    """Measure nuclei and cells in every channel."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.step = MeasureWidget(napari_viewer)
        super().__init__(self.step)


class WorkbenchDock(_Scrolled):
    """All steps, one under the other, each under a heading that folds it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self.open = OpenWidget(napari_viewer)
        self.channels = ChannelsWidget(napari_viewer)
        self.enhance = EnhanceWidget(napari_viewer)
        self.segment = SegmentWidget(napari_viewer)
        self.correct = CorrectWidget(napari_viewer)
        self.retrain = RetrainWidget(napari_viewer)
        self.compare = CompareWidget(napari_viewer)
        self.measure = MeasureWidget(napari_viewer)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(4, 0, 4, 0)
        layout.setSpacing(0)
        # The keys of Correct work while it is open: a person opens it on purpose.
        steps = (
            ("Open", self.open, True),
            ("Channels", self.channels, False),
            ("Enhance", self.enhance, False),
            ("Segment", self.segment, True),
            ("Correct", self.correct, False),
            ("Retrain", self.retrain, False),
            ("Compare", self.compare, False),
            ("Measure", self.measure, False),
        )
        self.folds = [
            Fold(f"{number}  {title}", step, is_open=is_open)
            for number, (title, step, is_open) in enumerate(steps, 1)
        ]
        for fold in self.folds:
            layout.addWidget(fold)
        layout.addStretch(1)
        super().__init__(inner)
        self.retrain.follow(self.retrain.retraining.changed, self._on_retraining)
        self._on_retraining()
        for signal in (self.channels.workspace.events.panel, self.channels.workspace.events.recipe):
            self.channels.follow(signal, self._on_panel)
        self._on_panel()
        self.enhance.follow(self.enhance.workspace.events.recipe, self._on_enhance)
        self._on_enhance()

    def _on_enhance(self, *_: object) -> None:
        """Say in its heading whether every run enhances first."""
        state = "" if self.enhance.workspace.recipe.enhance is None else " – on"
        self.folds[_ENHANCE].set_title(f"{_ENHANCE + 1}  Enhance{state}")

    def _on_panel(self, *_: object) -> None:
        """Say in its heading which channels are used, for it is mostly closed."""
        panel, mapping = self.channels.workspace.panel, self.channels.workspace.recipe.mapping
        state = ""
        if panel is not None and len(panel.channels) > 1:
            is_nuclear = mapping in OF_NUCLEAR_CHANNELS
            used = f"{len(panel.nuclear)} nuclear" if is_nuclear else f"{mapping}, {len(panel.used)}"
            state = f" – {used} of {len(panel.channels)}"
        self.folds[_CHANNELS].set_title(f"{_CHANNELS + 1}  Channels{state}")

    def _on_retraining(self, *_: object) -> None:
        """Say in its heading how far a run is, for it goes on while other steps are open."""
        run = self.retrain.retraining
        progress, state = run.progress, ""
        if run.running and progress is not None and progress.message == TRAINING:
            state = f" – step {progress.done} of {progress.total}"
        elif run.running:
            state = " – running"
        elif run.tuned is not None:
            state = " – done, not accepted yet"
        self.folds[_RETRAIN].set_title(f"{_RETRAIN + 1}  Retrain{state}")
