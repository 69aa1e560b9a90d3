"""PNG, JPEG, BMP and other pictures that are decoded as a whole."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as pil

from napari_nucleus_kd.io._choice import (
    MAX_PIXELS_AT_ONCE,
    RGB_CHANNELS,
    Choice,
    check_pixels,
    check_series,
    fix_axes,
    join_sizes,
    name_channels,
)
from napari_nucleus_kd.io._plane import Plane, already_open, reading, to_dask
from napari_nucleus_kd.io._tiff_metadata import credible_size
from napari_nucleus_kd.types import Image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

_GREY_MODES = {"1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION_TAG = 0x0112


def read_picture(path: Path, kind: str, choice: Choice) -> Image:
    """Decode a picture of a known kind ("PNG", "JPEG", "BMP", "GIF", "WEBP", "JPEG2000").

    Raises
    ------
    ReadError if it is damaged, cut short, larger than 2**30 pixels, or has no such z, t or series.
    """
    check_series(path, choice.series, [path.name])
    with reading(path, f"a {kind} picture"):
        pil.init()
        # The format's own class: PIL's open() would warn at its own, lower limit before we can look.
        make: Any = pil.OPEN[kind][0]
        with path.open("rb") as file, make(file, str(path)) as picture:
            check_pixels(path, (*picture.size[::-1],), MAX_PIXELS_AT_ONCE)
            frames = int(getattr(picture, "n_frames", 1))
            _, notes = fix_axes({"T": frames, "Y": picture.height, "X": picture.width}, choice, path)
            if choice.t:
                picture.seek(choice.t)
            turn = picture.getexif().get(_ORIENTATION_TAG, 1)
            if turn != 1:
                notes.append("the file asks viewers to turn or mirror it; pixels are kept as stored")
            dpi = [float(d) for d in picture.info.get("dpi", ())]
            pixels = _decode(path, kind, picture)
    if pixels.shape[2] in (2, 4):
        notes.append("an alpha channel was left out")
    x_um, y_um = [25400 / d if d > 0 else None for d in dpi] if len(dpi) == 2 else (None, None)
    size, size_notes = credible_size(x_um, y_um, "the picture's printing resolution")
    pixel_size, join_notes = join_sizes(*size)
    rgb = pixels.shape[2] >= 3
    channels = RGB_CHANNELS if rgb else name_channels([], [], 1)
    shape = (len(channels), *pixels.shape[:2])
    plane = Plane(partial(already_open, pixels), "YXS", shape, pixels.dtype, path)
    level = to_dask(plane, (1, 1))
    return Image((level,), channels, rgb, pixel_size, path.name, path, (*notes, *size_notes, *join_notes))


def _decode(path: Path, kind: str, picture: Any) -> npt.NDArray[Any]:
    """Return (Y, X, S) pixels: S is 1 for grey or 3 for RGB, and one more with an alpha channel."""
    picture.load()  # the whole file: finds those cut short
    if picture.mode in ("RGB", "RGBA", "LA") and _may_be_deep(path, kind):
        pixels = _decode_deep(path, kind)
    elif picture.mode in (*_GREY_MODES, "LA", "RGB", "RGBA"):
        pixels = np.asarray(picture)
    else:
        alpha = "transparency" in picture.info or picture.mode in ("RGBa", "PA")
        pixels = np.asarray(picture.convert("RGBA" if alpha else "RGB"))
    pixels = np.atleast_3d(pixels)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _may_be_deep(path: Path, kind: str) -> bool:
    """Whether a channel may have more than the 8 bits to which Pillow reduces colour pictures."""
    if kind != "PNG":
        return kind == "JPEG2000"
    with path.open("rb") as file:
        return file.read(25)[24] == 16


def _decode_deep(path: Path, kind: str) -> npt.NDArray[Any]:
    import imagecodecs

    decode = imagecodecs.png_decode if kind == "PNG" else imagecodecs.jpeg2k_decode
    pixels: npt.NDArray[Any] = decode(path.read_bytes())
    return pixels
