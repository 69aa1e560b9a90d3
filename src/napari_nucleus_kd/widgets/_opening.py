"""Finding and showing what was kept of the images of one viewer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets import _kept_steps, _show, _words
from napari_nucleus_kd.widgets._kept import Kept
from napari_nucleus_kd.widgets._layers import FROM_KEY, shown_plane
from napari_nucleus_kd.widgets._making import file_of
from napari_nucleus_kd.widgets._projects import Listed
from napari_nucleus_kd.widgets._target import LOCKED_KEY, Target
from napari_nucleus_kd.widgets._verified import VerifiedMask, add_verified_layer
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.widgets._keeping import Keeping
    from napari_nucleus_kd.widgets._kept_steps import Opened
    from napari_nucleus_kd.widgets._layers import Plane, Source
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._verifying import Key


class Opening:
    """Looks for the project of every image that is taken in hand, and shows the nuclei that it has.

    Parameters
    ----------
    step : whose widget shows a problem.
    """

    def __init__(self, session: Session, keeping: Keeping, step: str) -> None:
        self._session, self._keeping, self._step = session, keeping, step
        self._looked: set[Key] = set()
        self._looking: set[Key] = set()
        self._showing: set[Key] = set()

    def is_looking(self, key: Key) -> bool:
        """Tell whether the project of an image is being looked for."""
        return key in self._looking or key in self._showing

    def forget(self, key: Key) -> None:
        """Look for the project of an image anew when it is taken in hand next."""
        self._looked.discard(key)

    def look(self, key: Key, source: Source, image: Image) -> None:
        """Look for the project of an image in a thread; once."""
        projects = self._keeping.projects
        path, z = file_of(image), image.z
        if path is None:  # perhaps it was written to a file to be kept
            path, z = self._keeping.written.get(key, (None, None))
        if path is None or key in self._looked:
            return
        self._looked.add(key)
        self._looking.add(key)
        plane = shown_plane(source, self._session.viewer)
        steps = _kept_steps.find_steps(path, z, projects.open, projects.elsewhere.get(path))
        self._session.run_beside(
            steps, partial(self._show, key, plane), ended=partial(self._ended, key), step=self._step
        )

    def _ended(self, key: Key) -> None:
        if key in self._looking:  # it failed, or was cancelled: the project can be opened again
            self._looking.discard(key)
            self._keeping.closing.closed.add(key)
            self._keeping.changed.emit()

    def _show(self, key: Key, plane: Plane, opened: Opened | None) -> None:
        """Show what was found, the nuclei first; napari takes 0.1 s for a layer."""
        keeping = self._keeping
        self._looking.discard(key)
        if opened is None:
            keeping.closing.closed.discard(key)
            keeping.changed.emit()
            return
        if self._is_needless(key, plane, opened):
            return
        outlines = self._session.workspace.preferences.outlines
        recipe, viewer = opened.image.record.recipe, self._session.viewer
        active = viewer.layers.selection.active
        layer = _show.add_kept_labels(viewer, plane, opened.labels, recipe, outlines=outlines)
        if keeping.key_in_hand != key:  # another image or plane was taken in hand meanwhile
            layer.visible = False
            viewer.layers.selection.active = active
        self._showing.add(key)
        QTimer.singleShot(0, partial(self._show_verified, key, plane, opened, layer))

    def _is_needless(self, key: Key, plane: Plane, opened: Opened) -> bool:
        """Leave what was found if it is open already, or its image is gone."""
        keeping = self._keeping
        there = any(known.key == plane.source.key for known in self._session.sources())
        former = keeping.key_of(opened.image)
        if there and former is None and keeping.kept_of(key) is None:
            return False
        keeping.projects.open.leave(opened.project)
        if there and former is not None and former != key:
            self._follow(former, key, plane)
        return True

    def _show_verified(self, key: Key, plane: Plane, opened: Opened, layer: Labels) -> None:
        keeping, viewer = self._keeping, self._session.viewer_if_there
        self._showing.discard(key)
        if viewer is None or layer not in viewer.layers:
            keeping.projects.open.leave(opened.project)
            return
        if self._is_needless(key, plane, opened):  # it was opened twice, one time just after the other
            keeping.closing.close_layer(layer)
            return
        self._set_aside(key)
        mask = VerifiedMask(add_verified_layer(viewer, plane, opened.verified, layer), plane.axes, layer)
        kept = Kept(opened.project, opened.image, Target.in_new(layer, plane), mask, (0, 0))
        kept.counted = opened.counted
        kept.refusal = kept.refusal or opened.changed
        if kept.refusal:
            for each in kept.layers:
                each.editable = False
                each.metadata[LOCKED_KEY] = kept.refusal
        mask.layer.visible = layer.visible
        keeping.put(key, kept)
        keeping.note = _words.recovered(opened.project.folder.name, opened.saved, crashed=opened.crashed)
        if opened.changed:
            keeping.projects.lost = self._listed(opened)
        if notice := opened.changed or opened.image.damage:
            self._session.workspace.problem = Problem(self._step, f"{notice[:1].upper()}{notice[1:]}")
        self._session.corrections.look_again()
        keeping.changed.emit()

    @staticmethod
    def _listed(opened: Opened) -> Listed:
        reference = opened.image.record.reference
        path = Path(reference.absolute)
        return Listed(opened.project.folder, opened.image.record.id, path, reference.z, opened.changed)

    def pointed_to(self, image: Listed) -> bool:
        """Open an image anew of which a person said where it is; False if that is not the one in hand."""
        for key in self._keeping.keys_of_image(image.folder, image.id):
            self._keeping.closing.close_layers(key)
        in_hand = self._session.workspace.image
        path = None if in_hand is None else file_of(in_hand)
        if in_hand is None or path is None or (path.resolve(), in_hand.z) != (image.path.resolve(), image.z):
            return False
        self.look_again()
        return True

    def _set_aside(self, key: Key) -> None:
        """Hide what was verified before the project of an image was found: it is of other nuclei."""
        former = self._keeping.verifying.masks.pop(key, None)
        if former is not None:
            former.layer.name = f"{former.layer.name} (not kept)"
            former.layer.visible = False

    def _follow(self, former: Key, key: Key, plane: Plane) -> None:
        """Go on with layers that are there: their image was opened once more, which is in hand now.

        Two that save one image of a project would take away each other's changes.
        """
        keeping, viewer = self._keeping, self._session.viewer
        self._set_aside(key)
        kept = keeping.move(former, key)
        self.forget(former)
        corners = {kept.mask.layer: (0, 0), kept.target.layer: kept.corner}
        for layer, corner in corners.items():
            layer.metadata[FROM_KEY] = plane.source.key
            if layer.ndim == len(plane.point):
                for name, value in _show.placed(plane, Region(*corner, *corner)).items():
                    setattr(layer, name, value)
            viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))  # above the image
            layer.visible = True
        viewer.layers.selection.active = kept.target.layer
        keeping.note = f"{kept.folder_name} was open already: its nuclei lie over this image now."
        self._session.corrections.look_again()
        keeping.changed.emit()

    def look_again(self) -> None:
        """Open the project of the image in hand anew, for instance when another window has closed it."""
        key, kept = self._keeping.key_in_hand, self._keeping.kept
        if key is None:
            return
        for other in () if kept is None else self._keeping.keys_of(kept.project):
            self._keeping.closing.close_layers(other)
        self.forget(key)
        self._session.workspace.problem = None
        source, image = self._session.source, self._session.workspace.image
        if source is not None and image is not None:
            self.look(key, source, image)
        self._keeping.changed.emit()
