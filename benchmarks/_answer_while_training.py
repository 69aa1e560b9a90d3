"""Opens napari with an image and labels, pans and paints; prints how long the window did not answer, in s.

The gaps between the ticks of a timer, as JSON: those of a while with nothing else, and those while a model
is fine-tuned.
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

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.samples import sample
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.project import Project
from napari_nucleus_kd.train.apart import finetune_apart_steps
from napari_nucleus_kd.train.finetune import FinetuneSettings, data_steps
from napari_nucleus_kd.types import Modality, finish
from napari_nucleus_kd.widgets._worker import run_in_thread

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

    def taken(self) -> list[float]:
        """Return the gaps so far, and begin anew."""
        gaps, self.gaps, self.last = self.gaps, [], time.perf_counter()
        return gaps


def main() -> None:
    """Measure once."""
    folder, model, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    pixels = np.tile(np.asarray(sample("fluorescence").pixels)[0], (2, 2))
    tifffile.imwrite(folder / "image.tif", pixels)
    kind = Modality.FLUORESCENCE
    result = segment(read(folder / "image.tif"), Recipe(modality=kind, device="cpu"))
    labels = result.nuclei.labels
    project = Project.create(folder / "image.nucleus-kd")
    verified = np.ones(labels.shape, bool)
    reference = project.refer_to(folder / "image.tif")
    finish(project.add_steps(reference, labels, verified, modality=kind, recipe=result.recipe))
    data = finish(data_steps(project, folder / "run"))
    viewer = napari.Viewer()
    viewer.add_image(pixels)
    watch = Watch(viewer, viewer.add_labels(labels.copy()))
    loop = QEventLoop()
    for seconds in (2.0, ALONE_S):  # first of all napari has its own things to do
        watch.taken()
        QTimer.singleShot(int(1000 * seconds), loop.quit)
        loop.exec()
    alone = watch.taken()
    settings = FinetuneSettings(steps=steps, check_every=10, device="cpu")
    problems: list[str] = []
    training = finetune_apart_steps(model, data.index, folder / "run", settings)
    job = run_in_thread(
        training,
        done=lambda _: None,
        failed=lambda error, _: problems.append(str(error)),
        progress=None,
        ended=loop.quit,
    )
    loop.exec()
    assert not job.running
    busy = watch.taken()
    viewer.close()
    if problems:
        raise SystemExit(problems[0])
    print(json.dumps({"alone": alone, "training": busy}), flush=True)


if __name__ == "__main__":
    main()
