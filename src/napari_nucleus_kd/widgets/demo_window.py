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

_GAP_PX = 40


def show_results(viewer: ViewerModel, folder: Path) -> None:
    """Put every sample image and the labels found in it side by side, pixel for pixel."""
    left = 0
    for entry in SAMPLES:
        path = folder / f"{entry.name}_labels.tif"
        if not path.is_file():
            continue
        image = sample(entry.name)
        # All in pixels: one sample has no size in micrometres, and napari does not mix units.
        place = {"translate": (0, left), "scale": (1, 1), "units": ("pixel", "pixel")}
        for data, words, _ in layer_data(image):
            viewer.add_image(data, **{**words, **place})
        labels = np.asarray(read(path).pixels[0]).astype(np.int32)
        viewer.add_labels(labels, name=f"nuclei of {entry.name}", **place).contour = 2
        left += image.shape_yx[1] + _GAP_PX
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
