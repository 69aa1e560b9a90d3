"""Sample images that need no download: drawn and simulated ones with exact labels, and scikit-image's IHC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleus_kd.errors import ReadError, SettingsError
from napari_nucleus_kd.io.read import read
from napari_nucleus_kd.simulate import simulate
from napari_nucleus_kd.types import Channel, Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucleus_kd.types import LabelArray

_PANEL_SEED = 6
_PANEL_KINDS = (  # beside the nuclei
    *("membrane", "membrane", "membrane", "cytoplasm", "cytoplasm", "some nuclei", "some nuclei"),
    *("matrix", "autofluorescence", "saturated", "dead"),
)
FOLDER = Path(__file__).resolve().parent.parent / "samples"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample image.

    Attributes
    ----------
    name : for code and the command line.
    title : for menus.
    description : what it shows, in one sentence.
    file : its file in FOLDER; None if scikit-image carries the picture, or it is simulated.
    labels_file : its exact labels in FOLDER; None if nobody knows them.
    learnt : whether the shipped model knows such a stain; if not, the sample is there to retrain on.
    """

    name: str
    title: str
    description: str
    file: str | None
    labels_file: str | None
    learnt: bool = True


SAMPLES: tuple[Sample, ...] = (
    Sample(
        "fluorescence",
        "Fluorescence (drawn, with labels)",
        "DAPI in a thick section at 0.325 um/px: crowded, touching, dividing and out-of-focus nuclei.",
        "fluorescence.ome.tif",
        "fluorescence_labels.tif",
    ),
    Sample(
        "he",
        "H&E (drawn, with labels)",
        "Haematoxylin and eosin at 0.25 um/px: glands, fibrous stroma, lymphocytes, vessels and fat.",
        "he.ome.tif",
        "he_labels.tif",
    ),
    Sample(
        "ihc",
        "IHC (real, no labels)",
        "Immunohistochemistry of the colon, scikit-image's; DAB and haematoxylin, pixel size unknown.",
        None,
        None,
    ),
    Sample(
        "multiplex",
        "Multiplex, 8 channels (drawn, with labels)",
        "DAPI, CD3, CD8, CD20, CD68, PanCK, Ki67 and autofluorescence of a carcinoma at 0.5 um/px.",
        "multiplex.ome.tif",
        "multiplex_labels.tif",
    ),
    Sample(
        "panel",
        "Panel of 12 channels in any order (simulated, with labels)",
        "The drawn nuclei at 0.325 um/px among simulated markers, as the adapters for multiplex learn them.",
        None,
        "fluorescence_labels.tif",
    ),
    Sample(
        "lamin",
        "Nuclear envelope, to retrain on (drawn, with labels)",
        "Lamin B1 at 0.325 um/px: rims of nuclei, a stain that the shipped model has not learnt.",
        "lamin.ome.tif",
        "lamin_labels.tif",
        learnt=False,
    ),
)


def sample(name: str) -> Image:
    """Open a sample image.

    Parameters
    ----------
    name : one of the names in SAMPLES.

    Returns
    -------
    Image, lazy where it comes from a file.

    Raises
    ------
    SettingsError if no sample has this name.
    ReadError if its file is missing or damaged.
    """
    found = find_sample(name)
    return _MADE[name]() if found.file is None else read(_path(found.file))


def sample_labels(name: str) -> LabelArray | None:
    """Return the exact labels of a sample image.

    Parameters
    ----------
    name : one of the names in SAMPLES.

    Returns
    -------
    (Y, X) int32, 0 is background and nuclei are 1..n; None if the sample has no ground truth.

    Raises
    ------
    SettingsError if no sample has this name.
    ReadError if its file is missing or damaged.
    """
    import tifffile

    file = find_sample(name).labels_file
    if file is None:
        return None
    path = _path(file)
    try:
        return np.asarray(tifffile.imread(path)).astype(np.int32)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise ReadError(f"{path} is damaged ({error}); install napari-nucleus-kd again") from error


def find_sample(name: str) -> Sample:
    """Return a sample by its name; raise SettingsError if there is none."""
    for candidate in SAMPLES:
        if candidate.name == name:
            return candidate
    raise SettingsError(f"no sample {name!r}; choose from {', '.join(s.name for s in SAMPLES)}")


def _path(file: str) -> Path:
    path = FOLDER / file
    if not path.is_file():
        raise ReadError(f"{path} is missing: samples come with the package; install napari-nucleus-kd again")
    return path


def _immunohistochemistry() -> Image:
    from skimage import data

    pixels = np.moveaxis(data.immunohistochemistry(), -1, 0)
    channels = (Channel("red", "#ff0000"), Channel("green", "#00ff00"), Channel("blue", "#0000ff"))
    return Image((pixels,), channels, rgb=True, name="ihc", notes=("from scikit-image",))


def _simulated_panel() -> Image:
    """Return the panel of simulate.simulate around the nuclei of the sample "fluorescence"."""
    drawn, labels = sample("fluorescence"), sample_labels("fluorescence")
    assert labels is not None
    nuclei = np.asarray(drawn.pixels[0], np.float32)
    rng = np.random.default_rng(_PANEL_SEED)
    panel = simulate(nuclei / nuclei.max(), labels, rng, 1 + len(_PANEL_KINDS), _PANEL_KINDS)
    return Image(
        (panel.pixels,),
        tuple(Channel(name) for name in panel.names),
        pixel_size_um=drawn.pixel_size_um,
        name="panel",
        notes=(f"simulated, seed {_PANEL_SEED}",),
    )


_MADE: dict[str, Callable[[], Image]] = {"ihc": _immunohistochemistry, "panel": _simulated_panel}
