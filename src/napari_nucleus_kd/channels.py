"""How the channels of an image become the three that a network sees."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_nucleus_kd.types import Array, FloatArray, Image

NETWORK_CHANNELS = 3
# An image is measured in 8 x 8 blocks of 256 x 256 pixels, or whole if it is smaller.
_GRID, BLOCK_PX = 8, 256
_MARKERS = re.compile(
    r"dapi|hoechst|draq|syto|to-?pro|nuc(?:lei|lear|leus|blue|spot)|7-?aad|propidium|histone"
    r"|(?<![a-z])dna(?!-?pk)|(?<![a-z0-9])h[34](?!\d)|h2b|ir-?19[13]|19[13]ir",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class InputMap:
    """Turns the channels of one image into a network's three, the same way in every tile.

    Attributes
    ----------
    channels : indices on the C axis that are used.
    rgb : True keeps colour: the three channels go in as they are, scaled; a grey picture's only channel
        three times. False takes the brightest of the scaled channels and gives it to the network three times.
    low, high : intensities that become 0 and 1, one pair for each of `channels`.
    weights : of each channel in a blend that takes the place of the brightest; () for none.
    blank : those of `channels` of which all that was measured is one value, or no number.
    last : what turns the scaled channels (C, Y, X) into the network's, if it is neither of these.
    """

    channels: tuple[int, ...]
    rgb: bool
    low: tuple[float, ...]
    high: tuple[float, ...]
    weights: tuple[float, ...] = ()
    blank: tuple[int, ...] = field(default=(), compare=False)
    last: Callable[[FloatArray], FloatArray] | None = field(default=None, compare=False, repr=False)

    def select(self, pixels: Array) -> Array:
        """Return the used channels of (C, Y, X) `pixels`; a lazy array stays lazy."""
        if self.channels == tuple(range(pixels.shape[0])):
            return pixels
        return pixels[list(self.channels)]

    def scale(self, selected: npt.NDArray[Any]) -> FloatArray:
        """Return (3, Y, X) float32 in [0, 1] from what `select` gave."""
        scaled = scale_channels(selected, self.low, self.high)
        if self.last is not None:
            return self.last(scaled)
        if self.weights:
            shares = np.asarray(self.weights, np.float32) / sum(self.weights)
            # Not tensordot: the threads of BLAS would go on spinning beside those of the network.
            blend = np.einsum("c,cyx->yx", shares.astype(np.float32), scaled)
            return np.repeat(blend[None], NETWORK_CHANNELS, axis=0)
        if self.rgb and len(scaled) == NETWORK_CHANNELS:
            return scaled
        return np.repeat(scaled.max(axis=0, keepdims=True), NETWORK_CHANNELS, axis=0)

    def apply(self, tile: Array) -> FloatArray:
        """Return the network's input for a tile with all channels of the image.

        Parameters
        ----------
        tile : (C, Y, X), any number type. Not changed.

        Returns
        -------
        (3, Y, X) float32 in [0, 1]
        """
        return self.scale(np.asarray(self.select(tile)))


def scale_channels(pixels: npt.NDArray[Any], low: Sequence[float], high: Sequence[float]) -> FloatArray:
    """Return (C, Y, X) float32 in [0, 1]; what is no number becomes 0."""
    bottom, top = (np.asarray(limits, np.float32)[:, None, None] for limits in (low, high))
    scaled: FloatArray = (pixels.astype(np.float32) - bottom) / (top - bottom)
    np.nan_to_num(scaled, copy=False, nan=0.0)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def scale_limits(
    sample: npt.NDArray[Any], percentiles: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure the intensities that become 0 and 1, channel by channel.

    Parameters
    ----------
    sample : (C, N) values, any number type; NaN and infinities are left out.
    percentiles : of the values, in percent: (low, high).

    Returns
    -------
    low, high : C numbers each, and high > low: a channel whose percentiles coincide is scaled up to its
        maximum, and a constant channel becomes 0 everywhere.

    >>> scale_limits(np.arange(101)[None], (0, 50))
    ((0.0,), (50.0,))
    >>> scale_limits(np.full((1, 9), 7), (1, 99))
    ((7.0,), (8.0,))
    """
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise SettingsError(f"percentiles {percentiles} must rise and lie within 0 to 100, like (1, 99.8)")
    lows, highs = [], []
    for values in sample:
        finite = values[np.isfinite(values)].astype(np.float32)
        if not finite.size:
            finite = np.zeros(1, np.float32)
        low, high = (float(v) for v in np.percentile(finite, percentiles))
        if high <= low:
            high = float(finite.max())
        if high <= low:
            high = low + max(1.0, abs(low) * 1e-3)  # a step that float32 can hold
        lows.append(low)
        highs.append(high)
    return tuple(lows), tuple(highs)


