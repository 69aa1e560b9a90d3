"""What the widgets say: sizes, times and memory in words with units; needs no Qt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleus_kd.baselines import TOOLS
from napari_nucleus_kd.channels import nuclear_channels
from napari_nucleus_kd.config import OF_NUCLEAR_CHANNELS
from napari_nucleus_kd.words import count
from napari_nucleus_kd.workspace import speed_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Image, Progress, Region
    from napari_nucleus_kd.widgets._kept_steps import Counted
    from napari_nucleus_kd.workspace import Activity, Workspace

# First guesses in seconds per megapixel, until a run on this computer has been measured.
_GUESSES = {"cpu": 2.0, "openvino": 1.0, "mps": 0.4, "cuda": 0.1}
_CLASSICAL_GUESS = 1.0
_NETWORK_BYTES = 600_000_000  # torch and the weights, once
_RUN_BYTES_PER_PX = 90  # input, maps, labels and what decoding needs, for each pixel of a region in memory
_ON_DISK_BYTES = 1_500_000_000


def pixel_size(size_um: float | None) -> str:
    """Say the edge of a pixel.

    >>> pixel_size(0.5), pixel_size(None)
    ('0.5 µm/px', 'pixel size unknown')
    """
    return "pixel size unknown" if size_um is None else f"{size_um:.4g} µm/px"


def extent(shape_yx: tuple[int, int]) -> str:
    """Say width and height, in this order as microscopes do.

    >>> extent((512, 640))
    '640 × 512 px'
    """
    return f"{shape_yx[1]} × {shape_yx[0]} px"


def duration(seconds: float) -> str:
    """Say a time no more exactly than it is known.

    >>> duration(0.4), duration(8.4), duration(200), duration(5000)
    ('1 s', '8 s', '3 min', '1 h 23 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def review(done: int, left: int, seconds: float, seconds_left: float | None) -> str:
    """Say how a review stands.

    >>> review(12, 38, 61, 190.0)
    '38 left, about 3 min. 12 done in 61 s.'
    >>> review(0, 50, 2, None), review(50, 0, 240, 0.0)
    ('50 left.', '50 done in 4 min.')
    """
    time = "" if not seconds_left else f", about {duration(seconds_left)}"
    parts = [f"{left} left{time}."] if left else []
    parts += [f"{done} done in {duration(seconds)}."] if done else []
    return " ".join(parts)


def verified(counted: Counted) -> str:
    """Say what is verified.

    >>> from napari_nucleus_kd.widgets._kept_steps import Counted
    >>> verified(Counted(57, 0.123)), verified(Counted(0, 0.0))
    ('57 nuclei, 12.3% of the image', 'nothing yet')
    """
    if not counted.share:
        return "nothing yet"
    return f"{count(counted.nuclei, 'nucleus', 'nuclei')}, {100 * counted.share:.3g}% of the image"


def recovered(name: str, saved: datetime, *, crashed: bool) -> str:
    """Say what was found in a project.

    >>> from datetime import datetime
    >>> recovered("a.nucleus-kd", datetime(2026, 11, 20, 12, 3), crashed=False)
    'Found in a.nucleus-kd, saved 20 Nov 2026, 12:03:00.'
    """
    when = saved.strftime("%d %b %Y, %H:%M:%S")
    lost = "The program was not closed properly; all that was saved is here. " if crashed else ""
    return f"{lost}Found in {name}, saved {when}."


def suggested(nuclei: int, uncertainty: float, disagreement: float, *, judges: bool = False) -> str:
    """Say why a tile should be verified next.

    >>> suggested(23, 0.31, 0.4), suggested(0, 0.2, 0.0, judges=True)
    ('23 nuclei, 40% differ, 31% unsure', 'judges only, 0 nuclei, 20% unsure')
    """
    parts = ["judges only"] if judges else []
    parts += [count(nuclei, "nucleus", "nuclei")]
    parts += [f"{100 * disagreement:.0f}% differ"] if disagreement >= 0.005 else []
    parts += [f"{100 * uncertainty:.0f}% unsure"]
    return ", ".join(parts)


def retraining(progress: Progress, *, paused: bool, note: str) -> str:
    """Say how far a run is.

    >>> from napari_nucleus_kd.types import Progress
    >>> retraining(Progress(35, 100, "training", {"seconds left": 40.0}), paused=False, note="")
    'Step 35 of 100: 40 s left'
    >>> retraining(Progress(20, 100, "running the network", {"step": 20}), paused=False, note="")
    'Step 20 of 100: running the network'
    >>> retraining(Progress(35, 100, "training"), paused=True, note="")
    'Step 35 of 100, paused'
    """
    text, far = (
        f"{progress.message[:1].upper()}{progress.message[1:]}",
        f"{progress.done} of {progress.total}",
    )
    if progress.message == "training" or "step" in progress.values:
        text = f"Step {far}" if progress.message == "training" else f"Step {far}: {progress.message}"
    elif progress.total:
        text = f"{text}: {far}"
    left = progress.values.get("seconds left")
    if paused:
        text = f"{text}, paused"
    elif left is not None and left >= 1:
        text = f"{text}: {duration(left)} left"
    return f"{note}\n{text}" if note else text


def memory(number_bytes: float) -> str:
    """Say an amount of memory.

    >>> memory(640_000_000), memory(1_640_000_000)
    ('0.6 GB', '1.6 GB')
    """
    return f"{max(0.1, number_bytes / 1e9):.1f} GB"


def size_in_both(length_px: float, size_um: float | None) -> str:
    """Say a length in pixels, and in micrometres where the scale is known.

    >>> size_in_both(18, 0.5), size_in_both(18, None)
    ('18 px (9 µm)', '18 px')
    """
    both = f" ({length_px * size_um:.3g} µm)" if size_um else ""
    return f"{length_px:.3g} px{both}"


def channels(image: Image, recipe: Recipe) -> str:
    """Say which channels a run uses; "" where the image's name says it."""
    if recipe.mapping != "nuclear":
        return f"seen through {recipe.mapping}"
    if image.rgb:
        return "colour"
    if recipe.channels:
        return " + ".join(image.channels[c].name if isinstance(c, int) else c for c in recipe.channels)
    if len(image.channels) == 1:
        return "" if image.channels[0].name == image.name else image.channels[0].name
    names = [channel.name for channel in image.channels]
    chosen = [names[index] for index in nuclear_channels(names)]
    return " + ".join(chosen) or "no nuclear channel chosen yet"


def enhanced(recipe: Recipe) -> str:
    """Say what draws the nuclei before they are looked for; "" if nothing does.

    >>> from napari_nucleus_kd.config import Recipe
    >>> enhanced(Recipe(enhance="nucleus-enhancer"))
    ', enhanced first by nucleus-enhancer'
    """
    return "" if recipe.enhance is None else f", enhanced first by {Path(recipe.enhance).name}"


def segmenter(recipe: Recipe) -> str:
    """Say what finds the nuclei."""
    if recipe.segmenter in TOOLS:
        return f"{TOOLS[recipe.segmenter].title} with {recipe.weights}"
    return "Classical method (no network)" if recipe.segmenter == "classical" else f"Model {recipe.model}"


def estimate(shape_yx: tuple[int, int], recipe: Recipe, speeds: Mapping[str, float], on_disk: bool) -> str:
    """Estimate time and memory of a run, from the speed of earlier runs where there were any.

    Parameters
    ----------
    shape_yx : height and width to run on, in pixels.
    speeds : seconds per megapixel by `speed_key`.
    on_disk : the result goes to a file, tile by tile.
    """
    pixels = shape_yx[0] * shape_yx[1]
    key = speed_key(recipe)
    of_network = _GUESSES.get(_kind(recipe.device), 2.0)
    guess = _CLASSICAL_GUESS if recipe.segmenter == "classical" else of_network
    guess += 0 if recipe.enhance is None else of_network  # an enhancer takes as long
    network = 0 if recipe.segmenter == "classical" else _NETWORK_BYTES
    needed = _ON_DISK_BYTES if on_disk else network + pixels * _RUN_BYTES_PER_PX
    surely = "" if key in speeds else ", not yet measured here"
    if surely and recipe.segmenter != "classical":
        surely += "; opening the model takes some seconds more"
    return f"about {duration(speeds.get(key, guess) * pixels / 1e6)} and {memory(needed)} of memory{surely}"


def _kind(device: str) -> str:
    return "cpu" if device == "auto" else device.partition(":")[0]


def plan(workspace: Workspace, region: Region | None, on_disk: bool) -> str:
    """Say what pressing Segment will do."""
    image, recipe = workspace.image, workspace.recipe
    if image is None:
        return "No image yet: open one, or drop a file on the window."
    shape = image.shape_yx if region is None else region.shape_yx
    where = "the whole image" if region is None else f"what is seen of {extent(image.shape_yx)}"
    used = channels(image, recipe)
    said = [
        f"{image.name}{used and f' ({used})'}, {pixel_size(image.pixel_size_um)}",
        f"{extent(shape)}, {where}{enhanced(recipe)}",
        f"{segmenter(recipe)}: "
        + estimate(shape, recipe, workspace.preferences.seconds_per_megapixel, on_disk),
    ]
    if workspace.guessed and workspace.recipe.mapping in OF_NUCLEAR_CHANNELS:
        said.append("Only the pixels say which channel is nuclear: check it in Channels")
    if on_disk:
        said.append("Too large for memory at once: you will be asked for a file (OME-Zarr)")
    return ".\n".join(said) + "."


def progress(activity: Activity) -> str:
    """Say how far the running job is, and what waits for its end."""
    following = f"; then: {activity.following}" if activity.following else ""
    return _how_far(activity) + following


def _how_far(activity: Activity) -> str:
    if activity.stopping:
        return "Stopping after this step…"
    if activity.progress is None:
        return f"{activity.title}…"
    left = activity.seconds_left()
    text = activity.progress.message or activity.title
    text = text[:1].upper() + text[1:]
    return f"{text}: {duration(left)} left" if left is not None and left >= 1 else text
