"""Segmenting in the window: start, cancel, show the nuclei, decode again, keep what a person drew."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS
from napari_nucleus_kd.widgets import _layers, _show, _steps, _words
from napari_nucleus_kd.widgets._worker import one_step
from napari_nucleus_kd.words import count
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_nucleus_kd.config import DecodeSettings, Recipe
    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.types import Image, Region
    from napari_nucleus_kd.widgets._layers import Plane
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._steps import Found, Stored

ON_DISK_EDGE_PX = 4096  # what has a longer edge goes to a file
_DEBOUNCE_MS = 250


class Runs(QObject):
    """Runs the segmentation of one session and shows what comes of it."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._labels: Labels | None = None
        self._plane: Plane | None = None
        self._image: Image | None = None
        self._decoding = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DEBOUNCE_MS)
        self._timer.timeout.connect(self.decode_again)
        session.workspace.events.recipe.connect(self._on_recipe)

    # What would be run

    def region(self) -> Region | None:
        """Return the part of the image that the next run acts on; None is all of it."""
        source = self._session.source
        if source is None or self._session.workspace.whole_image:
            return None
        return _layers.visible_region(source, self._session.viewer)

    def on_disk(self) -> bool:
        """Tell whether the next run is too large for memory and goes to a file."""
        part = self.region() or self._session.workspace.image
        return part is not None and max(part.shape_yx) > ON_DISK_EDGE_PX

    def refusal(self) -> str:
        """Say why the next run cannot start: nothing of the image is in view; "" if it can."""
        source = self._session.source
        if source is None or self._session.workspace.whole_image:
            return ""
        if _layers.is_in_view(source, self._session.viewer):
            return ""
        return "Nothing of the image is in view: press Home in the viewer, or choose “Whole image” as Region."

    def is_edited(self) -> bool:
        """Tell whether a person changed the labels since they were computed, keeps them, or verified some."""
        result, layer = self._session.workspace.result, self._labels
        if result is None or layer is None or layer not in self._session.viewer.layers:
            return False
        if self._session.keeping.is_vouched(layer):
            return True
        return not np.array_equal(np.squeeze(layer.data), np.squeeze(result.nuclei.labels))

    def segmented(self) -> tuple[Image, Plane] | None:
        """Return what the newest result was computed from, or else what is shown; None if no image is."""
        source, image = self._session.source, self._session.refresh()
        if source is None or image is None:
            return None
        if self._session.workspace.result is not None and self._image is not None and self._plane is not None:
            # Not the plane shown now: the person may have scrolled on. But the layers of now.
            return self._image, replace(self._plane, source=source)
        return image, _layers.shown_plane(source, self._session.viewer)

    # Running

    def start(self, ask_path: Callable[[str], Path | None], shown: Callable[[], None] | None = None) -> None:
        """Segment what is in hand.

        Parameters
        ----------
        ask_path : asks the person for the OME-Zarr of a large image, given a name to suggest; None: not now.
        shown : called once the nuclei are the selected layer; not for a large image.
        """
        source, image = self._session.source, self._session.refresh()
        if source is None or image is None or self._session.workspace.activity is not None:
            return
        if refusal := self.refusal():
            self._session.workspace.problem = Problem("segment", refusal)
            return
        recipe = self.settled_recipe()
        self._session.workspace.outcome = ""
        # Taken now: the person may scroll on to another plane while it runs.
        plane = _layers.shown_plane(source, self._session.viewer)
        if not self.on_disk():
            steps = _steps.memory_steps(image, recipe)
            self._session.run_main("segment", "Segmenting", steps, partial(self._show, plane, image, shown))
            return
        path = ask_path(f"{Path(image.name).stem}_nuclei.ome.zarr")
        if path is not None:
            self._session.run_main(
                "segment",
                f"Segmenting into {path.name}",
                _steps.disk_steps(image, path, recipe),
                partial(self._show_stored, plane, image),
            )

    def settled_recipe(self) -> Recipe:
        """Return the chosen settings with the region and the modality that the window shows."""
        recipe, suggestion = self._session.workspace.recipe, self._session.workspace.suggestion
        shown: dict[str, Any] = {"region": self.region()}
        if recipe.modality is None and suggestion is not None:
            shown["modality"] = suggestion[0]
        if recipe.mapping not in OF_NUCLEAR_CHANNELS:
            panel = self._session.workspace.panel or self._session.workspace.remembered_panel()
            shown["channels"] = None if panel is None else panel.used
        return recipe.model_copy(update=shown)

    def wanted_decode(self) -> DecodeSettings | None:
        """Return the thresholds that the newest result should have; None if it is right or there is none."""
        workspace = self._session.workspace
        result = workspace.result
        if result is None or not self.is_of_chosen(result):
            return None
        chosen = workspace.chosen_decode()
        if chosen is None and result.segmenter is not None:
            chosen = result.segmenter.decode_defaults
        return None if chosen is None or chosen == result.recipe.decode else chosen

    def is_of_chosen(self, result: Result) -> bool:
        """Tell whether a result is of the model that is chosen now: thresholds are set for that one."""
        one, other = (
            (r.segmenter, r.model, r.weights) for r in (result.recipe, self._session.workspace.recipe)
        )
        return one == other

    def took_in(self, layer: Labels) -> None:
        """Note that labels were taken into a project: other thresholds would act on what is hidden now."""
        workspace = self._session.workspace
        if layer is self._labels and workspace.result is not None:
            workspace.result = replace(workspace.result, maps=None)

    def decode_again(self) -> None:
        """Apply changed thresholds to the kept maps, in a thread; the network does not run."""
        workspace, wanted = self._session.workspace, self.wanted_decode()
        # Its own image: the person may have scrolled on to another plane of the stack.
        result, image = workspace.result, self._image
        if wanted is None or result is None or result.maps is None or image is None:
            return
        if self._decoding:
            self._timer.start()  # the newest thresholds are decoded when this one is through
            return
        self._decoding = True
        self._session.run_beside(
            one_step(partial(_steps.decode, result, wanted, image)),
            partial(self._show_again, result),
            ended=self._decoding_ended,
        )

    def _decoding_ended(self) -> None:
        self._decoding = False

    def _on_recipe(self, _: Recipe) -> None:
        result = self._session.workspace.result
        if result is not None and result.maps is not None and self.wanted_decode() is not None:
            self._timer.start()

    # Showing

    def _show(self, plane: Plane, image: Image, shown: Callable[[], None] | None, found: Found) -> None:
        viewer, workspace, result = self._session.viewer, self._session.workspace, found.result
        self.hide_former(plane)
        if workspace.probability and result.maps is not None:
            _show.add_probability(viewer, plane, result)
        labels = self.add_labels(plane, image, found)
        workspace.remember_run(result.nuclei.labels.size / 1e6, found.work_seconds)
        if self._session.source is not None and self._session.source.key == plane.source.key:
            self._labels, self._plane, self._image = labels, plane, image
            workspace.result = result
            workspace.outcome = outcome(result)
            if shown is not None:
                shown()

    def _show_again(self, before: Result, found: Found) -> None:
        workspace, plane, image = self._session.workspace, self._plane, self._image
        if workspace.result is not before or plane is None or image is None:
            return  # another image or a new run came between
        viewer, layer, kept = self._session.viewer, self._labels, ""
        if layer is not None and layer in viewer.layers and not self.is_edited():
            _show.update_labels(layer, found.result, found.table)
        else:
            if layer is not None and layer in viewer.layers:
                kept = f"\nYour work stays in “{layer.name}”, now hidden; this is a new layer."
            self.hide_former(plane)
            self._labels = self.add_labels(plane, image, found)
        workspace.result = found.result
        workspace.outcome = outcome(found.result) + kept

    def _show_stored(self, plane: Plane, image: Image, stored: Stored) -> None:
        workspace = self._session.workspace
        self.hide_former(plane)
        outlines = workspace.preferences.outlines
        layer = _show.add_stored_labels(self._session.viewer, plane, stored, outlines=outlines)
        layer.metadata[_layers.PLANE_KEY] = image.notes
        workspace.remember_run(stored.levels[0].size / 1e6, stored.work_seconds)
        if self._session.source is not None and self._session.source.key == plane.source.key:
            workspace.result = None
            found = count(len(stored.table["index"]), "nucleus", "nuclei")
            workspace.outcome = (
                f"{found} in {_words.duration(stored.seconds)}.\nThe labels are in {stored.path}."
            )

    def add_labels(self, plane: Plane, image: Image, found: Found) -> Labels:
        """Add found nuclei as a layer."""
        outlines = self._session.workspace.preferences.outlines
        viewer, result = self._session.viewer, found.result
        layer = _show.add_labels(viewer, plane, result, found.table, outlines=outlines)
        layer.metadata[_layers.PLANE_KEY] = image.notes
        return layer

    def draw(self, outlines: bool) -> None:
        """Draw all nuclei found in this window as outlines or filled, and those to come."""
        from napari.layers import Labels

        self._session.workspace.remember_outlines(outlines)
        for layer in self._session.viewer.layers:
            if isinstance(layer, Labels) and _layers.RECIPE_KEY in layer.metadata:
                _show.draw(layer, outlines)

    def hide_former(self, plane: Plane) -> None:
        """Hide former results of an image: on top of each other they cannot be told apart."""
        for layer in _layers.made_from(plane.source, self._session.viewer.layers):
            if _layers.VERIFIED_KEY not in layer.metadata:
                layer.visible = False


def outcome(result: Result) -> str:
    """Say what a run found."""
    across = _words.size_in_both(result.diameter_px, result.recipe.pixel_size_um)
    found = count(result.nuclei.count, "nucleus", "nuclei")
    notes = [note for note in result.notes if " px across" not in note]  # the first line says it in um too
    return "\n".join((f"{found} in {_words.duration(result.seconds)}, about {across} across.", *notes))
