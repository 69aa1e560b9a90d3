"""Ways from the channels of an image to the three that a network sees, by name."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_nucleus_kd.channels import (
    BLOCK_PX,
    NETWORK_CHANNELS,
    InputMap,
    choose_channels,
    fit_input,
    given_input,
    sample_blocks,
    sample_pixels,
    scale_channels,
    scale_limits,
)
from napari_nucleus_kd.config import OF_STAINS
from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.package import list_models, load_model
from napari_nucleus_kd.stains import estimate_stains, haematoxylin, unmixing
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    import numpy.typing as npt
    import torch

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.networks.adapter import FixedAdapter
    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import FloatArray, Image

Fitted = tuple[InputMap, "dict[str, Any]"]

NUCLEAR = "nuclear"
BUILT_IN = {
    NUCLEAR: "the brightest of the nuclear channels; colour pictures as they are",
    "blend": "the nuclear channels, mixed by weights",
    "mean": "the mean of all channels",
    "first": "the first three channels as red, green and blue",
    "haematoxylin": "the haematoxylin of a colour picture, by usual stains or given ones",
    "macenko": "the haematoxylin of a colour picture, by stains that are estimated from it",
}
_LEAST = 0.01  # share of the largest weight below which a channel of a blend is not worth reading
_JUDGED_GRID = 4  # an adapter judges channels by 4 x 4 blocks of a large image
_JUDGED_VALUES = 2**16  # of each channel, which it is scaled by then


def names() -> tuple[str, ...]:
    """Return the names of all mappings: the built-in ones, and the adapters that are there."""
    return (*BUILT_IN, *(model.spec.name for model in list_models("adapter")))


def check_mapping(name: str) -> None:
    """Raise ModelError if there is no mapping of this name, SettingsError if it is a model and no mapping."""
    if name not in BUILT_IN:
        _adapter(name)


def _adapter(name: str) -> Model:
    try:
        model = load_model(name)
    except ModelError as error:
        raise ModelError(
            f"mapping {name!r}: choose {', '.join(names())}, or the folder of an adapter; {error}"
        ) from error
    if model.role != "adapter":
        place = "to enhance with" if model.role == "enhancer" else "as the model"
        raise SettingsError(
            f"{name} is {'an enhancer' if model.role == 'enhancer' else 'a model'} and no mapping; choose "
            f"{', '.join(names())}, or take it {place}"
        )
    return model


def fit_mapping(image: Image, recipe: Recipe, modality: Modality, percentiles: tuple[float, float]) -> Fitted:
    """Choose what the network sees of an image, as a recipe says.

    Parameters
    ----------
    recipe : its mapping is a name in BUILT_IN, or an adapter by name or folder. `channels` are the nuclear
        ones for "nuclear" and "blend"; for others those that may be used at all.

    Returns
    -------
    The map, and the settings of the recipe that say what was measured: with them it is not measured again.

    Raises
    ------
    SettingsError : the image does not fit the mapping. ModelError : there is no such mapping.
    """
    if (recipe.scaling_low is None) != (recipe.scaling_high is None):
        raise SettingsError("scaling_low and scaling_high go together; give both or neither")
    if recipe.mapping == NUCLEAR:
        return _nuclear(image, recipe, modality, percentiles), {"channel_weights": None}
    if recipe.mapping in OF_STAINS:
        return _stain(image, recipe, modality, percentiles)
    if modality is not Modality.FLUORESCENCE:
        raise SettingsError(
            f"{image.name}: the mapping {recipe.mapping!r} is for fluorescence, and this image is taken as "
            f"{modality}; choose {NUCLEAR}, haematoxylin or macenko, or fluorescence as the kind of image"
        )
    if recipe.mapping in _OF_CHANNELS:
        return _OF_CHANNELS[recipe.mapping](image, recipe, percentiles)
    return _adapted(image, recipe, percentiles)


def _nuclear(image: Image, recipe: Recipe, modality: Modality, percentiles: tuple[float, float]) -> InputMap:
    """Return the map of nuclear channels, scaled as the recipe says if it does."""
    if recipe.scaling_low is None or recipe.scaling_high is None:
        return fit_input(image, recipe.channels, modality, percentiles)
    return given_input(image, recipe.channels, modality, recipe.scaling_low, recipe.scaling_high)


def _stain(image: Image, recipe: Recipe, modality: Modality, percentiles: tuple[float, float]) -> Fitted:
    if modality is Modality.FLUORESCENCE or len(image.channels) != NETWORK_CHANNELS:
        raise SettingsError(
            f"{image.name}: {recipe.mapping!r} takes the stains of an H&E or IHC colour picture apart, and "
            f"this is taken as {modality} with {len(image.channels)} channels; choose {NUCLEAR}"
        )
    seen, stains = _nuclear(image, recipe, modality, percentiles), recipe.stains
    if recipe.mapping == "macenko" and stains is None:
        sample = sample_pixels(image.pixels, seen.channels)
        stains = estimate_stains(seen.scale(sample[:, None])[:, 0])
    if stains is not None:
        unmixing(stains)  # which refuses those that are alike
    last = partial(_grey_of, stains=stains)
    known = {"stains": stains, "channel_weights": None}
    return InputMap(seen.channels, True, seen.low, seen.high, last=last), known


def _grey_of(scaled: FloatArray, stains: Sequence[Sequence[float]] | None) -> FloatArray:
    return np.repeat(haematoxylin(scaled, stains)[None], NETWORK_CHANNELS, axis=0)


def _all_of(image: Image, recipe: Recipe) -> tuple[int | str, ...]:
    """Return the channels that may be used: those of the recipe, or all."""
    return tuple(range(len(image.channels))) if recipe.channels is None else recipe.channels


def _channels(
    image: Image, recipe: Recipe, channels: Sequence[int | str], percentiles: tuple[float, float]
) -> InputMap:
    """Return the map of some channels, each with a scale of its own."""
    return _nuclear(
        image, recipe.model_copy(update={"channels": tuple(channels)}), Modality.FLUORESCENCE, percentiles
    )


def _weighted(seen: InputMap, weights: Sequence[float]) -> Fitted:
    """Return a blend of the channels whose weight counts, and what a recipe keeps of it."""
    total = sum(weights)
    if not (min(weights) >= 0 < total < math.inf):
        raise SettingsError(f"channel_weights {tuple(weights)}: none may be negative, nor all 0")
    kept = _worth_reading(weights)
    some = sum(weights[i] for i in kept)
    channels = tuple(seen.channels[i] for i in kept)
    low, high = (tuple(limits[i] for i in kept) for limits in (seen.low, seen.high))
    shares = tuple(round(float(weights[i] / some), 6) for i in kept)
    blend = InputMap(channels, False, low, high, shares, tuple(c for c in seen.blank if c in channels))
    return blend, {"channel_weights": shares}


def _worth_reading(weights: Sequence[float]) -> list[int]:
    return [i for i, weight in enumerate(weights) if weight >= _LEAST * max(weights)]


def _blend(image: Image, recipe: Recipe, percentiles: tuple[float, float]) -> Fitted:
    seen = _nuclear(image, recipe, Modality.FLUORESCENCE, percentiles)
    weights = recipe.channel_weights or (1.0,) * len(seen.channels)
    if len(weights) != len(seen.channels):
        raise SettingsError(
            f"{image.name}: {len(seen.channels)} channels need as many channel_weights, not {len(weights)}"
        )
    return _weighted(seen, weights)


def _mean(image: Image, recipe: Recipe, percentiles: tuple[float, float]) -> Fitted:
    seen = _channels(image, recipe, _all_of(image, recipe), percentiles)
    return _weighted(seen, (1.0,) * len(seen.channels))


def _first(image: Image, recipe: Recipe, percentiles: tuple[float, float]) -> Fitted:
    seen = _channels(image, recipe, _all_of(image, recipe)[:NETWORK_CHANNELS], percentiles)
    first = InputMap(seen.channels, False, seen.low, seen.high, blank=seen.blank, last=_as_colours)
    return first, {"channel_weights": None}


def _as_colours(scaled: FloatArray) -> FloatArray:
    return np.pad(scaled, ((0, NETWORK_CHANNELS - len(scaled)), (0, 0), (0, 0)))


_OF_CHANNELS: Mapping[str, Callable[[Image, Recipe, tuple[float, float]], Fitted]] = {
    "blend": _blend,
    "mean": _mean,
    "first": _first,
}


def _adapted(image: Image, recipe: Recipe, percentiles: tuple[float, float]) -> Fitted:
    model = _adapter(recipe.mapping)
    if recipe.mapping_hash not in (None, model.hash):
        raise SettingsError(
            f"the recipe was made with other weights of {recipe.mapping}; get those, or remove mapping_hash "
            "from the recipe to accept a new result"
        )
    known: dict[str, Any] = {"mapping_hash": model.hash}
    is_fixed = model.spec.architecture == "fixed-adapter"
    if recipe.channel_weights is not None and not is_fixed:
        fitted, weights = _blend(image, recipe, percentiles)
        return fitted, weights | known
    channels = choose_channels(image, _all_of(image, recipe), Modality.FLUORESCENCE)
    if is_fixed:
        seen = _channels(image, recipe, channels, percentiles)
        return _through(model, image, seen), known | {"channel_weights": None}
    known["adapter_channels"] = recipe.channels
    found = _weights(model, image, channels, percentiles)
    if recipe.scaling_low is None and not image.rgb:  # only channels that count are measured
        kept = _worth_reading(found)
        channels, found = tuple(channels[i] for i in kept), [found[i] for i in kept]
    fitted, weights = _weighted(_channels(image, recipe, channels, percentiles), found)
    return fitted, weights | known


def _through(model: Model, image: Image, seen: InputMap) -> InputMap:
    """Return a map whose last step is a network."""
    network = cast("FixedAdapter", model.network())
    most = network.channels
    if len(seen.channels) > most:
        raise SettingsError(
            f"{image.name}: {model.spec.name} takes at most {most} channels, and this image has "
            f"{len(seen.channels)}; name those it may use (channels), or choose another mapping"
        )
    last = partial(_run, network)
    return InputMap(seen.channels, False, seen.low, seen.high, blank=seen.blank, last=last)


def _run(network: torch.nn.Module, scaled: FloatArray) -> FloatArray:
    import torch

    with torch.inference_mode():
        found: FloatArray = network(torch.from_numpy(np.ascontiguousarray(scaled))[None])[0].numpy()
    return found


def _weights(
    model: Model, image: Image, channels: tuple[int, ...], percentiles: tuple[float, float]
) -> list[float]:
    """Let a channel-invariant adapter judge the channels by a sample of the image."""
    import torch

    from napari_nucleus_kd.networks.adapter import InvariantAdapter

    network = model.network()
    assert isinstance(network, InvariantAdapter)
    blocks = sample_blocks(image.pixels, channels, _JUDGED_GRID)
    pixels = sum(block[0].size for block in blocks)
    step = max(1, math.isqrt(pixels // _JUDGED_VALUES))
    some = np.concatenate([b[:, ::step, ::step].reshape(len(b), -1) for b in blocks], axis=1)
    if image.rgb:  # one scale, as for any colour picture
        some = np.broadcast_to(some.max(axis=0), some.shape)
    low, high = scale_limits(some, percentiles)
    found = network.weights_of(
        torch.from_numpy(scale_channels(part, low, high)) for block in blocks for part in _parts(block)
    )
    return [float(weight) for weight in found]


def _parts(block: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    _, height, width = block.shape
    for y in range(0, height, BLOCK_PX):
        for x in range(0, width, BLOCK_PX):
            yield block[:, y : y + BLOCK_PX, x : x + BLOCK_PX]
