"""Opens napari with a project, pans and paints; prints how long the window did not answer, in s.

The gaps between the ticks of a timer, as JSON: those of a while with nothing else, and those while a model
is retrained, with its curves, its preview and the pictures of old and new at the end, and what is painted
is saved.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
import tifffile
from qtpy.QtCore import QEventLoop, Qt, QTimer

from napari_nucleus_kd import workspace
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.samples import sample
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.project import Project, project_folder
from napari_nucleus_kd.train.finetune_settings import FinetuneSettings
from napari_nucleus_kd.types import Modality, finish
from napari_nucleus_kd.widgets.docks import CorrectDock, RetrainDock

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_MS, ACT_MS, ALONE_S = 5, 50, 10.0


class Watch:
    """Pans and paints as a person does, and notes the gaps between ticks."""

    def __init__(self, viewer: napari.Viewer, labels: napari.layers.Labels):
        self.viewer, self.labels, self.acts = viewer, labels, 0
        self.gaps: list[float] = []
        self.last = time.perf_counter()
        self.timers = [self._every(TICK_MS, self._tick), self._every(ACT_MS, self._act)]

    def _every(self, ms: int, what: Callable[[], None]) -> QTimer:
        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(what)
        timer.start(ms)
        return timer

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append(now - self.last)
        self.last = now

    def _act(self) -> None:
        self.acts += 1
        step = 5 * self.acts % 300
        if self.acts % 2:
            self.viewer.camera.center = (0, 300 + step, 300)
        else:
            self.labels.paint((100 + step, 200), 5)

    def stop(self) -> None:
        """Do nothing more."""
        for timer in self.timers:
            timer.stop()

    def taken(self) -> list[float]:
        """Return the gaps so far, and begin anew."""
        gaps, self.gaps, self.last = self.gaps, [], time.perf_counter()
        return gaps


def main() -> None:
    """Measure once: a person corrects nuclei that are kept, first alone, then while they are learnt from."""
    folder, model, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    workspace.preferences_path = lambda: folder / "preferences.json"  # nobody's own settings
    path, kind = folder / "image.tif", Modality.FLUORESCENCE
    tifffile.imwrite(path, np.tile(np.asarray(sample("fluorescence").pixels)[0], (4, 4)))
    result = segment(read(path), Recipe(modality=kind, device="cpu"))
    labels = result.nuclei.labels
    with Project.create(project_folder(path)) as project:
        reference, verified = project.refer_to(path), np.ones(labels.shape, bool)
        finish(project.add_steps(reference, labels, verified, modality=kind, recipe=result.recipe))
    viewer = napari.Viewer()
    docks = CorrectDock(viewer), RetrainDock(viewer)
    for dock in docks:
        viewer.window.add_dock_widget(dock, area="right")
    session = docks[1].step.session
    keeping, retraining = session.keeping, session.retraining
    session.open(path)
    wait(lambda: keeping.kept is not None)
    assert keeping.kept is not None
    watch = Watch(viewer, keeping.kept.target.layer)
    for seconds in (2.0, ALONE_S):  # first of all napari has its own things to do
        watch.taken()
        end = time.perf_counter() + seconds
        wait(lambda end=end: time.perf_counter() > end)
    alone = watch.taken()
    retraining.start(model, FinetuneSettings(steps=steps, check_every=10, device="cpu"))
    wait(lambda: not retraining.running)
    wait(lambda: not session.busy)  # pictures of old and new are drawn
    busy = watch.taken()
    watch.stop()
    problem = session.workspace.problem
    viewer.close()
    if problem is not None:
        raise SystemExit(problem.text)
    print(json.dumps({"alone": alone, "training": busy}), flush=True)


def wait(ready: Callable[[], bool]) -> None:
    """Let the window go on until something is so."""
    while not ready():
        loop = QEventLoop()
        QTimer.singleShot(ACT_MS, loop.quit)
        loop.exec()


if __name__ == "__main__":
    main()
