"""What a person sets of a mapping: how much each nuclear channel counts, and the colours of the stains."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QGridLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_nucleus_kd.config import OF_STAINS
from napari_nucleus_kd.mappings import fit_mapping
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.widgets._parts import button, row
from napari_nucleus_kd.widgets._worker import one_step

if TYPE_CHECKING:
    from napari_nucleus_kd.mappings import Fitted
    from napari_nucleus_kd.stains import Stains
    from napari_nucleus_kd.widgets._layers import Source
    from napari_nucleus_kd.widgets._parts import StepWidget

_FULL = 100  # of the sliders, in percent
_NUMBER_WIDTH = 58
_NARROW_STYLE = """
QAbstractSpinBox { padding: 0px 2px; min-width: 44px; }
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { width: 0px; }
QAbstractSpinBox::up-arrow, QAbstractSpinBox::down-arrow { image: none; width: 0px; }
"""
_NONE = -0.001  # where a mapping takes its own stains
_COLOURS, _OF = ("red", "green", "blue"), ("haematoxylin", "other stain")


class MixPart(QWidget):
    """A slider for each nuclear channel of a blend; hidden for other mappings."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__(owner)
        self._workspace = owner.workspace
        self.sliders: list[QSlider] = []
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        events = self._workspace.events
        for signal in (events.recipe, events.panel):
            owner.follow(signal, self._refresh)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        panel, recipe = self._workspace.panel, self._workspace.recipe
        names = [panel.names[i] for i in panel.nuclear] if panel and recipe.mapping == "blend" else []
        self.setVisible(len(names) > 1)
        if [slider.objectName() for slider in self.sliders] != names:
            self._make(names)
        weights = recipe.channel_weights or (1.0,) * len(names)
        for slider, weight in zip(self.sliders, weights, strict=False):
            with QSignalBlocker(slider):
                slider.setValue(round(_FULL * weight / max((1.0, *weights))))

    def _make(self, names: list[str]) -> None:
        while self._form.rowCount():
            self._form.removeRow(0)
        self.sliders = []
        for name in names:
            slider = QSlider(Qt.Orientation.Horizontal)
            slider.setRange(0, _FULL)
            slider.setValue(_FULL)
            slider.setObjectName(name)
            slider.setToolTip(f"How much {name} counts beside the others (0 to {_FULL} %)")
            slider.valueChanged.connect(self._on_moved)
            self.sliders.append(slider)
            self._form.addRow(name, slider)

    def _on_moved(self, _: int) -> None:
        weights = tuple(slider.value() / _FULL for slider in self.sliders)
        if any(weights):
            self._workspace.set_recipe(channel_weights=weights)
        else:  # one must count: the last one stays where it was
            self._refresh()


