"""Taking new labels into a project in the place of those that are kept, but for what is verified."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.types import Region
from napari_nucleus_kd.widgets import _show
from napari_nucleus_kd.widgets._kept_steps import Whole, merged_steps
from napari_nucleus_kd.widgets._layers import RECIPE_KEY, shown_plane
from napari_nucleus_kd.widgets._target import Target, image_under, target_of

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    import numpy.typing as npt

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Progress
    from napari_nucleus_kd.widgets._keeping import Keeping
    from napari_nucleus_kd.widgets._kept import Kept
    from napari_nucleus_kd.widgets._session import Session

STEP = "keep"


class TakingIn:
    """Merges labels of a later run into those that are kept."""

    def __init__(self, session: Session, keeping: Keeping) -> None:
        self._session, self._keeping = session, keeping

    def start(self) -> None:
        """Put the labels in hand in the place of those that are kept, but for what is verified."""
        keeping, kept = self._keeping, self._keeping.kept
        if kept is None or keeping.doing:
            return
        try:
            target = target_of(self._session.viewer)
            under = image_under(target, self._session)
        except EditError as error:
            keeping.complain(str(error))
            return
        (height, width), (y, x) = target.labels.shape, under.corner
        shape = kept.image.record.shape_yx
        part = Region(y, x, y + height, x + width).grown(0, shape)
        found = Whole(target.labels, under.corner, shape)
        keeping.doing = f"Taking in “{target.layer.name}”…"
        self._session.run_beside(
            _steps(kept, found, part, target.layer.metadata.get(RECIPE_KEY)),
            partial(self._taken_in, kept, target),
            ended=keeping.rested,
            step=STEP,
        )
        keeping.changed.emit()

    def _taken_in(self, kept: Kept, target: Target, merged: Any) -> None:
        source, viewer = self._session.source, self._session.viewer_if_there
        if viewer is None or source is None or self._keeping.kept is not kept:
            return
        layer, recipe = kept.target.layer, target.layer.metadata.get(RECIPE_KEY)
        target.layer.visible = False
        if kept.target.labels.shape == merged.shape:
            layer.data = merged.reshape(layer.data.shape)
            layer._reset_history()  # else Redo would stamp former corrections on these
            if recipe is not None:
                layer.metadata[RECIPE_KEY] = recipe
            layer.visible = True
        else:
            layer.visible = False
            plane = shown_plane(source, viewer)
            outlines = self._session.workspace.preferences.outlines
            layer = _show.add_kept_labels(viewer, plane, merged, recipe, outlines=outlines)
            kept.follow(Target(layer, plane.axes, plane.point), (0, 0))
        kept.touch_all()
        viewer.layers.selection.active = layer
        self._keeping.note = "Taken in. Nuclei in verified pixels stayed as they were."
        self._session.corrections.look_again()
        self._keeping.changed.emit()


def _steps(
    kept: Kept, found: Whole, part: Region, recipe: Recipe | None
) -> Generator[Progress, None, npt.NDArray[np.int32]]:
    """Merge, and note in the project how the new labels came about."""
    merged = yield from merged_steps(kept.labels, kept.mask.pixels, found, part)
    if recipe is not None and recipe.modality is not None:
        kept.image.note_origin(recipe.modality, recipe)
    return merged
