"""The Measure widget: nuclei and cells in every channel, as a table that leads to each nucleus."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets import _colouring
from napari_nucleus_kd.widgets._controls import fill
from napari_nucleus_kd.widgets._measuring import (
    LayerInHand,
    show_nucleus,
    subject_of,
    table_columns,
    table_steps,
)
from napari_nucleus_kd.widgets._parts import (
    Fold,
    ProblemBox,
    StepWidget,
    TaskBar,
    WordsLabel,
    button,
    narrow_combo,
    row,
)
from napari_nucleus_kd.widgets._table import NucleusTable
from napari_nucleus_kd.widgets._worker import one_step
from napari_nucleus_kd.words import count
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

    from napari_nucleus_kd.widgets._measuring import Subject

STEP = "measure"
_COLOURED_BY = "nucleus_kd_coloured_by"  # in layer.metadata: the column
_ROWS_SEEN = 4  # channels
_UM, _PX = "µm", "px"
_OWN_COLOURS = "their own colours"
_FORMATS = {"AnnData (*.h5ad)": ".h5ad", "Parquet (*.parquet)": ".parquet", "CSV (*.csv)": ".csv"}


class MeasureWidget(StepWidget):
    """Measures the nuclei of the Labels layer in hand, and shows its table."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.in_hand = LayerInHand(self.session)
        self.destroyed.connect(self.in_hand.close)
        self._subject: Subject | None = None
        self.plan = WordsLabel()
        self.channels = QListWidget()
        self.channels.setToolTip("The channels whose intensities are measured")
        self.ring = QDoubleSpinBox()
        self.ring.setRange(0, 1000)
        self.ring.setSingleStep(0.5)
        self.ring.setSpecialValueText("none")
        self.unit = QComboBox()
        self.unit.addItems([_UM, _PX])
        self.percentile = QDoubleSpinBox()
        self.percentile.setRange(0, 100)
        self.percentile.setValue(95)
        self.percentile.setSuffix(" %")
        self.percentile.setToolTip("Measured of each channel, besides mean, median and sum")
        tip = (
            "Width of the ring around each nucleus that stands for the cell around it; rings of neighbours\n"
            "do not overlap. With a ring, nucleus, ring and cell (both) are measured"
        )
        for part in (self.ring, self.unit):
            part.setToolTip(tip)
        self.task = TaskBar(
            self, STEP, "Measure", "Measure all nuclei of this plane, in the ticked channels", self.start
        )
        self.problem = ProblemBox(self, STEP)
        self.table = NucleusTable()
        self.colour = narrow_combo("Colour the nuclei by a column of the table: dark is low, yellow is high")
        self.legend = WordsLabel()
        self.export = button("Export…", "Save the table as AnnData, Parquet or CSV", self.ask_export)
        self.said = WordsLabel()
        self._lay_out()
        self._watch()

    def _lay_out(self) -> None:
        more = QWidget()
        folded = QFormLayout(more)
        folded.setContentsMargins(0, 0, 0, 0)
        folded.addRow("Percentile", self.percentile)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Channels", self.channels)
        form.addRow("Ring", row(self.ring, self.unit))
        self.results = QWidget()
        lines = QVBoxLayout(self.results)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.addWidget(self.table, 1)
        lines.addWidget(row(QLabel("Colour by"), self.colour, self.export, stretch=1))
        lines.addWidget(self.legend)
        layout = QVBoxLayout(self)
        layout.addWidget(self.plan)
        layout.addLayout(form)
        for part in (Fold("More", more), self.task, self.problem, self.said):
            layout.addWidget(part)
        layout.addWidget(self.results, 1)
        layout.addStretch()

    def _watch(self) -> None:
        self.follow(self.in_hand.changed, self._refresh)
        self.follow(self.in_hand.selected, self.table.choose)
        self.follow(self.session.sources_changed, self._refresh_subject)
        self.follow(self.workspace.events.image, self._refresh_subject)
        self.table.chosen.connect(self._on_chosen)
        self.colour.activated.connect(self._on_colour)
        self._refresh()

    # What is measured

    def _refresh(self) -> None:
        """Show the layer in hand and its table."""
        layer = self.in_hand.layer
        self._refresh_subject()
        columns = {} if layer is None else table_columns(layer)
        self.table.show_columns(columns)
        self.results.setVisible(bool(columns))
        if layer is None:
            return
        self.table.choose(int(layer.selected_label))
        wanted = layer.metadata.get(_COLOURED_BY, _OWN_COLOURS)
        fill(self.colour, [(name, name) for name in (_OWN_COLOURS, *columns)])
        self.colour.setCurrentIndex(max(0, self.colour.findData(wanted)))
        self._colour(layer)

    def _refresh_subject(self, *_: object) -> None:
        layer, self._subject, refusal = self.in_hand.layer, None, "Select a Labels layer with nuclei."
        if layer is not None:
            try:
                self._subject = subject_of(layer, self.session)
            except EditError as error:
                refusal = str(error)
        self.task.set_available(self._subject is not None)
        self.plan.setText(refusal if self._subject is None else _plan(self._subject))
        self._show_channels(() if self._subject is None else self._subject.channels)

    def _show_channels(self, names: tuple[str, ...]) -> None:
        if names == tuple(self.channels.item(i).text() for i in range(self.channels.count())):
            return
        self.channels.clear()
        for name in names:
            item = QListWidgetItem(name)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked)
            self.channels.addItem(item)
        line = max(self.channels.sizeHintForRow(0), 16)
        rows = min(_ROWS_SEEN, max(1, len(names)))
        self.channels.setFixedHeight(rows * line + 2 * self.channels.frameWidth() + 4)

    def ticked(self) -> list[int]:
        """Return the channels that are measured, from 0."""
        states = (self.channels.item(i).checkState() for i in range(self.channels.count()))
        return [number for number, state in enumerate(states) if state == Qt.CheckState.Checked]

    def start(self) -> None:
        """Measure the nuclei of the layer in hand."""
        self._refresh_subject()
        subject = self._subject
        if subject is None:
            return
        layer = subject.target.layer
        width = "ring_um" if self.unit.currentText() == _UM else "ring_px"
        steps = table_steps(
            subject,
            self.ticked(),
            self.session.keeping.corrected.numbers.get(layer, set()),
            percentile=self.percentile.value(),
            **{width: self.ring.value()},
        )
        self.said.setText("")
        self.session.run_main(STEP, "Measuring the nuclei", steps, partial(self._show_found, layer))

    def _show_found(self, layer: Labels, table: Any) -> None:
        layer.features = table
        self.said.setText(f"{count(len(table), 'nucleus', 'nuclei')} of “{layer.name}” measured.")

    # The table and the picture

    def _on_chosen(self, line: dict[str, Any]) -> None:
        if self.in_hand.layer is not None:
            show_nucleus(self.in_hand.layer, self.session, line)

    def _on_colour(self, index: int) -> None:
        layer = self.in_hand.layer
        if layer is not None:
            layer.metadata[_COLOURED_BY] = self.colour.itemData(index)
            self._colour(layer)

    def _colour(self, layer: Labels) -> None:
        """Colour the nuclei by the chosen column, or give them their own colours back."""
        columns, name = table_columns(layer), self.colour.currentData()
        scale = _colouring.scale_of(columns[name]) if name in columns else None
        if scale is None:
            _colouring.uncolour(layer)
            what = "" if name in (None, _OWN_COLOURS) else f"“{name}” has no numbers to colour by."
        else:
            _colouring.colour(layer, columns["label"], columns[name], scale)
            what = f"Dark: {scale.low:.4g} and less; yellow: {scale.high:.4g} and more; grey: not known."
        self.legend.setText(what)
        self.legend.setVisible(bool(what))

    def ask_export(self) -> None:
        """Ask for a file, and save the table there."""
        layer = self.in_hand.layer
        if layer is None:
            return
        path, kind = QFileDialog.getSaveFileName(
            self, "Save the table", f"{layer.name}.h5ad", ";;".join(_FORMATS)
        )
        if path:
            self.save(Path(path) if Path(path).suffix else Path(path + _FORMATS.get(kind, ".csv")))

    def save(self, path: Path) -> None:
        """Save the table of the layer in hand; what is there is replaced."""
        from napari_nucleus_kd.io.tables import save_table

        layer, subject = self.in_hand.layer, self._subject
        if layer is None or subject is None:
            self.workspace.problem = Problem(STEP, self.plan.text())
            return
        write = partial(
            save_table,
            table_columns(layer),
            path,
            pixel_size_um=subject.pixel_size_um,
            image_name=layer.name if subject.under is None else subject.under.image.name,
            overwrite=True,  # the dialog has asked
        )
        self.session.run_main(STEP, f"Writing {path.name}", one_step(write), self._on_saved)

    def _on_saved(self, path: Path) -> None:
        self.said.setText(f"The table is in {path}.")


def _plan(subject: Subject) -> str:
    layer = subject.target.layer
    found = f"“{layer.name}”"
    if subject.under is None:
        return f"{found}, areas and shapes only: {subject.without}. Another layer? Select it."
    size_um = subject.pixel_size_um
    size = "pixel size unknown" if size_um is None else f"{size_um:.4g} µm/px"
    return f"{found} on {subject.under.image.name}, {count(len(subject.channels), 'channel')}, {size}."
