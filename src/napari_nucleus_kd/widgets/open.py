"""The Open widget: choose an image, see what its file says, fill in what it does not say."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QMenu,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_nucleus_kd.panel import channel_color
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._parts import ProblemBox, StepWidget, TaskBar, WordsLabel, row
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from napari import Viewer

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.workspace import Activity, Preferences

OPEN_KEY = "Ctrl+Shift+I"
_MAX_CHANNELS_LISTED = 40
_PIXEL_SIZE_WIDTH = 125  # so that 0.1234 µm and "unknown" are not cut


class OpenWidget(StepWidget):
    """Opens an image and shows what is known of it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.task = TaskBar(
            self,
            "open",
            "Open image…",
            "Choose a TIFF, OME-TIFF, slide, PNG or JPEG, or a file in an OME-Zarr folder "
            f"({OPEN_KEY}).\nDropping it on the canvas does the same.",
            self.ask_and_open,
        )
        self.more = QPushButton("Recent")
        self.more.setToolTip("Files opened before, and sample images")
        self.menu = QMenu(self.more)
        self.menu.aboutToShow.connect(self._fill_menu)
        self.more.setMenu(self.menu)
        self.problem = ProblemBox(self, "open")
        self.hint = WordsLabel()
        self.hint.setText("No image yet. Open one, drop a file on the canvas, or try a sample under Recent.")
        self.card = ImageCard(self)
        layout = QVBoxLayout(self)
        layout.addWidget(row(self.task, self.more))
        layout.addWidget(self.problem)
        layout.addWidget(self.hint)
        layout.addWidget(self.card)
        layout.addStretch(1)
        self.add_shortcut(OPEN_KEY, self.ask_and_open)
        self.follow(self.workspace.events.image, self._on_image)
        self._on_image(self.workspace.image)

    def ask_and_open(self) -> None:
        """Ask for a file and open it; of an OME-Zarr any file in the folder may be chosen."""
        recent = self.workspace.preferences.recent
        start = str(Path(recent[0]).parent) if recent else ""
        name, _ = QFileDialog.getOpenFileName(self, "Open an image", start)
        if name:
            self.session.open(zarr_root(Path(name)))

    def _fill_menu(self) -> None:
        from napari_nucleus_kd.io.samples import SAMPLES

        self.menu.clear()
        preferences: Preferences = self.workspace.preferences
        for name in preferences.recent:
            action = self.menu.addAction(Path(name).name)
            action.setToolTip(name)
            action.triggered.connect(lambda _=False, path=Path(name): self.session.open(path))
        self.menu.addSection("Samples")
        for sample in SAMPLES:
            action = self.menu.addAction(sample.title)
            action.triggered.connect(lambda _=False, name=sample.name: self.session.open_sample(name))

    def _on_image(self, image: Image | None) -> None:
        self.hint.setVisible(image is None)
        self.card.setVisible(image is not None)


