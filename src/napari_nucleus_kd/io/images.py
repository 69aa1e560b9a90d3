"""Write an image as OME-TIFF, which `read` gives back as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

_TIFF_BYTES = 2**32 - 2**25  # above, a file may have more bytes than TIFF can count
_OME_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


def write_image(
    path: Path,
    pixels: npt.NDArray[Any],
    *,
    rgb: bool,
    pixel_size_um: float | None,
    channels: Sequence[str] = (),
    corner_yx: tuple[int, int] = (0, 0),
) -> None:
    """Write an image, replacing what is there.

    Parameters
    ----------
    pixels : (C, Y, X) numbers. Those that OME-TIFF does not know (bool, 64-bit integers, 16-bit
        float) are stored as float32.
    rgb : the three channels are red, green and blue of a colour picture.
    pixel_size_um : edge of one pixel in micrometres; None leaves it out.
    channels : their names; none leaves them out.
    corner_yx : where it lies in the image that it was cut from, in pixels; kept as the position of its plane.

    Raises
    ------
    OSError : the disk refuses.
    """
    import tifffile

    if pixels.dtype.name not in _OME_TYPES:
        pixels = pixels.astype(np.float32)
    words: dict[str, Any] = {"axes": "YXS" if rgb else "CYX", **pixel_size_words(pixel_size_um)}
    words |= position_words(pixel_size_um, corner_yx, 1 if rgb else len(pixels))
    if channels:
        words["Channel"] = {"Name": list(channels)}
    tifffile.imwrite(
        path,
        np.moveaxis(pixels, 0, -1) if rgb else pixels,
        ome=True,
        photometric="rgb" if rgb else "minisblack",
        compression="zlib",
        bigtiff=pixels.nbytes > _TIFF_BYTES,
        metadata=words,
    )


def position_words(um: float | None, corner_yx: tuple[int, int], planes: int = 1) -> dict[str, Any]:
    """Return the position of all planes of a TIFF in a larger image, for tifffile's metadata.

    Parameters
    ----------
    um : edge of one pixel in micrometres; None: the position is in pixels.
    corner_yx : in pixels; nothing is said of (0, 0).
    """
    if not any(corner_yx):
        return {}
    at, unit = (um, "µm") if um is not None else (1, "pixel")
    place: dict[str, Any] = {}
    for axis, start in zip("YX", corner_yx, strict=True):
        place |= {f"Position{axis}": [start * at] * planes, f"Position{axis}Unit": [unit] * planes}
    return {"Plane": place}


def pixel_size_words(um: float | None) -> dict[str, Any]:
    """Return a pixel size in micrometres as tifffile's OME metadata."""
    if um is None:
        return {}
    return {f"PhysicalSize{axis}": um for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
