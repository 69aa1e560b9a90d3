"""Make the pictures of the documentation by driving the real widgets in a real napari window.

Run it on a machine with a display, or on Linux under `xvfb-run -a -s "-screen 0 1280x1024x24"`:

    python docs/make_pictures.py [--segmenter classical] [FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
import platformdirs
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QWidget
from skimage.data import immunohistochemistry
from skimage.io import imsave
from skimage.measure import find_contours

from napari_nucleus_kd import workspace
from napari_nucleus_kd.io.samples import FOLDER, sample_labels
from napari_nucleus_kd.metrics import match, overlap
from napari_nucleus_kd.widgets._layers import camera_of
from napari_nucleus_kd.widgets._session import Session, session_of
from napari_nucleus_kd.widgets._tools import TOOLS, UNVERIFY, VERIFY

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_nucleus_kd.widgets._mapping import MappingPart
    from napari_nucleus_kd.widgets.docks import WorkbenchDock

PLUGIN = "napari-nucleus-kd"
WINDOW = (1280, 800)
DOCK_WIDTH = 380
PATIENCE_S = 3600
RETRAIN_STEPS = 40
LAMIN_TILE = (0, 0, 256, 256)
LAMIN_STEPS = 100
REDRAW, DELETE = (next(tool for tool in TOOLS if tool.word == word) for word in ("Redraw", "Delete"))


class Studio:
    """A napari window with the workbench, and a camera for it."""

    def __init__(self, folder: Path, segmenter: str) -> None:
        self.folder = folder
        self.viewer = napari.Viewer(show=True)
        self.window = self.viewer.window._qt_window
        self.window.resize(*WINDOW)
        self.dock, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, "Workbench")
        self.window.resizeDocks([self.dock], [DOCK_WIDTH], Qt.Orientation.Horizontal)
        self.workbench: WorkbenchDock = widget
        self.session: Session = session_of(self.viewer)
        self.session.workspace.set_recipe(segmenter=segmenter)
        self.settle()

    def settle(self) -> None:
        """Wait until no job runs and everything is drawn."""
        self.wait(lambda: not self.session.busy)
        self.rest(0.7)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Let the window live until a condition holds."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"nothing happened in {PATIENCE_S} s")
            QApplication.processEvents()
            time.sleep(0.01)

    def rest(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end)

    def open(self, sample: str) -> None:
        """Show one sample alone."""
        self.viewer.layers.clear()
        self.session.open_sample(sample)
        self._show_all()

    def open_real_ihc(self) -> None:
        """Show a photograph of stained tissue that comes with scikit-image."""
        self.viewer.layers.clear()
        path = Path(tempfile.mkdtemp()) / "immunohistochemistry.png"
        imsave(path, immunohistochemistry(), check_contrast=False)
        self.session.open(path)
        self._show_all()

    def _show_all(self) -> None:
        self.settle()
        self.viewer.reset_view()
        self.settle()

    def run(self) -> None:
        """Segment what is in hand; a problem ends the script."""
        self.workbench.segment.task.button.click()
        self.settle()
        problem = self.session.workspace.problem
        if problem is not None:
            raise RuntimeError(problem.text)

    def nuclei(self) -> Labels:
        """Open Correct and return the nuclei that it acts on."""
        show_steps(self.workbench, self.workbench.correct)
        layer = self.session.corrections.layer
        assert layer is not None
        return layer

    def shoot(self, name: str, *, only: QWidget | None = None) -> None:
        """Save a picture of the window, or of a part of it."""
        self.rest(0.5)
        path = self.folder / f"{name}.png"
        if only is not None:
            only.grab().save(str(path))
        else:
            self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        print(path)


def make_pictures(folder: Path, segmenter: str) -> None:
    """Write every picture into a folder."""
    studio = Studio(folder, segmenter)
    segment = studio.workbench.segment
    studio.open("fluorescence")
    studio.run()
    studio.shoot("window")
    segment.more.set_open(True)
    studio.settle()
    studio.workbench.ensureWidgetVisible(segment.copies)
    studio.shoot("segment_more", only=studio.dock)
    segment.more.set_open(False)
    studio.workbench.verticalScrollBar().setValue(0)
    studio.open("multiplex")
    studio.shoot("multiplex_open")
    make_channels_pictures(studio)
    studio.run()
    studio.shoot("multiplex")
    make_measure_picture(studio)
    studio.open("he")
    studio.run()
    camera_of(studio.viewer).zoom *= 2
    studio.viewer.theme = "light"
    studio.shoot("he_light")
    studio.viewer.theme = "dark"
    make_enhance_picture(studio)
    studio.open_real_ihc()
    make_stains_picture(studio)
    studio.run()
    studio.shoot("ihc")
    make_comparison_picture(studio)
    make_correction_pictures(studio)
    make_ten_minute_pictures(studio)
    broken = Path(tempfile.mkdtemp()) / "broken.tif"
    broken.write_bytes(b"not an image")
    studio.session.open(broken)
    studio.settle()
    show_steps(studio.workbench, studio.workbench.open)
    studio.workbench.verticalScrollBar().setValue(0)
    studio.shoot("open_problem", only=studio.dock)
    studio.viewer.close()


def make_channels_pictures(studio: Studio) -> None:
    """Show the panel of the multiplex sample, the reason of one role, and what an adapter sees of it."""
    workbench = studio.workbench
    show_steps(workbench, workbench.channels)
    workbench.channels.table.selectRow(6)
    studio.settle()
    studio.shoot("channels")
    mapping = workbench.channels.seen
    workbench.channels.seen_fold.set_open(True)
    studio.settle()
    choose_mapping(mapping, "nucleus-adapter")
    mapping.show_it.click()
    studio.settle()
    workbench.ensureWidgetVisible(mapping)
    studio.shoot("mapping")
    studio.viewer.layers.remove(studio.viewer.layers[-1])
    choose_mapping(mapping, "nuclear")
    workbench.channels.seen_fold.set_open(False)
    workbench.verticalScrollBar().setValue(0)
    show_steps(workbench, workbench.open, workbench.segment)


def make_stains_picture(studio: Studio) -> None:
    """Estimate the stains of the picture in hand."""
    workbench = studio.workbench
    mapping = workbench.channels.seen
    show_steps(workbench, workbench.channels)
    workbench.channels.seen_fold.set_open(True)
    studio.settle()
    choose_mapping(mapping, "haematoxylin")
    mapping.stains.estimate.click()
    studio.settle()
    workbench.ensureWidgetVisible(mapping)
    studio.shoot("stains", only=workbench.channels)
    mapping.stains.forget()
    choose_mapping(mapping, "nuclear")
    workbench.channels.seen_fold.set_open(False)
    show_steps(workbench, workbench.open, workbench.segment)


def make_enhance_picture(studio: Studio) -> None:
    """Show the fluorescence sample before and after it is enhanced."""
    studio.open("fluorescence")
    workbench = studio.workbench
    show_steps(workbench, workbench.enhance)
    studio.settle()
    workbench.enhance.start()
    studio.settle()
    studio.shoot("enhance")
    show_steps(workbench, workbench.open, workbench.segment)


def choose_mapping(part: MappingPart, name: str) -> None:
    """Choose a mapping as a person does."""
    part.mapping.setCurrentIndex(part.mapping.findData(name))
    part.mapping.activated.emit(part.mapping.currentIndex())


def make_measure_picture(studio: Studio) -> None:
    """Measure nuclei and cells of the multiplex sample, which is in hand, and colour them by a marker."""
    show_steps(studio.workbench, studio.workbench.measure)
    measure = studio.workbench.measure
    nuclei = measure.in_hand.layer
    assert nuclei is not None
    measure.ring.setValue(2)
    measure.task.button.click()
    studio.settle()
    nuclei.contour, nuclei.opacity = 0, 0.8
    measure.colour.setCurrentText("cell mean CD20")
    measure.colour.activated.emit(measure.colour.currentIndex())
    by = measure.table.columns.names.index("cell mean CD20")
    measure.table.sortByColumn(by, Qt.SortOrder.DescendingOrder)
    measure.table.horizontalScrollBar().setValue(by)
    measure.table.selectRow(0)
    studio.viewer.reset_view()
    studio.shoot("measure")
    show_steps(studio.workbench, studio.workbench.open, studio.workbench.segment)


def make_comparison_picture(studio: Studio) -> None:
    """Compare the model with the classical method on the H&E sample, by its exact labels."""
    studio.open("he")
    source = studio.session.source
    assert source is not None
    under = source.layers[0]
    studio.viewer.add_labels(
        sample_labels("he"), name="he truth", scale=under.scale, units=under.units, visible=False
    )
    show_steps(studio.workbench, studio.workbench.compare)
    compare = studio.workbench.compare
    compare.truth.setCurrentIndex(compare.truth.findData("Layer: he truth"))
    compare.task.button.click()
    studio.settle()
    compare.found.table.selectRow(1)
    camera_of(studio.viewer).zoom *= 1.6
    studio.shoot("compare")


def make_correction_pictures(studio: Studio) -> None:
    """Review, check and retrain on a copy of the H&E sample, with its exact labels as corrections."""
    studio.viewer.layers.clear()
    path = Path(tempfile.mkdtemp()) / "tonsil.ome.tif"
    shutil.copy(FOLDER / "he.ome.tif", path)
    studio.session.open(path)
    studio._show_all()
    studio.run()
    workbench, correct, keeping = studio.workbench, studio.workbench.correct, studio.session.keeping
    show_steps(workbench, workbench.correct)
    correct.review.begin.click()
    studio.settle()
    studio.shoot("review")
    correct.corrections.review.stop()
    layer = correct.corrections.layer
    assert layer is not None
    layer.data = sample_labels("he").astype(layer.data.dtype)
    studio.viewer.reset_view()
    correct.corrections.act(VERIFY, [layer.data_to_world(at) for at in ((0, 0), (767, 767))])
    studio.wait(lambda: keeping.kept is not None and not keeping.kept.unsaved)
    correct.corrections.act(UNVERIFY, [layer.data_to_world(at) for at in ((0, 520), (250, 767))])
    correct.suggest.ask.click()
    studio.settle()
    studio.shoot("verified")
    correct.suggest.hide_all.click()
    show_steps(workbench, workbench.retrain)
    workbench.retrain.steps.setValue(RETRAIN_STEPS)
    workbench.retrain.start.click()
    studio.settle()
    studio.shoot("retrain")
    workbench.retrain.result.reject.click()
    studio.settle()


def make_ten_minute_pictures(studio: Studio) -> None:
    """Correct one tile of a stain that the model has not learnt, retrain, accept, and segment again.

    The hand that draws is simulated: each nucleus of the tile is redrawn along its exact outline. Prints the
    accuracy in the rest of the image, before and after.
    """
    studio.viewer.layers.clear()
    path = Path(tempfile.mkdtemp()) / "lamin.ome.tif"
    shutil.copy(FOLDER / "lamin.ome.tif", path)
    truth = sample_labels("lamin")
    assert truth is not None
    studio.session.open(path)
    studio._show_all()
    workbench, correct, keeping = studio.workbench, studio.workbench.correct, studio.session.keeping
    show_steps(workbench, workbench.segment)
    studio.run()
    studio.shoot("ten_before")
    layer = studio.nuclei()
    before = np.asarray(layer.data).copy()
    y0, x0, y1, x1 = LAMIN_TILE
    tile = slice(y0, y1), slice(x0, x1)
    for number in np.unique(before[tile])[1:]:
        middle = np.argwhere(before == number).mean(axis=0)
        if not truth[tuple(middle.round().astype(int))]:
            correct.corrections.act(DELETE, [layer.data_to_world(middle)])
    for number in np.unique(truth[tile])[1:]:
        outline = max(find_contours(np.pad(truth == number, 1), 0.5), key=len)[::3] - 1
        correct.corrections.act(REDRAW, [layer.data_to_world(at) for at in outline])
    correct.corrections.act(VERIFY, [layer.data_to_world(at) for at in ((y0, x0), (y1 - 1, x1 - 1))])
    studio.wait(lambda: keeping.kept is not None and not keeping.kept.unsaved)
    studio.settle()
    studio.shoot("ten_verified")
    show_steps(workbench, workbench.retrain)
    workbench.retrain.steps.setValue(LAMIN_STEPS)
    workbench.retrain.start.click()
    studio.settle()
    studio.wait(lambda: workbench.retrain.retraining.pair is not None)
    studio.shoot("ten_retrain")
    workbench.retrain.result.accept.click()
    studio.settle()
    studio.viewer.reset_view()
    workbench.retrain.again.button.click()
    studio.settle()
    studio.shoot("ten_after")
    after = np.asarray(studio.nuclei().data)
    for name, found in (("before", before), ("after", after)):
        rest = [each.astype(np.int32) for each in (truth, found)]
        for each in rest:
            each[tile] = 0
        print(f"{name}: {len(np.unique(found)) - 1} outlines for {truth.max()} nuclei")
        counts = match(overlap(*rest))
        print(f"where nothing was corrected: PQ {counts.pq:.2f}, {counts}")


def show_steps(workbench: WorkbenchDock, *steps: QWidget) -> None:
    """Open some steps of the workbench and close the others."""
    for fold in workbench.folds:
        fold.set_open(fold.content in steps)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--segmenter", default="student", choices=["student", "classical"])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp())
    workspace.preferences_path = lambda: scratch / "preferences.json"  # nobody's own settings
    platformdirs.user_data_path = lambda *_, **__: scratch  # nor models
    make_pictures(arguments.folder, arguments.segmenter)


if __name__ == "__main__":
    main()