class ImageCard(QWidget):
    """What is known of the image in hand, and the few things a person may set right."""

    def __init__(self, owner: StepWidget) -> None:
        super().__init__()
        self._owner = owner
        self._workspace = owner.workspace
        self.name = QElidingLabel()
        self.name.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.name.setStyleSheet("font-weight: bold;")
        self.size = WordsLabel()
        self.channels = WordsLabel(text_format=Qt.TextFormat.RichText)
        self.pixel_size = _pixel_size_box()
        self.pixel_size_note = WordsLabel()
        self.modality = _modality_box()
        self.reason = WordsLabel()
        self.z = QSpinBox()
        self.z.setToolTip("Which plane of the stack is shown and segmented; planes are counted from 0")
        self.z.setKeyboardTracking(False)
        self.notes = WordsLabel()
        self._lay_out()
        self.pixel_size.valueChanged.connect(self._on_pixel_size_given)
        self.modality.currentIndexChanged.connect(self._on_modality_given)
        self.z.valueChanged.connect(owner.session.show_plane)
        owner.follow(self._workspace.events.image, self._on_image)
        owner.follow(self._workspace.events.suggestion, self._show_modality)
        owner.follow(self._workspace.events.recipe, self._show_modality)
        owner.follow(self._workspace.events.activity, self._on_activity)
        self._on_image(self._workspace.image)
        self._on_activity(self._workspace.activity)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        form.addRow("Size", self.size)
        form.addRow("Channels", self.channels)
        form.addRow("Pixel size", row(self.pixel_size, self.pixel_size_note, stretch=1))
        form.addRow("Image type", self.modality)
        form.addRow("", self.reason)
        form.addRow("z plane", self.z)
        form.addRow("Notes", self.notes)
        self.form = form
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.addWidget(self.name)
        layout.addLayout(form)

    def _on_image(self, image: Image | None) -> None:
        if image is None:
            return
        self.name.setText(image.name)
        self.name.setToolTip(str(image.source or image.name))
        levels = "" if len(image.levels) == 1 else f", {count(len(image.levels), 'level')}"
        self.size.setText(_words.extent(image.shape_yx) + levels)
        self.channels.setText(channels_text(image))
        self._show_pixel_size(image)
        self._show_plane(image)
        notes = [note for note in image.notes if not note.startswith("z plane ")]
        self.notes.setText("\n".join(notes))
        self.form.setRowVisible(self.notes, bool(notes))
        self._show_modality()

    def _show_pixel_size(self, image: Image) -> None:
        with QSignalBlocker(self.pixel_size):
            self.pixel_size.setValue(image.pixel_size_um or 0.0)
        self.pixel_size_note.setText(self._pixel_size_words(image))

    def _pixel_size_words(self, image: Image) -> str:
        if image.pixel_size_um is None:
            return "work goes on in pixels"
        if self._workspace.recipe.pixel_size_um is not None:
            return "filled in by you"
        return "as the file says" if image.source is not None else "as the layer says"

    def _show_plane(self, image: Image) -> None:
        found = image.z_plane
        self.form.setRowVisible(self.z, found is not None)
        if found is not None:
            with QSignalBlocker(self.z):
                self.z.setRange(0, found[1] - 1)
                self.z.setSuffix(f" of 0 to {found[1] - 1}")
                self.z.setValue(found[0])

    def _on_activity(self, activity: Activity | None) -> None:
        self.z.setEnabled(self._owner.session.can_show_plane)
        if activity is None and self._workspace.image is not None:
            self._show_plane(self._workspace.image)  # a plane that was asked for may not have come

    def _show_modality(self, *_: object) -> None:
        recipe: Recipe = self._workspace.recipe
        suggestion = self._workspace.suggestion
        chosen = recipe.modality or (suggestion[0] if suggestion else None)
        with QSignalBlocker(self.modality):
            self.modality.setCurrentIndex(-1 if chosen is None else self.modality.findData(chosen))
        if suggestion is None:
            self.reason.setText("Looking at the pixels…")
        elif recipe.modality in (None, suggestion[0]):
            self.reason.setText(f"Suggested: {suggestion[1]}")
        else:
            self.reason.setText(f"Chosen by you; {suggestion[0]} was suggested: {suggestion[1]}")

    def _on_pixel_size_given(self, size_um: float) -> None:
        self._owner.session.set_pixel_size(size_um or None)  # the least value stands for "unknown"
        if self._workspace.image is not None:
            self._show_pixel_size(self._workspace.image)

    def _on_modality_given(self, index: int) -> None:
        if index >= 0:
            self._workspace.set_recipe(modality=self.modality.itemData(index))


def _pixel_size_box() -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setDecimals(4)
    box.setRange(0.0, 1000.0)
    box.setSingleStep(0.05)
    box.setSuffix(" µm")
    box.setFixedWidth(_PIXEL_SIZE_WIDTH)
    box.setSpecialValueText("unknown")
    box.setKeyboardTracking(False)
    box.setToolTip("Edge of one pixel in micrometres; sizes and areas are given in µm once it is known")
    return box


def _modality_box() -> QComboBox:
    box = QComboBox()
    for modality in Modality:
        box.addItem("Fluorescence" if modality is Modality.FLUORESCENCE else str(modality), modality)
    box.setToolTip("How the picture was made; decides how its channels are shown to the network")
    return box


def zarr_root(path: Path) -> Path:
    """Return the OME-Zarr folder that a file lies in, else the file itself: file dialogs choose no folders.

    >>> zarr_root(Path("a/b.ome.zarr/0/zarr.json")).as_posix(), zarr_root(Path("a/b.tif")).as_posix()
    ('a/b.ome.zarr', 'a/b.tif')
    """
    return next((folder for folder in path.parents if folder.suffix.lower() == ".zarr"), path)


def channels_text(image: Image) -> str:
    """List the channels as rich text, each after a square of its colour."""
    if image.rgb:
        return "colour picture (red, green, blue)"
    names = []
    for index, channel in enumerate(image.channels[:_MAX_CHANNELS_LISTED]):
        square = f'<span style="color:{channel_color(image, index)}">&#9632;</span>&nbsp;'
        # A white square would vanish on the light theme.
        names.append(
            (square if len(image.channels) > 1 else "") + escape(channel.name).replace(" ", "&nbsp;")
        )
    left = len(image.channels) - len(names)
    return ", ".join(names) + (f" and {left} more" if left else "")
