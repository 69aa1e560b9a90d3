"""Projects: what a person corrected and verified, kept beside the image and never lost.

A project is a folder, usually NAME.nucleus-kd beside the image:

    project.json                     the images: where they are, how they were made and segmented
    project.lock, holder.json        who writes the project now
    image-0001/base-000001.ome.zarr  complete labels and verified pixels; never changed, only replaced
    image-0001/journal/              what was saved since, one numbered file a save

A save adds a file to the journal, so that it is fast and what is there stays as it is. Opening reads the base
and, over it, the journal. Everything is written beside its name and renamed: a program that is killed at any
moment leaves all that was saved before.
"""

from napari_nucleus_kd.project._arrays import Plane
from napari_nucleus_kd.project._image import ProjectImage
from napari_nucleus_kd.project._project import SUFFIX, Project, is_project, project_folder
from napari_nucleus_kd.project._reference import ImageReference, ImageState
from napari_nucleus_kd.project._tiles import TILE_PX, Role, Tile, grid, tiles_of
from napari_nucleus_kd.project._training import SUMMARY, TrainingData, place_of, read_training, training_steps

__all__ = [
    "SUFFIX", "SUMMARY", "TILE_PX", "ImageReference", "ImageState", "Plane", "Project", "ProjectImage",
    "Role", "Tile", "TrainingData", "grid", "is_project", "place_of", "project_folder", "read_training",
    "tiles_of", "training_steps",
]  # fmt: skip
