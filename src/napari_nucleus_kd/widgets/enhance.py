"""The Enhance widget: a network draws nuclei as they would be seen best; before and after, side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.compat import isalive
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox, QVBoxLayout

from napari_nucleus_kd.enhancer import names, usual_polarity
from napari_nucleus_kd.pipeline import ENHANCER
from napari_nucleus_kd.widgets import _enhancing, _layers, _words
from napari_nucleus_kd.widgets._before_after import BeforeAfter
from napari_nucleus_kd.widgets._controls import RegionControl, fill
from napari_nucleus_kd.widgets._enhancing import DIFFERENCES
from napari_nucleus_kd.widgets._parts import (
    ProblemBox,
    StepWidget,
    TaskBar,
    WordsLabel,
    button,
    named_controls,
    narrow_combo,
)
from napari_nucleus_kd.widgets._runs import ON_DISK_EDGE_PX
from napari_nucleus_kd.widgets._verdicts import legend
from napari_nucleus_kd.widgets._worker import one_step
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image as ImageLayer
    from qtpy.QtGui import QShowEvent

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.widgets._enhancing import Both, Enhanced
    from napari_nucleus_kd.widgets._layers import Plane

STEP = "enhance"
_NONE_HERE = (
    "No enhancer is here. Train one with “nucleus-kd train --kind enhancer”, or install one with "
    "“nucleus-kd models install”, then open this step again."
)


_Place = tuple[str, tuple[str, ...]]  # an image, and which plane of it


class EnhanceWidget(StepWidget):
    """Draws the nuclei of the image in hand as they would be seen best, and says what that changes."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.runs = self.session.runs
        self._names: tuple[str, ...] | None = None  # until they were looked for
        self._place: _Place | None = None  # of what is shown and told
        self._asked: Recipe | None = None  # of the pictures shown
        self._layer: ImageLayer | None = None  # of what was drawn
        self.plan = WordsLabel()
        self.enhancer = narrow_combo("The network that draws the nuclei")
        self.polarity = narrow_combo(
            "How nuclei look in the image: bright on dark as in fluorescence, or dark on bright as in H&E; "
            "automatic: dark in H&E and IHC, and where most of a grey picture is bright"
        )
        self.region = RegionControl(self)
        self.always = QCheckBox("Enhance before segmenting")
        self.always.setToolTip(
            "Every run of Segment, of any size, then sees the enhanced image; try “Segment both” first"
        )
        self.task = TaskBar(
            self, STEP, "Enhance", "Add the enhanced image as a layer, which Segment takes, too", self.start
        )
        self.problem = ProblemBox(self, STEP)
        self.pictures = BeforeAfter("image", "enhanced")
        self.both = button(
            "Segment both",
            "Segment the image as it is and enhanced: adds both label layers, and one of where they differ",
            self.segment_both,
        )
        self.outcome = WordsLabel()
        self.differences = WordsLabel()
        self.legend = WordsLabel(legend(DIFFERENCES), Qt.TextFormat.RichText)
        self._lay_out()
        self._watch()

    def _lay_out(self) -> None:
        grid = named_controls(
            ("Enhancer", self.enhancer),
            ("Nuclei are", self.polarity),
            ("Region", self.region),
        )
        layout = QVBoxLayout(self)
        layout.addWidget(self.plan)
        layout.addLayout(grid)
        running = (self.task, self.problem, self.both)
        for part in (self.always, *running, self.differences, self.legend, self.outcome, self.pictures):
            layout.addWidget(part)
        layout.addStretch(1)

    def _watch(self) -> None:
        events = self.workspace.events
        for signal in (events.recipe, events.suggestion, events.image):
            self.follow(signal, self._refresh)
        self.follow(events.recipe, self._on_settings)
        self.follow(events.activity, self._on_activity)
        self.session.viewer.layers.events.removed.connect(self._on_removed)  # napari holds it weakly
        self.follow(events.image, self._on_image)
        self.follow(self.session.models_changed, self._look)
        self.enhancer.activated.connect(self._on_enhancer)
        self.polarity.activated.connect(self._on_polarity)
        self.always.toggled.connect(self._on_always)
        self._say("")
        self._tell_differences()
        self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Look which enhancers there are, only now: it takes reading all models."""
        super().showEvent(event)
        self._look()

    def _look(self) -> None:
        if self.isVisible():
            self.session.run_beside(one_step(names), self._on_names, step=STEP)

    def _on_names(self, found: tuple[str, ...]) -> None:
        if isalive(self):
            self._names = found
            self._refresh()

    # The settings

    def chosen(self) -> str | None:
        """Return the enhancer that is chosen, by name or folder; None if there is none."""
        name = self.enhancer.currentData()
        return None if name is None else str(name)

    def _refresh(self, *_: object) -> None:
        recipe, image = self.workspace.recipe, self.workspace.image
        wanted = recipe.enhance or self.chosen() or ENHANCER
        listed = list(dict.fromkeys([*(self._names or ()), *filter(None, [recipe.enhance])]))
        with QSignalBlocker(self.enhancer), QSignalBlocker(self.polarity), QSignalBlocker(self.always):
            fill(self.enhancer, [(Path(name).name, name) for name in listed])
            self.enhancer.setCurrentIndex(max(0, self.enhancer.findData(wanted)))
            known = [("Bright on dark", "bright"), ("Dark on bright", "dark")]
            fill(self.polarity, [(self._automatic(recipe), "auto"), *known])
            self.polarity.setCurrentIndex(self.polarity.findData(recipe.polarity))
            self.always.setChecked(recipe.enhance is not None)
        for control in (self.enhancer, self.always):
            control.setEnabled(bool(listed))
        self.task.set_available(image is not None and bool(listed))
        self._on_activity()
        if self._names is not None and not listed:
            self.plan.setText(_NONE_HERE)
        elif image is None:
            self.plan.setText("No image: open one first.")
        else:
            self.plan.setText(
                f"Draws the nuclei of {image.name} as they would be seen best. Try it on stains that the "
                "model has not learnt; of others it finds fewer nuclei so, as a rule: see with “Segment "
                "both”. Measure in the image itself."
            )

    def _on_activity(self, *_: object) -> None:
        ready = self.workspace.image is not None and self.chosen() is not None
        self.both.setEnabled(ready and self.workspace.activity is None)

    def _automatic(self, recipe: Recipe) -> str:
        """Say what the polarity comes to if nobody says it."""
        suggested = self.workspace.suggestion
        modality = recipe.modality or (suggested and suggested[0])
        anew = recipe.model_copy(update={"polarity": "auto"})
        usual = None if modality is None else usual_polarity(anew, modality)
        return "Automatic" if usual is None else f"Automatic ({usual})"

    def _on_enhancer(self, _: int) -> None:
        if self.always.isChecked():
            self.workspace.set_recipe(enhance=self.chosen())
        self._on_settings()

    def _on_polarity(self, index: int) -> None:
        polarity = self.polarity.itemData(index)
        self.workspace.set_recipe(polarity=None if polarity == "auto" else polarity)

    def _on_always(self, is_on: bool) -> None:
        self.workspace.set_recipe(enhance=self.chosen() if is_on else None)

    # Enhancing

    def start(self) -> None:
        """Enhance what Segment would segment."""
        ready = self._ready()
        if ready is not None:
            plane, image, recipe = ready
            steps = _enhancing.enhanced_steps(image, recipe)
            self.session.run_main(
                STEP, f"Enhancing {plane.source.name}", steps, partial(self._show, plane, image, recipe)
            )

    def segment_both(self) -> None:
        """Segment the image as it is and enhanced."""
        ready = self._ready()
        if ready is not None:
            plane, image, recipe = ready
            steps = _enhancing.both_steps(image, recipe)
            title = f"Segmenting {plane.source.name} as it is and enhanced"
            self.session.run_main(STEP, title, steps, partial(self._show_both, plane, image))

    def _ready(self) -> tuple[Plane, Image, Recipe] | None:
        """Return on what to run and with which settings; None, and a problem, if that cannot be."""
        source, image, name = self.session.source, self.session.refresh(), self.chosen()
        if source is None or image is None or self.workspace.activity is not None:
            return None
        problem = self.runs.refusal()
        if not problem and self.runs.on_disk():
            part = self.runs.region() or image
            problem = (
                f"{_words.extent(part.shape_yx)} are too many to show enhanced: choose “What I see” and zoom "
                f"to {ON_DISK_EDGE_PX} px or less. To segment all of it, tick “Enhance before segmenting” "
                "and press Segment, which enhances on disk; nucleus-kd enhance writes large enhanced images."
            )
        if name is None:
            problem = _NONE_HERE
        if problem:
            self.workspace.problem = Problem(STEP, problem)
            return None
        recipe = self.runs.settled_recipe().enhanced_by(name)
        return _layers.shown_plane(source, self.session.viewer), image, recipe

    def _show(self, plane: Plane, image: Image, asked: Recipe, enhanced: Enhanced) -> None:
        layer = _enhancing.add_enhanced(self.session.viewer, plane, enhanced)
        if self._takes(plane, image):
            self._asked, self._layer = asked, layer
            self.pictures.set_pictures(enhanced.before, enhanced.after)
            taken = f"Nuclei were taken for {enhanced.recipe.polarity} in the image. "
            self._say(
                f"{taken}“{layer.name}” is a layer now. To find nuclei in it, choose it as Image in Segment."
            )

    def _show_both(self, plane: Plane, image: Image, both: Both) -> None:
        runs = self.runs
        runs.hide_former(plane)
        layers = [
            runs.add_labels(plane, image, both.without),
            runs.add_labels(plane, image, both.enhanced),
        ]
        for layer in layers:
            layer.visible = False  # on top of each other they cannot be told apart
        region = both.without.result.recipe.region
        _enhancing.add_differences(self.session.viewer, plane, image, both, region)
        source = self.session.source
        if source is not None and source.key == plane.source.key:
            self.workspace.result = None  # its layer is hidden, too
            self.workspace.outcome = ""
        if self._takes(plane, image):
            self._tell_differences()

    def _takes(self, plane: Plane, image: Image) -> bool:
        """Tell whether what came of an image is to be shown here: it is still in hand, and this open."""
        if not isalive(self) or self._in_hand() != (plane.source.key, image.notes):
            return False
        self._place = self._in_hand()
        return True

    def _say(self, text: str) -> None:
        """Say what the pictures show."""
        self.outcome.setText(text)
        self.outcome.setVisible(bool(text))

    def _in_hand(self) -> _Place | None:
        """Return which image is in hand, and which plane of it."""
        source, image = self.session.source, self.workspace.image
        return None if source is None or image is None else (source.key, image.notes)

    def _on_image(self, _: Image | None) -> None:
        if self._in_hand() != self._place:
            self._forget()

    def _on_removed(self, *_: object) -> None:
        """Tell nothing of layers that are gone."""
        if not isalive(self):
            return
        if self._layer is not None and self._layer not in self.session.viewer.layers:
            self._forget()
        else:
            self._tell_differences()

    def _on_settings(self, *_: object) -> None:
        """Take the pictures away if they would be others now; of whichever part, that is seen."""
        if self._asked is None:
            return
        if _enhancing.differ(self._asked, self.runs.settled_recipe().enhanced_by(self.chosen())):
            self._forget()

    def _tell_differences(self) -> None:
        """Tell what a layer of differences of what is in hand shows, while there is one."""
        source, image = self.session.source, self.workspace.image
        said = ""
        if source is not None and image is not None:
            said = _enhancing.told_differences(self.session.viewer, source, image)
        self.differences.setText(said)
        for part in (self.differences, self.legend):
            part.setVisible(bool(said))

    def _forget(self) -> None:
        """Take the pictures away: they are of another image, or made with other settings."""
        self._place = self._asked = self._layer = None
        self.pictures.clear()
        self._say("")
        self._tell_differences()
