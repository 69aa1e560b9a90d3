"""Pictures in which only the nuclei are bright: grey, or how much of a stain lies in stained tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_nucleus_kd.types import FloatArray

Stain = tuple[float, float, float]
Stains = tuple[Stain, Stain]
DAB = np.array([0.27, 0.57, 0.78], np.float32)  # optical density of the brown stain in red, green, blue
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
_DARK_NUCLEUS = 0.25  # haematoxylin of a dark nucleus in scikit-image's units
_STAINED, _DARKEST, _FEWEST_STAINED = 0.15, 1 / 255, 100  # optical density, intensity, pixels
_ALIKE = 0.02  # sine of the angle between two stains that cannot be taken apart


def grey_nuclei(picture: FloatArray, *, dark: bool) -> FloatArray:
    """Return a grey picture in which nuclei are bright.

    Parameters
    ----------
    picture : (3, Y, X) float32 in [0, 1]. Not changed.
    dark : whether nuclei are dark in it, as where they absorb light; then it is turned around.

    Returns
    -------
    (Y, X) float32 in [0, 1]: its luminance (ITU-R BT.709).

    Source: GeNSeg-Net, section 3.4.
    """
    red, green, blue = picture
    grey: FloatArray = (0.2125 * red + 0.7154 * green + 0.0721 * blue).astype(np.float32)
    return 1 - grey if dark else grey


def haematoxylin(picture: FloatArray, stains: Sequence[Sequence[float]] | None = None) -> FloatArray:
    """Return how much haematoxylin lies in each pixel of a colour picture: nuclei are bright, all else dark.

    Parameters
    ----------
    picture : (3, Y, X) red, green and blue in [0, 1]. Not changed.
    stains : optical density of haematoxylin and of the other stain in red, green and blue; None: of
        haematoxylin, eosin and DAB, as Ruifrok and Johnston measured them and scikit-image has them.

    Returns
    -------
    (Y, X) in [0, 1]; 1 is a dark nucleus.
    """
    from skimage.color import hed_from_rgb, separate_stains

    apart = hed_from_rgb if stains is None else unmixing(stains)
    stain = separate_stains(np.moveaxis(picture, 0, -1), apart)[..., 0]
    scaled: FloatArray = np.clip(stain / _DARK_NUCLEUS, 0, 1).astype(np.float32)
    return scaled


def unmixing(stains: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Return the (3, 3) matrix that takes two stains and what is neither of them apart.

    Raises
    ------
    SettingsError : they are alike, or one is none.
    """
    vectors = np.asarray(stains, float)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = vectors / np.where(lengths > 0, lengths, 1)
    third = np.cross(first, second)
    if not np.linalg.norm(third) > _ALIKE:
        raise SettingsError(
            f"stains {np.round(vectors, 2).tolist()}: they are alike, so they cannot be taken apart; choose "
            "haematoxylin, which takes usual ones, or give others"
        )
    return np.linalg.inv([first, second, third / np.linalg.norm(third)])


def estimate_stains(colours: npt.NDArray[np.floating]) -> Stains:
    """Estimate the two stains of an H&E or IHC picture, haematoxylin first.

    The colours of all stained pixels lie between those of the two stains, in the plane in which they differ
    most; the stains are its ends, but for a hundredth.

    Parameters
    ----------
    colours : (3, N) red, green and blue in [0, 1].

    Returns
    -------
    Optical densities in red, green and blue of either stain, of length 1.

    Raises
    ------
    SettingsError : hardly anything is stained.

    Source: Macenko et al., A method for normalizing histology slides, ISBI 2009.
    """
    density = -np.log(np.clip(colours, _DARKEST, 1))
    stained = density[:, density.max(axis=0) > _STAINED]
    if stained.shape[1] < _FEWEST_STAINED:
        raise SettingsError(
            "hardly anything in the picture is stained, so its stains cannot be estimated; choose "
            "haematoxylin, which takes usual ones, or give the stains"
        )
    _, vectors = np.linalg.eigh(np.cov(stained))
    plane = vectors[:, [2, 1]] * np.where(vectors[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(plane.T @ stained)[::-1])
    ends = [plane @ (np.cos(a), np.sin(a)) for a in np.percentile(angles, (1, 99))]
    first, second = sorted((np.clip(e, 0, None) for e in ends), key=lambda e: -e[0] / e.sum())
    return _unit(first), _unit(second)


def _unit(stain: npt.NDArray[np.float64]) -> Stain:
    red, green, blue = stain / np.linalg.norm(stain)
    return float(red), float(green), float(blue)
