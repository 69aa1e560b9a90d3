"""The five controls of the Segment widget; each shows one choice of the workspace and changes only it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QStackedWidget,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_nucleus_kd.baselines import TOOLS
from napari_nucleus_kd.channels import nuclear_channels
from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS
from napari_nucleus_kd.panel import channel_color
from napari_nucleus_kd.widgets import _tool, _words
from napari_nucleus_kd.widgets._parts import beside, narrow_combo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.panel import Panel
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.widgets._parts import StepWidget

_ROWS_SEEN = 4
_CARD_SIZE = (520, 480)
_CLASSICAL = "classical"
_STUDENT = "student"


def fill(box: QComboBox, items: Iterable[tuple[str, object]]) -> None:
    """Put other items into a combo box: what is shown of each, and its data."""
    box.clear()
    for text, data in items:
        box.addItem(text, data)


class ImageControl(QWidget):
    """Which image of the viewer is in hand."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._session = owner.session
        self.setToolTip("The image to segment: any image layer of the viewer")
        self.box = narrow_combo(self.toolTip())
        beside(self, self.box)
        self.box.activated.connect(self._on_chosen)
        owner.follow(self._session.sources_changed, self._refresh)
        owner.follow(owner.workspace.events.image, self._refresh)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        current = self._session.source
        self.box.clear()
        for source in self._session.sources():
            self.box.addItem(source.name, source.key)
        self.box.setCurrentIndex(-1 if current is None else self.box.findData(current.key))
        self.box.setEnabled(self.box.count() > 0)

    def _on_chosen(self, index: int) -> None:
        key = self.box.itemData(index)
        current = self._session.source
        if current is None or current.key != key:
            self._session.choose(next((s for s in self._session.sources() if s.key == key), None))


