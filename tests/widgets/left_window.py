"""A person whose Python ends with the window open (test_keep_window.py): paints, and is gone at once."""

import sys
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_nucleus_kd import workspace
from napari_nucleus_kd.widgets import _kept
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets._tools import VERIFY


def main(path):
    workspace.preferences_path = lambda: path.parent / "config" / "preferences.json"
    viewer = napari.Viewer(show=True)
    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical")
    _, widget = viewer.window.add_plugin_dock_widget("napari-nucleus-kd", "Correct")

    def wait(condition):
        while not condition():
            QApplication.processEvents()

    session.open(path)
    wait(lambda: bool(viewer.layers) and not session.busy)
    layer = viewer.add_labels(np.zeros(viewer.layers[0].data.shape[-2:], np.int32), name="nuclei")
    layer.scale, layer.units = viewer.layers[0].scale[-2:], viewer.layers[0].units[-2:]
    viewer.layers.selection.active = layer
    widget.step.corrections.act(VERIFY, [tuple(layer.data_to_world(at)) for at in ((0, 0), (50, 60))])
    wait(lambda: session.keeping.kept is not None and not session.keeping.kept.unsaved)
    _kept.SOON_MS = 3_600_000  # it is not saved by itself any more
    layer.paint((100, 100), 77)
    raise SystemExit("left with the window open")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
