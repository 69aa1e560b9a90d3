"""A layer and a legend of what became of nuclei: for Compare, and for enhanced images beside plain ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.mistakes import COLOURS, Verdict
from napari_nucleus_kd.widgets._layers import FROM_KEY
from napari_nucleus_kd.widgets._show import placed
from napari_nucleus_kd.widgets._target import LOCKED_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_nucleus_kd.types import Region
    from napari_nucleus_kd.widgets._layers import Plane

ERRORS_KEY = "nucleus_kd_errors"  # whose errors a layer shows, as Compare names it; "" if not of Compare
_FAINT = 0.4  # of what is correct: the eye is to fall on the errors


def add_verdicts(
    viewer: ViewerModel,
    plane: Plane,
    verdicts: npt.NDArray[np.uint8],
    region: Region | None,
    name: str,
    of: str = "",
) -> Labels:
    """Add the Verdict of each pixel as a layer that cannot be edited.

    Parameters
    ----------
    verdicts : (Y, X) of the region, see mistakes.picture.
    of : whose errors they are, of those that are compared.
    """
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, Any] = {v.value: COLOURS[v] for v in Verdict}
    colours[Verdict.CORRECT.value] = COLOURS[Verdict.CORRECT] + f"{round(255 * _FAINT):02x}"
    layer = Labels(
        np.expand_dims(verdicts, plane.hidden),
        name=name,
        colormap=DirectLabelColormap(color_dict={**colours, 0: "transparent", None: "transparent"}),
        metadata={
            ERRORS_KEY: of,
            FROM_KEY: plane.source.key,
            LOCKED_KEY: "it shows what a comparison says of other labels",
        },
        opacity=0.7,
        **placed(plane, region),
    )
    layer.editable = False
    viewer.add_layer(layer)
    return layer


def legend(names: Mapping[Verdict, str]) -> str:
    """Return what the colours mean, as rich text."""
    together = {v: f"■</span> {name}".replace(" ", "&nbsp;") for v, name in names.items()}
    return " ".join(f'<span style="color:{COLOURS[v]}">{name}' for v, name in together.items())
