"""The Correct widget: tools for wrong nuclei, one key and one gesture each, on the selected Labels layer."""

from __future__ import annotations

from functools import partial
from html import escape
from math import pi
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QSpinBox, QVBoxLayout, QWidget

from napari_nucleus_kd.widgets._copying import copy_to_memory, is_copyable
from napari_nucleus_kd.widgets._corrections import STEP
from napari_nucleus_kd.widgets._layers import RECIPE_KEY
from napari_nucleus_kd.widgets._parts import (
    SMALL_STYLE,
    Fold,
    ProblemBox,
    StepWidget,
    TaskBar,
    WordsLabel,
    button,
    row,
)
from napari_nucleus_kd.widgets._stroke import StrokeView, canvas_of
from napari_nucleus_kd.widgets._tools import (
    ABOUT_KEYS,
    HELP_KEY,
    MARKS,
    PAINT,
    REDO_KEY,
    REMOVALS,
    TOOLS,
    UNDO_KEY,
    Tool,
    key_help,
)
from napari_nucleus_kd.widgets.keep import KeepPanel
from napari_nucleus_kd.widgets.review import ReviewPanel
from napari_nucleus_kd.widgets.suggest import SuggestPanel
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels
    from qtpy.QtGui import QHideEvent, QShowEvent
    from qtpy.QtWidgets import QPushButton

    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.workspace import Activity

# The tool in hand in the blue of Okabe and Ito, as all that is to be looked at.
TOOL_STYLE = f"""
{SMALL_STYLE}
QPushButton:checked {{ background: #0072b2; color: white; font-weight: bold; }}
"""
_COLUMNS = 3
_SMALL = 0.4  # of the typical diameter: what is smaller is likely no nucleus


