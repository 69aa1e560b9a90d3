"""Show what the demo wrote, in napari: `python -m napari_nucleus_kd.widgets.demo_window FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.samples import SAMPLES, sample
from napari_nucleus_kd.widgets._show import layer_data

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import ViewerModel

_PITCH_PX = 808  # the largest sample and a gap


def show_results(viewer: ViewerModel, folder: Path) -> None:
    """Put every sample image and the labels found in it two by two, pixel for pixel."""
    for index, entry in enumerate(SAMPLES):
        path = folder / f"{entry.name}_labels.tif"
        if not path.is_file():
            continue
        image = sample(entry.name)
        # All in pixels: one sample has no size in micrometres, and napari does not mix units.
        place = {
            "translate": tuple(_PITCH_PX * n for n in divmod(index, 2)),
            "scale": (1, 1),
            "units": ("pixel", "pixel"),
        }
        for data, words, _ in layer_data(image):
            viewer.add_image(data, **{**words, **place})
        labels = np.asarray(read(path).pixels[0]).astype(np.int32)
        viewer.add_labels(labels, name=f"nuclei of {entry.name}", **place).contour = 2
    viewer.reset_view()


def open_window(folder: Path) -> Viewer:
    """Open napari with the results and the workbench beside them."""
    import napari

    viewer = napari.Viewer(title="Nuclei in the sample images")
    show_results(viewer, folder)
    viewer.window.add_plugin_dock_widget("napari-nucleus-kd", "Workbench")
    return viewer


if __name__ == "__main__":
    import napari

    open_window(Path(sys.argv[1]))
    napari.run()
