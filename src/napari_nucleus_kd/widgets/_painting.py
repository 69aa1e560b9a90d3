"""Painting what is verified: from the nuclei to the layer that says so, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucleus_kd.widgets._bindings import Bindings, pressed
from napari_nucleus_kd.widgets._layers import VERIFIED_KEY
from napari_nucleus_kd.widgets._tools import PAINT

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._target import Target

_BRUSH, _HAND = "paint", "pan_zoom"  # modes of napari


class Painting:
    """Knows whether the layer that says what is verified is selected, and from which nuclei one came.

    Attributes
    ----------
    layer : the one that is painted in; None while another is selected.
    """

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self.layer: Labels | None = None
        self._nuclei: Labels | None = None
        self._bindings: Bindings | None = None

    def follow(self, active: Layer | None) -> None:
        """Turn to the layer that is selected now; its key goes back to the nuclei."""
        layer: Any = active if active is not None and VERIFIED_KEY in active.metadata else None
        if layer is self.layer:
            return
        if self._bindings is not None:
            self._bindings.release()
            self._bindings = None
        self.layer = layer
        if layer is not None:
            self._bindings = Bindings(layer)
            self._bindings.bind(PAINT.key, pressed(self.end))

    def begin(self, target: Target) -> None:
        """Take the brush in the layer that says what is verified; it is made if need be.

        Raises
        ------
        EditError : see Verifying.mask_to_paint.
        """
        session = self._corrections.session
        layer = session.keeping.verifying.mask_to_paint(target).layer
        self._nuclei = target.layer
        layer.visible = True
        session.viewer.layers.selection.active = layer
        layer.selected_label = 1
        layer.mode = _BRUSH

    def end(self) -> None:
        """Go back to the nuclei."""
        layer, session = self.layer, self._corrections.session
        if layer is None:
            return
        kept = session.keeping.kept
        nuclei = kept.target.layer if kept is not None and kept.mask.layer is layer else self._nuclei
        if nuclei is None or nuclei not in session.viewer.layers:
            self._corrections.complain("select the nuclei in the list of layers to go back to them")
            return
        layer.mode = _HAND
        session.viewer.layers.selection.active = nuclei