class StainsPart(QWidget):
    """The colours of two stains as optical densities, to be estimated or edited; for colour pictures."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__(owner)
        self._session, self._workspace = owner.session, owner.workspace
        self._gone: list[object] = []  # holds something once Qt has deleted this widget
        self.destroyed.connect(partial(note, self._gone))
        self.numbers = [[_number(stain, colour) for colour in _COLOURS] for stain in _OF]
        self.swatches = [QLabel() for _ in _OF]
        grid = QGridLayout()
        for place, colour in enumerate(_COLOURS):
            grid.addWidget(QLabel(colour), 0, 2 + place)
        for line, (name, swatch, numbers) in enumerate(zip(_OF, self.swatches, self.numbers, strict=True), 1):
            swatch.setFixedWidth(18)
            swatch.setToolTip(f"The colour of {name}")
            grid.addWidget(swatch, line, 0)
            grid.addWidget(QLabel(name), line, 1)
            for place, number in enumerate(numbers):
                grid.addWidget(number, line, 2 + place)
                number.valueChanged.connect(self._on_changed)
        self.estimate = button(
            "Estimate",
            "Measure the colours of both stains in this image (Macenko), to be edited",
            self.measure,
        )
        self.edit = button(
            "Edit",
            "Begin with the usual haematoxylin and eosin, in IHC and DAB, and edit them",
            self.take_usual,
        )
        self.reset = button("Forget", "Go back to what the mapping does by itself", self.forget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(grid)
        buttons = row(self.estimate, self.edit, self.reset)
        for place in range(3):
            buttons.layout().setStretch(place, 1)
        layout.addWidget(buttons)
        owner.follow(self._workspace.events.recipe, self._refresh)
        self._refresh()

    def measure(self) -> None:
        """Estimate the stains of the image in hand, and take them."""
        source, image = self._session.source, self._session.refresh()
        if image is None or self._workspace.activity is not None:
            return
        chosen = self._session.runs.settled_recipe()
        anew = chosen.model_copy(update={"mapping": "macenko", "stains": None})
        work = partial(fit_mapping, image, anew, chosen.modality or Modality.HE, chosen.percentiles)
        self.estimate.setEnabled(False)
        self._session.run_beside(
            one_step(work), partial(self._take, source, chosen.stains), ended=self._ended, step="channels"
        )

    def _take(self, source: Source | None, before: Stains | None, fitted: Fitted) -> None:
        now = self._workspace.recipe
        same = (
            source is not None and self._session.source is not None and source.key == self._session.source.key
        )
        if same and now.mapping in OF_STAINS and now.stains == before:
            self._workspace.set_recipe(stains=fitted[1]["stains"])

    def _ended(self) -> None:
        if not self._gone:
            self.estimate.setEnabled(True)

    def take_usual(self) -> None:
        """Take the usual haematoxylin and eosin, of IHC and DAB, to be edited."""
        from skimage.color import rgb_from_hed

        is_ihc = self._session.runs.settled_recipe().modality is Modality.IHC
        first, other = (tuple(float(part) for part in rgb_from_hed[i]) for i in (0, 2 if is_ihc else 1))
        self._workspace.set_recipe(stains=(first, other))

    def forget(self) -> None:
        """Go back to the usual stains, or to those that are estimated in each image."""
        self._workspace.set_recipe(stains=None)

    def _refresh(self, *_: object) -> None:
        recipe = self._workspace.recipe
        self.setVisible(recipe.mapping in OF_STAINS)
        if recipe.mapping not in OF_STAINS:
            return
        known = recipe.stains is not None
        self.edit.setEnabled(not known)
        self.reset.setEnabled(known)
        for line, stain in enumerate(recipe.stains or ((_NONE,) * 3,) * 2):
            self.swatches[line].setStyleSheet(f"background: {_colour(stain) if known else 'transparent'};")
            for number, value in zip(self.numbers[line], stain, strict=True):
                number.setEnabled(known)
                with QSignalBlocker(number):
                    number.setValue(value)

    def _on_changed(self, _: float) -> None:
        first, second = (tuple(number.value() for number in line) for line in self.numbers)
        self._workspace.set_recipe(stains=(first, second))


def _number(stain: str, colour: str) -> QDoubleSpinBox:
    made = QDoubleSpinBox()
    made.setRange(_NONE, 1)
    made.setSpecialValueText("–")
    made.setDecimals(3)
    made.setStyleSheet(_NARROW_STYLE)  # NoButtons leaves no room for the number in napari's style
    made.setFixedWidth(_NUMBER_WIDTH)
    made.setSingleStep(0.01)
    made.setKeyboardTracking(False)
    made.setToolTip(f"Optical density of {stain} in {colour}, beside those in the other two colours")
    return made


def _colour(stain: tuple[float, float, float]) -> str:
    red, green, blue = (255 * np.exp(-np.asarray(stain))).astype(int)
    return f"rgb({red}, {green}, {blue})"


def note(gone: list[object], *_: object) -> None:
    """Note that a widget was deleted, where its slots can see it."""
    gone.append(True)
