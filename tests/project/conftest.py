"""A little project: one drawn image of several blocks, with its labels."""

import numpy as np
import pytest
import tifffile

from napari_nucleus_kd.project import Project, project_folder
from napari_nucleus_kd.types import Modality, finish


@pytest.fixture(scope="session")
def drawn(draw):
    """Pixels and labels of 3 x 3 blocks, the last of them incomplete."""
    return draw(540, 600)


@pytest.fixture
def image(tmp_path, drawn):
    """Path of the image."""
    path = tmp_path / "slides" / "tonsil.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, drawn[0], photometric="minisblack")
    return path


@pytest.fixture
def make(image, drawn):
    """Return a function that makes the project of the image; whoever calls it closes it."""

    def make(verified=None):
        project = Project.create(project_folder(image))
        steps = project.add_steps(project.refer_to(image), drawn[1], verified, modality=Modality.FLUORESCENCE)
        finish(steps)
        return project

    return make


@pytest.fixture
def project(make):
    """The project, open for writing."""
    with make() as project:
        yield project


@pytest.fixture
def arrays(drawn):
    """Labels and verified pixels in the hands of a caller, as saved."""
    return drawn[1].copy(), np.zeros(drawn[1].shape, bool)
