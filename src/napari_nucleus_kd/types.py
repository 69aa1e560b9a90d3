"""The words of the package: images, network maps, nuclei and progress."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    import dask.array

Array: TypeAlias = "npt.NDArray[Any] | dask.array.Array"
FloatArray: TypeAlias = npt.NDArray[np.float32]
LabelArray: TypeAlias = npt.NDArray[np.int32]
_T = TypeVar("_T")


class Modality(StrEnum):
    """How the picture was made; decides how channels become the network's three."""

    FLUORESCENCE = "fluorescence"
    HE = "H&E"
    IHC = "IHC"


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of an image.

    Attributes
    ----------
    name : as the file says it, else "channel 1", "channel 2", ...
    color : "#rrggbb", or None if the file does not say.
    """

    name: str
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One plane of an image, read lazily.

    Attributes
    ----------
    levels : pyramid, full resolution first; each (C, Y, X), numpy or dask.
    channels : one per entry of the C axis.
    rgb : True if the three channels are the red, green and blue of one colour picture.
    pixel_size_um : edge of one full-resolution pixel in micrometres; None if the file does not say.
    name : short name for people, usually the file's.
    source : the file it was read from, None for arrays in memory.
    notes : what the reader wants a person to know ("z plane 12 of 25").
    corner_yx : where it lies in the image that it was cut from, in pixels of that.
    z_plane : which z plane of how many of the file it is, counted from 0; None if the file has only one.
    """

    levels: tuple[Array, ...]
    channels: tuple[Channel, ...]
    rgb: bool = False
    pixel_size_um: float | None = None
    name: str = "image"
    source: Path | None = None
    notes: tuple[str, ...] = ()
    z_plane: tuple[int, int] | None = None
    corner_yx: tuple[int, int] = (0, 0)

    @property
    def pixels(self) -> Array:
        """Full-resolution pixels, (C, Y, X)."""
        return self.levels[0]

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width in full-resolution pixels."""
        _, height, width = self.levels[0].shape
        return int(height), int(width)

    @property
    def z(self) -> int | None:
        """The z plane a file was read at, counted from 0; None if it has only one."""
        return None if self.z_plane is None else self.z_plane[0]


@dataclass(frozen=True, slots=True)
class Maps:
    """What a network says of every pixel, at the resolution the network saw.

    Attributes
    ----------
    values : (M, H, W) float32.
    names : one name per map, for example ("foreground", "distance").
    shape_yx : height and width of the image region that the maps describe, in image pixels.
    scale : map pixels per image pixel. The corners agree; H is the height times the scale, rounded up.
    diameter_px : typical nucleus diameter that decoding assumes, in image pixels; None if unknown.
    """

    values: FloatArray = field(repr=False)
    names: tuple[str, ...]
    shape_yx: tuple[int, int]
    scale: float = 1.0
    diameter_px: float | None = None

    def __getitem__(self, name: str) -> FloatArray:
        """Return one map, (H, W) float32."""
        values: FloatArray = self.values[self.names.index(name)]
        return values


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Instance labels and what is known of each nucleus.

    Attributes
    ----------
    labels : (Y, X) int32; 0 is background, nuclei are 1..n.
    scores : (n,) float32 in [0, 1], how sure the segmenter is of nucleus 1..n; None if unknown. Of
        the student: the mean foreground probability, the deeper inside the more it counts.
    """

    labels: LabelArray
    scores: FloatArray | None = None

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return int(self.labels.max(initial=0))

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"Nuclei({self.count} in {height} x {width} px)"


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of an image in full-resolution pixels; the end is not included."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in a (Y, X) array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grown(self, by_px: int, shape_yx: tuple[int, ...]) -> Region:
        """Return the rectangle made wider on every side, as far as an image of this shape goes.

        With 0 it is cut off at the border of the image.
        """
        height, width = shape_yx
        return Region(
            max(self.y0 - by_px, 0),
            max(self.x0 - by_px, 0),
            min(self.y1 + by_px, height),
            min(self.x1 + by_px, width),
        )

    def common(self, other: Region) -> Region:
        """Return the rectangle that lies in both; of one that has no pixel the end is not after the start."""
        return Region(
            max(self.y0, other.y0), max(self.x0, other.x0), min(self.y1, other.y1), min(self.x1, other.x1)
        )

    def within(self, outer: Region) -> Region:
        """Return the same rectangle as seen from the corner of another."""
        return Region(self.y0 - outer.y0, self.x0 - outer.x0, self.y1 - outer.y0, self.x1 - outer.x0)


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of a long step, which is a generator of these; the shell shows or ignores them.

    Attributes
    ----------
    done, total : finished and planned units of work; total 0 means unknown.
    message : what is being done now, for a person.
    values : numbers worth a curve, for example losses.
    """

    done: int
    total: int
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


def finish(steps: Generator[Progress, None, _T]) -> _T:
    """Take all steps of a long piece of work and return its result; nobody watches."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: _T = stop.value
            return result


def named(name: str, steps: Generator[Progress, None, _T]) -> Generator[Progress, None, _T]:
    """Take the steps of a part of a longer piece of work, whose name each message then begins with."""
    return retold(steps, lambda progress: replace(progress, message=f"{name}: {progress.message}"))


def retold(
    steps: Generator[Progress, None, _T], tell: Callable[[Progress], Progress]
) -> Generator[Progress, None, _T]:
    """Take the steps of a part of a longer piece of work, with progress of the whole; returns their result.

    Parameters
    ----------
    tell : returns the progress of the whole for one of the part.
    """
    try:
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                result: _T = stop.value
                return result
            yield tell(progress)
    finally:
        steps.close()
