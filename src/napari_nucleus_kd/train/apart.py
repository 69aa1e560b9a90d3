"""Fine-tuning in a process of its own, for windows; see apart and train.finetune."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.apart import apart_steps
from napari_nucleus_kd.config import Recipe, Settings
from napari_nucleus_kd.evaluate import Score
from napari_nucleus_kd.io.atomic import beside
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train.finetune import FinetuneSettings, Preview, Tuned, finetune_steps
from napari_nucleus_kd.types import Channel, Image, Region, retold

if TYPE_CHECKING:
    from collections.abc import Generator

    from pydantic import JsonValue

    from napari_nucleus_kd.types import LabelArray, Progress

_AROUND_PX = 160  # of the image around a preview: what a network sees of a pixel's neighbourhood
_PIXELS, _LABELS = "pixels.npy", "labels.npy"


class _Look(Settings):
    """A preview as the other process is told of it; the pixels are in a file."""

    folder: Path
    channels: tuple[str, ...]
    rgb: bool
    pixel_size_um: float | None
    recipe: Recipe
    region: Region


class _Request(Settings):
    """What the other process is to do."""

    model: str
    index: Path
    output: Path
    settings: FinetuneSettings
    look: _Look | None


def finetune_apart_steps(
    model: str,
    index: Path,
    output: Path,
    settings: FinetuneSettings | None = None,
    preview: Preview | None = None,
) -> Generator[Progress, None, Tuned]:
    """Fine-tune in a process of its own; parameters, progress and result are those of finetune_steps.

    Parameters
    ----------
    preview : its recipe must be resolved: only the pixels around its region go to the other process.

    Raises
    ------
    DeviceError : the process died; what it kept is gone on with. Else as finetune_steps, and WriteError.
    """
    with tempfile.TemporaryDirectory(prefix="nucleus-kd-") as scratch:
        look = None if preview is None else _told(preview, Path(scratch))
        request = _Request(
            model=model,
            index=index.absolute(),
            output=output.absolute(),
            settings=settings or FinetuneSettings(),
            look=look,
        )
        steps = apart_steps(f"{__name__}:served", request.model_dump(mode="json"))
        shown = Path(scratch) / _LABELS

        def tell(progress: Progress) -> Progress:
            if preview is not None and shown.exists():
                preview.show(np.load(shown, allow_pickle=False))
                shown.unlink()
            return progress

        return _tuned(model, index, (yield from retold(steps, tell)))


def served(request: dict[str, Any]) -> Generator[Progress, None, JsonValue]:
    """Fine-tune as the other process asks; returns folder and scores of the model."""
    asked = _Request.model_validate(request)
    preview = None if asked.look is None else _heard(asked.look)
    tuned = yield from finetune_steps(asked.model, asked.index, asked.output, asked.settings, preview)
    return {
        "folder": str(tuned.model.folder),
        "before": [asdict(score) for score in tuned.before],
        "after": [asdict(score) for score in tuned.after],
        "unverified": tuned.unverified,
    }


def _told(preview: Preview, folder: Path) -> _Look:
    """Write what a preview needs into a folder."""
    image = preview.image
    around = preview.region.grown(_AROUND_PX, image.shape_yx)
    np.save(folder / _PIXELS, np.asarray(image.pixels[:, *around.slices]), allow_pickle=False)
    return _Look(
        folder=folder,
        channels=tuple(channel.name for channel in image.channels),
        rgb=image.rgb,
        pixel_size_um=image.pixel_size_um,
        recipe=preview.recipe.model_copy(update={"region": None}),
        region=preview.region.within(around),
    )


def _heard(look: _Look) -> Preview:
    """Return a preview that writes what it shows into the folder."""
    pixels = np.load(look.folder / _PIXELS, allow_pickle=False)
    channels = tuple(map(Channel, look.channels))

    def show(labels: LabelArray) -> None:
        with beside(look.folder / _LABELS) as partial, partial.open("wb") as file:
            np.save(file, labels, allow_pickle=False)

    image = Image((pixels,), channels, look.rgb, look.pixel_size_um)
    return Preview(image, look.recipe, look.region, show)


def _tuned(model: str, index: Path, result: Any) -> Tuned:
    before, after = (tuple(Score(**score) for score in result[when]) for when in ("before", "after"))
    return Tuned(load_model(model), load_model(result["folder"]), index, before, after, result["unverified"])
