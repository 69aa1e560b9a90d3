"""The table of the Channels widget: one row a channel, over the panel of the workspace."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QFont, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.panel import Role
from napari_nucleus_kd.widgets._panels import THUMBNAIL_PX
from napari_nucleus_kd.widgets._parts import pixmap
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from napari_nucleus_kd.panel import Panel
    from napari_nucleus_kd.widgets._panels import Panels
    from napari_nucleus_kd.workspace import Workspace

_ROW_PX, _ROWS_SEEN = THUMBNAIL_PX + 4, 8
_SWATCH_PX = 14


class Column(IntEnum):
    """Columns of the table."""

    PICTURE = 0
    NAME = 1
    COLOUR = 2
    ROLE = 3
    LOW = 4
    HIGH = 5


_HEADS = ("", "Channel", "", "Role", "Low %", "High %")
_WIDTHS_PX = {Column.PICTURE: THUMBNAIL_PX + 6, Column.COLOUR: 24, Column.ROLE: 88} | dict.fromkeys(
    (Column.LOW, Column.HIGH), 46
)
_TIPS = {
    Column.PICTURE: "A small part of the image, the same in all channels",
    Column.COLOUR: "Colour of the layer; click to choose another",
    Column.ROLE: "What the channel is for; nuclei are found in the nuclear ones, of several in the brightest",
    Column.LOW: "Percentile of the intensities that is shown as black; the network sees it as 0",
    Column.HIGH: "Percentile of the intensities that is shown brightest; the network sees it as 1",
}


class ChannelModel(QAbstractTableModel):
    """The rows of the panel in hand; edits change the workspace, and only it."""

    def __init__(self, workspace: Workspace, panels: Panels) -> None:
        super().__init__()
        self._workspace, self._panels = workspace, panels
        self._panel: Panel | None = None

    def show(self, panel: Panel | None) -> None:
        """Show a panel; the selection stays if its channels are the same."""
        former, self._panel = self._panel, panel
        if former is None or panel is None or former.names != panel.names:
            self.beginResetModel()
            self.endResetModel()
        else:
            self.refresh()

    def refresh(self) -> None:
        """Draw all rows in view anew."""
        if rows := self.rowCount():
            self.dataChanged.emit(self.index(0, 0), self.index(rows - 1, len(Column) - 1))

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 (as Qt has it)
        """Return the number of channels."""
        return 0 if self._panel is None or parent.isValid() else len(self._panel.channels)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else len(Column)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        """Return the heads and what they mean."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return _HEADS[section]
        return _TIPS.get(Column(section)) if role == Qt.ItemDataRole.ToolTipRole else None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return which cells can be edited."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() in (Column.ROLE, Column.LOW, Column.HIGH):
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Return what a cell shows; Qt asks for those in view only, so that pictures are read lazily."""
        if self._panel is None:
            return None
        row, column = index.row(), Column(index.column())
        channel = self._panel.channels[row]
        match role:
            case Qt.ItemDataRole.DisplayRole | Qt.ItemDataRole.EditRole:
                shown = role == Qt.ItemDataRole.DisplayRole
                return {
                    Column.NAME: channel.name,
                    Column.ROLE: f"{channel.role} ▾" if shown else str(channel.role),
                    Column.LOW: f"{channel.percentiles[0]:g}",
                    Column.HIGH: f"{channel.percentiles[1]:g}",
                }.get(column)
            case Qt.ItemDataRole.DecorationRole if column is Column.PICTURE:
                return self._picture(row, channel.color)
            case Qt.ItemDataRole.DecorationRole if column is Column.COLOUR:
                return _swatch(channel.color)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tip(row, column)
            case Qt.ItemDataRole.FontRole if column in (Column.NAME, Column.ROLE):
                font = QFont()
                font.setBold(channel.role is Role.NUCLEAR)
                font.setItalic(channel.role is Role.IGNORE)
                return font
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = 0) -> bool:
        """Take what a person typed or chose."""
        panel, column = self._panel, Column(index.column())
        if panel is None:
            return False
        try:
            if column is Column.ROLE:
                panel = panel.with_role([index.row()], Role(value))
            else:
                pair = list(panel.channels[index.row()].percentiles)
                pair[column is Column.HIGH] = _number(value)
                panel = panel.with_percentiles([index.row()], (pair[0], pair[1]))
        except SettingsError as error:
            self._workspace.problem = Problem.from_error("channels", error)
            return False
        self._workspace.problem = None
        self._workspace.set_panel(panel)
        return True

    def _tip(self, row: int, column: Column) -> str | None:
        suggested = self._workspace.suggested
        if column is Column.NAME and self._panel is not None:
            return self._panel.names[row]
        if column is Column.ROLE and suggested is not None:
            return f"Suggested: {suggested.panel.channels[row].role}, {suggested.reasons[row]}"
        return _TIPS.get(column)

    def _picture(self, row: int, color: str) -> QIcon | None:
        grey = self._panels.picture(row)
        if grey is None:
            return None
        tint = np.array(QColor(color).getRgb()[:3], np.float32) / 255
        return _icon(pixmap((grey[..., None] * tint).astype(np.uint8)))


def _number(text: Any) -> float:
    try:
        return float(str(text).replace(",", ".").rstrip(" %"))
    except ValueError as error:
        raise SettingsError(f"{text!r} is no percentile; type a number from 0 to 100") from error


def _swatch(color: str) -> QIcon:
    picture = QPixmap(_SWATCH_PX, _SWATCH_PX)
    picture.fill(QColor(color))
    return _icon(picture)


def _icon(picture: QPixmap) -> QIcon:
    """Return a picture that looks the same in a selected row, where Qt would tint it."""
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)
    return icon


class _RoleDelegate(QStyledItemDelegate):
    """Lets a person choose a role in its cell."""

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: QModelIndex) -> QWidget:
        box = QComboBox(parent)
        box.addItems([str(role) for role in Role])
        box.activated.connect(lambda: (self.commitData.emit(box), self.closeEditor.emit(box)))
        QTimer.singleShot(0, box, box.showPopup)
        return box

    def setEditorData(self, editor: QWidget, index: QModelIndex) -> None:
        editor.setCurrentText(index.data(Qt.ItemDataRole.EditRole))

    def setModelData(self, editor: QWidget, model: Any, index: QModelIndex) -> None:
        if editor.currentText() != index.data(Qt.ItemDataRole.EditRole):
            model.setData(index, editor.currentText())


class ChannelView(QTableView):
    """Shows the rows, several of which can be selected."""

    def __init__(self, model: ChannelModel) -> None:
        super().__init__()
        self.setModel(model)
        triggers = QAbstractItemView.EditTrigger
        self.setEditTriggers(triggers.DoubleClicked | triggers.EditKeyPressed | triggers.AnyKeyPressed)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.setShowGrid(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(_ROW_PX)
        columns.setMinimumSectionSize(20)
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        columns.setSectionResizeMode(Column.NAME, QHeaderView.ResizeMode.Stretch)
        columns.setHighlightSections(False)
        for column, width in _WIDTHS_PX.items():
            self.setColumnWidth(column, width)
        self.setItemDelegateForColumn(Column.ROLE, _RoleDelegate(self))
        self.clicked.connect(self._on_clicked)
        model.modelReset.connect(self._fit)
        self._fit()

    def rows(self) -> list[int]:
        """Return the selected rows, rising."""
        return sorted(index.row() for index in self.selectionModel().selectedRows())

    def _on_clicked(self, index: QModelIndex) -> None:
        if index.column() == Column.ROLE and len(self.rows()) == 1:
            self.edit(index)

    def _fit(self) -> None:
        rows = min(_ROWS_SEEN, max(1, self.model().rowCount()))
        head = self.horizontalHeader().sizeHint().height()
        self.setFixedHeight(rows * _ROW_PX + head + 2 * self.frameWidth())
