"""Training data as they were written, and what they were made of: which images, and what was saved last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.io.atomic import write_text
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_nucleus_kd.project._image import ProjectImage

SUMMARY = "verified.json"  # beside the index: what was written; no other program writes it
INDEX = "index.csv"


class Origin(Settings):
    """An image of a project when training data were made of it."""

    id: str
    fingerprint: str = Field(description="Of the image file; images of one file share it")
    base: int = Field(description="Number of the complete labels")
    entry: int = Field(description="Number of the newest journal entry")
    modality: Modality
    recipe: str = Field(description="SHA-256 of the recipe")
    verified: bool = Field(False, description="Whether anything of it was verified, and so is in the data")

    @classmethod
    def of(cls, image: ProjectImage) -> Origin:
        """Return what is saved of an image now; whether anything is verified, its labels tell."""
        record = image.record
        base, entry = image.saved_last
        recipe = "" if record.recipe is None else record.recipe.model_dump_json()
        return cls(
            id=record.id,
            fingerprint=record.reference.fingerprint,
            base=base,
            entry=entry,
            modality=record.modality,
            recipe=hashlib.sha256(recipe.encode()).hexdigest(),
        )

    @property
    def content(self) -> Origin:
        """What data can be made of it; that a base is new changes nothing."""
        return self.model_copy(update={"base": 0, "verified": False})


class Summary(Settings):
    """What is kept of training data beside their index; see TrainingData."""

    taught: int = Field(ge=0)
    judged: int = Field(ge=0)
    notes: tuple[str, ...]
    images: tuple[Origin, ...]

    def write(self, folder: Path) -> None:
        """Write it into the folder of the data.

        Raises
        ------
        WriteError : the disk refuses.
        """
        write_text(folder / SUMMARY, self.model_dump_json(indent=1))


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What was written.

    Attributes
    ----------
    index : CSV for index.read_index.
    taught : nuclei to learn from.
    judged : nuclei in tiles that are kept to judge by; 0: too few, so nothing can be judged.
    notes : what a person should know, in sentences.
    made_of : the images of the project, as they were then.
    """

    index: Path
    taught: int
    judged: int
    notes: tuple[str, ...]
    made_of: tuple[Origin, ...] = ()

    def is_of(self, images: Iterable[ProjectImage]) -> bool:
        """Tell whether all images that are in these data are among those of a project."""
        known = {image.record.reference.fingerprint for image in images}
        return all(origin.fingerprint in known for origin in self.made_of if origin.verified)

    def is_newest(self, images: Iterable[ProjectImage]) -> bool:
        """Tell whether nothing was saved of a project's images since."""
        return {origin.content for origin in self.made_of} == {Origin.of(image).content for image in images}


def read_training(folder: Path) -> TrainingData:
    """Return what training_steps wrote into a folder.

    Raises
    ------
    ProjectError : it wrote nothing there, or what it wrote is damaged.
    """
    try:
        said = Summary.model_validate_json((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"{folder} holds no training data of a project ({error}); remove it, or choose another folder"
        ) from error
    return TrainingData(folder / INDEX, said.taught, said.judged, said.notes, said.images)
