"""Copying labels that cannot be changed, pyramids and files, to memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._layers import full_resolution
from napari_nucleus_kd.widgets._numbers import blocks
from napari_nucleus_kd.widgets._target import in_file

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Labels

    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._session import Session

_SHARE = 0.5  # of the free memory; napari and the undo steps need some too
_SAME = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "opacity", "blending")


def is_copyable(session: Session) -> bool:
    """Tell whether the selected layer is a Labels layer that cannot be changed, but copied."""
    viewer = session.viewer_if_there
    layer = None if viewer is None else viewer.layers.selection.active
    return layer is not None and type(layer).__name__ == "Labels" and bool(in_file(layer))


def copy_to_memory(corrections: Corrections) -> None:
    """Copy the selected layer in a thread, and show the copy in its place."""
    layer = corrections.session.viewer.layers.selection.active
    if layer is None or not is_copyable(corrections.session):
        return
    data = full_resolution(layer)
    needed = int(np.prod(data.shape, dtype=np.int64)) * np.dtype(data.dtype).itemsize
    free = psutil.virtual_memory().available
    if needed > _SHARE * free:
        corrections.complain(
            f"“{layer.name}” needs {_words.memory(needed)} of memory, and {_words.memory(free)} are free; "
            "segment a part of the image (What I see) and correct that"
        )
        return

    def show(copied: Any) -> None:
        _show_copy(corrections.session, layer, copied)

    corrections.session.run_main("correct", f"Copying {layer.name} to memory", copy_steps(data), show)


def copy_steps(data: Any) -> Generator[Progress, None, Any]:
    """Return a numpy copy of an array of any kind, read some rows at a time."""
    copied = np.empty(data.shape, data.dtype)
    for start, block in blocks(data):
        yield Progress(start, int(data.shape[0]), "Copying the labels")
        copied[start : start + block.shape[0]] = np.asarray(block)
    return copied


def _show_copy(session: Session, layer: Labels, copied: Any) -> None:
    """Add the copy as a layer in the place of the first one, which is hidden."""
    copy = layer_like(layer, copied, f"{layer.name} (copy)")
    layer.visible = False
    session.viewer.add_layer(copy)


def layer_like(layer: Labels, data: Any, name: str) -> Labels:
    """Return a layer with other data that lies and looks as the first one."""
    from napari.layers import Labels

    found = Labels(
        data,
        name=name,
        features=layer.features,
        colormap=layer.colormap,
        metadata={key: value for key, value in layer.metadata.items() if key != "path"},
        **{key: getattr(layer, key) for key in _SAME},
    )
    found.contour = layer.contour
    return found
