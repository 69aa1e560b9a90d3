"""Keys and mouse of one layer, bound for a while and given back as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Layer

    KeySlot = Callable[[Layer], Any]
    DragSlot = Callable[[Layer, Any], Generator[None, None, None]]
    ClickSlot = Callable[[Layer, Any], None]


def pressed(slot: Callable[[], Any]) -> KeySlot:
    """Return a slot of the form that napari wants, which is called with the layer and has a __name__."""

    def press(layer: Layer) -> None:
        slot()

    return press


class Bindings:
    """What is bound on a layer; a key that was bound there before comes back when it is let go."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._former: dict[str, Any] = {}
        self._drag: DragSlot | None = None
        self._double: ClickSlot | None = None

    def bind(self, key: str, slot: KeySlot) -> None:
        """Call a slot with the layer when a key is pressed over the canvas; a generator's rest at release."""
        self._former[key] = self._layer.bind_key(key, slot, overwrite=True)

    def free(self, key: str) -> None:
        """Let a key go; one that is not bound stays as it is."""
        if key in self._former:
            self._layer.bind_key(key, self._former.pop(key), overwrite=True)

    def listen(self, drag: DragSlot, double: ClickSlot) -> None:
        """Call slots when the mouse is pressed and dragged, or clicked twice, on the canvas."""
        self._drag, self._double = drag, double
        self._layer.mouse_drag_callbacks.append(drag)
        self._layer.mouse_double_click_callbacks.append(double)

    def release(self) -> None:
        """Let everything go."""
        for key in tuple(self._former):
            self.free(key)
        for slots, slot in (
            (self._layer.mouse_drag_callbacks, self._drag),
            (self._layer.mouse_double_click_callbacks, self._double),
        ):
            if slot in slots:
                slots.remove(slot)
        self._drag = self._double = None
