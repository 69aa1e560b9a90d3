"""Marking what a person has verified: by a box, or with the nuclei that a review found right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets._layers import camera_of, shown_plane
from napari_nucleus_kd.widgets._target import image_under
from napari_nucleus_kd.widgets._verified import VerifiedMask, add_verified_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from napari.layers import Labels, Layer

    from napari_nucleus_kd.widgets._keeping import Keeping
    from napari_nucleus_kd.widgets._places import Place
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._target import Target, Under
    from napari_nucleus_kd.widgets._verified import Index

    Key = tuple[str, tuple[str, ...]]  # of an image and the plane of it that is shown

_NEAR_PX = 5  # of the screen, and of the image: so near to the border of the image the border is meant


def key_of(under: Under) -> Key:
    """Return what tells the image under some labels, and its plane, from others."""
    return under.key[0], under.image.notes


class Verifying:
    """Marks what is verified of the images of one viewer.

    Attributes
    ----------
    masks : what is verified of each image of which anything was.
    """

    def __init__(self, session: Session, keeping: Keeping) -> None:
        self._session, self._keeping = session, keeping
        self.masks: dict[Key, VerifiedMask] = {}
        review = session.corrections.review
        self._accepted: dict[tuple[Place, ...], list[Index]] = {}  # what a review marked by accepting
        review.begun.connect(self._on_begun)
        review.accepted.connect(self._on_accepted)
        review.taken_back.connect(self._on_taken_back)

    def seen_in(self, target: Target) -> npt.NDArray[np.uint8] | None:
        """Return what is verified in a plane of labels, (Y, X), a view; None if nothing is."""
        try:
            under = image_under(target, self._session)
        except EditError:
            return None
        mask = self.masks.get(key_of(under))
        (y, x), (height, width) = under.corner, target.labels.shape
        found = None if mask is None else mask.pixels[max(0, y) : y + height, max(0, x) : x + width]
        return found if found is not None and found.shape == (height, width) else None

    def mask_of(self, target: Target) -> VerifiedMask | None:
        """Return what is verified of the image under some labels; None if nothing was."""
        try:
            return self.masks.get(key_of(image_under(target, self._session)))
        except EditError:
            return None

    def mask_to_paint(self, target: Target) -> VerifiedMask:
        """Return what is verified of the image under some labels, for painting; it is kept from now on.

        Raises
        ------
        EditError : there is no image, the labels are not those that are kept, or nothing can be changed.
        """
        under = image_under(target, self._session)
        mask = self._mask_to_change(target, under)
        self._keeping.keep_labels(target, under)
        return mask

    def box(self, target: Target, corners: list[tuple[float, float]], *, on: bool) -> None:
        """Mark a box as verified or not, in one step to undo.

        Parameters
        ----------
        corners : two opposite pixels (y, x) of the labels. An edge that nearly reaches the border of the
            image is meant to reach it: a tile that is verified but for its last row would not judge.

        Raises
        ------
        EditError : there is no image, the labels are not those that are kept, or the box is empty.
        """
        under = image_under(target, self._session)
        (y0, x0), (y1, x1) = np.min(corners, axis=0) + under.corner, np.max(corners, axis=0) + under.corner
        drawn = Region(round(y0), round(x0), round(y1) + 1, round(x1) + 1)
        # Where the labels end nobody has looked for nuclei.
        labelled = under.part(target.labels.shape)
        if min(drawn.common(labelled).shape_yx) < 2:
            raise EditError(
                "the box encloses no pixel of these labels; hold the button and drag it over them"
            )
        part = drawn.grown(0, under.image.shape_yx)
        if on:
            zoom, scale = camera_of(self._session.viewer).zoom, target.layer.scale
            near = [min(_NEAR_PX / (zoom * scale[axis]), _NEAR_PX) for axis in target.axes]
            part = _to_border(part, under.image.shape_yx, near)
        part = part.common(labelled)
        self._mask_to_change(target, under).set(part, on)
        self._keeping.keep_labels(target, under)

    def _on_begun(self) -> None:
        self._accepted.clear()

    def _on_accepted(self, target: Target, places: tuple[Place, ...]) -> None:
        def mark(mask: VerifiedMask, corner: tuple[int, int]) -> None:
            marked = mask.set_nuclei(target.labels, places, corner)
            if any(len(index[0]) for index in marked if index) or places not in self._accepted:
                self._accepted[places] = marked  # else it was marked already, by what was made again

        self._mark(target, mark)

    def _on_taken_back(self, target: Target, places: tuple[Place, ...]) -> None:
        self._mark(target, lambda mask, _: mask.take_back(self._accepted.pop(places, ())))

    def _mark(self, target: Target, mark: Callable[[VerifiedMask, tuple[int, int]], None]) -> None:
        try:
            under = image_under(target, self._session)
        except EditError:
            return  # labels without an image are reviewed all the same
        try:
            mask = self._mask_to_change(target, under)
            mark(mask, under.corner)
            self._keeping.keep_labels(target, under)
        except EditError as error:
            self._session.corrections.complain(str(error))

    def _mask_to_change(self, target: Target, under: Under) -> VerifiedMask:
        """Return what is verified of an image.

        Raises
        ------
        EditError : the labels are not those that are kept, or nothing can be changed.
        """
        kept = self._keeping.kept_of(key_of(under))
        self.require_open(key_of(under))
        if kept is not None and kept.refusal:
            raise EditError(f"nothing can be verified: {kept.refusal}")
        if kept is not None and not kept.holds(target.layer):
            raise EditError(
                f"“{target.layer.name}” is not kept, “{kept.target.layer.name}” is; press “Take in”, or "
                "select that one"
            )
        if kept is not None and kept.target.key != target.key:
            raise EditError(
                f"another plane of “{target.layer.name}” is kept with this image; scroll to that one, or "
                "open the planes of the image itself"
            )
        return self.mask_for(target, under)

    def require_open(self, key: Key) -> None:
        """Raise EditError if an image has a project that is not open, or may have one."""
        if self._keeping.opening.is_looking(key):
            raise EditError("the project of this image is being looked for; try it again in a moment")
        if key in self._keeping.closing.closed:
            raise EditError("this image has a project, whose layers were closed; press “Open again” first")

    def mask_for(self, target: Target, under: Under) -> VerifiedMask:
        """Return what is verified of the labels over an image; its layer is made the first time.

        Raises
        ------
        EditError : other labels of this image were verified: nobody has seen these. Or it is too large.
        """
        key, viewer = key_of(under), self._session.viewer
        known = self.masks.get(key)
        if known is not None and known.layer in viewer.layers:
            if known.of is not target.layer and known.pixels.any():
                raise EditError(
                    f"what is green was verified in “{known.of.name}”, not in “{target.layer.name}”; "
                    f"select “{known.of.name}”, or close “{known.layer.name}” to begin anew"
                )
            known.of = target.layer
            return known
        self._keeping.require_room(under.image)
        source = next(s for s in self._session.sources() if s.key == under.key[0])
        plane = shown_plane(source, viewer)
        mask = np.zeros(under.image.shape_yx, np.uint8)
        corrections = self._session.corrections
        with corrections.steady():
            layer = add_verified_layer(viewer, plane, mask, corrections.layer)
        self.masks[key] = VerifiedMask(layer, plane.axes, target.layer)
        self._keeping.changed.emit()
        return self.masks[key]

    def is_checked(self, layer: Layer) -> bool:
        """Tell whether anything of the nuclei of a layer is verified."""
        return any(mask.of is layer and bool(mask.pixels.any()) for mask in self.masks.values())

    def forget(self, layer: Layer) -> Labels | None:
        """Note that a layer was closed.

        Returns
        -------
        The layer that said what was verified of it, in memory only, and says nothing any more; or None.
        """
        for key, mask in tuple(self.masks.items()):
            if (
                layer in (mask.layer, mask.of)
                and self._keeping.kept_of(key) is None
                and not self._keeping.doing
            ):
                del self.masks[key]
                return None if layer is mask.layer else mask.layer
        return None


def _to_border(part: Region, shape_yx: tuple[int, int], near_yx: Sequence[float]) -> Region:
    """Return a part of an image with those edges at its border that are so many pixels from it, or fewer."""
    (height, width), (near_y, near_x) = shape_yx, near_yx
    return Region(
        0 if part.y0 <= near_y else part.y0,
        0 if part.x0 <= near_x else part.x0,
        height if part.y1 >= height - near_y else part.y1,
        width if part.x1 >= width - near_x else part.x1,
    )
