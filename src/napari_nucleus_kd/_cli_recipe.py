"""The recipe that the options of a command line ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_nucleus_kd.config import OF_STAINS, DecodeSettings, Recipe, complaint, recipe_from
from napari_nucleus_kd.enhancer import load_enhancer
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.io.atomic import write_text
from napari_nucleus_kd.mappings import BUILT_IN, NUCLEAR, check_mapping
from napari_nucleus_kd.panel import by_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from napari_nucleus_kd.types import Image

# What a resolved recipe holds of its own image, by the option that makes it untrue.
_STALE = {
    "model": ("model_hash",),
    "segmenter": ("model_hash", "weights", "decode", "percentiles", "scaling_low", "scaling_high"),
    "weights": ("model_hash", "decode"),
    "channels": ("adapter_channels", "channel_weights", "scaling_low", "scaling_high", "polarity"),
    "mapping": (
        *("mapping_hash", "channels", "adapter_channels", "channel_weights", "stains"),
        *("scaling_low", "scaling_high", "polarity"),
    ),
    "enhance": ("enhance_hash", "polarity"),
    "percentiles": ("scaling_low", "scaling_high"),
    "modality": ("scaling_low", "scaling_high", "polarity"),
    "diameter_um": ("diameter_px",),
    "diameter_px": ("diameter_um",),
}
_OF_THE_IMAGE = ("scaling_low", "scaling_high", "polarity", "diameter_px", "pixel_size_um", "region")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises
    ------
    SettingsError if it cannot be read or is not a recipe.
    """
    try:
        text = path.read_bytes()
        if b'"role"' in text and b'"model"' not in text:
            raise SettingsError(f"{path} is a panel and no recipe; give it with --panel")
        if b'"modified_ns"' in text:
            raise SettingsError(f"{path} says what was asked; give the recipe beside it, *_recipe.json")
        return Recipe.model_validate_json(text)
    except OSError as error:
        raise SettingsError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError(f"{path} is not a recipe of this version: {complaint(error, Recipe)}") from error


def write_recipe(path: Path, recipe: Recipe, image: Image) -> None:
    """Write the recipe of a run; channels by name, for images that have them in another order.

    Raises
    ------
    WriteError : the disk refuses.
    """
    if not image.rgb and len(image.channels) > 1:
        known = {"channels": recipe.channels, "adapter_channels": recipe.adapter_channels}
        named = {field: by_name(image, some) for field, some in known.items() if some is not None}
        recipe = recipe.model_copy(update=named)
    write_text(path, recipe.model_dump_json(indent=2) + "\n")


def tell_of_refit(base: Recipe | None, request: Recipe, console: Console) -> None:
    """Say so if a run takes what a recipe measured in its own image; refit leaves nothing of that."""
    measured = request.scaling_low is not None
    if base is not None and (measured or request.polarity == base.polarity != "auto"):
        console.print(
            "Brightness limits, polarity and nucleus size are the recipe's, measured in its own image; "
            "for other images add --refit.",
            style="yellow",
        )


def channel_keys(texts: Sequence[str] | None) -> tuple[int | str, ...] | None:
    """Return channels by number, or by name where a text is not a number; None if none is given."""
    return tuple(int(text) if text.isdecimal() else text for text in texts) if texts else None


def build_recipe(base: Recipe | None, given: Mapping[str, Any], *, refit: bool = False) -> Recipe:
    """Return `base` (or the defaults) with every given setting that is not None put in.

    Settings of `base` that a given one makes untrue are forgotten: other channels, for example, need
    other brightness limits. `refit` forgets all that belongs to the image of `base`.

    Raises
    ------
    SettingsError naming the value that is outside its range, or does not go with the mapping.
    ModelError if there is no such mapping or enhancer.
    """
    if refit and base is None:
        raise SettingsError("--refit is for --recipe; give one, or leave it out")
    values: dict[str, Any] = {} if base is None else base.model_dump(exclude_unset=True)
    given = {name: value for name, value in given.items() if value is not None}
    stale = set(_OF_THE_IMAGE if refit else ()).union(*(_STALE.get(name, ()) for name in given))
    if refit:
        values = _unmeasured(values)
    values = {name: value for name, value in values.items() if name not in stale} | given
    recipe = recipe_from(values)
    check_mapping(recipe.mapping)
    if recipe.enhance is not None:
        load_enhancer(recipe.enhance)
    elif "polarity" in given:
        raise SettingsError("--polarity is for --enhance; name an enhancer, or leave it out")
    if "channel_weights" in given and recipe.mapping != "blend":
        raise SettingsError(f"--channel-weight is for --mapping blend, not {recipe.mapping}; leave one out")
    if "stains" in given and recipe.mapping not in OF_STAINS:
        raise SettingsError(f"--stains is for --mapping {' or '.join(OF_STAINS)}, not {recipe.mapping}")
    return recipe


def _unmeasured(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without what a mapping measured in the image of a recipe."""
    mapping, known = values.get("mapping", NUCLEAR), dict(values)
    if mapping == "macenko":
        known.pop("stains", None)
    elif mapping not in BUILT_IN and known.pop("channel_weights", None) is not None:
        known["channels"] = known.pop("adapter_channels", None)
    return known


def decode_settings(values: Mapping[str, Any]) -> DecodeSettings:
    """Return decode settings with these values.

    Raises
    ------
    SettingsError naming the value that is outside its range.
    """
    try:
        return DecodeSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(complaint(error, DecodeSettings)) from error
