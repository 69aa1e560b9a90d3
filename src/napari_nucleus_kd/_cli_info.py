"""What `nucleus-kd info` shows."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from rich.markup import escape

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import NucleusKDError

if TYPE_CHECKING:
    from rich.console import Console

    from napari_nucleus_kd.types import Image

Facts = list[tuple[str, str]]
_PACKAGES = (
    "torch",
    "openvino",
    "numpy",
    "zarr",
    "tifffile",
    "openslide-python",
    "napari",
    "PySide6_Essentials",
)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processors() -> str:
    from napari_nucleus_kd.compare.computer import computer

    facts = computer()
    return f"{facts['processor']}, {facts['cores']} usable cores"


def _torch_devices() -> str:
    import torch

    found = [
        f"cuda:{index} {torch.cuda.get_device_name(index)}"
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join([*found, f"cpu ({torch.backends.cpu.get_cpu_capability()})"])


def _engine() -> str:
    """Say which engine runs the default model here, and why."""
    from napari_nucleus_kd.engine import open_engine
    from napari_nucleus_kd.package import load_model

    try:
        engine = open_engine(load_model(Recipe().model))
    except NucleusKDError as error:
        return f"none: {error}"
    return "; ".join([engine.description, *engine.notes])


def computer_facts() -> Facts:
    """Return versions and what networks run on."""
    from napari_nucleus_kd import __version__

    return [
        ("napari-nucleus-kd", __version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        ("processor", _processors()),
        *((package, _installed(package)) for package in _PACKAGES),
        ("devices", _torch_devices()),
        ("networks run on", _engine()),
    ]


def _levels(image: Image) -> str:
    sizes = [f"{level.shape[2]} x {level.shape[1]}" for level in image.levels]
    return f"{len(sizes)}: {', '.join(sizes)}"


def _pixel_size(image: Image) -> str:
    return "not given" if image.pixel_size_um is None else f"{image.pixel_size_um:.4g} um"


def _channels(image: Image) -> str:
    if image.rgb:
        return "red, green and blue of one colour picture"
    named = (f"{index} {channel.name}" for index, channel in enumerate(image.channels))
    return f"{len(image.channels)}: {', '.join(named)}"


def file_facts(path: str) -> Facts:
    """Return what is read from an image.

    Raises
    ------
    ReadError if it is not an image.
    """
    from napari_nucleus_kd.io import read
    from napari_nucleus_kd.modality import suggest_modality

    image = read(path)
    height, width = image.shape_yx
    choice, reason = suggest_modality(image)
    return [
        ("file", path),
        ("size", f"{width} x {height} pixels (width x height), {image.pixels.dtype}"),
        ("pixel size", _pixel_size(image)),
        ("channels", _channels(image)),
        ("levels", _levels(image)),
        ("modality", f"{choice}: {reason}"),
        *(("note", note) for note in image.notes),
    ]


def show_facts(facts: Facts, console: Console) -> None:
    """Print one fact a line."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.print(f"[bold]{escape(name):<{width}}[/]  {escape(value)}", soft_wrap=True, highlight=False)
