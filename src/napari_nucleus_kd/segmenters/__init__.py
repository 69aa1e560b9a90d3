"""Segmenters by name; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from napari_nucleus_kd.errors import UnknownSegmenterError
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.segmenters.base import OWN_PERCENTILES, Segmenter

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucleus_kd.config import Recipe

__all__ = ["Segmenter", "load", "names", "percentiles", "register"]

_LOADERS: dict[str, str | Callable[[Recipe], Segmenter]] = {
    "student": "napari_nucleus_kd.segmenters.student:load",
    "classical": "napari_nucleus_kd.segmenters.classical:load",
    **dict.fromkeys(("cellpose", "cellpose4", "stardist"), "napari_nucleus_kd.segmenters.baseline:load"),
}


def names() -> tuple[str, ...]:
    """Return the names that `load` takes."""
    return tuple(_LOADERS)


def register(name: str, loader: str | Callable[[Recipe], Segmenter]) -> None:
    """Add a segmenter.

    Parameters
    ----------
    name : what a recipe calls it.
    loader : takes a Recipe and returns a Segmenter; a callable, or "module:function" to import later.

    Raises
    ------
    UnknownSegmenterError if the name is taken.
    """
    if name in _LOADERS:
        raise UnknownSegmenterError(f"segmenter {name!r} is registered already; choose another name")
    _LOADERS[name] = loader


def percentiles(recipe: Recipe) -> tuple[float, float]:
    """Return those that are scaled to 0 and 1 for the segmenter of a recipe, which is not opened.

    Raises
    ------
    ModelError : the package that it names is not there.
    """
    if "percentiles" in recipe.model_fields_set:
        return recipe.percentiles
    if recipe.segmenter == "student":
        return load_model(recipe.model).spec.percentiles
    return OWN_PERCENTILES.get(recipe.segmenter, recipe.percentiles)


def load(name: str, recipe: Recipe) -> Segmenter:
    """Return the segmenter a recipe asks for, ready to run.

    Raises
    ------
    UnknownSegmenterError lists the names there are.
    ModelError, DeviceError if its model or device is not there.
    """
    if name not in _LOADERS:
        raise UnknownSegmenterError(f"no segmenter {name!r}; choose from {', '.join(names())}")
    loader = _LOADERS[name]
    if isinstance(loader, str):
        module, function = loader.split(":")
        loader = cast("Callable[[Recipe], Segmenter]", getattr(import_module(module), function))
        _LOADERS[name] = loader
    return loader(recipe)
