"""Where a correction helps most: tiles that the model is unsure of, as boxes to click."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets._layers import RECIPE_KEY, camera_of, center_on
from napari_nucleus_kd.widgets._making import file_of, likely_offset
from napari_nucleus_kd.widgets._target import image_under, target_of
from napari_nucleus_kd.widgets._tools import VERIFY
from napari_nucleus_kd.widgets._verifying import key_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_nucleus_kd.train.suggest import Surveyed
    from napari_nucleus_kd.types import Image, Progress
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._target import Target, Under

MOST = 5  # tiles that are shown at a time
_MOSTLY = 0.5  # share of a tile that must have labels
_FILLED = 0.85  # of the view, by a tile that was chosen
_LEFT = 1  # button of the mouse
_STILL_PX = 4  # a click may move so far


class Suggesting:
    """Asks the model which tiles to verify next, and shows them until they are verified.

    Attributes
    ----------
    tiles : the best first; none while nothing is suggested.
    gone_to : where the tile is that was gone to last; None before the first.

    Signals
    -------
    changed : any of these, or whether they are shown.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.tiles: list[Surveyed] = []
        self.gone_to: Region | None = None
        self._surveyed: list[Surveyed] = []
        self._offset: int | None = None  # of their roles, once they are kept
        self._target: Target | None = None
        self._under: Under | None = None
        self._asked = ""  # the model that was asked
        session.workspace.events.recipe.connect(self._on_recipe)
        session.keeping.changed.connect(self._choose)
        session.keeping.changed.connect(self._on_plane)
        session.viewer.dims.events.connect(self._on_plane)
        session.viewer.layers.events.removed.connect(self._on_removed)

    def start(self) -> None:
        """Look at the tiles of the image in hand."""
        self.stop()
        try:
            target = target_of(self._session.viewer)
            under = image_under(target, self._session)
        except EditError as error:
            self._session.corrections.complain(str(error))
            return
        part = under.part(target.labels.shape)
        recipe = self.recipe_to_teach(target.layer.metadata.get(RECIPE_KEY))
        self._asked = recipe.model
        recipe = recipe.model_copy(update={"region": part})  # elsewhere there is nothing to correct
        self._session.run_main(
            "correct",
            "Looking where a correction helps most",
            _survey_steps(under.image, recipe),
            partial(self._found, target, under),
        )

    def recipe_to_teach(self, known: Recipe | None) -> Recipe:
        """Return how an image is seen by the model that is to learn: the one chosen in Segment.

        Parameters
        ----------
        known : resolved recipe of the labels, if there is one.
        """
        chosen = self._session.runs.settled_recipe()
        model = chosen.model if chosen.segmenter == "student" else Recipe().model
        own = {
            "segmenter": "student",
            "model": model,
            "weights": None,
            "model_hash": None,
            "region": None,
        }
        if known is None or known.segmenter != "student":
            return chosen.model_copy(update=own)
        return known.model_copy(update=own)

    def stop(self) -> None:
        """Suggest nothing any more."""
        viewer = self._session.viewer_if_there
        if viewer is not None and self._on_press in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._on_press)
        self._surveyed, self.tiles, self._target, self._under = [], [], None, None
        self.gone_to = None
        self.changed.emit()

    def _on_recipe(self) -> None:
        """Forget what another model was unsure of."""
        if self._target is not None and self.recipe_to_teach(None).model != self._asked:
            self.stop()

    def _on_removed(self, event: Any) -> None:
        if self._target is not None and event.value is self._target.layer:
            self.stop()

    def _on_plane(self, event: Any = None) -> None:
        """Show the tiles in their plane only."""
        if self.tiles:
            self.changed.emit()

    def _found(self, target: Target, under: Under, tiles: list[Surveyed]) -> None:
        if self.recipe_to_teach(None).model != self._asked:
            return  # another model was chosen meanwhile
        part = under.part(target.labels.shape)
        # One that lies mostly beside the labels cannot be verified, and would be suggested for ever.
        tiles = [tile for tile in tiles if _share(tile.region, part) >= _MOSTLY] or tiles
        self._surveyed, self._offset, self._target, self._under = tiles, None, target, under
        self._session.viewer.mouse_drag_callbacks.append(self._on_press)
        self._choose()
        if not self.tiles:
            self._session.corrections.say("All tiles are verified.")

    def _choose(self) -> None:
        """Choose of the tiles anew: some may have been verified meanwhile."""
        if self._under is None:
            return
        from napari_nucleus_kd.train.suggest import judged, suggest

        kept = self._session.keeping.kept_of(key_of(self._under))
        offset = None if kept is None else kept.project.offset_of(kept.image)
        if offset not in (None, self._offset):  # only now it is known for sure which of them judge
            self._surveyed = judged(self._surveyed, self._under.image.shape_yx, offset)
            self._offset = offset
        mask = self._session.keeping.verifying.masks.get(key_of(self._under))
        chosen = suggest(self._surveyed, MOST, None if mask is None else mask.pixels)
        if chosen != self.tiles:
            self.tiles = chosen
            self.changed.emit()

    def shown(self) -> list[tuple[Target, Region]]:
        """Return the tiles as parts of the plane of the labels; none while others are in hand."""
        target, under = self._target, self._under
        if target is None or under is None or not self._session.corrections.is_in_hand(target):
            return []
        of, shown = key_of(under), self._session.keeping.key_in_hand
        if shown is not None and shown[0] == of[0] and shown != of:
            return []  # the labels are one plane for all planes of the image
        return [(target, tile.region.within(Region(*under.corner, *under.corner))) for tile in self.tiles]

    def go(self, index: int) -> None:
        """Move the view to a tile."""
        shown = self.shown()
        if index >= len(shown):
            return
        target, part = shown[index]
        viewer = self._session.viewer
        world = target.world(((part.y0 + part.y1 - 1) / 2, (part.x0 + part.x1 - 1) / 2))
        size = max(n * target.layer.scale[a] for n, a in zip(part.shape_yx, target.axes, strict=True))
        center_on(viewer, target.layer, world, _FILLED * self._session.corrections.canvas_px / size)
        self.gone_to = self.tiles[index].region
        self.changed.emit()

    def verify(self, index: int) -> None:
        """Mark a tile as verified, all of it."""
        shown = self.shown()
        if index < len(shown):
            target, part = shown[index]
            corners = [tuple(target.world(at)) for at in ((part.y0, part.x0), (part.y1 - 1, part.x1 - 1))]
            self._session.corrections.act(VERIFY, corners)

    def _on_press(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Go to the tile that is clicked, unless it fills the view already or a tool is in hand."""
        layer = self._session.corrections.layer
        if self._session.corrections.armed is not None or layer is None or event.button != _LEFT:
            return
        if str(layer.mode) != "pan_zoom":
            return
        position, first = tuple(event.position), event.pos
        yield
        while event.type == "mouse_move":
            if max(abs(event.pos[0] - first[0]), abs(event.pos[1] - first[1])) > _STILL_PX:
                return
            yield
        zoom, canvas = camera_of(viewer).zoom, self._session.corrections.canvas_px
        for index, (target, part) in enumerate(self.shown()):
            y, x = target.at(position)
            edge = max(part.shape_yx) * target.layer.scale[target.axes[0]] * zoom
            if part.y0 <= y < part.y1 and part.x0 <= x < part.x1 and edge < _FILLED * canvas / 2:
                self.go(index)


def _share(region: Region, part: Region) -> float:
    """Return the share of a region that lies in a part of the same image."""
    return float(np.prod(np.maximum(region.common(part).shape_yx, 0)) / np.prod(region.shape_yx))


def _survey_steps(image: Image, recipe: Recipe) -> Generator[Progress, None, list[Surveyed]]:
    from napari_nucleus_kd.train.suggest import survey_steps

    path = file_of(image)
    offset = None if path is None else likely_offset(path)
    return (yield from survey_steps(image, recipe, offset=offset))
