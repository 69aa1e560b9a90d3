"""A person at work whom test_keep_window.py kills: paints on and on, and says what was saved."""

import sys
import time
from pathlib import Path

import numpy as np
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication

from napari_nucleus_kd import workspace
from napari_nucleus_kd.widgets import _kept
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._tools import VERIFY
from napari_nucleus_kd.widgets.correct import CorrectWidget


def begin(viewer, corrections, path, nuclei=None):
    """Open an image, add nuclei and mark them as verified, or a box; returns their layer, and how to wait."""
    session = session_of(viewer)

    def wait(condition, most_s=300):
        until = time.monotonic() + most_s
        while not condition():
            QApplication.processEvents()
            time.sleep(0.002)
            if time.monotonic() > until:
                raise TimeoutError(f"waited {most_s} s in vain")

    session.open(path)
    wait(lambda: bool(viewer.layers) and not session.busy)
    none = np.zeros(viewer.layers[0].data.shape[-2:], np.int32)
    layer = viewer.add_labels(none if nuclei is None else nuclei, name="nuclei")
    layer.scale, layer.units = viewer.layers[0].scale[-2:], viewer.layers[0].units[-2:]
    viewer.layers.selection.active = layer
    last = (50, 60) if nuclei is None else tuple(n - 1 for n in none.shape)
    corrections.act(VERIFY, [tuple(layer.data_to_world(at)) for at in ((0, 0), last)])
    wait(lambda: session.keeping.kept is not None)
    return layer, wait


def main(path):
    workspace.preferences_path = lambda: path.parent / "config" / "preferences.json"
    _kept.SOON_MS = 30
    _application = QApplication([])  # there as long as this name is
    viewer = ViewerModel()
    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical")
    widget = CorrectWidget(viewer)
    widget.show()

    layer, wait = begin(viewer, widget.corrections, path)
    kept = session.keeping.kept
    layer.brush_size = 4
    for number in range(1, 1_000_000):
        layer.paint((int(number * 7 % 180), int(number * 11 % 200)), number)
        wait(lambda: not kept.unsaved)
        print(number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
