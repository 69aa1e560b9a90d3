"""The Compare widget: segmenters and label layers on the same pixels, with ground truth or without."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QVBoxLayout,
)

from napari_nucleus_kd.baselines import TOOLS
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets import _compare_steps, _kept_steps, _layers, _tool, _words
from napari_nucleus_kd.widgets._compared import ComparedPanel
from napari_nucleus_kd.widgets._controls import RegionControl, fill
from napari_nucleus_kd.widgets._layers import VERIFIED_KEY
from napari_nucleus_kd.widgets._parts import (
    ProblemBox,
    StepWidget,
    TaskBar,
    WordsLabel,
    button,
    narrow_combo,
)
from napari_nucleus_kd.widgets._runs import ON_DISK_EDGE_PX
from napari_nucleus_kd.widgets._verdicts import ERRORS_KEY
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

    from napari_nucleus_kd.types import LabelArray
    from napari_nucleus_kd.widgets._layers import Plane, Source

STEP = "compare"
VERIFIED = "What is verified"  # as ground truth
_LIST_ROWS = 6


class CompareWidget(StepWidget):
    """Compares what finds nuclei on the image in hand."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._tools: dict[str, Recipe] = {}
        self._is_kept = False
        self.plan = WordsLabel()
        self.contestants = QListWidget()
        self.contestants.setToolTip("What is compared: segmenters, and layers of labels that are there")
        self.add = button("Add a tool", "Cellpose or StarDist: asks for weights, and installs it if need be")
        menu = QMenu(self)
        for tool in TOOLS.values():
            menu.addAction(f"{tool.title} …", partial(self.ask_tool, tool.name))
        self.add.setMenu(menu)
        self.truth = narrow_combo(
            "Labels that are right, to judge by: a layer, or the nuclei that you have verified in Correct,\n"
            "the rest of the image then being left out. Without, it shows who agrees with whom"
        )
        self.region = RegionControl(self)
        self.memory = QCheckBox("Measure the memory, too")
        self.memory.setToolTip(
            "Lets each segment the region once more, in a process of its own, to see how much\n"
            "main memory it needs: some ten seconds each"
        )
        self.task = TaskBar(
            self, STEP, "Compare", "Let all that are ticked find the nuclei, in turn", self.start
        )
        self.problem = ProblemBox(self, STEP)
        self.found = ComparedPanel(self, STEP)
        self._lay_out()
        self._watch()

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        for line, (text, control) in enumerate((("Ground truth", self.truth), ("Region", self.region))):
            grid.addWidget(QLabel(text), line, 0)
            grid.addWidget(control, line, 1)
        layout = QVBoxLayout(self)
        for part in (self.plan, self.contestants, self.add):
            layout.addWidget(part)
        layout.addLayout(grid)
        for part in (self.memory, self.task, self.problem, self.found):
            layout.addWidget(part)
        layout.addStretch(1)

    def _watch(self) -> None:
        events = self.workspace.events
        for signal in (
            self.session.models_changed,
            events.recipe,
            events.image,
            self.session.sources_changed,
        ):
            self.follow(signal, self._refresh)
        self.follow(self.session.keeping.changed, self._on_keeping)
        self._refresh()

    # What can be compared

    def choices(self) -> dict[str, Recipe | Labels]:
        """Return what can be compared, by the names that the list shows."""
        chosen, device = self.workspace.recipe, self.workspace.recipe.device
        own: dict[str, Any] = {"device": device}
        own |= {name: getattr(chosen, name) for name in ("channels", "enhance", "polarity")}
        found: dict[str, Recipe | Labels] = {
            model.spec.name: Recipe(model=model.spec.name, **own) for model in self.session.models
        }
        found["Classical (no network)"] = Recipe(segmenter="classical", **own)
        if chosen.segmenter in TOOLS:
            self._keep_tool(Recipe(segmenter=chosen.segmenter, weights=chosen.weights))
        for name, recipe in self._tools.items():
            has_it = device.partition(":")[0] in TOOLS[recipe.segmenter].devices
            found[name] = recipe.model_copy(update=own | ({} if has_it else {"device": "cpu"}))
        source = self.session.source
        if source is not None:
            found |= {f"Layer: {layer.name}": layer for layer in self._layers(source)}
        return found

    def ask_tool(self, name: str) -> None:
        """Ask for the weights of a tool, and put it on the list, ticked."""
        self.dialog = _tool.ask(self, name, None, partial(self._add_tool, name))

    def _add_tool(self, name: str, weights: str) -> None:
        recipe = Recipe(segmenter=name, weights=weights)
        name = self._keep_tool(recipe)
        self._refresh()
        self.tick(name)

    def _keep_tool(self, recipe: Recipe) -> str:
        """Note a tool with its weights; returns its name, a longer one if another one has the short one."""
        name = f"{TOOLS[recipe.segmenter].title} {Path(recipe.weights or '').name}"
        if self._tools.get(name, recipe) != recipe:
            name = _words.segmenter(recipe)
        self._tools[name] = recipe
        return name

    def tick(self, name: str, ticked: bool = True) -> None:
        """Tick a contestant, or take its tick away."""
        (item,) = self.contestants.findItems(name, Qt.MatchFlag.MatchExactly)
        item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)

    def ticked(self) -> list[str]:
        """Return the names that are ticked."""
        items = (self.contestants.item(i) for i in range(self.contestants.count()))
        return [item.text() for item in items if item.checkState() == Qt.CheckState.Checked]

    def _layers(self, source: Source) -> list[Labels]:
        """Return the label layers that lie on an image, pixel on pixel."""
        return [
            layer
            for layer in self.session.viewer.layers
            if type(layer).__name__ == "Labels"
            and not {VERIFIED_KEY, ERRORS_KEY} & layer.metadata.keys()
            and _corner(layer, source) is not None
        ]

    def _refresh(self, *_: object) -> None:
        known = {self.contestants.item(i).text() for i in range(self.contestants.count())}
        ticked, choices, truth = self.ticked(), self.choices(), self.truth.currentData()
        shown = self.workspace.recipe.model if self.workspace.recipe.segmenter == "student" else None
        self.contestants.clear()
        for name in choices:
            item = QListWidgetItem(name)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            is_ticked = name in ticked or (name not in known and name in (shown, "Classical (no network)"))
            item.setCheckState(Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked)
            self.contestants.addItem(item)
        height = max(self.contestants.sizeHintForRow(0), 16) * min(_LIST_ROWS, max(3, len(choices)))
        self.contestants.setFixedHeight(height + 2 * self.contestants.frameWidth() + 4)
        layers = [name for name, choice in choices.items() if not isinstance(choice, Recipe)]
        with QSignalBlocker(self.truth):
            self._is_kept = self.session.keeping.kept is not None
            names = [(name, name) for name in (*([VERIFIED] if self._is_kept else []), *layers)]
            fill(self.truth, [("None: who agrees with whom", None), *names])
            self.truth.setCurrentIndex(max(0, self.truth.findData(truth)))
        image = self.workspace.image
        self.task.set_available(image is not None)
        self.plan.setText(
            "No image: open one first."
            if image is None
            else f"On {image.name}{_words.enhanced(self.workspace.recipe)}: tick what to compare."
        )

    def _on_keeping(self) -> None:
        if (self.session.keeping.kept is not None) != self._is_kept:
            self._refresh()

    # Comparing

    def start(self) -> None:
        """Compare what is ticked."""
        names, truth = self.ticked(), self.truth.currentData()
        source, image = self.session.source, self.session.refresh()
        if source is None or image is None or self.workspace.activity is not None:
            return
        choices = self.choices()
        region = self.session.runs.region() or Region(0, 0, *image.shape_yx)
        names = [name for name in names if name in choices and name != truth]
        problem = self.session.runs.refusal()
        if not problem and max(region.shape_yx) > ON_DISK_EDGE_PX:
            problem = (
                f"{region.shape_yx[0]} x {region.shape_yx[1]} pixels are too many to compare in the window: "
                f"choose “What I see” and zoom to {ON_DISK_EDGE_PX} px or less, or save the ground truth as "
                "NAME_labels.tif (File → Save Selected Layers) into a folder with the image, NAME.tif, and "
                "give nucleus-kd compare --data FOLDER --output REPORT."
            )
        if not problem and (not names or (truth is None and len(names) < 2)):
            problem = "Tick at least two to compare, or choose a ground truth to judge one by."
        kept = self.session.keeping.kept if truth == VERIFIED else None
        if not problem and truth is not None and truth not in choices and kept is None:
            problem = "The ground truth lies on the image no more, pixel on pixel: choose another one."
        plane = _layers.shown_plane(source, self.session.viewer)
        layers: dict[str, LabelArray] = {}
        valid = None
        if not problem and kept is not None:
            layers[VERIFIED], valid = (
                kept.labels[region.slices].astype(np.int32),
                kept.verified[region.slices],
            )
            if not _kept_steps.count(layers[VERIFIED], valid).nuclei:
                problem = "No nucleus is verified as a whole in this region: mark boxes (C) in Correct first."
        for name in dict.fromkeys([*names, *([] if truth is None else [truth])]):
            choice = choices.get(name)
            if problem or choice is None or isinstance(choice, Recipe):
                continue
            part = _part(choice, plane, region)
            if part is None:
                problem = (
                    f"“{choice.name}” does not cover all that is compared: zoom to a part that it covers, or "
                    "go to a plane that it lies in."
                )
            else:
                layers[name] = part
        if problem:
            self.workspace.problem = Problem(STEP, problem)
            return
        recipe = self.session.runs.settled_recipe()
        question = _compare_steps.Question(
            image,
            region,
            recipe,
            {name: choice for name in names if isinstance(choice := choices[name], Recipe)},
            {name: layers[name] for name in names if name in layers},
            None if truth is None else (truth, layers[truth]),
            valid,
            self.memory.isChecked(),
        )
        steps = _compare_steps.compared_steps(question)
        self.session.run_main(STEP, "Comparing", steps, partial(self.found.show_found, plane))


