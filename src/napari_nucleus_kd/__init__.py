"""Segment nuclei in multiplex, IHC and H&E images with small networks.

>>> import napari_nucleus_kd as nk
>>> callable(nk.segment)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_nucleus_kd.config import DecodeSettings, Recipe
    from napari_nucleus_kd.io import read, save_labels
    from napari_nucleus_kd.pipeline import Result, enhance, save, segment

    __version__: str

_HOMES = {
    "DecodeSettings": "config",
    "Recipe": "config",
    "Result": "pipeline",
    "enhance": "pipeline",
    "read": "io",
    "save": "pipeline",
    "save_labels": "io",
    "segment": "pipeline",
}

__all__ = [
    "DecodeSettings",
    "Recipe",
    "Result",
    "__version__",
    "enhance",
    "read",
    "save",
    "save_labels",
    "segment",
]


def __getattr__(name: str) -> Any:
    # Lazy (PEP 562): napari imports every plugin at its start, and torch alone takes seconds.
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-nucleus-kd")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