def fit_input(
    image: Image,
    channels: Sequence[int | str] | None,
    modality: Modality,
    percentiles: tuple[float, float] = (1.0, 99.8),
) -> InputMap:
    """Choose the channels of an image and measure how to scale them.

    Images up to 2048 x 2048 pixels are measured whole, larger ones in 64 blocks spread over the full
    resolution (a coarse pyramid level would average small nuclei away).

    Parameters
    ----------
    channels : nuclear channels by name or index (from 0); None takes the only channel, or those named
        like a nuclear stain. Colour pictures in H&E or IHC always use all three.
    modality : H&E and IHC keep colour, with one scale for all three channels and 0 as black;
        fluorescence scales each channel and takes the brightest.
    percentiles : (low, high) in percent; H&E and IHC use only the high one.

    Raises
    ------
    SettingsError if a channel does not exist, none looks nuclear, or H&E or IHC is not a colour picture.
    """
    chosen = choose_channels(image, channels, modality)
    sample = sample_pixels(image.pixels, chosen)
    return _fit(sample, chosen, modality, percentiles, joint=image.rgb)


def given_input(
    image: Image,
    channels: Sequence[int | str] | None,
    modality: Modality,
    low: tuple[float, ...],
    high: tuple[float, ...],
    weights: tuple[float, ...] = (),
) -> InputMap:
    """Return the map of a resolved recipe, whose scaling is known.

    Raises
    ------
    SettingsError if there is not one rising pair of low and high for each channel, or weights that are not
        one for each.
    """
    keeps_color = modality is not Modality.FLUORESCENCE
    if keeps_color:
        chosen = choose_channels(image, None, modality)
    else:
        chosen = choose_channels(image, channels, modality)
    if not len(low) == len(high) == len(chosen) or any(b <= a for a, b in zip(low, high, strict=True)):
        raise SettingsError(
            f"{image.name}: {len(chosen)} channels need as many scaling_low, each below its scaling_high; "
            f"got {low} and {high}"
        )
    if len(weights) not in (0, len(chosen)):
        raise SettingsError(
            f"{image.name}: {len(chosen)} channels need as many channel_weights, not {len(weights)}"
        )
    return InputMap(chosen, keeps_color, low, high, weights)


def normalize_image(
    pixels: npt.NDArray[Any],
    modality: Modality,
    percentiles: tuple[float, float] = (1.0, 99.8),
    *,
    rgb: bool | None = None,
) -> FloatArray:
    """Scale one small image in memory exactly as `fit_input` and `InputMap.apply` do.

    Parameters
    ----------
    pixels : (C, Y, X), any number type; all channels are used. Not changed.
    rgb : whether the channels are red, green and blue; None: three channels are.

    Returns
    -------
    (3, Y, X) float32 in [0, 1]
    """
    count = pixels.shape[0]
    joint = count == NETWORK_CHANNELS if rgb is None else rgb
    if modality is not Modality.FLUORESCENCE and count not in (1, NETWORK_CHANNELS):
        raise SettingsError(f"{modality} needs 1 or 3 channels, this image has {count}")
    chosen = tuple(range(count))
    return _fit(sample_pixels(pixels, chosen), chosen, modality, percentiles, joint=joint).apply(pixels)


def scaled_panel(pixels: npt.NDArray[Any], percentiles: tuple[float, float] = (1.0, 99.8)) -> FloatArray:
    """Scale each channel of a small image in memory by its own percentiles, as adapters see it.

    Parameters
    ----------
    pixels : (C, Y, X), any number type. Not changed.

    Returns
    -------
    (C, Y, X) float32 in [0, 1]
    """
    low, high = scale_limits(pixels.reshape(len(pixels), -1), percentiles)
    return scale_channels(pixels, low, high)


def choose_channels(
    image: Image, channels: Sequence[int | str] | None, modality: Modality
) -> tuple[int, ...]:
    """Resolve names and indices to indices on the C axis; see `fit_input`."""
    count = len(image.channels)
    if modality is not Modality.FLUORESCENCE:
        return _colour_channels(image, channels, modality)
    if channels is not None:
        if not channels:
            raise SettingsError(f"no channel chosen; choose at least one of {_listed(image)}")
        return tuple(dict.fromkeys(_index(image, channel) for channel in channels))
    if count == 1 or image.rgb:
        return tuple(range(count))
    nuclear = nuclear_channels(tuple(channel.name for channel in image.channels))
    if not nuclear:
        raise SettingsError(
            f"{image.name}: no channel is named like a nuclear stain; "
            f"choose the nuclear channels from {_listed(image)}, or the mapping nucleus-adapter, which "
            "judges them by their pictures"
        )
    return nuclear


def asked_channels(
    image: Image, channels: Sequence[int | str] | None, modality: Modality
) -> Sequence[int | str] | None:
    """Return what of the nuclear channels chosen for a data set concerns one image of it.

    In H&E and IHC, and of an image with one channel, there is nothing to choose.
    """
    return None if modality is not Modality.FLUORESCENCE or len(image.channels) == 1 else channels


