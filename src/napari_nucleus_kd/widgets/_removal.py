"""Removing many nuclei at once: those that would go are shown first."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd import edit
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._bindings import pressed
from napari_nucleus_kd.widgets._layers import Plane, Source
from napari_nucleus_kd.widgets._show import placed
from napari_nucleus_kd.widgets._target import PASSING_KEY
from napari_nucleus_kd.widgets._tools import SMALL
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Labels

    from napari_nucleus_kd.edit import Edit
    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._target import Target
    from napari_nucleus_kd.widgets._tools import Tool

LAYER_NAME = "nuclei that would go"
_COLOR = "#d55e00"  # vermilion, seen by the colour-blind on all labels, which have none of it
_OPACITY = 0.9
_REMOVE_KEY = "Enter"
_SMALL_PX = 50  # px2, where no typical diameter is known


class Removal:
    """Looks for nuclei to remove in a thread, shows them, and removes them when the person says so.

    Attributes
    ----------
    below_px : area in pixels below which a nucleus counts as small.
    offered : number of nuclei that are shown and would go; 0 if none are.
    what : which these are, in words.
    tool : which shows them; None if none are shown.
    """

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self.below_px = _SMALL_PX
        self.offered = 0
        self.what = ""
        self.tool: Tool | None = None
        self._change: Edit | None = None
        self._target: Target | None = None
        self._shown: Labels | None = None

    def look(self, tool: Tool, target: Target) -> None:
        """Look for nuclei to remove; if just these are shown, keep them."""
        small = tool is SMALL
        what = f"below {self.below_px} px²" if small else "at the border"
        if self.what == what:
            self.keep()
            return
        self.cancel()
        self._corrections.session.run_main(
            "correct",
            f"Looking for nuclei {what}",
            removal_steps(
                target.labels, partial(edit.small, below_px=self.below_px) if small else edit.at_border
            ),
            partial(self._offer, tool, target, what),
        )
        self._corrections.changed.emit()  # the button springs back until they are found

    def _offer(self, tool: Tool, target: Target, what: str, found: tuple[int, Edit, Any]) -> None:
        number, change, mask = found
        self.cancel()  # another look may have been asked for before this one was answered
        bindings = self._corrections.bindings
        if target.layer is not self._corrections.layer or bindings is None:
            return
        if not self._corrections.is_in_hand(target):
            self._corrections.complain("another plane was shown meanwhile; look again there")
            return
        if not number:
            self._corrections.say(f"There are no nuclei {what}.")
            return
        self.offered, self.what, self.tool, self._target, self._change = number, what, tool, target, change
        bindings.bind(_REMOVE_KEY, pressed(self.confirm))
        with self._corrections.steady():
            self._shown = _show_passing(self._corrections.session.viewer, target, mask)
        for emitter in self._watched(target.layer):
            emitter.connect(self._on_changed)
        self._corrections.session.viewer.layers.events.removed.connect(self._on_removed)
        self._corrections.say("They are marked in orange-red; zoom out to see them all.")

    def confirm(self) -> None:
        """Remove what is shown, as one correction."""
        target, change, offered = self._target, self._change, self.offered
        self.cancel()
        if target is None or change is None:
            return
        if not np.array_equal(np.asarray(target.labels[change.rows, change.cols]), change.before):
            self._corrections.complain("the labels changed since these nuclei were found; look again")
            return
        self._corrections.apply(target, change, f"Removed {count(offered, 'nucleus', 'nuclei')}")

    def keep(self) -> None:
        """Show them no more, and say that nothing is removed."""
        self.cancel()
        self._corrections.say("Nothing was removed.")

    def cancel(self) -> None:
        """Show them no more; nothing is removed."""
        target, shown = self._target, self._shown
        self.offered, self.what = 0, ""
        self.tool = self._target = self._change = self._shown = None
        if target is not None:
            if self._corrections.bindings is not None:
                self._corrections.bindings.free(_REMOVE_KEY)
            for emitter in self._watched(target.layer):
                emitter.disconnect(self._on_changed)
        viewer = self._corrections.session.viewer_if_there
        if shown is not None and viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_removed)
            if shown in viewer.layers:
                viewer.layers.remove(shown)
        if target is not None:
            self._corrections.changed.emit()

    def _watched(self, layer: Labels) -> tuple[Any, ...]:
        """Return what tells that labels, the plane that is shown of them, or napari's tool changed."""
        return layer.events.paint, layer.events.data, layer.events.set_data, layer.events.mode

    def _on_changed(self, event: Any) -> None:
        if event.type != "mode" or str(event.mode) == "polygon":  # which Enter ends
            self.cancel()

    def _on_removed(self, event: Any) -> None:
        if event.value is self._shown:
            self.cancel()


def removal_steps(
    labels: Any, find: Callable[[Any], list[int]]
) -> Generator[Progress, None, tuple[int, Edit, Any]]:
    """Find the nuclei of a plane that would go.

    Returns
    -------
    Their number, the correction that removes them, and (Y, X) uint8, 1 where they are.
    """
    yield Progress(0, 2, "Looking through the nuclei")
    plane = np.asarray(labels[:, :])
    numbers = find(plane)
    yield Progress(1, 2, "Marking those that would go")
    change = edit.remove(plane, numbers)
    mask = np.zeros(plane.shape, np.uint8)
    mask[change.rows, change.cols] = 1
    return len(numbers), change, mask


def _show_passing(viewer: Any, target: Target, mask: Any) -> Labels:
    """Add a layer that marks nuclei for a moment; the layer in hand stays selected."""
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    plane = Plane(Source("", target.layer.name, (target.layer,)), target.axes, target.point)
    layer = Labels(
        np.expand_dims(mask, plane.hidden),
        name=LAYER_NAME,
        colormap=DirectLabelColormap(color_dict={1: _COLOR, None: "transparent"}),
        opacity=_OPACITY,
        metadata={PASSING_KEY: True},
        **placed(plane, None),
    )
    viewer.add_layer(layer)
    viewer.layers.selection.active = target.layer
    return layer
