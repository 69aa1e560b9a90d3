"""Files in and out: any image becomes a lazy Image; labels become OME-TIFF or OME-Zarr."""

from napari_nucleus_kd.io.labels import save_labels
from napari_nucleus_kd.io.read import IMAGE_SUFFIXES, image_suffix, label_groups, read
from napari_nucleus_kd.modality import suggest_modality

__all__ = ["IMAGE_SUFFIXES", "image_suffix", "label_groups", "read", "save_labels", "suggest_modality"]
