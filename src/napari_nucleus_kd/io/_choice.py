"""What a person may choose in a file (z, t, series), limits, and sizes in micrometres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io._plane import CHANNEL_AXES
from napari_nucleus_kd.types import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_PIXELS = 1 << 40  # of a file that is read region by region
MAX_PIXELS_AT_ONCE = 1 << 30  # of a picture, or one piece of a file, that is decoded as a whole
RGB_CHANNELS = (Channel("red", "#ff0000"), Channel("green", "#00ff00"), Channel("blue", "#0000ff"))


def check_pixels(path: Path, shape: Sequence[int], limit: int = MAX_PIXELS) -> None:
    """Raise ReadError if a claimed shape has no pixels or more than `limit`."""
    pixels = math.prod(int(n) for n in shape)
    size = " x ".join(f"{n}" for n in shape)
    if pixels < 1:
        raise ReadError(f"{path.name} says it is {size} pixels: an image needs at least one. Save it again.")
    if pixels > limit:
        how = "read as a whole" if limit == MAX_PIXELS_AT_ONCE else "one image"
        raise ReadError(
            f"{path.name} says it is {size} pixels, more than the {limit:,} allowed for {how}. The file is "
            "damaged, or must be saved as a tiled OME-TIFF or an OME-Zarr, which are read piece by piece."
        )


def name_channels(
    names: Sequence[str | None], colors: Sequence[str | None], count: int
) -> tuple[Channel, ...]:
    """Make `count` channels; those without a name become "channel 1", "channel 2", ..."""
    names = [*names, *(None,) * count][:count]
    colors = [*colors, *(None,) * count][:count]
    pairs = enumerate(zip(names, colors, strict=True), 1)
    return tuple(Channel((name or "").strip() or f"channel {i}", color) for i, (name, color) in pairs)


@dataclass(frozen=True)
class Choice:
    """What a person asked for: a z plane (None: the middle one), a time point and a series."""

    z: int | None = None
    t: int = 0
    series: int = 0


def fix_axes(sizes: Mapping[str, int], choice: Choice, path: Path) -> tuple[dict[str, int], list[str]]:
    """Choose an index on every axis that is not Y, X or a channel.

    Returns
    -------
    index by axis letter (for the axes that are there), and notes for a person.

    Raises
    ------
    ReadError if z or t is outside the file.
    """
    fixed: dict[str, int] = {}
    notes: list[str] = []
    depth = sizes.get("Z", 1)
    z = depth // 2 if choice.z is None else choice.z
    _check_range(path, "z", z, depth)
    _check_range(path, "t", choice.t, sizes.get("T", 1))
    for axis, size in sizes.items():
        if axis in "YX" or axis in CHANNEL_AXES:
            continue
        fixed[axis] = {"Z": z, "T": choice.t}.get(axis, 0)
        if size > 1:
            notes.append(_axis_note(axis, fixed[axis], size))
    return fixed, notes


def z_plane_of(sizes: Mapping[str, int], fixed: Mapping[str, int]) -> tuple[int, int] | None:
    """Return which z plane of how many was chosen, see fix_axes; None if there is only one."""
    return (fixed["Z"], sizes["Z"]) if sizes.get("Z", 1) > 1 else None


def _axis_note(axis: str, index: int, size: int) -> str:
    """Say which plane was taken; in the same words whoever chose it: notes tell planes apart."""
    what = {"Z": "z plane", "T": "time point"}.get(axis, f"position on the file's axis {axis}:")
    return f"{what} {index} of {size}, counted from 0"


def _check_range(path: Path, name: str, value: int, size: int) -> None:
    if not 0 <= value < size:
        raise ReadError(
            f"{path.name} has no {name} = {value}: {name} counts from 0 and the file has {size}. "
            f"Choose {name} from 0 to {size - 1}."
        )


def check_series(path: Path, value: int, names: Sequence[str]) -> None:
    """Raise ReadError unless the file holds this series."""
    if not 0 <= value < len(names):
        listed = ", ".join(f"{i} ({n})" if n else f"{i}" for i, n in enumerate(names[:20]))
        raise ReadError(
            f"{path.name} has no series = {value}: series counts from 0 and the file has {len(names)}. "
            f"Choose one of {listed}."
        )


def join_sizes(x_um: float | None, y_um: float | None) -> tuple[float | None, list[str]]:
    """Make one pixel size of two; says so where they differ by more than 1 %."""
    sizes = [s for s in (x_um, y_um) if s is not None and math.isfinite(s) and s > 0]
    if not sizes:
        return None, []
    mean = sum(sizes) / len(sizes)
    if max(sizes) - min(sizes) > 0.01 * mean:
        return mean, [f"pixels are {x_um:g} um wide and {y_um:g} um high; their mean, {mean:g} um, is used"]
    return mean, []


_UM_PER_UNIT = {
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("micrometers", "micrometres"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch", "inches"), 25400.0),
}


def um_per_unit(unit: str) -> float | None:
    """Micrometres in one unit of length, None if it is not one (pixel, reference frame, ...)."""
    return _UM_PER_UNIT.get(unit.strip().casefold())
