"""The typical diameter of a nucleus in the Segment widget: typed in, measured on the canvas, or estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QPushButton, QVBoxLayout, QWidget

from napari_nucleus_kd.widgets._measure import MeasureTool
from napari_nucleus_kd.widgets._parts import WordsLabel, beside

if TYPE_CHECKING:
    from napari_nucleus_kd.widgets._parts import StepWidget

MEASURE_KEY = "Ctrl+Shift+M"
_LEAST_PX = 2.0  # a nucleus of one pixel is no nucleus


class DiameterControl(QWidget):
    """The typical diameter of a nucleus, typed in or measured on the canvas."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._workspace = owner.workspace
        self.setToolTip(
            "Typical diameter of a nucleus; “estimated” lets the model measure it.\n"
            "Set it where nuclei are much larger or smaller than usual."
        )
        self.value = QDoubleSpinBox()
        self.value.setToolTip(self.toolTip())
        self.value.setDecimals(1)
        self.value.setRange(0.0, 9999.0)
        self.value.setSpecialValueText("estimated")
        self.value.setKeyboardTracking(False)
        self.unit = QComboBox()
        self.unit.addItems(["px", "µm"])
        self.unit.setToolTip("Pixels, or micrometres where the pixel size is known")
        self.measure = QPushButton("Measure")
        self.measure.setCheckable(True)
        self.measure.setToolTip(
            f"Draw a line across a typical nucleus on the canvas ({MEASURE_KEY}); press again to give up"
        )
        self.hint = WordsLabel("Draw a line across a typical nucleus on the canvas.")
        self._lay_out()
        self.tool = MeasureTool(owner.session, self)
        self.value.valueChanged.connect(self._store)
        self.unit.activated.connect(self._on_unit)
        self.measure.clicked.connect(self.toggle_measuring)
        self.tool.measured.connect(self._on_measured)
        self.tool.active_changed.connect(self.measure.setChecked)
        self.tool.active_changed.connect(self.hint.setVisible)
        owner.add_shortcut(MEASURE_KEY, self.toggle_measuring)
        owner.follow(self._workspace.events.recipe, self._refresh)
        owner.follow(self._workspace.events.image, self._refresh)
        self._refresh()

    def _lay_out(self) -> None:
        line = QWidget()
        beside(line, self.value, self.unit, self.measure)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(line)
        layout.addWidget(self.hint)
        self.hint.hide()

    def toggle_measuring(self) -> None:
        """Ask for a line on the canvas, or give up asking."""
        if self.tool.active:
            self.tool.stop()
        else:
            self.tool.start()
        self.measure.setChecked(self.tool.active)

    def _size_um(self) -> float | None:
        image = self._workspace.image
        return None if image is None else image.pixel_size_um

    def _in_um(self) -> bool:
        return bool(self.unit.currentIndex() == 1)

    def _refresh(self, *_: object) -> None:
        recipe = self._workspace.recipe
        known = self._size_um() is not None
        self.unit.setEnabled(known)
        if recipe.diameter_um is not None:
            self.unit.setCurrentIndex(1)
        elif recipe.diameter_px is not None or not known:
            self.unit.setCurrentIndex(0)
        shown = (recipe.diameter_um if self._in_um() else recipe.diameter_px) or 0.0
        with QSignalBlocker(self.value):
            self.value.setValue(shown)

    def _store(self, value: float) -> None:
        if self._in_um():
            self._workspace.set_recipe(diameter_um=value or None, diameter_px=None)
        else:
            self._workspace.set_recipe(diameter_px=max(value, _LEAST_PX) if value else None, diameter_um=None)

    def _on_unit(self, index: int) -> None:
        recipe, size_um = self._workspace.recipe, self._size_um()
        if size_um is None:
            return
        if index == 1 and recipe.diameter_px is not None:
            self._workspace.set_recipe(diameter_um=recipe.diameter_px * size_um, diameter_px=None)
        elif index == 0 and recipe.diameter_um is not None:
            self._workspace.set_recipe(
                diameter_px=max(_LEAST_PX, recipe.diameter_um / size_um), diameter_um=None
            )

    def _on_measured(self, length_px: float) -> None:
        size_um = self._size_um()
        if size_um is not None and self._in_um():
            self._workspace.set_recipe(diameter_um=length_px * size_um, diameter_px=None)
        else:
            self._workspace.set_recipe(diameter_px=max(_LEAST_PX, length_px), diameter_um=None)
