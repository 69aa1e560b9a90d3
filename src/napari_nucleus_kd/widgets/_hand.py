"""The tool that a person has in hand: what the mouse does on the canvas until it is put away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucleus_kd.widgets._tools import Gesture, Tool

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Labels

    from napari_nucleus_kd.widgets._bindings import Bindings
    from napari_nucleus_kd.widgets._corrections import Corrections

_LEFT = 1  # button of the mouse
_HELD_MODE, _MOVING_MODE = "pick", "pan_zoom"  # in napari's pick mode a drag does not move the view


class Hand:
    """Holds one tool, or none, over one layer.

    Attributes
    ----------
    tool : None for none.
    """

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        self.tool: Tool | None = None
        self._layer: Labels | None = None
        self._bindings: Bindings | None = None
        self._mode = _MOVING_MODE
        self._selected = 0
        self._moving = False

    def over(self, layer: Labels, bindings: Bindings) -> None:
        """Work on a layer from now on."""
        self._layer, self._bindings = layer, bindings
        bindings.listen(self._on_drag, self._on_double_click)
        layer.events.mode.connect(self._on_mode)

    def leave(self) -> None:
        """Put the tool away and leave the layer."""
        self.drop()
        if self._layer is not None:
            self._layer.events.mode.disconnect(self._on_mode)
        self._layer = self._bindings = None

    def take(self, tool: Tool) -> None:
        """Take a tool in hand in place of the former one."""
        self.drop()
        layer, bindings = self._layer, self._bindings
        if layer is None or bindings is None:
            return
        self._mode, self._selected = str(layer.mode), layer.selected_label
        layer.mode = _HELD_MODE
        self.tool = tool
        bindings.bind("Escape", self._on_escape)
        bindings.bind("Space", self._move_view)
        self._corrections.changed.emit()

    def drop(self) -> None:
        """Put the tool away; the layer goes back to the mode that it had."""
        tool, self.tool = self.tool, None
        if tool is None or self._layer is None or self._bindings is None:
            return
        self._bindings.free("Escape")
        self._bindings.free("Space")
        if str(self._layer.mode) == _HELD_MODE:
            self._layer.mode = self._mode
        self._corrections.drawn.emit((), False)
        self._corrections.changed.emit()

    def _on_escape(self, layer: Labels) -> None:
        self.drop()

    def _on_mode(self, event: Any) -> None:
        if self.tool is not None and not self._moving:
            self.drop()  # the person took one of napari's tools

    def _move_view(self, layer: Labels) -> Generator[None, None, None]:
        """Let drags move the view while the key is held."""
        self._moving = True
        layer.mode = _MOVING_MODE
        yield
        if self.tool is not None:
            layer.mode = _HELD_MODE
        self._moving = False

    def _on_drag(self, layer: Labels, event: Any) -> Generator[None, None, None]:
        tool = self.tool
        if tool is None or self._moving or event.button != _LEFT:
            return
        world, canvas = [tuple(event.position)], [tuple(event.pos)]
        yield
        while event.type == "mouse_move":
            world.append(tuple(event.position))
            canvas.append(tuple(event.pos))
            if self.tool is tool and not tool.at_once:
                self._corrections.drawn.emit(*_shape(tool, canvas))
            yield
        world.append(tuple(event.position))
        self._corrections.drawn.emit((), False)
        if self.tool is tool:  # not put away meanwhile
            self._use(tool, layer, world)

    def _on_double_click(self, layer: Labels, event: Any) -> None:
        # The second of two quick clicks comes as this alone.
        if self.tool is not None and self.tool.at_once and not self._moving and event.button == _LEFT:
            self._use(self.tool, layer, [tuple(event.position)])

    def _use(self, tool: Tool, layer: Labels, path: list[tuple[float, ...]]) -> None:
        if not layer.selected_label:  # napari picked the background; painting would then erase
            layer.selected_label = self._selected
        self._corrections.act(tool, path)
        self._selected = layer.selected_label


def _shape(tool: Tool, canvas: list[tuple[float, ...]]) -> tuple[tuple[tuple[float, ...], ...], bool]:
    """Return what a gesture draws: corners, and whether the last is joined to the first."""
    if tool.gesture is Gesture.BOX:
        (x0, y0), (x1, y1) = canvas[0][:2], canvas[-1][:2]
        return ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), True
    return tuple(canvas), tool.gesture is Gesture.OUTLINE
