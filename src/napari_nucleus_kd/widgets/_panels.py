"""The panel of the image in hand: suggested in a thread, its pictures, and its colours in the layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleus_kd.panel import Role, contrast, image_names, suggest_steps, thumbnail
from napari_nucleus_kd.widgets._layers import CHANNEL_KEY
from napari_nucleus_kd.widgets._worker import one_step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from napari.layers import Image as ImageLayer

    from napari_nucleus_kd.panel import Panel, Suggestion
    from napari_nucleus_kd.types import Image, Progress
    from napari_nucleus_kd.widgets._session import Session

THUMBNAIL_PX = 40


class Panels:
    """Looks at the channels of the image in hand once a widget asks, and keeps the layers as the panel says.

    Attributes
    ----------
    words : how far the look at the channels is; "" when none is under way.

    Signals
    -------
    changed : the words, or a picture came.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.words = ""
        self._image: Image | None = None
        self._pictures: dict[int, npt.NDArray[np.uint8] | None] = {}
        self._wanted: list[int] = []
        self._reading = False
        session.workspace.events.image.connect(self._on_image)
        session.workspace.events.panel.connect(self._on_panel)

    def look(self) -> None:
        """Suggest a panel for the image in hand, in a thread, unless there is one."""
        workspace, image = self._session.workspace, self._session.workspace.image
        if image is None or image.rgb or workspace.suggested is not None or image is self._image:
            return
        self._image = image
        self._session.run_beside(
            suggest_steps(image),
            partial(self._found, image),
            ended=partial(self._ended, image),
            step="channels",
            progress=self._on_progress,
        )

    def picture(self, channel: int) -> npt.NDArray[np.uint8] | None:
        """Return the thumbnail of a channel; None if it is not there yet: then it will come."""
        if channel not in self._pictures:
            if channel in self._wanted:
                self._wanted.remove(channel)
            self._wanted.append(channel)  # what was asked for last is in view
            self._read_next()
        return self._pictures.get(channel)

    # Looking

    def _on_image(self, image: Image | None) -> None:
        """Let go of what belonged to another image; a plane of the same channels keeps its panel."""
        workspace = self._session.workspace
        self._pictures.clear()
        self._wanted.clear()
        if image is not None and workspace.panel is not None and image_names(image) != workspace.panel.names:
            workspace.suggested = workspace.panel = None

    def _on_progress(self, progress: Progress) -> None:
        self.words = f"{progress.message[:1].upper()}{progress.message[1:]}…"
        self.changed.emit()

    def _found(self, image: Image, suggested: Suggestion) -> None:
        workspace = self._session.workspace
        now = workspace.image
        if now is not None and image_names(now) == suggested.panel.names and workspace.suggested is None:
            workspace.take_suggested(suggested)

    def _ended(self, image: Image) -> None:
        if self._image is image:
            self._image, self.words = None, ""
            self.changed.emit()

    # Pictures

    def _read_next(self) -> None:
        image, suggested = self._session.workspace.image, self._session.workspace.suggested
        if self._reading or not self._wanted or image is None or suggested is None:
            return
        self._reading, channel = True, self._wanted.pop()
        self._session.run_beside(
            one_step(partial(thumbnail, image, channel, suggested.place, THUMBNAIL_PX)),
            partial(self._take_picture, image, channel),
            ended=partial(self._picture_ended, image, channel),
            step="channels",
        )

    def _take_picture(self, image: Image, channel: int, picture: npt.NDArray[np.uint8]) -> None:
        if image is self._session.workspace.image:
            self._pictures[channel] = picture

    def _picture_ended(self, image: Image, channel: int) -> None:
        self._reading = False
        if image is self._session.workspace.image and channel not in self._pictures:
            self._pictures[channel] = None  # it failed: not again and again
            self._wanted.clear()
        self.changed.emit()
        self._read_next()

    # Layers

    def _layers(self) -> dict[int, ImageLayer]:
        source = self._session.source
        if source is None:
            return {}
        return {layer.metadata.get(CHANNEL_KEY, 0): layer for layer in source.layers if not layer.rgb}

    def _on_panel(self, panel: Panel | None, former: Panel | None) -> None:
        """Show changed colours and contrasts, and channels that are nuclear now.

        Colours and contrasts that a file or napari gave stay until then.
        """
        suggested, image = self._session.workspace.suggested, self._session.workspace.image
        if former is None and suggested is not None:
            former = suggested.panel
        if panel is None or former is None or image is None or panel.names != former.names:
            return
        layers, stretched = self._layers(), {}
        for index, (now, was) in enumerate(zip(panel.channels, former.channels, strict=True)):
            if index in layers and now.color != was.color:
                layers[index].colormap = now.color
            if index in layers and now.role is Role.NUCLEAR is not was.role:
                layers[index].visible = True  # only a few of many channels are shown at first
            if index in layers and now.percentiles != was.percentiles:
                stretched[index] = now.percentiles
        if stretched:
            self._session.run_beside(
                one_step(partial(_contrasts, image, stretched)),
                partial(self._stretch, panel, layers),
                step="channels",
            )

    def _stretch(
        self, measured: Panel, layers: dict[int, ImageLayer], limits: dict[int, tuple[float, float]]
    ) -> None:
        """Show measured contrasts, but those that were changed again meanwhile."""
        now = self._session.workspace.panel
        for index, pair in limits.items():
            wanted = measured.channels[index].percentiles
            if now is None or now.names != measured.names or now.channels[index].percentiles == wanted:
                layers[index].contrast_limits = pair


def _contrasts(image: Image, wanted: dict[int, tuple[float, float]]) -> dict[int, Any]:
    return {index: contrast(image, index, pair) for index, pair in wanted.items()}
