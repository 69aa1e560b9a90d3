"""What the channels of an image are for: suggested, kept in a small file, checked against other images."""

from napari_nucleus_kd.panel._fit import (
    Differences,
    apply_panel,
    by_name,
    check_panel,
    image_names,
    taken_over,
)
from napari_nucleus_kd.panel._panel import Panel, PanelChannel, Role, read_panel
from napari_nucleus_kd.panel._pixels import contrast, thumbnail
from napari_nucleus_kd.panel._suggest import (
    Suggestion,
    channel_color,
    has_own_names,
    planes_question,
    suggest_panel,
    suggest_steps,
)

__all__ = [
    "Differences",
    "Panel",
    "PanelChannel",
    "Role",
    "Suggestion",
    "apply_panel",
    "by_name",
    "channel_color",
    "check_panel",
    "contrast",
    "has_own_names",
    "image_names",
    "planes_question",
    "read_panel",
    "suggest_panel",
    "suggest_steps",
    "taken_over",
    "thumbnail",
]