def _corner(layer: Labels, source: Source) -> tuple[int, ...] | None:
    """Return at which pixel of an image a layer of labels begins, on each of the layer's axes.

    The axes are the last ones of the image. None if its pixels do not fit on those of the image.
    """
    under = source.layers[0]
    if layer.ndim > under.ndim or layer.multiscale:
        return None
    scale, begin = (np.asarray(value)[-layer.ndim :] for value in (under.scale, under.translate))
    if not np.allclose(layer.scale, scale, rtol=1e-3):
        return None
    corner = (np.asarray(layer.translate) - begin) / scale
    return tuple(int(n) for n in np.rint(corner)) if np.allclose(corner, np.rint(corner), atol=0.01) else None


def _part(layer: Labels, plane: Plane, region: Region) -> LabelArray | None:
    """Return the labels of a region of a plane of an image; None if the layer does not cover it."""
    corner = _corner(layer, plane.source)
    assert corner is not None
    begin, edges = np.array(plane.point), np.ones(len(plane.point), int)
    begin[list(plane.axes)], edges[list(plane.axes)] = (region.y0, region.x0), region.shape_yx
    begin, more = begin[-layer.ndim :] - corner, len(begin) - layer.ndim
    end = begin + edges[more:]
    if min(plane.axes) < more or (begin < 0).any() or (end > layer.data.shape).any():
        return None
    cut = np.asarray(layer.data[tuple(map(slice, begin, end))])
    labels: LabelArray = cut.reshape(region.shape_yx).astype(np.int32)
    return labels
