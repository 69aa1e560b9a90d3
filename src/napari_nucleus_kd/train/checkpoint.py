"""The checkpoint of a run: written whole, and read again only by a run that would learn the same."""

from __future__ import annotations

import json
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.io.atomic import beside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CHECKPOINT = "checkpoint.pt"


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what of a run differs, see TrainSettings.learned_from: names of settings, with both values.

    >>> _differences({"crops": '{"batch": 2, "crop_px": 64}'}, {"crops": '{"batch": 3, "crop_px": 64}'})
    ['crops.batch (2, not 3)']
    """
    told = []
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) == now.get(name):
            continue
        try:
            values = [json.loads(some[name]) for some in (before, now)]
            if name in ("start", "encoder_of", "encoder_weights"):  # fingerprints of files
                raise ValueError
        except (KeyError, ValueError):  # a hash, or a setting that older runs did not have
            told.append(name)
            continue
        if all(isinstance(value, dict) for value in values):
            inner = [key for key in values[0] | values[1] if values[0].get(key) != values[1].get(key)]
            told += [f"{name}.{key} ({values[0].get(key)}, not {values[1].get(key)})" for key in inner]
        else:
            told.append(name if isinstance(values[0], list) else f"{name} ({values[0]}, not {values[1]})")
    return told


def refuse_other(output: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise SettingsError if the run in a folder was made from something else."""
    if differing := _differences(before, now):
        raise SettingsError(
            f"{output} holds a run with other {', '.join(differing)}; discard it, choose another "
            "output folder, or give it the settings of its recipe.json"
        )


def read_checkpoint(place: Path, *parts: str) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Parameters
    ----------
    parts : names of what a run of this kind keeps, and one of another kind does not.

    Raises
    ------
    SettingsError : it is damaged, or of another kind of run.
    """
    try:
        state: dict[str, Any] = torch.load(place, map_location="cpu", weights_only=True)
        if "made_from" not in state:
            raise KeyError("made_from")
    except (EOFError, KeyError, OSError, RuntimeError, TypeError, UnpicklingError) as error:
        raise SettingsError(
            f"{place} is damaged; discard this run, or choose another output folder"
        ) from error
    if not set(parts) <= state.keys():
        raise SettingsError(
            f"{place.parent} holds a run of another kind; to go on with it give the same --kind, or the "
            "recipe.json that lies there; else choose another output folder"
        )
    return state


def write_checkpoint(place: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint beside, then put it in place.

    Raises
    ------
    WriteError : the disk refuses; the checkpoint before stays.
    """
    with beside(place) as partial:
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # how torch says that the disk is full
            raise OSError(str(error).splitlines()[0]) from error
