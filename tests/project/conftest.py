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


@pytest.fixture
def load():
    """Return a function that reads what was saved last of the first image."""
    return lambda project: finish(project.images[0].load_steps())


@pytest.fixture
def check(load):
    """Return a function that compares what was saved last with arrays."""

    def check(project, labels, verified):
        found = load(project)
        assert found[0].dtype == np.int32 and found[1].dtype == bool
        np.testing.assert_array_equal(found[0], labels)
        np.testing.assert_array_equal(found[1], verified)

    return check


@pytest.fixture
def paint():
    """Return a function that changes a region of the arrays, as a person does."""

    def paint(project, arrays, region, number, checked=True):
        arrays[0][region.slices], arrays[1][region.slices] = number, checked
        project.images[0].touch(region)

    return paint


@pytest.fixture
def journal():
    """Return a function that lists the files of the journal."""
    return lambda project: sorted(path.name for path in (project.images[0].folder / "journal").iterdir())


@pytest.fixture
def everything():
    """Return a function that reads all files of a folder."""
    return lambda folder: {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip_a_bit(path):
    """Damage a file: the bit in its middle is another one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def flip():
    """Return a function that damages a file."""
    return flip_a_bit
