"""What the network sees of the channels: which way they become its three, and how much each one counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QFormLayout, QProgressBar, QVBoxLayout, QWidget

from napari_nucleus_kd.config import OF_STAINS
from napari_nucleus_kd.mappings import BUILT_IN, NUCLEAR, names
from napari_nucleus_kd.pipeline import seen
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets._layers import shown_plane
from napari_nucleus_kd.widgets._mixing import MixPart, StainsPart, note
from napari_nucleus_kd.widgets._parts import WordsLabel, button, narrow_combo, row
from napari_nucleus_kd.widgets._show import add_seen
from napari_nucleus_kd.widgets._worker import one_step

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import FloatArray, Image
    from napari_nucleus_kd.widgets._layers import Plane
    from napari_nucleus_kd.widgets._parts import StepWidget

_MOST_PX, _MOST_BARS = 2048, 8
_SHOW = "Show"


class MappingPart(QWidget):
    """Chooses the mapping of the next run, shows what comes of it, and how much each channel counts."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._session, self._workspace = owner.session, owner.workspace
        self._names: tuple[str, ...] = tuple(BUILT_IN)
        self._gone: list[object] = []  # holds something once Qt has deleted this widget
        self.destroyed.connect(partial(note, self._gone))
        self.mapping = narrow_combo("How the channels become what the network sees")
        self.words = WordsLabel()
        self.show_it = button(
            _SHOW,
            f"Add what the network sees of the part in view as a layer, up to {_MOST_PX} px",
            self.show_seen,
        )
        self.bars = QWidget()
        QFormLayout(self.bars).setContentsMargins(0, 0, 0, 0)
        self.mix = MixPart(owner)
        self.stains = StainsPart(owner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        chosen = row(self.mapping, self.show_it, stretch=0)
        for part in (chosen, self.words, self.mix, self.stains, self.bars):
            layout.addWidget(part)
        self.mapping.activated.connect(self._on_chosen)
        events = self._workspace.events
        for signal in (events.recipe, events.image):
            owner.follow(signal, self._refresh)
        owner.follow(events.result, self._on_result)
        owner.follow(self._session.models_changed, self._look)
        self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Look which adapters there are, only now: it takes reading all models."""
        super().showEvent(event)
        self._look()

    def _look(self) -> None:
        if not self.isVisible():
            return
        self._session.run_beside(one_step(names), self._on_names, step="channels")

    def _on_names(self, found: tuple[str, ...]) -> None:
        self._names = found
        if not self._gone:
            self._refresh()

    def show_seen(self) -> None:
        """Add what the network sees of the part in view as a layer, and show how much each channel counts."""
        source, image = self._session.source, self._session.refresh()
        runs = self._session.runs
        if source is None or image is None or self._workspace.activity is not None:
            return
        recipe = runs.settled_recipe()
        recipe = recipe.model_copy(update={"region": _middle(recipe.region, image.shape_yx)})
        self.show_it.setEnabled(False)
        self.show_it.setText("Looking…")
        self._session.run_beside(
            one_step(partial(seen, image, recipe)),
            partial(self._add, shown_plane(source, self._session.viewer), image),
            ended=self._ended,
            step="channels",
        )

    def _add(self, plane: Plane, image: Image, found: tuple[FloatArray, Recipe]) -> None:
        picture, recipe = found
        if self._gone or image is not self._workspace.image:
            return
        add_seen(self._session.viewer, plane, np.asarray(picture), recipe)
        self.show_weights(image, recipe)

    def _ended(self) -> None:
        if not self._gone:
            self.show_it.setText(_SHOW)
            self.show_it.setEnabled(True)

    def show_weights(self, image: Image, recipe: Recipe | None) -> None:
        """Show the weights of a blend as bars, the largest first; nothing for what is no blend."""
        form = self.bars.layout()
        assert isinstance(form, QFormLayout)
        while form.rowCount():
            form.removeRow(0)
        if recipe is None or not recipe.channel_weights:
            return
        pairs = sorted(zip(recipe.channel_weights, recipe.channels or (), strict=True), reverse=True)
        for weight, channel in pairs[:_MOST_BARS]:
            bar = QProgressBar()
            bar.setRange(0, 100)
            bar.setValue(round(100 * weight))
            form.addRow(image.channels[int(channel)].name, bar)

    def _on_result(self, *_: object) -> None:
        result, image = self._workspace.result, self._workspace.image
        if result is not None and image is not None:
            self.show_weights(image, result.recipe)

    def _on_chosen(self, index: int) -> None:
        self._workspace.set_recipe(mapping=self.mapping.itemData(index))
        image = self._workspace.image
        if image is not None:
            self.show_weights(image, None)

    def _refresh(self, *_: object) -> None:
        image, chosen = self._workspace.image, self._workspace.recipe.mapping
        of_colours = image is not None and image.rgb
        fitting = [name for name in self._names if (name in OF_STAINS) == of_colours]
        listed = list(dict.fromkeys([NUCLEAR, *fitting, chosen]))
        with QSignalBlocker(self.mapping):
            self.mapping.clear()
            for name in listed:
                self.mapping.addItem(name, name)
            self.mapping.setCurrentIndex(listed.index(chosen))
        self.words.setText(
            BUILT_IN.get(chosen, "all channels but ignored ones, mixed by learnt weights") + "."
        )
        self.show_it.setEnabled(image is not None)


def _middle(region: Region | None, shape_yx: tuple[int, int]) -> Region:
    """Return the middle of a region, or of the image, as far as it can be shown."""
    region = region or Region(0, 0, *shape_yx)
    (height, width), most = region.shape_yx, _MOST_PX
    y, x = region.y0 + max(0, height - most) // 2, region.x0 + max(0, width - most) // 2
    return Region(y, x, y + min(height, most), x + min(width, most))
