"""The same run as a command line or as Python, for the clipboard; needs no Qt."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS, OF_STAINS, Recipe
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.mappings import BUILT_IN
from napari_nucleus_kd.panel import by_name
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.widgets._layers import IMAGE_KEY, full_resolution, is_array

if TYPE_CHECKING:
    from napari_nucleus_kd.types import Image
    from napari_nucleus_kd.widgets._layers import Plane

_MODALITIES = {Modality.FLUORESCENCE: "fluorescence", Modality.HE: "he", Modality.IHC: "ihc"}
# Options of `nucleus-kd segment`, by Recipe field.
_OPTIONS = {
    "segmenter": "--segmenter",
    "weights": "--weights",
    "model": "--model",
    "device": "--device",
    "pixel_size_um": "--pixel-size",
    "diameter_px": "--diameter",
    "diameter_um": "--diameter-um",
}
_DECODE_OPTIONS = {
    "by": "--decode",
    "foreground": "--foreground",
    "split": "--split",
    "min_score": "--min-score",
    "min_area_px": "--min-area",
}
_IN_THE_CONSOLE = "# In the console of the napari window, which knows the viewer."


def as_command(image: Image, recipe: Recipe) -> str:
    """Return the command line that segments the image with these settings.

    Parameters
    ----------
    recipe : as chosen or, better, resolved: then the command does not estimate the diameter anew.

    Raises
    ------
    SettingsError if the image has no file.
    """
    if image.source is None:
        raise SettingsError(
            f"{image.name} has no file that a command could read; save it (File > Save Selected Layers) and "
            "open that file, or use Copy as Python"
        )
    words = ["nucleus-kd", "segment", str(image.source), "--output", "nuclei"]
    if plane := image.z_plane:
        words += ["--z", str(plane[0])]
    if (part := recipe.region) is not None:
        words += ["--region", *map(str, (part.y0, part.x0, part.y1, part.x1))]
    if recipe.mapping != Recipe().mapping:
        words += ["--mapping", recipe.mapping]
    # An adapter judges again, also the channels that it left out: without them others would weigh otherwise.
    is_judged = recipe.channel_weights is not None and recipe.mapping not in BUILT_IN
    if not image.rgb:
        taken = (recipe.adapter_channels if is_judged else recipe.channels) or ()
        is_all = recipe.mapping not in OF_NUCLEAR_CHANNELS and len(taken) == len(image.channels)
        for channel in () if is_all else by_name(image, taken):
            words += ["--channel", str(channel)]
    if recipe.mapping == "blend":
        for weight in recipe.channel_weights or ():
            words += ["--channel-weight", _number(weight)]
    if recipe.stains is not None and recipe.mapping in OF_STAINS:
        words += ["--stains", *(_number(part) for stain in recipe.stains for part in stain)]
    if recipe.percentiles != Recipe().percentiles:
        words += ["--percentiles", *map(_number, recipe.percentiles)]
    if recipe.modality is not None:
        words += ["--modality", _MODALITIES[recipe.modality]]
    if recipe.enhance is not None:
        words += ["--enhance", recipe.enhance]
        words += [] if recipe.polarity == "auto" else ["--polarity", recipe.polarity]
    chosen, defaults = recipe.model_dump(), Recipe().model_dump()
    for name, option in _OPTIONS.items():
        if chosen[name] != defaults[name] and not _is_said(name, recipe):
            words += [option, _number(chosen[name])]
    if "decode" in recipe.model_fields_set:
        # All of them: given some, the command would not take the model's own for the others.
        for name, option in _DECODE_OPTIONS.items():
            words += [option, _number(chosen["decode"][name])]
        words.append("--fill-holes" if recipe.decode.fill_holes else "--keep-holes")
    return shlex.join(words)


def _is_said(name: str, recipe: Recipe) -> bool:
    """Tell whether another setting already says this one: a resolved recipe holds both."""
    if name == "diameter_um":
        return recipe.diameter_px is not None
    return name == "model" and recipe.segmenter != Recipe().segmenter


def _number(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def as_python(image: Image, recipe: Recipe, plane: Plane) -> str:
    """Return Python that repeats the run.

    Parameters
    ----------
    plane : that was or will be segmented; the script takes it from the running viewer if it has no file.
    """
    ours, types = ["Recipe", "segment"], [] if recipe.region is None else ["Region"]
    if image.source is not None:
        ours.insert(1, "read")
        at = image.z_plane
        taken = [f"image = read({str(image.source)!r}{f', z={at[0]}' if at else ''})"]
    elif plane.source.opened is not None:
        layer = plane.source.layers[0]
        taken = [_IN_THE_CONSOLE, f"image = viewer.layers[{layer.name!r}].metadata[{IMAGE_KEY!r}]"]
    else:
        types += ["Channel", "Image"]
        taken = _plane_lines(image, plane)
    lines = [f"from napari_nucleus_kd import {', '.join(ours)}"]
    if types:
        lines.append(f"from napari_nucleus_kd.types import {', '.join(sorted(types))}")
    lines += ["", *taken, f"result = segment(image, Recipe({_arguments(recipe)}))"]
    return "\n".join([*lines, "labels = result.nuclei.labels"]) + "\n"


def _plane_lines(image: Image, plane: Plane) -> list[str]:
    """Return the lines that take a plane of a layer as an Image, as `_layers.to_image` does."""
    layer = plane.source.layers[0]
    data = f"viewer.layers[{layer.name!r}].data{'[0]' if layer.multiscale else ''}"
    lines = [_IN_THE_CONSOLE]
    if not is_array(full_resolution(layer)):
        lines.insert(0, "import dask.array")
        data = f"dask.array.from_array({data})"
    if plane.hidden:
        index = (str(at) if axis in plane.hidden else ":" for axis, at in enumerate(plane.point))
        data += f"[{', '.join(index)}]"
    pixels = "data[..., :3].transpose(2, 0, 1)" if image.rgb else "data[None]"
    names = ", ".join(f"Channel({channel.name!r})" for channel in image.channels)
    known = ", rgb=True" if image.rgb else ""
    if image.pixel_size_um is not None:
        known += f", pixel_size_um={image.pixel_size_um!r}"
    return [*lines, f"data = {data}", f"image = Image(({pixels},), ({names},){known})"]


def _arguments(recipe: Recipe) -> str:
    chosen, defaults = recipe.model_dump(mode="json", exclude_unset=True), Recipe().model_dump(mode="json")
    # Thresholds are said even if they are the defaults: left out, the model's own would be taken.
    said = {name: value for name, value in chosen.items() if name == "decode" or value != defaults[name]}
    if recipe.region is not None:
        said["region"] = recipe.region
    if recipe.enhance is None:
        said.pop("polarity", None)
    return ", ".join(f"{name}={value!r}" for name, value in said.items())
