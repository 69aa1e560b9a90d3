"""project.json: what is strange or damaged is refused, and links are not followed."""

import json
import os

import pytest

from napari_nucleus_kd.errors import ProjectError, WriteError
from napari_nucleus_kd.project import Project, is_project
from napari_nucleus_kd.types import Modality


def change(project, **values):
    project.close()
    path = project.folder / "project.json"
    content = json.loads(path.read_text())
    for name, value in values.items():
        (content if name in ("format", "extra") else content["images"][0])[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": 2}, "is of format 2, this version of the program knows 1; update"),
        ({"format": "1"}, "damaged: format = '1'"),
        ({"extra": 1}, "damaged: extra: there is no such setting"),
        ({"id": "../../x"}, "damaged: images.0.id = '../../x'"),
        ({"id": "image-0001/../../x"}, "damaged: images.0.id"),
        ({"id": "/tmp/image-0001"}, "damaged: images.0.id"),
        ({"base": "../1"}, "damaged: images.0.base"),
        ({"base": 0}, "damaged: images.0.base"),
        ({"state": {"x": 1}}, "damaged: images.0.state: there is no such setting"),
        ({"shape_yx": [0, 5]}, "damaged: images.0.shape_yx"),
    ],
)
def test_a_project_that_says_something_strange_is_not_opened(project, values, said, everything):
    change(project, **values)
    before = everything(project.folder)
    with pytest.raises(ProjectError, match=said):
        Project(project.folder)
    assert everything(project.folder).keys() == before.keys()


def test_a_shape_from_elsewhere_is_not_believed(project, load):
    change(project, shape_yx=[10**9, 10**9])
    with (
        Project(project.folder) as damaged,
        pytest.raises(ProjectError, match=r"nuclei is \(540, 600\) int32"),
    ):
        load(damaged)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes there")
def test_an_image_that_is_no_file_is_missing(project, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reference = dict(json.loads((project.folder / "project.json").read_text())["images"][0]["reference"])
    change(project, reference=reference | {"relative": "../../pipe", "absolute": "/dev/zero"})
    with Project(project.folder) as other:
        assert "is not there any more" in other.notices[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '"\\ud800"', "null"])
def test_a_damaged_file_is_named(project, text):
    project.close()
    (project.folder / "project.json").write_text(text)
    with pytest.raises(ProjectError, match=r"project\.json is damaged.*backup"):
        Project(project.folder)


def test_what_a_killed_program_was_adding_is_removed_if_it_is_not_complete(project, arrays, check):
    project.close()
    begun = project.folder / "image-0002" / ".base-000001.ome.zarr.0123abcd.partial"
    begun.mkdir(parents=True)
    (begun / "zarr.json").write_text("{}")
    complete = project.folder / "image-0003" / "base-000001.ome.zarr"
    complete.mkdir(parents=True)
    with Project(project.folder) as again:
        assert not begun.exists() and complete.exists()
        assert len(again.images) == 1 and again.notices == ()
        check(again, *arrays)


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need permission there")
def test_links_out_of_the_project_are_not_followed(project, tmp_path, everything, load):
    project.close()
    folder, outside = project.images[0].folder, tmp_path / "outside"
    folder.rename(outside)
    folder.symlink_to(outside)
    (outside / ".x.partial").write_text("not ours to remove")
    before = everything(outside)
    with Project(project.folder) as damaged:
        assert "leads out of the project" in damaged.notices[0]
        with pytest.raises(ProjectError, match="leads out of the project"):
            load(damaged)
    assert everything(outside) == before


def test_a_project_of_the_first_days_opens(project):
    """Its images had a state, in which nothing was ever kept."""
    change(project, state={})
    with Project(project.folder) as again:
        assert again.notices == () and len(again.images) == 1
        again.images[0].note_origin(Modality.HE, None)
    assert "state" not in (project.folder / "project.json").read_text()


def test_folders_that_are_no_projects(project, tmp_path):
    assert is_project(project.folder) and not is_project(tmp_path)
    with pytest.raises(ProjectError, match="is no project"):
        Project(tmp_path)
    assert not (tmp_path / "project.lock").exists()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    with pytest.raises(WriteError, match="not empty"):
        Project.create(tmp_path / "x")


def test_a_project_whose_making_was_killed_can_be_made(tmp_path):
    folder = tmp_path / "new.nucleus-kd"
    folder.mkdir()
    (folder / ".project.json.0123abcd.partial").write_text("{")
    with Project.open_or_create(folder) as made:
        assert made.writable and made.images == ()
        with Project.open_or_create(folder) as second:
            assert "is being changed by process" in second.refusal
    assert [path.name for path in folder.glob(".*")] == []
