"""The Compare widget: segmenters and label layers on the same pixels, a table, and where each errs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_nucleus_kd.baselines import TOOLS
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.mistakes import COLOURS, Verdict
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets import _compare_steps, _kept_steps, _layers, _tool, _words
from napari_nucleus_kd.widgets._controls import RegionControl, narrow_combo
from napari_nucleus_kd.widgets._layers import FROM_KEY, VERIFIED_KEY
from napari_nucleus_kd.widgets._parts import (
    Fold,
    ProblemBox,
    StepWidget,
    TaskBar,
    WordsLabel,
    button,
    pixmap,
    row,
)
from napari_nucleus_kd.widgets._runs import ON_DISK_EDGE_PX
from napari_nucleus_kd.widgets._show import placed
from napari_nucleus_kd.widgets._target import LOCKED_KEY
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

    from napari_nucleus_kd.compare import Comparison, Standing
    from napari_nucleus_kd.types import LabelArray
    from napari_nucleus_kd.widgets._compare_steps import Compared
    from napari_nucleus_kd.widgets._layers import Plane, Source

STEP = "compare"
VERIFIED = "What is verified"  # as ground truth
ERRORS_KEY = "nucleus_kd_errors"  # whose errors a layer shows
_LIST_ROWS, _TABLE_PX, _NAME_PX = 6, 170, 110
_FAINT = 0.4  # of what is correct: the eye is to fall on the errors
_METRICS = {"DQ": "dq", "SQ": "sq", "AJI": "aji", "AJI+": "aji_plus", "Dice": "dice"} | {
    "AP@0.5": "ap50",
    "AP@0.75": "ap75",
}
_VERDICTS = ("missed", "spurious", "split", "merged")
_GO = "click on a number to go to them one by one"
_TIPS = {
    "PQ": "Panoptic quality: DQ x SQ, 0 to 1",
    "95%": "Interval of the PQ over the nuclei that are seen, resampled; another image may differ by more",
    "p": "How likely so large a difference of the PQ to that of the first ticked one is by chance,\n"
    "from the nuclei that are seen: swaps between the two what became of each, at random.\n"
    "Not corrected for comparing several",
    "DQ": "How many nuclei are found, without false ones (F1 at IoU 0.5)",
    "SQ": "How well the outlines of those found agree (mean IoU)",
    "AJI": "Aggregated Jaccard index",
    "AJI+": "The same, each nucleus matched with one outline",
    "Dice": "Overlap of all nuclei together",
    "AP@0.5": "Average precision at IoU 0.5, as StarDist and Cellpose define it",
    "AP@0.75": "The same at IoU 0.75",
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


class CompareWidget(StepWidget):
    """Compares what finds nuclei on the image in hand."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._plane: Plane | None = None
        self._tools: dict[str, Recipe] = {}
        self._jumps = -1
        self._is_kept = False
        self.compared: Compared | None = None
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
        self.words = WordsLabel()
        self.table = QTableWidget()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setMinimumHeight(_TABLE_PX)
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
        self.results = (
            self.words,
            self.table,
            row(self.kind, self.before, self.after),
            self.legend,
            plots,
            self.save,
        )
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
        for part in (self.memory, self.task, self.problem, *self.results):
            layout.addWidget(part)
        layout.addStretch(1)
        self._show_results(False)

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
        device = self.workspace.recipe.device
        own = {"device": device, "channels": self.workspace.recipe.channels}
        found: dict[str, Recipe | Labels] = {
            model.spec.name: Recipe(model=model.spec.name, **own) for model in self.session.models
        }
        found["Classical (no network)"] = Recipe(segmenter="classical", channels=own["channels"])
        chosen = self.workspace.recipe
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
            _fill(self.truth, [("None: who agrees with whom", None), *names])
            self.truth.setCurrentIndex(max(0, self.truth.findData(truth)))
        image = self.workspace.image
        self.task.set_available(image is not None)
        self.plan.setText(
            "No image: open one first." if image is None else f"On {image.name}: tick what to compare."
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
                f"choose “What I see” and zoom to {ON_DISK_EDGE_PX} px or less, or take nucleus-kd compare."
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
            recipe.channels,
            recipe.modality,
            {name: choice for name in names if isinstance(choice := choices[name], Recipe)},
            {name: layers[name] for name in names if name in layers},
            None if truth is None else (truth, layers[truth]),
            valid,
            self.memory.isChecked(),
        )
        steps = _compare_steps.compared_steps(question)
        self.session.run_main(STEP, "Comparing", steps, partial(self._show, plane))

    def _show(self, plane: Plane, compared: Compared) -> None:
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
            _fill(self.kind, [("All errors", ""), *kinds] if judged else [("Least agreement", "")])
        failed = [o for outcomes in compared.comparison.outcomes.values() for o in outcomes if o.problem]
        said = [f"{o.contestant} failed: {o.problem}" for o in failed]
        if not judged:
            said += [f"{a} and {b}: F1 {f1:.3f} at IoU 0.5" for (a, b), (f1, _, _) in compared.pairs.items()]
        self.words.setText("\n".join(said))
        self.words.setVisible(bool(said))
        squares = (f'<span style="color:{COLOURS[v]}">■</span> {v.name.lower()}' for v in Verdict)
        self.legend.setText(" ".join(squares) if judged else "")
        self._show_results(True)
        self.words.setVisible(bool(said))
        self.table.clearSelection()
        self.table.selectRow(0)

    def _forget_errors(self) -> None:
        for layer in self._errors():
            self.session.viewer.layers.remove(layer)

    def _fill_table(self, compared: Compared) -> None:
        lines = [_cells(standing, compared.comparison) for standing in compared.standings]
        self.table.setSortingEnabled(False)
        self.table.setRowCount(len(lines))
        self.table.setColumnCount(1 + len(lines[0]))
        self.table.setHorizontalHeaderLabels(["", *lines[0]])
        for place, name in enumerate(lines[0], 1):
            self.table.horizontalHeaderItem(place).setToolTip(_TIPS[name])
        for line, (standing, cells) in enumerate(zip(compared.standings, lines, strict=True)):
            for place, value in enumerate([standing.contestant, *cells.values()]):
                item = QTableWidgetItem()
                item.setData(Qt.ItemDataRole.DisplayRole, value)
                if not place:
                    item.setToolTip(compared.comparison.facts[standing.contestant].description)
                self.table.setItem(line, place, item)
        self.table.verticalHeader().hide()
        self.table.resizeColumnsToContents()
        self.table.setColumnWidth(0, min(_NAME_PX, self.table.columnWidth(0)))
        self.table.setSortingEnabled(True)

    def _show_results(self, there: bool) -> None:
        for part in self.results:
            part.setVisible(there)

    def chosen(self) -> str:
        """Return the contestant whose line is selected; "" if none is."""
        items = self.table.selectedItems()
        return self.table.item(items[0].row(), 0).text() if items else ""

    def _add_errors(self, plane: Plane, compared: Compared) -> None:
        """Add a layer of errors for each contestant, hidden until its line is chosen."""
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        colours: dict[int | None, Any] = {v.value: COLOURS[v] for v in Verdict}
        colours[Verdict.CORRECT.value] = COLOURS[Verdict.CORRECT] + f"{round(255 * _FAINT):02x}"
        for name, verdicts in compared.pictures.items():
            layer = Labels(
                np.expand_dims(verdicts, plane.hidden),
                name=f"Errors of {name}",
                colormap=DirectLabelColormap(color_dict={**colours, 0: "transparent", None: "transparent"}),
                metadata={
                    ERRORS_KEY: name,
                    FROM_KEY: plane.source.key,
                    LOCKED_KEY: "it shows what a comparison says of other labels",
                },
                opacity=0.6,
                visible=False,
                **placed(plane, compared.region),
            )
            layer.editable = False
            self.session.viewer.add_layer(layer)

    def _errors(self) -> list[Labels]:
        return [layer for layer in self.session.viewer.layers if ERRORS_KEY in layer.metadata]

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
        _layers.center_on(self.session.viewer, layer, layer.data_to_world(at))

    # The report

    def ask_folder(self) -> None:
        """Ask for a folder and write the report there."""
        chosen = QFileDialog.getExistingDirectory(self, "Where does the report go?")
        if chosen and self.compared is not None:
            self.session.run_main(
                STEP,
                "Writing the report",
                _compare_steps.report_steps(self.compared, Path(chosen)),
                self._say_written,
            )

    def _say_written(self, page: Path) -> None:
        if not isalive(self):
            return
        self.words.setText(f"The report is in {page}")
        self.words.show()


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


def _fill(box: QComboBox, items: list[tuple[str, Any]]) -> None:
    box.clear()
    for text, data in items:
        box.addItem(text, data)
