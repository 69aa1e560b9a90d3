"""Taking new labels into a project in the place of those that are kept, but for what is verified."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets import _show
from napari_nucleus_kd.widgets._changes import Changes
from napari_nucleus_kd.widgets._copying import layer_like
from napari_nucleus_kd.widgets._kept_steps import Whole, merged_steps
from napari_nucleus_kd.widgets._layers import PLANE_KEY, RECIPE_KEY, shown_plane
from napari_nucleus_kd.widgets._target import Target, image_under, target_of
from napari_nucleus_kd.widgets._verifying import key_of
from napari_nucleus_kd.widgets._worker import one_step

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.layers import Labels

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.widgets._keeping import Keeping
    from napari_nucleus_kd.widgets._kept import Kept
    from napari_nucleus_kd.widgets._kept_steps import Merged
    from napari_nucleus_kd.widgets._session import Session

STEP = "keep"


class TakingIn:
    """Merges labels of a later run into those that are kept."""

    def __init__(self, session: Session, keeping: Keeping) -> None:
        self._session, self._keeping = session, keeping
        self._watched: list[Changes] = []
        self._changed = self._again = False  # while they are merged; so they are merged once more

    def start(self) -> None:
        """Put the labels in hand in the place of those that are kept, but for what is verified."""
        keeping, kept = self._keeping, self._keeping.kept
        if kept is None or keeping.doing:
            return
        try:
            target = target_of(self._session.viewer)
            under = image_under(target, self._session)
            if kept.refusal:
                raise EditError(f"nothing can be taken in: {kept.refusal}")
            if keeping.kept_of(key_of(under)) is not kept:
                raise EditError(
                    f"“{target.layer.name}” belongs to {under.image.name}, which is not in hand; choose that "
                    "image first"
                )
        except EditError as error:
            keeping.complain(str(error))
            return
        self._merge(kept, target, under.corner)

    def _merge(self, kept: Kept, target: Target, corner: tuple[int, int]) -> None:
        (height, width), (y, x) = target.labels.shape, corner
        shape = kept.image.record.shape_yx
        part = Region(y, x, y + height, x + width).grown(0, shape)
        found = Whole(target.labels, corner, shape)
        self._watch(kept, target)
        self._keeping.doing = f"Taking in “{target.layer.name}”…"
        mine = frozenset(kept.corrected)
        self._session.run_beside(
            merged_steps(kept.labels, kept.mask.pixels, found, part, mine),
            partial(self._merged, kept, target, corner),
            ended=partial(self._ended, kept, target, corner),
            step=STEP,
        )
        self._keeping.changed.emit()

    def _watch(self, kept: Kept, target: Target) -> None:
        """Hear what a person changes meanwhile, which a merge under way may have missed."""
        self._changed = self._again = False
        self._watched = [Changes(layer) for layer in (*kept.layers, target.layer)]
        for changes in self._watched:
            changes.changed.connect(self._on_changed)
            changes.replaced.connect(self._on_changed)

    def _on_changed(self, *_: object) -> None:
        self._changed = True

    def _ended(self, kept: Kept, target: Target, corner: tuple[int, int]) -> None:
        for changes in self._watched:
            changes.close()
        self._watched = []
        self._keeping.rested()
        if self._again:
            self._merge(kept, target, corner)

    def _merged(self, kept: Kept, target: Target, corner: tuple[int, int], merged: Merged) -> None:
        if self._session.viewer_if_there is None:
            return
        if self._keeping.kept is not kept:
            self._keeping.note = (
                f"“{target.layer.name}” was not taken in: another image was chosen meanwhile."
            )
        elif self._changed:
            self._again = True
        else:
            self._take_in(kept, target, corner, merged)

    def _take_in(
        self,
        kept: Kept,
        target: Target,
        corner: tuple[int, int],
        merged: Merged,
    ) -> None:
        viewer = self._session.viewer
        layer = before = kept.target.layer
        recipe, former = target.layer.metadata.get(RECIPE_KEY), f"{layer.name} before taking in"
        target.layer.visible = False
        stayed = {n: n for n in layer.features.get("index", ()) if n not in merged.gone}
        table = _table((layer, stayed, kept.corner), (target.layer, merged.came, corner))
        if kept.target.labels.shape == merged.labels.shape and kept.corner == (0, 0):
            self._add_hidden(layer_like(layer, layer.data, former), layer)
            layer.data = _with_plane(kept.target, merged.labels)
            layer._reset_history()  # else Redo would stamp former corrections on these
            if recipe is not None:
                layer.metadata[RECIPE_KEY] = recipe
            layer.visible = True
        else:
            layer.visible, layer.name = False, former
            layer = self._add_whole(kept, merged.labels, recipe)
        layer.features = table
        corrected = self._keeping.corrected
        there = corrected.numbers.get(target.layer, set())
        kept.corrected.update(now for now, was in merged.came.items() if was in there)
        corrected.numbers[layer] = kept.corrected
        corrected.layers -= {before, target.layer}  # what was corrected there is here now
        self._session.runs.took_in(target.layer)
        kept.touch_all()
        if recipe is not None and recipe.modality is not None:
            noted = one_step(partial(kept.image.note_origin, recipe.modality, recipe))
            self._session.run_beside(noted, lambda _: None, step=STEP)
        viewer.layers.selection.active = layer
        self._keeping.note = (
            "Taken in. Nuclei in verified pixels, and those that you corrected, stayed as they were; all "
            f"former ones are in “{former}”."
        )
        self._session.corrections.look_again()
        self._keeping.changed.emit()

    def _add_hidden(self, layer: Labels, above: Labels) -> None:
        """Add a hidden layer below another one; what is in hand stays so."""
        viewer = self._session.viewer
        layer.visible = False
        with self._session.corrections.steady():
            viewer.add_layer(layer)
            viewer.layers.move(len(viewer.layers) - 1, viewer.layers.index(above))

    def _add_whole(self, kept: Kept, merged: Any, recipe: Recipe | None) -> Labels:
        """Add labels of the whole image, which are kept from now on in place of those of a part of it."""
        source, viewer = self._session.source, self._session.viewer
        assert source is not None  # it is kept, and in hand
        plane = shown_plane(source, viewer)
        outlines = self._session.workspace.preferences.outlines
        layer = _show.add_kept_labels(viewer, plane, merged, recipe, outlines=outlines)
        layer.metadata[PLANE_KEY] = kept.target.layer.metadata.get(PLANE_KEY)
        kept.follow(Target.in_new(layer, plane), (0, 0))
        return layer


def _with_plane(target: Target, merged: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
    """Return data for a layer with other labels in one plane; the others stay."""
    data = target.layer.data
    if merged.size == data.size:
        return merged.reshape(data.shape)
    whole = np.array(data, np.int64)
    index = tuple(slice(None) if axis in target.axes else at for axis, at in enumerate(target.point))
    whole[index] = merged
    return whole


def _table(*parts: tuple[Labels, dict[int, int], tuple[int, int]]) -> Any:
    """Return the features of nuclei that came from several layers; of those that have any.

    Parameters
    ----------
    parts : a layer, which number a nucleus had there by its number now, and where the layer begins now.
    """
    import pandas as pd

    tables = []
    for layer, numbers, (y, x) in parts:
        if "index" not in layer.features:
            continue
        table = layer.features.set_index("index")
        known = {now: was for now, was in numbers.items() if was in table.index}
        table = table.loc[[*known.values()]].assign(index=[*known])
        for name, begin in (("centroid_y", y), ("centroid_x", x)):
            if name in table:
                table[name] += begin
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else None
