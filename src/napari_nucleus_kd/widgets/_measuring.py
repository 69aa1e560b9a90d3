"""What the Measure widget measures: the shown plane of a Labels layer, and the image under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets._layers import (
    VERIFIED_KEY,
    as_array,
    camera_of,
    center_on,
    full_resolution,
    pixel_size_um,
    shown_index,
)
from napari_nucleus_kd.widgets._remeasuring import elsewhere_steps, seen_under, with_former
from napari_nucleus_kd.widgets._target import PASSING_KEY, Target, image_under

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy.typing as npt
    from napari.layers import Labels, Layer

    from napari_nucleus_kd.types import Array, Progress
    from napari_nucleus_kd.widgets._session import Session
    from napari_nucleus_kd.widgets._target import Under

_LEAST_SEEN_PX, _WELL_SEEN_PX = 24, 80  # on the screen: below the first a nucleus is enlarged to the second


class LayerInHand:
    """The Labels layer that is selected, or was last.

    Signals
    -------
    changed : another layer is in hand, or it got another table.
    selected : number of the nucleus that is selected in it now.
    """

    changed = Signal()
    selected = Signal(int)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.layer: Labels | None = None
        session.viewer.layers.selection.events.active.connect(self._follow)
        session.viewer.layers.events.removed.connect(self._follow)
        self._follow()

    def close(self, *_: object) -> None:
        """Listen no more."""
        self._take(None)
        viewer = self._session.viewer_if_there
        if viewer is not None:
            viewer.layers.selection.events.active.disconnect(self._follow)
            viewer.layers.events.removed.disconnect(self._follow)

    def _follow(self, event: Any = None) -> None:
        layers = self._session.viewer.layers
        active, fitting = layers.selection.active, [layer for layer in layers if _has_nuclei(layer)]
        if active in fitting:
            self._take(active)
        elif self.layer not in fitting:
            self._take(fitting[-1] if fitting else None)

    def _take(self, layer: Labels | None) -> None:
        former, self.layer = self.layer, layer
        if layer is former:
            return
        if former is not None:
            former.events.features.disconnect(self._on_features)
            former.events.selected_label.disconnect(self._on_selected)
        if layer is not None:
            layer.events.features.connect(self._on_features)
            layer.events.selected_label.connect(self._on_selected)
        self.changed.emit()

    def _on_features(self, event: Any) -> None:
        self.changed.emit()

    def _on_selected(self, event: Any) -> None:
        if self.layer is not None:
            self.selected.emit(int(self.layer.selected_label))


def _has_nuclei(layer: Layer) -> bool:
    return type(layer).__name__ == "Labels" and not {VERIFIED_KEY, PASSING_KEY} & layer.metadata.keys()


@dataclass(frozen=True, eq=False, slots=True)
class Subject:
    """What can be measured.

    Attributes
    ----------
    labels : (Y, X), numpy or lazy.
    under : the image; None if there is none that fits, and `without` says why.
    """

    target: Target
    labels: Array
    under: Under | None
    without: str = ""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of the image."""
        return () if self.under is None else tuple(channel.name for channel in self.under.image.channels)

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel: the image's, else what the layer says."""
        if self.under is not None:
            return self.under.image.pixel_size_um
        layer, (y, x) = self.target.layer, self.target.axes
        return pixel_size_um((layer.scale[y], layer.scale[x]), (layer.units[y], layer.units[x]))


def subject_of(layer: Labels, session: Session) -> Subject:
    """Return what can be measured of a layer now.

    Raises
    ------
    EditError : the viewer shows a volume, or other axes than the layer has.
    """
    axes, point = shown_index(layer, session.viewer)
    if axes is None:
        raise EditError(f"The viewer does not show a plane of “{layer.name}”: switch to 2D (Ctrl+Y).")
    data, target = as_array(full_resolution(layer)), Target(layer, axes, point)
    if any(not 0 <= point[axis] < data.shape[axis] for axis in range(layer.ndim) if axis not in axes):
        raise EditError(f"“{layer.name}” has nothing in the plane that is shown; scroll to its plane.")
    labels = data[tuple(slice(None) if axis in axes else at for axis, at in enumerate(point))]
    try:
        under = image_under(target, session)
        seen_under(labels.shape, None, under)
    except EditError as error:
        why, _, _ = str(error).partition(";")  # the rest says what to do to correct there
        return Subject(target, labels, None, why)
    return Subject(target, labels, under)


def table_steps(
    subject: Subject, channels: Sequence[int], corrected: set[int], **settings: Any
) -> Generator[Progress, None, Any]:
    """Measure the nuclei and cells of a plane; returns the features table, see cells.measure_cells_steps.

    Parameters
    ----------
    channels : that are measured.
    corrected : numbers of the nuclei that a person corrected: what was known of them before is outdated.
    settings : ring_um or ring_px, and percentile.
    """
    from napari_nucleus_kd.cells import measure_cells_steps

    pixels, names = None, None
    if subject.under is not None and channels:
        pixels, names, _ = seen_under(subject.labels.shape, channels, subject.under)
    labels = subject.labels
    if isinstance(labels, np.ndarray):
        labels = labels.copy()  # a person may paint on
    measured = yield from measure_cells_steps(
        labels, pixels, channel_names=names, pixel_size_um=subject.pixel_size_um, **settings
    )
    table = {"index": measured.pop("label").astype(int), **measured}
    layer = subject.target.layer
    elsewhere = yield from elsewhere_steps(layer, labels.shape, table["index"])
    return with_former(table, layer.features, corrected, elsewhere)


def table_columns(layer: Labels) -> dict[str, npt.NDArray[Any]]:
    """Return the table of a layer as columns; "label" first. {} if it has none."""
    features: Any = layer.features
    if "index" not in features:
        return {}
    columns = {"label": features["index"].to_numpy()}
    for name in features.columns.drop("index"):
        values = features[name].to_numpy()
        columns[str(name)] = values if values.dtype.kind in "biuf" else values.astype(str)
    return columns


def show_nucleus(layer: Labels, session: Session, row: dict[str, Any]) -> None:
    """Select a nucleus and move the view to it, enlarged if it is hardly seen.

    Parameters
    ----------
    row : of its table.
    """
    viewer, (axes, point) = session.viewer, shown_index(layer, session.viewer)
    layer.selected_label = int(row["label"])
    if axes is None or not {"centroid_y", "centroid_x"} <= row.keys() or np.isnan(row["centroid_y"]):
        return
    at = np.array(point, float)
    at[list(axes)] = row["centroid_y"], row["centroid_x"]
    on_screen = _size(layer, row, axes) * camera_of(viewer).zoom
    zoom = camera_of(viewer).zoom * _WELL_SEEN_PX / on_screen if 0 < on_screen < _LEAST_SEEN_PX else None
    center_on(viewer, layer, layer.data_to_world(at), zoom)


def _size(layer: Labels, row: dict[str, Any], axes: tuple[int, int]) -> float:
    """Return the longer axis of a nucleus in the world; 0 if it is not known."""
    y, x = axes
    size_um = pixel_size_um((layer.scale[y], layer.scale[x]), (layer.units[y], layer.units[x]))
    size_px = row.get("major_axis_px", 0.0)
    if size_um:
        size_px = row.get("major_axis_um", 0.0) / size_um or size_px
    return float(np.nan_to_num(size_px)) * float(layer.scale[y])