class CorrectWidget(StepWidget):
    """Corrects the nuclei of the selected Labels layer; its keys work while it is shown."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.corrections: Corrections = self.session.corrections
        self._suggested: object = None
        self._glass: StrokeView | None = None
        self.about = WordsLabel()
        self.copy = button(
            "Copy to memory",
            "Make a copy of these labels in memory, which can be corrected",
            lambda: copy_to_memory(self.corrections),
        )
        self.review = ReviewPanel(self.corrections)
        self.buttons = {tool: self._button(tool) for tool in TOOLS}
        self.suggest = SuggestPanel(self)
        self.keep_panel = KeepPanel(self, [self.buttons[tool] for tool in MARKS])
        self.undo = button(
            f"Undo ({UNDO_KEY})",
            f"Take back the newest correction, brush stroke or mark of what is verified ({UNDO_KEY})",
            self.corrections.undo,
            style=SMALL_STYLE,
        )
        self.redo = button(
            f"Redo ({REDO_KEY})",
            f"Make again what was taken back last ({REDO_KEY})",
            self.corrections.redo,
            style=SMALL_STYLE,
        )
        self.hint = WordsLabel()
        self.said = WordsLabel()
        self.problem = ProblemBox(self, STEP)
        self.below = QSpinBox()
        self.below.setRange(1, 1_000_000)
        self.below.setPrefix("< ")
        self.below.setSuffix(" px²")
        self.below.setToolTip("Area in pixels below which nuclei are removed")
        self.task = TaskBar(
            self,
            STEP,
            "Remove",
            "Remove the nuclei that are marked (Enter)",
            self.corrections.removal.confirm,
        )
        self.keep = button("Keep them", "Remove nothing")
        self.measure = button(
            "Measure the nuclei",
            "Measure area, shape and brightness of all nuclei of the shown plane as they are now, into the "
            "features table of the layer",
            self.corrections.remeasuring.start,
            style=SMALL_STYLE,
        )
        self.offer = row(self.task, self.keep)
        self.keys = Fold(f"Keys ({HELP_KEY})", _key_table(), tip=f"Every key and what it does ({HELP_KEY})")
        self._lay_out()
        self._watch()

    def _button(self, tool: Tool) -> QPushButton:
        asked = f"\n{tool.ask}." if tool.ask else ""
        cursor = (
            "\nThe key acts on what is under the cursor, the button waits for clicks." if tool.at_once else ""
        )
        also = f" or {tool.also}" if tool.also else ""
        made = button(
            f"{tool.word} ({tool.shown_key})",
            f"{tool.does} ({tool.shown_key}{also}).{asked}{cursor}",
            lambda: self.corrections.choose(tool),
            style=TOOL_STYLE,
        )
        made.setCheckable(True)
        return made

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        buttons = [each for tool, each in self.buttons.items() if tool not in (*MARKS, *REMOVALS)]
        buttons.insert(-2, self.undo)  # above Redo, in the last column
        for place, each in enumerate((*buttons, self.redo)):
            grid.addWidget(each, *divmod(place, _COLUMNS))
        for column in range(_COLUMNS):
            grid.setColumnStretch(column, 1)
        self.tools = QWidget()
        inner = QVBoxLayout(self.tools)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addLayout(grid)
        # Below the buttons, so that these stay under the mouse.
        for part in (self.hint, self.said):
            inner.addWidget(part)
        small, border = (self.buttons[tool] for tool in REMOVALS)
        self.removal = row(QLabel("Remove"), small, self.below, border, stretch=2)
        layout = QVBoxLayout(self)
        for part in (self.about, self.copy, self.review, self.tools, self.problem):
            layout.addWidget(part)
        for part in (self.removal, self.offer, self.measure, self.keep_panel, self.suggest, self.keys):
            layout.addWidget(part)
        layout.addStretch(1)

    def _watch(self) -> None:
        removal = self.corrections.removal
        self.below.valueChanged.connect(partial(setattr, removal, "below_px"))
        self.keep.clicked.connect(removal.keep)
        self.follow(self.corrections.changed, self._refresh)
        self.follow(self.corrections.drawn, self._draw)
        self.follow(self.session.view_changed, self._refresh_glass)
        self.follow(self.session.suggesting.changed, self._refresh_glass)
        self.follow(self.workspace.events.activity, self._on_activity)
        for keys in (HELP_KEY, f"Shift+{HELP_KEY}"):  # some keyboards need Shift for it, and some say so
            self.add_shortcut(keys, self.show_keys)
        # The callable must not hold the widget: it runs when the widget is already gone.
        self._shown: list[StrokeView | None] = []
        self.destroyed.connect(partial(_leave, self.corrections, self._shown))
        self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Bind the keys."""
        super().showEvent(event)
        if self._shown:
            return
        canvas = canvas_of(self)
        self._glass = None if canvas is None else StrokeView(canvas, self.corrections)
        self._shown.append(self._glass)
        self.corrections.attach()
        self._refresh()

    def hideEvent(self, event: QHideEvent) -> None:
        """Let the keys go; those of a hidden widget would surprise."""
        super().hideEvent(event)
        if not event.spontaneous():
            self._glass = None
            _leave(self.corrections, self._shown)

    def show_keys(self) -> None:
        """Show or hide the help on keys."""
        self.keys.set_open(not self.keys.heading.isChecked())

    def _refresh(self) -> None:
        corrections = self.corrections
        layer, removal = corrections.layer, corrections.removal
        self.about.setText(corrections.refusal if layer is None else _about(layer))
        self.copy.setVisible(layer is None and is_copyable(self.session))
        self.tools.setEnabled(layer is not None)
        self.removal.setEnabled(layer is not None)
        self.measure.setEnabled(layer is not None)
        for tool, each in self.buttons.items():
            painting = tool is PAINT and corrections.painting.layer is not None
            each.setChecked(tool in (corrections.armed, removal.tool) or painting)
        self.hint.setText("" if layer is None else _hint(corrections.armed))
        self.said.setText(corrections.said)
        self.said.setVisible(self.problem.isHidden())  # an empty line keeps what is below in its place
        if removal.offered:
            found = count(removal.offered, "nucleus", "nuclei")
            self.task.button.setText(f"Remove {found} {removal.what}")
        self.review.refresh()
        self.keep_panel.refresh()
        self.suggest.refresh()
        self._suggest_size()
        self.below.setValue(removal.below_px)
        self._on_activity(self.workspace.activity)
        self._refresh_glass()

    def _suggest_size(self) -> None:
        """Offer a size that suits the nuclei of a layer that is new in hand."""
        layer = self.corrections.layer
        recipe = None if layer is None else layer.metadata.get(RECIPE_KEY)
        if recipe is None or recipe.diameter_px is None or recipe is self._suggested:
            return
        self._suggested = recipe
        self.corrections.removal.below_px = round(pi / 4 * (_SMALL * recipe.diameter_px) ** 2)

    def _on_activity(self, activity: Activity | None) -> None:
        offered = bool(self.corrections.removal.offered)
        running = activity is not None and activity.step == STEP
        self.task.set_available(offered)
        self.offer.setVisible(offered or running)
        self.keep.setVisible(offered and not running)

    def _draw(self, corners: tuple[tuple[float, ...], ...], closed: bool) -> None:
        if self._glass is not None:
            self._glass.draw(corners, closed)

    def _refresh_glass(self, *_: object) -> None:
        if self._glass is not None:
            self._glass.refresh()


def _leave(corrections: Corrections, shown: list[StrokeView | None], *_: object) -> None:
    """Let go of what a shown widget holds."""
    if not shown:
        return
    glass = shown.pop()
    if glass is not None:
        glass.deleteLater()
    corrections.detach()


def _about(layer: Labels) -> str:
    shape = " × ".join(str(n) for n in reversed(layer.data.shape))
    plane = ", the plane that is shown" if layer.ndim > 2 else ""
    return f"“{layer.name}”, {shape} px{plane}"


def _hint(armed: Tool | None) -> str:
    if armed is None:
        return "Point at a nucleus and press a key, or choose a tool."
    return f"{armed.word}: {armed.ask[:1].lower()}{armed.ask[1:]}. Esc puts the tool away."


def _key_table() -> WordsLabel:
    """Make the help on keys of the table that binds them."""
    lines = "".join(
        f"<tr><td><b>{escape(key)}</b>&nbsp;&nbsp;</td><td>{escape(what)}</td></tr>"
        for key, what in key_help()
    )
    return WordsLabel(f"{escape(ABOUT_KEYS)}<table>{lines}</table>", Qt.TextFormat.RichText)
