"""Write a drawing as OME-TIFF files."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tifffile

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Drawing:
    """A drawn picture and its ground truth.

    Attributes
    ----------
    pixels : (C, Y, X) uint16, or (Y, X, 3) uint8 if rgb.
    labels : (Y, X) int32, 0 is background.
    channels, colors : one name and one "#rrggbb" a channel; empty if rgb.
    """

    name: str
    pixels: np.ndarray
    labels: np.ndarray
    pixel_size_um: float
    channels: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()

    @property
    def rgb(self) -> bool:
        """True for a colour picture."""
        return not self.channels


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write <name>.ome.tif and <name>_labels.tif, zlib with a predictor, replacing older ones."""
    picture = folder / f"{drawing.name}.ome.tif"
    labels = folder / f"{drawing.name}_labels.tif"
    metadata = {
        "axes": "YXS" if drawing.rgb else "CYX",
        "Name": drawing.name,
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, drawing.name)),  # the same each time
        "PhysicalSizeX": drawing.pixel_size_um,
        "PhysicalSizeY": drawing.pixel_size_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
    }
    if not drawing.rgb:
        metadata["Channel"] = {
            "Name": list(drawing.channels),
            "Color": [_ome_color(color) for color in drawing.colors],
        }
    tifffile.imwrite(
        picture, drawing.pixels, ome=True, photometric="rgb" if drawing.rgb else "minisblack",
        compression="zlib", compressionargs={"level": 9}, predictor=True, metadata=metadata,
    )  # fmt: skip
    tifffile.imwrite(
        labels, drawing.labels.astype(np.uint16), photometric="minisblack", compression="zlib",
        compressionargs={"level": 9}, predictor=True, metadata=None,
    )  # fmt: skip
    return [picture, labels]


def _ome_color(color: str) -> int:
    """Turn "#rrggbb" into OME's signed 32-bit RGBA number."""
    number = (int(color[1:], 16) << 8) | 0xFF
    return number - 2**32 if number >= 2**31 else number