class ChannelControl(QStackedWidget):
    """Which channels show the nuclei; one word where there is nothing to choose."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._workspace = owner.workspace
        self.setToolTip("The channels that show nuclei; of several the brightest counts in each pixel")
        self.word = QLabel()
        self.list = QListWidget()
        self.list.setToolTip(self.toolTip())
        self.addWidget(self.word)
        self.addWidget(self.list)
        self.list.itemChanged.connect(self._on_item)
        for signal in (self._workspace.events.image, self._workspace.events.recipe):
            owner.follow(signal, self._refresh)
        owner.follow(self._workspace.events.panel, self._on_panel)
        self._refresh()

    def chosen(self) -> tuple[int, ...]:
        """Return the indices of the ticked channels."""
        checked = Qt.CheckState.Checked
        return tuple(i for i in range(self.list.count()) if self.list.item(i).checkState() == checked)

    def _refresh(self, *_: object) -> None:
        image, mapping = self._workspace.image, self._workspace.recipe.mapping
        several = image is not None and not image.rgb and len(image.channels) > 1
        if image is None or not several or mapping not in OF_NUCLEAR_CHANNELS:
            self.word.setText(f"what {mapping} sees (step Channels)" if several else _one_word(image))
            self.setCurrentWidget(self.word)
            self._fit(self.word.sizeHint().height() + 4)
            return
        self.setCurrentWidget(self.list)
        if [self.list.item(i).text() for i in range(self.list.count())] != [c.name for c in image.channels]:
            self._fill(image)
        rows = min(_ROWS_SEEN, len(image.channels))
        self._fit(rows * self.list.sizeHintForRow(0) + 2 * self.list.frameWidth() + 4)
        self._tick(image)

    def _fill(self, image: Image) -> None:
        with QSignalBlocker(self.list):
            self.list.clear()
            for index, channel in enumerate(image.channels):
                item = QListWidgetItem(_square(channel_color(image, index)), channel.name)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Unchecked)
                self.list.addItem(item)

    def _on_panel(self, panel: Panel | None) -> None:
        if panel is None or self.list.count() != len(panel.channels):
            return
        with QSignalBlocker(self.list):
            for index, channel in enumerate(panel.channels):
                self.list.item(index).setIcon(_square(channel.color))

    def _fit(self, height: int) -> None:
        self.setFixedHeight(height)

    def _tick(self, image: Image) -> None:
        names = [channel.name for channel in image.channels]
        wanted = self._workspace.recipe.channels
        chosen = nuclear_channels(names) if wanted is None else wanted
        with QSignalBlocker(self.list):
            for index, name in enumerate(names):
                ticked = index in chosen or name in chosen
                self.list.item(index).setCheckState(
                    Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
                )

    def _on_item(self, _: QListWidgetItem) -> None:
        self._workspace.set_recipe(channels=self.chosen())


def _one_word(image: Image | None) -> str:
    if image is None:
        return "–"
    return "the colour picture" if image.rgb else image.channels[0].name


def _square(color: str) -> QIcon:
    picture = QPixmap(12, 12)
    picture.fill(QColor(color))
    return QIcon(picture)


class ModelControl(QWidget):
    """What finds the nuclei, and the card that says what it is good for."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._session, self._workspace = owner.session, owner.workspace
        self.setToolTip(
            "What finds the nuclei: a trained network, the classical method without one, or another tool"
        )
        self.box = narrow_combo(self.toolTip())
        self.card = QPushButton("Card")
        self.card.setToolTip("What the model was trained on, how good it is, and where it fails")
        beside(self, self.box, self.card)
        self.box.activated.connect(self._on_chosen)
        self.card.clicked.connect(self.show_card)
        owner.follow(self._session.models_changed, self._refresh)
        owner.follow(self._workspace.events.recipe, self._refresh)
        self._refresh()

    def current(self) -> Model | None:
        """Return the chosen model; None for the classical method or a model that is not here."""
        recipe = self._workspace.recipe
        found = (m for m in self._session.models if recipe.model in (m.spec.name, str(m.folder)))
        return next(found, None) if recipe.segmenter == _STUDENT else None

    def show_card(self) -> QDialog:
        """Show the model's card in a window of its own, beside the work."""
        model = self.current()
        dialog = QDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(
            "Classical method" if model is None else f"{model.spec.name} {model.spec.version}"
        )
        text = QTextBrowser()
        text.setOpenExternalLinks(True)
        text.setMarkdown(CLASSICAL_CARD if model is None else model.card)
        QVBoxLayout(dialog).addWidget(text)
        dialog.resize(*_CARD_SIZE)
        dialog.show()
        return dialog

    def _refresh(self, *_: object) -> None:
        recipe = self._workspace.recipe
        self.box.clear()
        for model in self._session.models:
            self.box.addItem(f"{model.spec.name} {model.spec.version}", (_STUDENT, model.spec.name, None))
        self.box.addItem("Classical (no network)", (_CLASSICAL, recipe.model, None))
        missing = recipe.segmenter == _STUDENT and self.current() is None
        if missing:
            self.box.addItem(f"{recipe.model} (not here)", (_STUDENT, recipe.model, None))
        if recipe.segmenter not in (_STUDENT, _CLASSICAL):
            self.box.addItem(_words.segmenter(recipe), (recipe.segmenter, recipe.model, recipe.weights))
        wanted = self.current()
        index = self.box.count() - 1
        for tool in TOOLS.values():
            self.box.addItem(f"{tool.title} …", (tool.name, recipe.model, None))
        if recipe.segmenter == _CLASSICAL:
            index = len(self._session.models)
        elif wanted is not None:
            index = self._session.models.index(wanted)
        self.box.setCurrentIndex(index)
        self.card.setEnabled(not missing and recipe.segmenter in (_STUDENT, _CLASSICAL))

    def _on_chosen(self, index: int) -> None:
        segmenter, model, weights = self.box.itemData(index)
        if segmenter in TOOLS and weights is None:
            self._refresh()  # until the person has said with which weights
            self.dialog = _tool.ask(self, segmenter, self._weights(segmenter), partial(self._take, segmenter))
            return
        # Thresholds were tuned for the former model.
        self._workspace.set_recipe(segmenter=segmenter, model=model, weights=weights, decode=None)

    def _weights(self, tool: str) -> str | None:
        """Return the weights that a tool has now, to change them."""
        recipe = self._workspace.recipe
        return recipe.weights if recipe.segmenter == tool else None

    def _take(self, tool: str, weights: str) -> None:
        self._workspace.set_recipe(segmenter=tool, weights=weights, decode=None)


CLASSICAL_CARD = """
# Classical method

Otsu's threshold on the brightness, then a watershed on the distance to the background.

It needs no trained network and runs on any computer. It works where nuclei are bright on dark and stand
apart; it fails on crowded or unevenly stained tissue. Use it as a yardstick, or while no model is here.
"""


class RegionControl(QWidget):
    """Whether to run on what the canvas shows or on the whole image."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._workspace = owner.workspace
        self.setToolTip("“What I see” is quick: zoom to a part, tune there, then run the whole image")
        self.box = narrow_combo(self.toolTip())
        self.box.addItem("What I see", False)
        self.box.addItem("Whole image", True)
        beside(self, self.box)
        self.box.activated.connect(self._on_chosen)
        owner.follow(self._workspace.events.whole_image, self._refresh)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        self.box.setCurrentIndex(int(self._workspace.whole_image))

    def _on_chosen(self, index: int) -> None:
        self._workspace.whole_image = bool(index)
