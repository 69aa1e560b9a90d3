"""Slide formats that need OpenSlide (the `slides` extra)."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io._choice import (
    RGB_CHANNELS,
    Choice,
    check_pixels,
    check_series,
    fix_axes,
    join_sizes,
)
from napari_nucleus_kd.io._plane import Plane, reading, to_dask
from napari_nucleus_kd.types import Image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

_INSTALL = 'pip install "napari-nucleus-kd[slides]"'


def has_openslide() -> bool:
    """Whether OpenSlide can be used here."""
    try:
        import openslide  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def read_slide(path: Path, choice: Choice) -> Image:
    """Read a slide by OpenSlide: lazy, all levels, RGB.

    Raises
    ------
    ReadError if OpenSlide is not installed or does not read the file, or there is no such z, t or series.
    """
    if not has_openslide():
        raise ReadError(f"{path.name} is a slide that needs OpenSlide, which is not installed: {_INSTALL}")
    with reading(path, "a slide"):
        source = SlideSource(path)
        slide = source.slide()
        check_series(path, choice.series, [path.name])
        width, height = slide.dimensions
        check_pixels(path, (height, width))
        fix_axes({"Y": height, "X": width}, choice, path)
        size, notes = join_sizes(*(_number(slide.properties.get(f"openslide.mpp-{a}")) for a in "xy"))
        levels = [_level(path, source, slide, level) for level in range(slide.level_count)]
    return Image(tuple(levels), RGB_CHANNELS, True, size, path.name, path, tuple(notes))


def _level(path: Path, source: SlideSource, slide: Any, level: int) -> Any:
    width, height = slide.level_dimensions[level]
    opener = functools.partial(SlideLevel, source, level)
    plane = Plane(opener, "YXS", (3, height, width), np.dtype(np.uint8), path)
    words = slide.properties
    native = [int(words.get(f"openslide.level[{level}].tile-{side}", 256)) for side in ("height", "width")]
    return to_dask(plane, native)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


class SlideSource:
    """An OpenSlide that opens when pixels are first asked for; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._restart()

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._slide: Any = None

    def slide(self) -> Any:
        """Return the open slide."""
        with self._lock:
            if self._slide is None:
                import openslide

                self._slide = openslide.OpenSlide(str(self.path))
            return self._slide

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    def __del__(self) -> None:
        if self.__dict__.get("_slide") is not None:
            self._slide.close()


@dataclass(frozen=True)
class SlideLevel:
    """One level as an array-like (Y, X, 3); where the scanner saw nothing it is the slide's background."""

    source: SlideSource
    level: int

    def __getitem__(self, key: tuple[slice, slice, slice]) -> npt.NDArray[np.uint8]:
        """Read one region; slices with a start and a stop."""
        rows, columns, samples = key
        slide = self.source.slide()
        scale = slide.level_downsamples[self.level]
        corner = (round(columns.start * scale), round(rows.start * scale))
        size = (columns.stop - columns.start, rows.stop - rows.start)
        rgba = np.asarray(slide.read_region(corner, self.level, size), np.uint16)
        text = slide.properties.get("openslide.background-color", "ffffff")
        background = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.uint16)
        alpha = rgba[..., 3:]
        rgb = (rgba[..., :3] * alpha + background * (255 - alpha) + 127) // 255
        return rgb.astype(np.uint8)[..., samples]
