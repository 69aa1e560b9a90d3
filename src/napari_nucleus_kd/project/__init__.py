"""Projects: what a person corrected and verified, kept beside the image and never lost.

A project is a folder, usually NAME.nucleus-kd beside the image:

    project.json                     the images: where they are, how they were made and segmented
    project.lock, holder.json        who writes the project now
    finetune/                        a run in which a model learns from it, see train.finetune
    image-0001/base-000001.ome.zarr  complete labels and verified pixels; never changed, only replaced
    image-0001/journal/              what was saved since, one numbered file a save

A save adds a file to the journal, so that it is fast and what is there stays as it is. Opening reads the base
and, over it, the journal. Everything is written beside its name and renamed: a program that is killed at any
moment leaves all that was saved before.

How a program uses it: `Project.open_or_create` (one program writes a project; the next one may look, and
`refusal` says so); `image_of` an image's path, or `add_steps`; `load_steps` gives labels and verified pixels,
which belong to the caller. At each change `touch` where it was; in the background every few seconds, if
anything is `unsaved`, `save`; `compact_steps` when a hundred `saves` have gathered. All but painting may be
done in another thread. `training_steps` makes training data of what is verified, tile by tile of one `grid`.
"""

from napari_nucleus_kd.project._arrays import Plane
from napari_nucleus_kd.project._data import SUMMARY, TrainingData, read_training
from napari_nucleus_kd.project._format import Part
from napari_nucleus_kd.project._image import ProjectImage
from napari_nucleus_kd.project._project import (
    SUFFIX,
    Project,
    has_file,
    has_image,
    is_project,
    next_offset,
    overlapping,
    project_folder,
)
from napari_nucleus_kd.project._reference import ImageReference, ImageState, fingerprint
from napari_nucleus_kd.project._tiles import JUDGED_EACH, TILE_PX, Role, Tile, count_verified, grid, tiles_of
from napari_nucleus_kd.project._training import (
    ENOUGH,
    REHEARSED,
    UNKNOWN,
    place_of,
    training_steps,
)

__all__ = [
    "ENOUGH", "JUDGED_EACH", "REHEARSED", "SUFFIX", "SUMMARY", "TILE_PX", "UNKNOWN", "ImageReference",
    "ImageState", "Part", "Plane", "Project", "ProjectImage", "Role", "Tile", "TrainingData",
    "count_verified",
    "fingerprint", "grid", "has_file", "has_image", "is_project", "next_offset", "overlapping",
    "place_of", "project_folder", "read_training", "tiles_of", "training_steps",
]  # fmt: skip
