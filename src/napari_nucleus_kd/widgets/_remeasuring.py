"""Measuring the nuclei of the layer in hand anew, as a person left them."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._layers import RECIPE_KEY, full_resolution
from napari_nucleus_kd.widgets._numbers import blocks
from napari_nucleus_kd.widgets._target import image_under, target_of
from napari_nucleus_kd.words import count

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy.typing as npt
    from napari.layers import Labels

    from napari_nucleus_kd.types import Array
    from napari_nucleus_kd.widgets._corrections import Corrections
    from napari_nucleus_kd.widgets._target import Target, Under

    Table = dict[str, npt.NDArray[Any]]


_AREAS = "area_um2", "area_px2"
# Of the columns that measuring makes, see measure and cells.
_OURS = re.compile(r"(ring |cell )?(mean|median|p[\d.]+|integrated) ")
_UNITS = ("_um", "_um2", "_px", "_px2")


class Remeasuring:
    """Gives the layer in hand a features table of its nuclei as they are now."""

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections

    def start(self) -> None:
        """Measure the nuclei of the shown plane in a thread."""
        session, without = self._corrections.session, ""
        try:
            target = target_of(session.viewer)
        except EditError as error:
            self._corrections.complain(str(error))
            return
        pixels, names, size_um = None, None, None
        try:
            used = getattr(target.layer.metadata.get(RECIPE_KEY), "channels", None) or None
            pixels, names, size_um = seen_under(target.labels.shape, used, image_under(target, session))
        except EditError as error:
            why, _, _ = str(error).partition(";")  # the rest says what to do to correct there
            without = f", without brightness and micrometres: {why}"
        steps = _steps(target, pixels, names, size_um)
        session.run_main("correct", "Measuring the nuclei", steps, partial(self._show, target.layer, without))

    def _show(self, layer: Labels, without: str, measured: tuple[Table, set[int]]) -> None:
        table, elsewhere = measured
        corrected = self._corrections.session.keeping.corrected.numbers.get(layer, set())
        layer.features = with_former(table, layer.features, corrected, elsewhere)
        self._corrections.say(f"{count(len(table['index']), 'nucleus', 'nuclei')} measured{without}.")


def seen_under(
    shape: tuple[int, ...], channels: Sequence[int | str] | None, under: Under
) -> tuple[Array, list[str], float | None]:
    """Return the pixels (C, Y, X) under labels, the names of their channels, and the pixel size in um.

    Parameters
    ----------
    shape : of the labels.
    channels : to take; None takes all.

    Raises
    ------
    EditError : the labels reach beyond the image.
    """
    part = under.part(shape)
    if part.shape_yx != shape:
        raise EditError("the labels reach beyond the image")
    from napari_nucleus_kd.job import used_channels

    channels = tuple(range(len(under.image.channels))) if channels is None else tuple(channels)
    pixels, names = used_channels(under.image, Recipe(channels=channels, region=part))
    return pixels, names, under.image.pixel_size_um


def _steps(
    target: Target, pixels: Array | None, names: list[str] | None, size_um: float | None
) -> Generator[Progress, None, tuple[Table, set[int]]]:
    """Measure the nuclei of a plane; returns the table, and the numbers of those in other planes only."""
    from napari_nucleus_kd.measure import measure_steps

    plane = np.array(target.labels[:, :])  # a person may paint on
    table = yield from measure_steps(plane, pixels, channel_names=names, pixel_size_um=size_um)
    table = {"index": table.pop("label").astype(int), **table}
    elsewhere = yield from elsewhere_steps(target.layer, plane.shape, table["index"])
    return table, elsewhere


def elsewhere_steps(
    layer: Labels, shape: tuple[int, ...], here: npt.NDArray[np.int64]
) -> Generator[Progress, None, set[int]]:
    """Return the numbers of the nuclei that are in other planes of a layer only.

    Parameters
    ----------
    shape : of the plane in hand.
    here : the numbers in it.
    """
    found, data = set[int](), full_resolution(layer)
    if np.prod(shape) != np.prod(data.shape):
        for _, block in blocks(data):
            found.update(np.unique(np.asarray(block)).tolist())
            yield Progress(0, 0, "Looking at the other planes")
    return found - set(here.tolist())


def with_former(table: Table, former: Any, corrected: set[int], elsewhere: set[int]) -> Any:
    """Return a table with what else was known of the nuclei.

    That is what a person noted; of nuclei that nobody corrected what was measured before and is not now, as
    scores, which only the run knew; and the nuclei of other planes.
    """
    import pandas as pd

    now = pd.DataFrame(table)
    if "index" not in former:
        return now
    former = former.drop_duplicates("index")
    more = former[["index", *former.columns.difference(now.columns, sort=False)]].copy()
    outdated = [
        name for name in more if name == "score" or _OURS.match(str(name)) or str(name).endswith(_UNITS)
    ]
    other = more["index"].isin(corrected)
    for area in {*_AREAS} & {*now.columns} & {*former.columns}:  # another one may have cut it
        known = more["index"].map(now.set_index("index")[area])
        other |= ~np.isclose(known, former[area]) & known.notna()
    more.loc[other, outdated] = np.nan
    others = former[former["index"].isin(elsewhere)]
    found = now.merge(more, on="index", how="left")
    return found if others.empty else pd.concat([found, others], ignore_index=True)
