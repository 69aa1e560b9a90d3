"""A person whose Python ends with the window open (test_keep_window.py): paints, and is gone at once."""

import sys
from pathlib import Path

import napari

from napari_nucleus_kd import workspace
from napari_nucleus_kd.widgets import _kept
from napari_nucleus_kd.widgets._session import session_of


def main(path):
    from killed_window import begin  # beside this script; pytest collects its doctests from elsewhere

    workspace.preferences_path = lambda: path.parent / "config" / "preferences.json"
    viewer = napari.Viewer(show=True)
    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical")
    _, widget = viewer.window.add_plugin_dock_widget("napari-nucleus-kd", "Correct")

    layer, wait = begin(viewer, widget.step.corrections, path)
    wait(lambda: not session.keeping.kept.unsaved)
    _kept.SOON_MS = 3_600_000  # it is not saved by itself any more
    layer.paint((100, 100), 77)
    raise SystemExit("left with the window open")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