def nuclear_channels(names: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of names that look like nuclear stains, one for each stain.

    Of repeated rounds of one stain ("DAPI_1", "DAPI_2") the first is taken: later ones may be shifted.

    >>> nuclear_channels(["CD3", "DAPI_1", "DAPI_2", "Histone H3"])
    (1, 3)
    """
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if found := _MARKERS.search(name):
            first.setdefault(found.group().lower(), index)
    return tuple(first.values())


def name_key(name: str) -> str:
    """Return what names of channels are compared by: capitals and spaces at the ends do not count."""
    return name.strip().casefold()


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return a name of its own for each channel of an image: repeated ones are numbered.

    >>> distinct_names(["DAPI", "", "dapi "])
    ['DAPI', 'channel 2', 'dapi (2)']
    """
    given = [name.strip() or f"channel {i}" for i, name in enumerate(names, 1)]
    known = {name_key(name) for name in given}
    taken: set[str] = set()
    found = []
    for name in given:
        chosen, number = name, 1
        while name_key(chosen) in taken or (number > 1 and name_key(chosen) in known):
            number += 1
            chosen = f"{name} ({number})"
        taken.add(name_key(chosen))
        found.append(chosen)
    return found


def _colour_channels(
    image: Image, channels: Sequence[int | str] | None, modality: Modality
) -> tuple[int, ...]:
    count = len(image.channels)
    if count not in (1, NETWORK_CHANNELS):
        raise SettingsError(
            f"{image.name}: {modality} needs a colour picture (3 channels), this image has {count}; "
            "choose fluorescence, or open the RGB picture"
        )
    if channels is not None and sorted(_index(image, c) for c in channels) != list(range(count)):
        raise SettingsError(f"{image.name}: {modality} uses all {count} channels; leave the channels empty")
    return tuple(range(count))


def _index(image: Image, channel: int | str) -> int:
    if isinstance(channel, str):
        names = [c.name for c in image.channels]
        folded = [name.casefold() for name in names]
        if channel in names:
            return names.index(channel)
        if channel.casefold() in folded:
            return folded.index(channel.casefold())
    elif 0 <= channel < len(image.channels):
        return channel
    raise SettingsError(f"{image.name} has no channel {channel!r}; choose from {_listed(image)}")


def _listed(image: Image) -> str:
    return ", ".join(f"{i}: {channel.name}" for i, channel in enumerate(image.channels))


def _fit(
    sample: npt.NDArray[Any],
    channels: tuple[int, ...],
    modality: Modality,
    percentiles: tuple[float, float],
    *,
    joint: bool,
) -> InputMap:
    count = len(channels)
    if modality is not Modality.FLUORESCENCE:
        _, high = scale_limits(sample.reshape(1, -1), percentiles)
        # One scale keeps the colour, and black is 0 in every camera.
        top = high[0] if high[0] > 0 else 1.0
        return InputMap(channels, True, (0.0,) * count, (top,) * count)
    if joint:
        # Scaling an RGB picture channel by channel would lift the noise of the empty colours.
        low, high = scale_limits(sample.max(axis=0, keepdims=True), percentiles)
        return InputMap(channels, False, low * count, high * count)
    low, high = scale_limits(sample, percentiles)
    blank = tuple(c for c, values in zip(channels, sample, strict=True) if _is_blank(values))
    return InputMap(channels, False, low, high, blank=blank)


def _is_blank(values: npt.NDArray[Any]) -> bool:
    finite = values[np.isfinite(values)]
    return not finite.size or bool(finite.min() == finite.max())


def sample_pixels(pixels: Array, channels: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return (C, N) values of the chosen channels, N at most about 4 million.

    Of a large (C, Y, X) lazy array only 64 blocks are read, spread over it.
    """
    return np.concatenate([b.reshape(len(b), -1) for b in sample_blocks(pixels, channels)], axis=1)


def sample_blocks(pixels: Array, channels: tuple[int, ...], most: int = _GRID) -> list[npt.NDArray[Any]]:
    """Return the whole of a small image, or blocks of a large one, each (C, y, x); see sample_pixels.

    Parameters
    ----------
    most : blocks along either axis; an image with no more pixels than these have is small.
    """
    picked = pixels if channels == tuple(range(pixels.shape[0])) else pixels[list(channels)]
    _, height, width = picked.shape
    if height * width <= (most * BLOCK_PX) ** 2:
        return [np.asarray(picked)]
    return [
        np.asarray(picked[:, y : y + BLOCK_PX, x : x + BLOCK_PX])
        for y in block_starts(height, most)
        for x in block_starts(width, most)
    ]


def block_starts(length: int, most: int = _GRID) -> list[int]:
    """Return where up to `most` blocks of BLOCK_PX begin along an axis, evenly spread, without overlap."""
    count = max(1, min(most, length // BLOCK_PX))
    spare = max(0, length - count * BLOCK_PX)
    return [spare * (2 * i + 1) // (2 * count) + i * BLOCK_PX for i in range(count)]
