"""One nucleus: an irregular smooth outline and what it covers on the pixel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HARMONICS = np.arange(2, 9)


@dataclass(frozen=True)
class Outline:
    """A closed curve: an ellipse, bent along its long axis, its radius changed by Fourier terms.

    Attributes
    ----------
    y, x : centre, in pixels.
    length, width : long and short diameter before the perturbation, in pixels.
    angle : direction of the long axis, radians from +x towards +y.
    bend : sideways shift of the tips, as a fraction of the width.
    cosines, sines : (7,) relative change of the radius, harmonics 2 to 8.
    """

    y: float
    x: float
    length: float
    width: float
    angle: float
    bend: float
    cosines: np.ndarray
    sines: np.ndarray


@dataclass(frozen=True)
class Stamp:
    """An outline on the pixel grid, cut to the picture.

    Attributes
    ----------
    window : the rows and columns of the picture that the arrays below cover.
    depth : (h, w) distance to the outline in pixels, positive inside.
    radius : (h, w) 0 in the centre, 1 on the outline.
    u, v : (h, w) position along the long and the short axis, -1 to 1 inside.
    """

    outline: Outline
    window: tuple[slice, slice]
    depth: np.ndarray
    radius: np.ndarray
    u: np.ndarray
    v: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Pixels whose centre is inside; (h, w) bool. This is what the labels hold."""
        return self.depth >= 0

    @property
    def cover(self) -> np.ndarray:
        """Covered part of each pixel, (h, w) in [0, 1]; 0.5 on the outline. This is what pictures show."""
        return np.clip(self.depth + 0.5, 0, 1)


@dataclass(frozen=True)
class Form:
    """What the outlines of one kind of thing have in common.

    Attributes
    ----------
    diameter, spread : of the circle with the same area: mean and standard deviation, in pixels.
    elongation : least and greatest ratio of the long to the short diameter.
    roughness : typical relative size of the second harmonic; higher ones fall off.
    bend : typical sideways shift of the tips, as a fraction of the width.
    """

    diameter: float
    spread: float
    elongation: tuple[float, float]
    roughness: float = 0.05
    bend: float = 0.1

    def draw(
        self, rng: np.random.Generator, centre: tuple[float, float] | np.ndarray, angle: float | None = None
    ) -> Outline:
        """Draw one outline around a centre (y, x); angle of the long axis in radians, None for any."""
        diameter = max(self.diameter + self.spread * rng.normal(), 0.5 * self.diameter)
        stretch = np.sqrt(rng.uniform(*self.elongation))
        amplitude = self.roughness * (2 / HARMONICS) ** 1.3
        return Outline(
            y=float(centre[0]),
            x=float(centre[1]),
            length=diameter * stretch,
            width=diameter / stretch,
            angle=rng.uniform(0, np.pi) if angle is None else angle,
            bend=self.bend * rng.normal(),
            cosines=amplitude * rng.normal(size=HARMONICS.size),
            sines=amplitude * rng.normal(size=HARMONICS.size),
        )


def stamp(outline: Outline, shape_yx: tuple[int, int], margin: float = 3.0) -> Stamp | None:
    """Rasterise an outline; None if it lies wholly outside the picture.

    margin : pixels around the outline that the arrays also cover.
    """
    reach = 0.75 * outline.length + margin
    y0, y1 = max(0, int(outline.y - reach)), min(shape_yx[0], int(outline.y + reach) + 2)
    x0, x1 = max(0, int(outline.x - reach)), min(shape_yx[1], int(outline.x + reach) + 2)
    if y1 - y0 < 2 or x1 - x0 < 2:
        return None
    yy, xx = np.mgrid[y0:y1, x0:x1]
    dy, dx = yy - outline.y, xx - outline.x
    cos, sin = np.cos(outline.angle), np.sin(outline.angle)
    u = (dx * cos + dy * sin) / (outline.length / 2)
    v = (dy * cos - dx * sin) / (outline.width / 2) + outline.bend * (2 * u * u - 1)
    from_centre = np.hypot(u, v)
    radius = from_centre / np.maximum(_edge(outline, (u + 1j * v) / np.maximum(from_centre, 1e-9)), 0.3)
    slope = np.hypot(*np.gradient(radius))
    depth = (1 - radius) / np.maximum(slope, 1e-3)
    return Stamp(outline, (slice(y0, y1), slice(x0, x1)), depth, radius, u, v)


def _edge(outline: Outline, turn: np.ndarray) -> np.ndarray:
    """Relative radius of the outline in the directions exp(i theta); Horner's scheme in powers of turn."""
    total = np.zeros_like(turn)
    for cosine, sine in zip(outline.cosines[::-1], outline.sines[::-1], strict=True):
        total = total * turn + (cosine - 1j * sine)
    edge: np.ndarray = 1 + (total * turn ** int(HARMONICS[0])).real
    return edge
