"""Where the work of a person is kept: the projects of the images of one viewer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from psygnal import Signal

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets import _kept_steps, _words
from napari_nucleus_kd.widgets._closing import Closing, Corrected
from napari_nucleus_kd.widgets._kept import Kept
from napari_nucleus_kd.widgets._layers import FROM_KEY, PLANE_KEY, RECIPE_KEY
from napari_nucleus_kd.widgets._making import Origin, Place, chosen_origin, file_of, keep_steps
from napari_nucleus_kd.widgets._opening import Opening
from napari_nucleus_kd.widgets._projects import Projects
from napari_nucleus_kd.widgets._taking_in import STEP, TakingIn
from napari_nucleus_kd.widgets._target import image_under, target_of
from napari_nucleus_kd.widgets._verifying import Verifying, key_of
from napari_nucleus_kd.widgets._worker import one_step
from napari_nucleus_kd.workspace import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.layers import Labels

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.project import Project, ProjectImage
    from napari_nucleus_kd.types import Image, Region
    from napari_nucleus_kd.widgets._kept_steps import Counted
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._target import Target, Under
    from napari_nucleus_kd.widgets._verified import VerifiedMask
    from napari_nucleus_kd.widgets._verifying import Key

_BYTES_PER_PX = 5  # of labels and verified pixels
_SHARE = 0.3  # of the computer's memory that they may take


class Keeping:
    """Opens, makes and closes the projects of a viewer's images.

    Attributes
    ----------
    doing : what is under way, for a person; "" if nothing is.
    note : what was found or happened last, for a person.

    Signals
    -------
    changed : what the widgets show.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.verifying = Verifying(session, self)
        self.taking_in = TakingIn(session, self)
        self.projects = Projects(session, STEP)
        self.opening = Opening(session, self, STEP)
        self.closing = Closing(session, self)
        self.corrected = Corrected(session, self)
        self._kept: dict[Key, Kept] = {}
        self.written: dict[Key, tuple[Path, int | None]] = {}  # file and z plane of what was kept here
        self._key: Key | None = None  # of the image in hand
        self._cutting: Labels | None = None  # of which a part is being kept
        self.doing = ""
        self.note = ""
        self.guarded = False  # the end of the window closes the projects, see `close`
        session.workspace.events.image.connect(self._on_image)

    # What is in hand

    @property
    def kept(self) -> Kept | None:
        """The image in hand, if it is kept."""
        key = self.key_in_hand
        return None if key is None else self._kept.get(key)

    def kept_of(self, key: Key) -> Kept | None:
        """Return what is kept of an image."""
        return self._kept.get(key)

    @property
    def kept_in_correct(self) -> Kept | None:
        """What corrections act on, if it is kept, also of an image that is not in hand; else `kept`."""
        return self._kept_of_labels() or self.kept

    def _kept_of_labels(self) -> Kept | None:
        """Return what is kept of the labels in hand, in the plane that is shown."""
        corrections, found = self._session.corrections, self._kept.values()
        if corrections.painting.layer is not None:
            return next((kept for kept in found if kept.mask.layer is corrections.painting.layer), None)
        now = corrections.plane_in_hand()
        if now is None:
            return None
        of_layer = (kept for kept in found if kept.target.layer is now.layer)
        return next((kept for kept in of_layer if kept.target.key == now.key), None)

    @property
    def is_other_layer(self) -> bool:
        """Whether corrections act on labels that are not kept, and the image in hand has others that are."""
        layer, kept = self._session.corrections.layer, self.kept
        if kept is None or layer is None or kept.holds(layer):
            return False
        return self._kept_of_labels() is None

    def is_vouched(self, layer: Labels) -> bool:
        """Tell whether a person keeps the labels of a layer or has verified some: no run may change them."""
        return any(kept.holds(layer) for kept in self._kept.values()) or self.verifying.is_checked(layer)

    @property
    def can_open_again(self) -> bool:
        """Whether the image in hand has a project whose layers were closed."""
        return not self.doing and self.kept is None and self.key_in_hand in self.closing.closed

    @property
    def image_to_keep(self) -> Image | None:
        """The image under the labels in hand; without labels the image in hand."""
        try:
            return image_under(target_of(self._session.viewer), self._session).image
        except EditError:
            return self._session.workspace.image

    def needs_file(self) -> bool:
        """Whether the image to keep lies in no file beside which a project could be."""
        image = self.image_to_keep
        return image is not None and file_of(image) is None

    def needs_part(self) -> bool:
        """Whether the image to keep is too large to be kept as a whole."""
        image = self.image_to_keep
        return image is not None and bool(_too_large(image, _BYTES_PER_PX))

    def require_room(self, image: Image) -> None:
        """Raise EditError if an image is too large to be kept as a whole; says what to do."""
        if reason := _too_large(image, _BYTES_PER_PX):
            raise EditError(
                f"{reason}; press “Keep this part in a file…”, which makes these nuclei and the pixels under "
                "them an image of their own"
            )

    @property
    def key_in_hand(self) -> Key | None:
        """What tells the image in hand, and its plane, from others; None without one."""
        source, image = self._session.source, self._session.workspace.image
        return None if source is None or image is None else (source.key, image.notes)

    def all(self) -> list[tuple[Key, Kept]]:
        """Return all that is kept, by its keys."""
        return list(self._kept.items())

    def of_project(self, project: Project) -> list[Kept]:
        """Return those images of a project that are open here."""
        return [kept for kept in self._kept.values() if kept.project is project]

    def keys_of(self, project: Project) -> list[Key]:
        """Return the keys of those images of a project that are open here."""
        return [key for key, kept in self._kept.items() if kept.project is project]

    def keys_of_image(self, folder: Path, number: str) -> list[Key]:
        """Return the keys of an image, by its project and its id there; none if it is not open here."""
        kept = self._kept.items()
        return [k for k, each in kept if each.project.folder == folder and each.image.record.id == number]

    def key_of(self, image: ProjectImage) -> Key | None:
        """Return the key of an image of a project; None if it is not open here."""
        return next((key for key, kept in self._kept.items() if kept.image is image), None)

    def counts(self, project: Project) -> list[tuple[str, Counted | None]]:
        """Return the images of a project and what is verified of each; None where it is being counted."""
        here = {kept.image.record.id: kept.counted for kept in self.of_project(project)}
        return self.projects.counts(project, here, self.changed.emit)

    # Finding what was kept before

    def _on_image(self, image: Image | None) -> None:
        key, source = self.key_in_hand, self._session.source
        if key != self._key:
            self._key, self.note, self.projects.lost = key, "", None
            self._show_kept()
        if image is not None and source is not None and key is not None:
            self.opening.look(key, source, image)
        self.changed.emit()

    def _show_kept(self) -> None:
        """Show what is kept of the plane in hand again, which another plane of its stack had hidden."""
        kept = self.kept
        if kept is not None:
            for layer in kept.layers:
                layer.visible = True

    def put(self, key: Key, kept: Kept) -> None:
        """Note that an image is kept from now on."""
        self.closing.closed.discard(key)
        self._kept[key], self.verifying.masks[key] = kept, kept.mask
        kept.changed.connect(self.changed.emit)
        layer = kept.target.layer
        kept.corrected |= self.corrected.numbers.get(layer, set())
        self.corrected.numbers[layer] = kept.corrected
        layer.metadata.setdefault(FROM_KEY, key[0])
        _note_plane(kept, key)

    def move(self, former: Key, key: Key) -> Kept:
        """Note that an image that is kept goes by another key."""
        kept = self._kept.pop(former)
        self.verifying.masks.pop(former, None)
        self._kept[key], self.verifying.masks[key] = kept, kept.mask
        _note_plane(kept, key)
        return kept

    def drop(self, key: Key) -> Kept:
        """Save an image, and keep it no more."""
        kept = self._kept.pop(key)
        self.projects.recount(kept.project, kept.image.record.id)
        self.verifying.masks.pop(key, None)
        self.opening.forget(key)
        kept.close()
        self.projects.open.leave(kept.project)
        if not self.of_project(kept.project):
            self.projects.forget_counts(kept.project)
        return kept

    def set_damaged_aside(self) -> None:
        """Go on without what is damaged of the labels in hand: it is moved aside; what is seen is saved."""
        kept = self.kept_in_correct
        if kept is None:
            return
        self._session.workspace.problem = None
        steps = one_step(kept.image.set_damaged_aside)
        self._session.run_beside(steps, lambda _: kept.touch_all(), ended=self.changed.emit, step=STEP)

    # Keeping

    def keep(self, save_as: Path | None = None) -> None:
        """Make a project of the labels in hand, beside their image.

        Parameters
        ----------
        save_as : OME-TIFF to write the image to, if it is in no file.
        """
        try:
            target = target_of(self._session.viewer)
            self.keep_labels(target, image_under(target, self._session), save_as)
        except EditError as error:
            self.complain(str(error))

    def keep_labels(self, target: Target, under: Under, save_as: Path | None = None, note: str = "") -> None:
        """Make a project of labels; nothing is done if they are kept already, or their image is in no file.

        Parameters
        ----------
        save_as : see keep.
        note : to show when it is made.

        Raises
        ------
        EditError : they are too large, or the project of the image has to be opened first.
        """
        image, key = under.image, key_of(under)
        path = save_as or file_of(image)
        if path is None or self.doing or key in self._kept:
            return
        self.verifying.require_open(key)
        self.require_room(image)
        mask = self.verifying.mask_for(target, under)
        labels = _kept_steps.Whole(target.labels, under.corner, image.shape_yx)
        place = Place(path, None if save_as else image.z, is_new=save_as is not None)
        recipe = target.layer.metadata.get(RECIPE_KEY)
        made = partial(self._made, key, target, mask, under.corner, note)
        self._make(image, place, labels, self._origin(key, recipe), made)

    def _make(
        self,
        image: Image,
        place: Place,
        labels: Any,
        origin: Origin,
        made: Callable[[tuple[Project, ProjectImage]], None],
        verified: Any = None,
    ) -> None:
        """Make a project of labels (Y, X) of an image, and of what is verified of them, in a thread."""
        self.doing = f"Making a project for {place.path.name}…"
        self._session.workspace.problem = None
        steps = keep_steps(image, place, labels, origin, self.projects.open, verified)
        self._session.run_beside(steps, made, ended=self.rested, step=STEP)
        self.changed.emit()

    def _origin(self, key: Key, recipe: Recipe | None) -> Origin:
        """Return where labels come from: from a run, else as Segment shows the image, if it is in hand."""
        if recipe is not None:
            return Origin(recipe.modality, recipe)
        if key != self.key_in_hand:
            return Origin(None, None)
        suggestion = self._session.workspace.suggestion
        known = Origin(None if suggestion is None else suggestion[0], None)
        return chosen_origin(self._session.workspace.recipe, known)

    def part_in_hand(self) -> tuple[Target, Under, Region]:
        """Return the labels in hand, the image under them, and the part of it that they cover.

        Raises
        ------
        EditError : there are no labels, or no image under them.
        """
        target = target_of(self._session.viewer)
        under = image_under(target, self._session)
        return target, under, under.part(target.labels.shape)

    def keep_part(self, path: Path) -> None:
        """Write the part of the image that the labels in hand cover to a file, and keep it with them there.

        Parameters
        ----------
        path : OME-TIFF to write; it is opened when that is done.
        """
        if self.doing:
            return
        try:
            target, under, part = self.part_in_hand()
            if under.image.source is not None and path.resolve() == under.image.source.resolve():
                raise EditError(f"{path.name} is the image itself; choose another name for the part")
            pixels = under.image.pixels[:, *part.slices]
            image = replace(under.image, levels=(pixels,), source=None, notes=(), z_plane=None)
            if reason := _too_large(image, _BYTES_PER_PX + pixels.shape[0] * pixels.dtype.itemsize):
                raise EditError(f"{reason}; segment a smaller region of it, and keep that")
        except EditError as error:
            self.complain(str(error))
            return
        (y, x), shape = under.corner, part.shape_yx
        labels = _kept_steps.Whole(target.labels, (y - part.y0, x - part.x0), shape)
        mask = self.verifying.masks.get(key_of(under))
        seen = None if mask is None or mask.of is not target.layer else mask.pixels[part.slices]
        verified = None if seen is None else _kept_steps.Whole(seen, (0, 0), shape)
        recipe: Recipe | None = target.layer.metadata.get(RECIPE_KEY)
        recipe = None if recipe is None else recipe.model_copy(update={"region": None})
        place = Place(path, is_new=True, part_of=file_of(under.image), corner=(part.y0, part.x0))
        if target.layer in self.corrected.layers:
            self._cutting = target.layer
            self.corrected.layers.discard(target.layer)  # what is corrected from now on is not in the part
        origin = self._origin(key_of(under), recipe)
        self._make(image, place, labels, origin, partial(self._part_made, path), verified)

    def _part_made(self, path: Path, made: tuple[Project, ProjectImage]) -> None:
        self._cutting = None
        self.projects.open.leave(made[0])
        self.note = f"Kept in {path.name}; it is being opened. If not, open it yourself, and go on there."
        if self._session.viewer_if_there is not None:
            self._session.open(path)

    def _made(
        self,
        key: Key,
        target: Target,
        mask: VerifiedMask,
        corner: tuple[int, int],
        note: str,
        made: tuple[Project, ProjectImage],
    ) -> None:
        project, image = made
        viewer = self._session.viewer_if_there
        kept = Kept(project, image, target, mask, corner)
        self.written[key] = image.find()[0], image.record.reference.z
        self.put(key, kept)
        self.note = note
        kept.touch_all()  # a person may have gone on while it was made
        if viewer is None:
            self.drop(key)
            return
        gone = next((layer for layer in kept.layers if layer not in viewer.layers), None)
        if gone is None:
            kept.save()
        else:
            self.closing.close_with(key, gone)

    def rested(self) -> None:
        """Note that nothing is under way any more."""
        self.doing = ""
        if self._cutting is not None:  # its part could not be kept
            self.corrected.layers.add(self._cutting)
            self._cutting = None
        self.changed.emit()

    # The end

    def unsaved(self) -> list[str]:
        """Save what can be saved, and say what of the work of a person is in memory only."""
        viewer = self._session.viewer_if_there
        for kept in self._kept.values():
            kept.flush()
        found = [f"{kept.mask.of.name}: {kept.problem}" for kept in self._kept.values() if kept.problem]
        if viewer is None:
            return found
        for key, mask in self.verifying.masks.items():
            if key not in self._kept and mask.layer in viewer.layers and mask.pixels.any():
                found.append(f"“{mask.layer.name}”, what you have verified, is in memory only")
        for layer in viewer.layers:
            in_memory = layer in self.corrected.layers or layer is self._cutting
            if in_memory and not any(kept.holds(layer) for kept in self._kept.values()):
                found.append(f"“{layer.name}”, which you have corrected, is in memory only")
        return found

    def rest(self) -> None:
        """No widget is left: save; without a window that tells its end, let others write the projects."""
        for kept in self._kept.values():
            kept.flush()
        if not self.guarded:
            self.close()

    def close(self, *_: object) -> None:
        """Save everything, and let others write the projects."""
        for key in tuple(self._kept):
            self.drop(key)
        self.projects.open.close()
        self.verifying.masks.clear()

    def complain(self, text: str) -> None:
        """Say in the widget why something cannot be done."""
        self._session.workspace.problem = Problem(STEP, f"{text[:1].upper()}{text[1:]}")
        self.changed.emit()


def _note_plane(kept: Kept, key: Key) -> None:
    """Note in the layer of kept labels which plane they are of, unless it has other planes too."""
    layer = kept.target.layer
    if np.prod(kept.target.labels.shape) == np.prod(layer.data.shape):
        layer.metadata[PLANE_KEY] = key[1]


def _too_large(image: Image, bytes_per_px: int) -> str:
    """Say why an image cannot be kept as a whole; "" if it can."""
    needed, most = int(np.prod(image.shape_yx)) * bytes_per_px, _SHARE * psutil.virtual_memory().total
    if needed <= most:
        return ""
    return (
        f"“{image.name}” needs {_words.memory(needed)} of memory to be kept as a whole; on this computer "
        f"{_words.memory(most)} are allowed"
    )
