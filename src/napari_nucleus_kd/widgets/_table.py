"""A table of columns that stays quick with a hundred thousand rows: sorted with NumPy, read cell by cell.

napari's own features table sorts in Python, takes a row's place for its label, and is there from 0.7 on only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QTableView, QWidget

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

_COLUMN_PX, _ROW_PX, _ROWS_SEEN = 112, 22, 8
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)


class ColumnsModel(QAbstractTableModel):
    """Shows columns of equal length; the first one holds the labels."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._order = np.zeros(0, np.intp)
        self._sorted_by: tuple[int, Qt.SortOrder] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    def show(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Show other columns, sorted as those before if they have the same names."""
        self.beginResetModel()
        if list(columns) != self.names:
            self._sorted_by = None
        self._columns = dict(columns)
        self._order = np.arange(len(next(iter(columns.values()), ())))
        self._sort()
        self.endResetModel()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; what is no number comes last."""
        self.beginResetModel()
        self._sorted_by = (column, order)
        self._sort()
        self.endResetModel()

    def _sort(self) -> None:
        if self._sorted_by is None or not 0 <= self._sorted_by[0] < len(self._columns):
            return
        values = self._columns[self.names[self._sorted_by[0]]]
        order = np.argsort(values, kind="stable")
        if self._sorted_by[1] == Qt.SortOrder.DescendingOrder:
            order = order[::-1]
        if values.dtype.kind == "f":
            missing = np.isnan(values[order])
            order = np.concatenate([order[~missing], order[missing]])
        self._order = order

    def row(self, place: int) -> dict[str, Any]:
        """Return what stands in a line, by the names of the columns."""
        return {name: values[self._order[place]] for name, values in self._columns.items()}

    def place_of(self, label: int) -> int | None:
        """Return the line in which a label stands; None if it is in none."""
        if not self._columns:
            return None
        found = np.flatnonzero(next(iter(self._columns.values()))[self._order] == label)
        return int(found[0]) if found.size else None

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        """Return the number of nuclei."""
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def data(
        self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | int | None:
        """Return the text of a cell."""
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _RIGHT
        if role != Qt.ItemDataRole.DisplayRole or not index.isValid():
            return None
        value = self._columns[self.names[index.column()]][self._order[index.row()]]
        if isinstance(value, np.floating):
            return "" if np.isnan(value) else f"{value:.4g}"
        return str(value)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | None:
        """Return the name of a column; as a tooltip, too, for it may be cut off."""
        shown = role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole)
        if not shown or orientation != Qt.Orientation.Horizontal or section >= len(self._columns):
            return None
        return self.names[section]


class NucleusTable(QTableView):
    """A table of nuclei, one of which may be chosen.

    Signals
    -------
    chosen : a person chose a nucleus; what stands in its line, by the names of the columns.
    """

    chosen = Signal(dict)

    def __init__(self) -> None:
        super().__init__()
        self.columns = ColumnsModel(self)
        self.setModel(self.columns)
        self.setSortingEnabled(True)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setToolTip("Click a line to go to the nucleus; click a heading to sort")
        self.verticalHeader().hide()
        self.horizontalHeader().setDefaultSectionSize(_COLUMN_PX)
        self.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.setMinimumHeight(_ROWS_SEEN * _ROW_PX)
        self._label, self._quiet = 0, False
        self.columns.modelReset.connect(self._select)
        self.selectionModel().currentRowChanged.connect(self._on_current)

    def show_columns(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Show other columns; the chosen nucleus stays so."""
        self.columns.show(columns)

    def choose(self, label: int) -> None:
        """Select the line of a nucleus, and scroll to it; none if it has no line."""
        self._label = label
        self._select()

    def _select(self) -> None:
        place = self.columns.place_of(self._label)
        self._quiet = True  # the selection model must tell the view, but nobody chose
        try:
            if place is None:
                self.selectionModel().clear()
            else:
                self.selectRow(place)
        finally:
            self._quiet = False

    def _on_current(self, current: QModelIndex, _former: QModelIndex) -> None:
        if current.isValid() and not self._quiet:
            row = self.columns.row(current.row())
            self._label = int(row["label"])
            self.chosen.emit(row)
