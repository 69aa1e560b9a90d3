"""Going from nucleus to nucleus: the view goes there, the nucleus is selected."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd import edit
from napari_nucleus_kd.widgets._layers import camera_of, center_on
from napari_nucleus_kd.widgets._places import Places, place_steps

if TYPE_CHECKING:
    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._places import Place
    from napari_nucleus_kd.widgets._target import Target

_LEAST_SEEN_PX, _WELL_SEEN_PX = 24, 80  # on the screen: below the first a nucleus is enlarged to the second
_VIEW_SHARE = 6.0  # nuclei side by side across the view: one of them and half of one on each side are a third
_STEADY = 1.4  # the view is not zoomed by less than this factor: it would not rest from nucleus to nucleus


class Visits:
    """Knows where the nuclei of the shown plane are once a person asks for the next one."""

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self._places: Places | None = None
        self._plane: tuple[int, ...] = ()
        self._looks = 0
        self._wanted = 0
        self._at: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def forget(self, event: Any = None) -> None:
        """Forget all places: another layer or other data are in hand."""
        self._places, self._at, self._wanted = None, None, 0
        self._looks += 1

    def on_paint(self, event: Any) -> None:
        """Take in a step of the layer's history."""
        if self._places is not None:
            self._places.note(event.value)

    def cursor(self) -> tuple[float, ...]:
        """Return where the cursor is in the world, or the nucleus gone to until the mouse moves."""
        cursor = tuple(self._corrections.session.viewer.cursor.position)
        if self._at is not None and self._at[0] == cursor:
            return self._at[1]
        return cursor

    def go(self, target: Target, step: int) -> None:
        """Go to the next nucleus, or with -1 to the previous one; the first time find out where they are."""
        if self._places is None or self._plane != target.key:
            if not self._wanted or self._plane != target.key:
                self._look(target)
            self._wanted = step
            self._corrections.say("Looking where the nuclei are…")
            return
        found = self._places.beside(int(target.layer.selected_label), step, target.labels)
        if found is None:
            self._corrections.say("There is no nucleus in this plane.")
            return
        number, place = found
        self.show(target, place)
        target.layer.selected_label = number
        self._corrections.say(f"Nucleus {number}")

    def _look(self, target: Target) -> None:
        self.forget()
        self._plane, look = target.key, self._looks
        self._corrections.session.run_beside(
            place_steps(target.labels),
            partial(self._found, target, look),
            ended=partial(self._ended, look),
            step="correct",
        )

    def _ended(self, look: int) -> None:
        if look == self._looks:
            self._wanted = 0

    def _found(self, target: Target, look: int, places: dict[int, Place]) -> None:
        if look != self._looks:
            return
        self._places = Places(places, target.axes)
        step, self._wanted = self._wanted, 0
        self.go(target, step)

    def show(self, target: Target, place: Place, *, alone: bool = False) -> None:
        """Move the view to a nucleus.

        Parameters
        ----------
        place : a pixel of it.
        alone : enlarge it so that it fills, with as much again around it, a third of the view; else it is
            enlarged only where it is hardly seen.
        """
        viewer = self._corrections.session.viewer
        region = edit.extent(target.labels, place)
        middle = ((region.y0 + region.y1 - 1) / 2, (region.x0 + region.x1 - 1) / 2)
        offset = viewer.dims.ndim - target.layer.ndim
        world = target.world(middle)
        now = zoom = camera_of(viewer).zoom
        size = max(n * target.layer.scale[a] for n, a in zip(region.shape_yx, target.axes, strict=True))
        wanted = self._corrections.canvas_px / (_VIEW_SHARE * size)
        if alone and not wanted / _STEADY <= now <= wanted * _STEADY:
            zoom = wanted
        elif not alone and size * now < _LEAST_SEEN_PX:
            zoom = _WELL_SEEN_PX / size
        center_on(viewer, target.layer, world, zoom)
        inside = target.world((float(place[0]), float(place[1])))
        self._at = tuple(viewer.cursor.position), (*([0.0] * offset), *inside.tolist())
