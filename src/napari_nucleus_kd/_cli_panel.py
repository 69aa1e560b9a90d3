"""What `nucleus-kd panel` does, and what a panel says to `nucleus-kd segment`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from napari_nucleus_kd._cli_show import show
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.panel import suggest_steps

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from napari_nucleus_kd.panel import Panel
    from napari_nucleus_kd.types import Image


def given_by(panel: Panel, mapping: str) -> dict[str, Any]:
    """Return what a panel says to a Recipe with a mapping for any image: its channels by name.

    Raises
    ------
    SettingsError if no channel is nuclear.
    """
    said = panel.settings(mapping)
    return said | {"channels": tuple(panel.names[index] for index in said["channels"])}


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
