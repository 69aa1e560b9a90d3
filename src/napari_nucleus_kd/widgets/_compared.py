"""What a comparison found, in the Compare widget: a table, plots, layers of errors, and the way to them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QLabel,
    QMessageBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nucleus_kd.mistakes import Verdict
from napari_nucleus_kd.widgets import _compare_steps, _layers
from napari_nucleus_kd.widgets._controls import fill
from napari_nucleus_kd.widgets._parts import Fold, WordsLabel, button, narrow_combo, pixmap, row
from napari_nucleus_kd.widgets._verdicts import ERRORS_KEY, add_verdicts, legend

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_nucleus_kd.compare import Comparison, Standing
    from napari_nucleus_kd.widgets._compare_steps import Compared
    from napari_nucleus_kd.widgets._layers import Plane
    from napari_nucleus_kd.widgets._parts import StepWidget

_TABLE_PX, _NAME_PX = 170, 110
_METRICS = {"DQ": "dq", "SQ": "sq", "AJI": "aji", "AJI+": "aji_plus", "Dice": "dice"} | {
    "AP@0.5": "ap50",
    "AP@0.75": "ap75",
    "mean F1": "f1",
}
_VERDICTS = ("missed", "spurious", "split", "merged")
_GO = "click on a number to go to them one by one"
_TIPS = {
    "PQ": "Panoptic quality: DQ x SQ, 0 to 1",
    "95%": "Interval of the PQ over the nuclei that are seen, resampled; another image may differ by more",
    "p": "How likely so large a difference of the PQ to that of the reference (the first ticked one) is\n"
    "by chance, from the nuclei that are seen: swaps between the two what became of each, at random.\n"
    "Not corrected for comparing several",
    "DQ": "How many nuclei are found, without false ones (F1 at IoU 0.5)",
    "SQ": "How well the outlines of those found agree (mean IoU)",
    "AJI": "Aggregated Jaccard index",
    "AJI+": "The same, each nucleus matched with one outline",
    "Dice": "Overlap of all nuclei together",
    "AP@0.5": "Average precision at IoU 0.5, as StarDist and Cellpose define it",
    "AP@0.75": "The same at IoU 0.75",
    "mean F1": "How many nuclei are found, without false ones: mean F1 over IoU 0.5, 0.55, ... 0.95",
    "Nuclei": "Number of outlines",
    "Missed": f"Nuclei of the ground truth that were not found; {_GO}",
    "Spurious": f"Outlines where no nucleus is; {_GO}",
    "Split": f"Outlines that are one of several in one nucleus; {_GO}",
    "Merged": f"Outlines that hold several nuclei; {_GO}",
    "s": "Seconds, each tool being warm; empty for layers",
    "MB": "Most main memory (10⁶ bytes) of the process that segments, with all its libraries;\n"
    "of a tool, of the tool's own process alone",
    "Parameters": "Numbers in the network that were learnt",
    "What it is": "Tool, version, weights and processor",
}


class ComparedPanel(QWidget):
    """Shows what a comparison found; hidden before the first."""

    def __init__(self, owner: StepWidget, step: str) -> None:
        super().__init__()
        self._session, self._step = owner.session, step
        self._plane: Plane | None = None
        self._jumps = -1
        self.compared: Compared | None = None
        self.words = WordsLabel()
        self.table = QTableWidget()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setMinimumHeight(_TABLE_PX)
        self.table.verticalHeader().hide()
        self.table.itemSelectionChanged.connect(self._on_row)
        self.table.cellClicked.connect(self._on_cell)
        self.kind = narrow_combo("Which errors the arrows go to")
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.before = button("◂", "Go to the error before", partial(self.jump, -1))
        self.after = button("▸", "Go to the next error", partial(self.jump, 1))
        self.legend = WordsLabel(text_format=Qt.TextFormat.RichText)
        self.save = button("Save the report…", "Tables, pictures and labels into a folder", self.ask_folder)
        self.plots = QLabel()
        plots = Fold("Plots", self.plots, tip="Average precision, found over true numbers, sizes of nuclei")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        ways = row(self.kind, self.before, self.after)
        for part in (self.words, self.table, ways, self.legend, plots, self.save):
            layout.addWidget(part)
        self.hide()

    def show_found(self, plane: Plane, compared: Compared) -> None:
        """Show what was found on a plane of an image."""
        if not isalive(self):  # closed while it ran
            return
        self._plane, self.compared, self._jumps = plane, compared, -1
        self._forget_errors()
        self._add_errors(plane, compared)
        self._fill_table(compared)
        self.plots.setPixmap(pixmap(np.concatenate(list(compared.plots.values()))))
        judged = compared.comparison.judged
        with QSignalBlocker(self.kind):
            kinds = [(name.capitalize(), name) for name in _VERDICTS]
            fill(self.kind, [("All errors", ""), *kinds] if judged else [("Least agreement", "")])
        failed = [o for outcomes in compared.comparison.outcomes.values() for o in outcomes if o.problem]
        said = [f"{o.contestant} failed: {o.problem}" for o in failed]
        if not judged:
            said += [f"{a} and {b}: F1 {f1:.3f} at IoU 0.5" for (a, b), (f1, _, _) in compared.pairs.items()]
        self.words.setText("\n".join(said))
        self.words.setVisible(bool(said))
        self.legend.setText(legend({v: v.name.lower() for v in Verdict}) if judged else "")
        self.show()
        self.table.clearSelection()
        self.table.selectRow(0)

    def _forget_errors(self) -> None:
        for layer in self._errors():
            self._session.viewer.layers.remove(layer)

    def _fill_table(self, compared: Compared) -> None:
        lines = [_cells(standing, compared.comparison) for standing in compared.standings]
        self.table.setSortingEnabled(False)
        self.table.setRowCount(len(lines))
        self.table.setColumnCount(1 + len(lines[0]))
        self.table.setHorizontalHeaderLabels(["", *lines[0]])
        for place, name in enumerate(lines[0], 1):
            self.table.horizontalHeaderItem(place).setToolTip(_TIPS[name])
        for line, (standing, cells) in enumerate(zip(compared.standings, lines, strict=True)):
            for place, (head, value) in enumerate([("", standing.contestant), *cells.items()]):
                is_reference = head == "p" and not line and len(lines) > 1
                item = _Cell(value, "reference" if is_reference else value)
                if not place:
                    item.setToolTip(compared.comparison.facts[standing.contestant].description)
                self.table.setItem(line, place, item)
        self.table.resizeColumnsToContents()
        self.table.setColumnWidth(0, min(_NAME_PX, self.table.columnWidth(0)))
        self.table.setSortingEnabled(True)

    def chosen(self) -> str:
        """Return the contestant whose line is selected; "" if none is."""
        items = self.table.selectedItems()
        return self.table.item(items[0].row(), 0).text() if items else ""

    def _add_errors(self, plane: Plane, compared: Compared) -> None:
        """Add a layer of errors for each contestant, hidden until its line is chosen."""
        for name, verdicts in compared.pictures.items():
            made = add_verdicts(
                self._session.viewer, plane, verdicts, compared.region, f"Errors of {name}", of=name
            )
            made.visible = False

    def _errors(self) -> list[Labels]:
        return [layer for layer in self._session.viewer.layers if layer.metadata.get(ERRORS_KEY)]

    def _on_row(self) -> None:
        """Show the errors of the chosen one, and hide those of the others."""
        chosen = self.chosen()
        if not chosen:
            return
        for layer in self._errors():
            layer.visible = layer.metadata[ERRORS_KEY] == chosen
        self._jumps = -1

    def _on_cell(self, line: int, column: int) -> None:
        """Go to the next error of the kind whose number was clicked."""
        kind = self.kind.findData(self.table.horizontalHeaderItem(column).text().lower())
        if column and kind > 0:
            self.kind.setCurrentIndex(kind)
            self.jump(1)

    def _on_kind(self, _: int) -> None:
        self._jumps = -1

    def jump(self, step: int) -> None:
        """Go to the next error of the chosen kind and contestant, or with -1 to the one before."""
        if self.compared is None or self._plane is None:
            return
        kind, places = self.kind.currentData(), self.compared.places
        if self.compared.comparison.judged:
            wrong = self.compared.wrong.get(self.chosen(), [])
            places = [w.at for w in wrong if not kind or Verdict(w.verdict).name.lower() == kind]
        if not places:
            return
        first = 0 if step > 0 else len(places) - 1
        self._jumps = first if self._jumps < 0 else (self._jumps + step) % len(places)
        y, x = places[self._jumps % len(places)]
        layer, axes = self._plane.source.layers[0], self._plane.axes
        at = np.array(self._plane.point, float)
        at[list(axes)] = y + self.compared.region.y0, x + self.compared.region.x0
        _layers.center_on(self._session.viewer, layer, layer.data_to_world(at))

    # The report

    def ask_folder(self) -> None:
        """Ask for a folder and write the report there."""
        chosen = QFileDialog.getExistingDirectory(self, "Where does the report go?")
        if chosen and self.compared is not None and self._may_write(Path(chosen)):
            self._session.run_main(
                self._step,
                "Writing the report",
                _compare_steps.report_steps(self.compared, Path(chosen)),
                self._say_written,
            )

    def _may_write(self, folder: Path) -> bool:
        """Ask whether a comparison that is in a folder may be replaced."""
        if not _compare_steps.holds_comparison(folder):
            return True
        question = f"{folder.name} holds a comparison already. Replace it, with its labels?"
        found = QMessageBox.question(self, "Replace it?", question)
        return bool(found == QMessageBox.StandardButton.Yes)

    def _say_written(self, page: Path) -> None:
        if not isalive(self):
            return
        self.words.setText(f"The report is in {page}")
        self.words.show()


class _Cell(QTableWidgetItem):
    """A cell that is sorted by its value, whatever it shows; without one it comes last."""

    def __init__(self, value: Any, shown: Any) -> None:
        super().__init__()
        self.setData(Qt.ItemDataRole.DisplayRole, shown)
        self._by = value is None, value

    def __lt__(self, other: QTableWidgetItem) -> bool:
        assert isinstance(other, _Cell)
        return bool(self._by < other._by)


def _cells(standing: Standing, comparison: Comparison) -> dict[str, Any]:
    """Return the numbers of a line by the heads of their columns, the telling ones first."""
    judged, counts, facts = standing.means, standing.counts, comparison.facts[standing.contestant]
    cells: dict[str, Any] = {}
    if judged:
        pq, low, high = judged["pq"]
        p = None if standing.p is None else float(f"{standing.p:.1g}")
        cells = {"PQ": round(pq, 3), "95%": "" if np.isnan(low) else f"{low:.2f} to {high:.2f}", "p": p}
        cells |= {name.capitalize(): counts[name] for name in _VERDICTS}
    cells["Nuclei"] = counts["found"]
    cells["s"] = None if standing.seconds is None else round(standing.seconds, 2)
    if any(comparison.memory_of(name) for name in comparison.outcomes):
        held = comparison.memory_of(standing.contestant)
        cells["MB"] = None if held is None else round(held / 1e6)
    if judged:
        cells |= {head: round(judged[name][0], 3) for head, name in _METRICS.items()}
    return cells | {"Parameters": facts.parameters, "What it is": facts.description}
