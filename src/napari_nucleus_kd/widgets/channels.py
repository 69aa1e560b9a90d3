"""The Channels widget: what each channel is for; the nuclear ones are what Segment finds nuclei in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QFileDialog, QFrame, QLabel, QVBoxLayout

from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS
from napari_nucleus_kd.errors import NucleusKDError
from napari_nucleus_kd.panel import Role, check_panel, read_panel, taken_over
from napari_nucleus_kd.widgets._channel_table import ChannelModel, ChannelView, Column
from napari_nucleus_kd.widgets._mapping import MappingPart
from napari_nucleus_kd.widgets._parts import (
    Fold,
    ProblemBox,
    StepWidget,
    WordsLabel,
    button,
    narrow_combo,
    row,
)
from napari_nucleus_kd.words import count
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from qtpy.QtCore import QModelIndex

    from napari_nucleus_kd.panel import Panel
    from napari_nucleus_kd.types import Image

STEP = "channels"
_NOTICE_STYLE = "#notice { border: none; border-left: 4px solid #e69f00; padding-left: 4px; }"
_JSON = "Panel (*.json)"


class ChannelsWidget(StepWidget):
    """Shows and changes the panel of the image in hand."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.panels = self.session.panels
        self.summary = WordsLabel()
        self.model = ChannelModel(self.workspace, self.panels)
        self.table = ChannelView(self.model)
        self.reason = WordsLabel()
        self.role = narrow_combo(
            "The role of all selected rows; select several with Ctrl or Shift, all with Ctrl+A"
        )
        for role in Role:
            self.role.addItem(str(role), role)
        self.role_row = row(QLabel("Role of the selected"), self.role, stretch=1)
        self.save = button(
            "Save panel…", "Write names, roles, colours and percentiles as a small file", self.ask_and_save
        )
        self.load = button(
            "Load panel…", "Take a panel from a file, and see how it fits this image", self.ask_and_load
        )
        self.suggest = button("Suggested", "Go back to the suggested roles and colours", self.take_suggested)
        self.buttons = row(self.save, self.load, self.suggest)
        for place in range(3):
            self.buttons.layout().setStretch(place, 1)
        self.differences = _Notice()
        self.notes = _Notice()
        self.problem = ProblemBox(self, STEP)
        self.seen = MappingPart(self)
        self.seen_fold = Fold(
            "What the network sees", self.seen, tip="How the channels become the three that it takes"
        )
        layout = QVBoxLayout(self)
        above = (self.summary, self.notes, self.table, self.reason)
        below = (self.problem, self.differences, self.seen_fold)
        for part in (*above, self.role_row, self.buttons, *below):
            layout.addWidget(part)
        layout.addStretch(1)
        self._watch()

    def _watch(self) -> None:
        events = self.workspace.events
        self.follow(events.image, self._on_image)
        for signal in (events.panel, events.suggested, events.guessed):
            self.follow(signal, self._refresh)
        self.follow(events.recipe, self._say)  # the table is of the panel alone
        self.follow(self.panels.changed, self._on_pictures)
        self.table.selectionModel().selectionChanged.connect(self._on_selected)
        self.model.modelReset.connect(self._on_selected)
        self.table.clicked.connect(self._on_clicked)
        self.role.activated.connect(self._on_role)
        self._on_image(self.workspace.image)

    def ask_and_save(self) -> None:
        """Ask for a name and write the panel there."""
        image, panel = self.workspace.image, self.workspace.panel
        if image is None or panel is None:
            return
        folder = Path() if image.source is None else image.source.parent
        suggested = folder / f"{Path(image.name).name.partition('.')[0]}_panel.json"
        name, _ = QFileDialog.getSaveFileName(self, "Save the panel", str(suggested), _JSON)
        if name:
            self._try(lambda: panel.save(Path(name if name.endswith(".json") else f"{name}.json")))

    def ask_and_load(self) -> None:
        """Ask for a panel file and take it over."""
        image = self.workspace.image
        folder = "" if image is None or image.source is None else str(image.source.parent)
        name, _ = QFileDialog.getOpenFileName(self, "Load a panel", folder, _JSON)
        if name:
            self.take_file(Path(name))

    def take_file(self, path: Path) -> None:
        """Take over from a panel file what it says of channels of the same names; show how it differs."""
        self.differences.show_words(())
        self._try(lambda: self._take(path))

    def _take(self, path: Path) -> None:
        image, suggested, panel = self.workspace.image, self.workspace.suggested, read_panel(path)
        if image is None or suggested is None:
            return
        differences = check_panel(panel, image)
        if len(differences.missing) + len(differences.renamed) == len(panel.channels):
            words = " ".join(differences.words())
            raise NucleusKDError(f"{path.name} is for another image: no channel has a name of it. {words}")
        self.workspace.set_panel(taken_over(panel, suggested.panel))
        if differences:
            head = f"{path.name} differs from this image; channels of the same name were taken over."
            self.differences.show_words((head, *differences.words()))

    def take_suggested(self) -> None:
        """Go back to what was suggested."""
        if self.workspace.suggested is not None:
            self.differences.show_words(())
            self.workspace.set_panel(self.workspace.suggested.panel)

    def _try(self, work: Callable[[], None]) -> None:
        self.workspace.problem = None
        try:
            work()
        except NucleusKDError as error:
            self.workspace.problem = Problem.from_error(STEP, error)

    def _on_image(self, _: Image | None) -> None:
        self.panels.look()
        self._refresh()

    def _refresh(self, *_: object) -> None:
        panel = self.workspace.panel
        if panel is None:
            self.differences.show_words(())  # they were of another image
        self.model.show(panel)
        for part in (self.table, self.reason, self.role_row, self.buttons):
            part.setVisible(panel is not None)
        self._say()
        self._on_selected()

    def _say(self, *_: object) -> None:
        image, panel, suggested = self.workspace.image, self.workspace.panel, self.workspace.suggested
        self.summary.setText(self._words(image, panel))
        notes = suggested.notes if suggested is not None and panel is not None else ()
        by_role = self.workspace.recipe.mapping in OF_NUCLEAR_CHANNELS
        if suggested is not None and self.workspace.guessed and by_role:
            notes = (f"{suggested.question} Choose its role to confirm it.", *notes)
        self.notes.show_words(notes)

    def _words(self, image: Image | None, panel: Panel | None) -> str:
        if image is None:
            return "No image yet: open one, or drop a file on the window."
        if image.rgb:
            return f"{image.name} is a colour picture: there are no channels to choose."
        if panel is None:
            return self.panels.words or "Looking at the channels…"
        nuclear = ", ".join(panel.names[i] for i in panel.nuclear)
        said = f"nuclei are found in {nuclear}" if nuclear else "give one the role nuclear"
        mapping = self.workspace.recipe.mapping
        if mapping not in OF_NUCLEAR_CHANNELS:
            said = f"{mapping} takes {len(panel.used)} of them, all but those to ignore"
        known = (
            "\nRoles as you last chose them for channels of these names."
            if self._is_remembered(panel)
            else ""
        )
        return f"{image.name}, {count(len(panel.channels), 'channel')}: {said}.{known}"

    def _is_remembered(self, panel: Panel) -> bool:
        suggested = self.workspace.suggested
        return (
            suggested is not None and panel != suggested.panel and panel == self.workspace.remembered_panel()
        )

    def _on_pictures(self) -> None:
        self.model.refresh()
        if self.workspace.panel is None:
            self._refresh()

    def _on_selected(self, *_: object) -> None:
        panel, suggested, rows = self.workspace.panel, self.workspace.suggested, self.table.rows()
        self.role.setEnabled(bool(rows))
        if panel is None or suggested is None:
            return
        roles = {panel.channels[index].role for index in rows}
        self.role.setCurrentIndex(self.role.findData(roles.pop()) if len(roles) == 1 else -1)
        self.reason.setText(_reason(panel, suggested.panel, suggested.reasons, rows))

    def _on_role(self, index: int) -> None:
        panel = self.workspace.panel
        if panel is not None:
            self.workspace.set_panel(panel.with_role(self.table.rows(), self.role.itemData(index)))

    def _on_clicked(self, index: QModelIndex) -> None:
        panel = self.workspace.panel
        if panel is None or index.column() != Column.COLOUR:
            return
        self.dialog = QColorDialog(QColor(panel.channels[index.row()].color), self)
        self.dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.dialog.colorSelected.connect(self._on_color)
        self.dialog.open()

    def _on_color(self, color: QColor) -> None:
        panel = self.workspace.panel
        if panel is not None:
            self.workspace.set_panel(panel.with_color(self.table.rows(), color.name()))


def _reason(panel: Panel, suggested: Panel, reasons: tuple[str, ...], rows: list[int]) -> str:
    """Say why the selected channel has its role."""
    if not rows:
        return "Select a row to see why it has its role."
    if len(rows) > 1:
        return f"{len(rows)} channels are selected."
    (index,) = rows
    channel, wanted = panel.channels[index], suggested.channels[index].role
    if channel.role is wanted:
        return f"{channel.name}: {channel.role}, {reasons[index]}."
    return f"{channel.name}: {channel.role}, chosen by you; suggested: {wanted}, {reasons[index]}."


class _Notice(QFrame):
    """Sentences that a person should see; hidden while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("notice")
        self.setStyleSheet(_NOTICE_STYLE)
        self.text = WordsLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 2, 2)
        layout.addWidget(self.text)

    def show_words(self, words: tuple[str, ...]) -> None:
        """Show sentences, each on a line of its own."""
        self.text.setText("\n".join(words))
        self.setVisible(bool(words))
