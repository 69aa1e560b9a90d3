"""What a run learns from: what is verified when it begins, and never that of another run or project."""

import csv

import numpy as np
import pytest
import tifffile

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import SettingsError, WriteError
from napari_nucleus_kd.project import Project
from napari_nucleus_kd.train.finetune import data_steps
from napari_nucleus_kd.train.finetune_folder import alone
from napari_nucleus_kd.types import Modality, Region, finish

SHAPE = (540, 780)


@pytest.fixture
def arrays(draw):
    """Labels, and verified pixels: the left half."""
    verified = np.zeros(SHAPE, bool)
    verified[:, :400] = True
    return draw(*SHAPE)[1], verified


@pytest.fixture
def make(draw, arrays, tmp_path):
    """Return a function that makes the project of an image of this name, with pixels of its own."""
    made = []

    def make(name):
        tifffile.imwrite(tmp_path / f"{name}.tif", draw(*SHAPE, seed=len(made))[0], photometric="minisblack")
        made.append(Project.create(tmp_path / f"{name}.nucleus-kd"))
        reference = made[-1].refer_to(tmp_path / f"{name}.tif")
        finish(made[-1].add_steps(reference, *arrays, modality=Modality.FLUORESCENCE))
        return made[-1]

    yield make
    for project in made:
        project.close()


@pytest.fixture
def everything():
    """Return a function that reads all files of a folder."""
    return lambda folder: {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def verify_more(project, arrays):
    arrays[1][:] = True
    project.images[0].touch(Region(0, 0, *SHAPE))
    assert project.images[0].save(*arrays)


def sources(data):
    with data.index.open(newline="") as file:
        return {row["source"] for row in csv.DictReader(file) if row["labels"]}


def learn(output):
    """Leave what a run leaves at its first check."""
    (output / "checkpoint.pt").touch()


def test_a_run_that_has_learnt_nothing_takes_what_is_verified_now(make, arrays, tmp_path):
    project, output = make("a"), tmp_path / "run"
    first = finish(data_steps(project, output))
    verify_more(project, arrays)
    second = finish(data_steps(project, output))
    assert second.taught > first.taught
    assert second.index == first.index and second.is_newest(project.images)
    assert sources(second) == {"a"}
    assert sources(finish(data_steps(make("b"), output))) == {"b"}


def test_a_run_that_goes_on_keeps_its_data_and_says_what_it_does_not_see(make, arrays, tmp_path):
    project, output = make("a"), tmp_path / "run"
    first = finish(data_steps(project, output))
    learn(output)
    assert finish(data_steps(project, output)) == first
    project.images[0].note_origin(Modality.FLUORESCENCE, None)
    assert finish(data_steps(project, output)) == first, "nothing has changed"
    verify_more(project, arrays)
    later = finish(data_steps(project, output))
    assert (later.taught, later.judged) == (first.taught, first.judged)
    assert later.notes[:-1] == first.notes
    assert "more was saved since this run began" in later.notes[-1] and "start anew" in later.notes[-1]
    with Project(project.folder, write=False) as looker:
        assert finish(data_steps(looker, output)) == later


@pytest.mark.parametrize("change", ["recipe", "image"])
def test_also_another_recipe_or_image_is_told(make, arrays, tmp_path, draw, change):
    project, output = make("a"), tmp_path / "run"
    finish(data_steps(project, output))
    learn(output)
    if change == "recipe":
        project.images[0].note_origin(Modality.FLUORESCENCE, Recipe(diameter_px=15))
    else:
        tifffile.imwrite(tmp_path / "more.tif", draw(*SHAPE, seed=9)[0], photometric="minisblack")
        reference = project.refer_to(tmp_path / "more.tif")
        finish(project.add_steps(reference, *arrays, modality=Modality.FLUORESCENCE))
    assert "more was saved since this run began" in finish(data_steps(project, output)).notes[-1]


def test_that_a_base_is_new_changes_nothing(make, arrays, tmp_path):
    project, output = make("a"), tmp_path / "run"
    verify_more(project, arrays)
    first = finish(data_steps(project, output))
    learn(output)
    assert finish(project.images[0].compact_steps())
    assert finish(data_steps(project, output)) == first


def test_a_run_of_another_project_is_refused(make, tmp_path, everything):
    output = tmp_path / "run"
    finish(data_steps(make("a"), output))
    learn(output)
    before = everything(output)
    with pytest.raises(SettingsError, match=r"learns from other images than those of b\.nucleus-kd; choose"):
        finish(data_steps(make("b"), output))
    assert everything(output) == before


def test_only_what_a_project_wrote_is_replaced(make, tmp_path):
    (tmp_path / "run/data").mkdir(parents=True)
    (tmp_path / "run/data/index.csv").write_text("mine")
    with pytest.raises(WriteError, match="data is there and not empty"):
        finish(data_steps(make("a"), tmp_path / "run"))
    assert (tmp_path / "run/data/index.csv").read_text() == "mine"


def test_data_are_not_replaced_under_a_run_that_goes_on(make, arrays, tmp_path, everything):
    project, output = make("a"), tmp_path / "run"
    finish(data_steps(project, output))
    verify_more(project, arrays)
    before = everything(output)
    with alone(output), pytest.raises(SettingsError, match="another window or program is at the run"):
        finish(data_steps(project, output))
    assert everything(output) == before
