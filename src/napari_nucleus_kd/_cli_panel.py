"""What `nucleus-kd panel` does, and what a panel says to `segment` and `enhance`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.errors import SettingsError, WriteError
from napari_nucleus_kd.panel import apply_panel, check_panel, read_panel, suggest_steps

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.panel import Panel
    from napari_nucleus_kd.types import Image


def said_by_panel(path: Path | None, mapping: str, *besides: object) -> tuple[Panel | None, dict[str, Any]]:
    """Return the panel of a file, and what it says to a Recipe with a mapping: its channels by name.

    Parameters
    ----------
    path : None if no panel is given; then nothing is said.
    besides : options that say what a panel says, and are therefore refused beside it.

    Raises
    ------
    ReadError : the file is no panel.
    SettingsError : no channel of it is nuclear; or one of `besides` is given.
    """
    if path is None:
        return None, {}
    if any(besides):
        raise SettingsError(
            "--panel says channels and percentiles; leave --channel, --channel-weight and --percentiles out"
        )
    panel = read_panel(path)
    said = panel.settings(mapping)
    return panel, said | {"channels": tuple(panel.names[index] for index in said["channels"])}


def fit_panel(request: Recipe, panel: Panel, image: Image) -> tuple[Recipe, Image]:
    """Return the request with the nuclear channels of this image; its notes say how the panel differs.

    Raises
    ------
    SettingsError : the image lacks channels of the panel.
    """
    settings = apply_panel(panel, image, mapping=request.mapping).settings(request.mapping)
    words = check_panel(panel, image).words()
    notes = tuple(f"the channels differ from the panel's, and are taken by name: {word}" for word in words)
    return request.model_copy(update=settings), replace(image, notes=(*image.notes, *notes))


def write_panel(image: Image, path: Path, console: Console, *, overwrite: bool) -> None:
    """Write the suggested panel of an image and show it.

    Raises
    ------
    WriteError if there is such a file already, or the disk refuses.
    SettingsError if the image is a colour picture.
    """
    if path.exists() and not overwrite:
        raise WriteError(f"{path} exists; add --overwrite or choose another --output")
    found = show(suggest_steps(image), console)
    found.panel.save(path)
    table = Table("channel", "role", "reason", box=None, padding=(0, 1))
    for channel, reason in zip(found.panel.channels, found.reasons, strict=True):
        table.add_row(escape(channel.name), channel.role, escape(reason))
    console.print(table)
    for note in filter(None, (found.question, *found.notes)):
        console.print(escape(note), soft_wrap=True, style="yellow")
    console.print(escape(f"panel: {path}"), soft_wrap=True, highlight=False)
