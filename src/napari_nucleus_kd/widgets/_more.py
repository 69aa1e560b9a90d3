"""The settings folded under More in the Segment widget."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton, QSpinBox, QWidget
from superqt import QLabeledDoubleSlider

from napari_nucleus_kd.config import DecodeSettings
from napari_nucleus_kd.widgets._parts import WordsLabel, narrow_combo, row

if TYPE_CHECKING:
    from napari_nucleus_kd.widgets._parts import StepWidget
    from napari_nucleus_kd.widgets._runs import Runs

_DEVICE_WORDS = {
    "auto": "Fastest there is",
    "cpu": "Processor (CPU)",
    "openvino": "Processor, OpenVINO",
    "cuda": "NVIDIA GPU",
    "mps": "Apple GPU",
}
_TILES_PX = (256, 512, 1024, 2048)


def devices() -> list[str]:
    """List the devices worth offering on this computer; a GPU is only looked for when a run asks for it."""
    found = ["auto", "cpu"]
    if find_spec("openvino") is not None:
        found.append("openvino")
    found.append("mps" if sys.platform == "darwin" else "cuda")
    return found


class MoreControls(QWidget):
    """Thresholds, which act at once on a result that keeps its maps, and settings for the next run."""

    def __init__(self, owner: StepWidget, runs: Runs) -> None:
        super().__init__()
        self._workspace, self._runs = owner.workspace, runs
        self._session = owner.session
        self.device = narrow_combo("What the network runs on")
        for name in devices():
            self.device.addItem(_DEVICE_WORDS[name], name)
        self.by = narrow_combo("How the pixels of nuclei become nuclei")
        self.by.addItem("touching nuclei taken apart", "votes")
        self.by.addItem("what is connected is one", "components")
        self.foreground = _slider(0.01, 0.99, "Pixels at least this probable are nucleus: lower finds more")
        self.split = _slider(0.0, 1.0, "0 joins touching nuclei, 1 splits them readily")
        self.min_score = _slider(
            0.0, 1.0, "Nuclei with a lower score are removed; the score is in the layer's features table"
        )
        self.min_area = _spin(0, 100_000, " px²", "Smaller objects are removed")
        self.fill_holes = QCheckBox("Fill holes")
        self.fill_holes.setToolTip("Fill holes inside a nucleus")
        self.defaults = QPushButton("Model's own")
        self.defaults.setToolTip("Take the thresholds that suit the model best")
        self.tile = narrow_combo(
            "Edge of the tiles that a large image is cut into; smaller needs less memory"
        )
        for size in _TILES_PX:
            self.tile.addItem(f"{size} px", size)
        self.probability = QCheckBox("Also show the probability")
        self.probability.setToolTip("Add a layer with the probability of each pixel to be nucleus")
        self.state = WordsLabel()
        self._lay_out()
        self._connect(owner)

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Nuclei", self.by)
        form.addRow("Foreground", self.foreground)
        form.addRow("Split", self.split)
        form.addRow("Min. score", self.min_score)
        form.addRow("Min. area", self.min_area)
        form.addRow("", row(self.fill_holes, self.defaults))
        form.addRow(self.state)
        form.addRow("Device", self.device)
        form.addRow("Tile", self.tile)
        form.addRow("", self.probability)

    def _connect(self, owner: StepWidget) -> None:
        for control in (self.foreground, self.split, self.min_score, self.min_area):
            control.valueChanged.connect(self._on_threshold)
        self.fill_holes.toggled.connect(self._on_threshold)
        self.by.activated.connect(self._on_threshold)
        self.defaults.clicked.connect(lambda: self._workspace.set_recipe(decode=None))
        self.device.activated.connect(lambda i: self._workspace.set_recipe(device=self.device.itemData(i)))
        self.tile.activated.connect(lambda i: self._workspace.set_recipe(tile_px=self.tile.itemData(i)))
        self.probability.toggled.connect(self._on_probability)
        events = self._workspace.events
        for signal in (events.recipe, events.result, self._session.models_changed):
            owner.follow(signal, self._refresh)
        owner.follow(events.probability, self._refresh)
        self._refresh()

    def shown_decode(self) -> DecodeSettings:
        """Return the thresholds to show: the person's, else the newest result's, else the model's own."""
        chosen, result = self._workspace.chosen_decode(), self._workspace.result
        if chosen is not None:
            return chosen
        if result is not None:
            return result.recipe.decode
        recipe = self._workspace.recipe
        models = (m for m in self._session.models if recipe.model in (m.spec.name, str(m.folder)))
        model = next(models, None) if recipe.segmenter == "student" else None
        return DecodeSettings() if model is None else model.spec.decode

    def _refresh(self, *_: object) -> None:
        decode, recipe = self.shown_decode(), self._workspace.recipe
        values = (
            (self.foreground, decode.foreground),
            (self.split, decode.split),
            (self.min_score, decode.min_score),
            (self.min_area, decode.min_area_px),
        )
        for control, value in values:
            with QSignalBlocker(control):
                control.setValue(value)
        _choose(self.by, decode.by, decode.by)
        self.split.setEnabled(decode.by == "votes")
        with QSignalBlocker(self.fill_holes), QSignalBlocker(self.probability):
            self.fill_holes.setChecked(decode.fill_holes)
            self.probability.setChecked(self._workspace.probability)
        self.defaults.setEnabled(self._workspace.chosen_decode() is not None)
        _choose(self.device, recipe.device, recipe.device)
        _choose(self.tile, recipe.tile_px, f"{recipe.tile_px} px")
        self.state.setText(self._state())
        self.state.setVisible(bool(self.state.text()))

    def _state(self) -> str:
        result = self._workspace.result
        if result is None or not self._runs.is_of_chosen(result):
            return ""
        if result.maps is not None:
            return "Thresholds act at once on the newest result."
        if self._runs.wanted_decode() is not None:
            return "Press Segment to apply: the maps of the newest result are not kept."
        return "The maps of the newest result are not kept: other thresholds need a new run."

    def _on_threshold(self, *_: object) -> None:
        self._workspace.set_recipe(
            decode=DecodeSettings(
                by=self.by.currentData(),
                foreground=round(self.foreground.value(), 3),
                split=round(self.split.value(), 3),
                min_score=round(self.min_score.value(), 3),
                min_area_px=self.min_area.value(),
                fill_holes=self.fill_holes.isChecked(),
            )
        )

    def _on_probability(self, checked: bool) -> None:
        self._workspace.probability = checked


def _slider(low: float, high: float, tip: str) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setDecimals(2)
    slider.setSingleStep(0.01)
    slider.setToolTip(tip)
    return slider


def _spin(low: int, high: int, suffix: str, tip: str) -> QSpinBox:
    box = QSpinBox()
    box.setRange(low, high)
    box.setSuffix(suffix)
    box.setKeyboardTracking(False)
    box.setToolTip(tip)
    return box


def _choose(box: QWidget, value: object, words: str) -> None:
    """Show a value in a combo box, adding it if it is none of the usual ones."""
    index = box.findData(value)
    if index < 0:
        box.addItem(words, value)
        index = box.count() - 1
    box.setCurrentIndex(index)
