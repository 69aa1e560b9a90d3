"""The images of a project: moved, missing, changed, several."""

import os

import numpy as np
import pytest
import tifffile

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import LabelsError, ProjectError
from napari_nucleus_kd.project import Project, _reference, has_image, project_folder
from napari_nucleus_kd.types import Modality, finish


def test_a_project_moves_with_its_image(project, image, arrays, tmp_path, check):
    project.close()
    image.parent.rename(tmp_path / "moved")
    with Project(project_folder(tmp_path / "moved" / image.name)) as moved:
        assert moved.notices == ()
        assert moved.images[0].read_image().source == tmp_path / "moved" / image.name
        check(moved, *arrays)


def test_a_project_without_its_image_finds_it_where_it_was(project, image, tmp_path):
    project.close()
    project.folder.rename(tmp_path / "far.nucleus-kd")
    with Project(tmp_path / "far.nucleus-kd") as moved:
        assert moved.images[0].read_image().source == image


def test_a_missing_image_can_be_pointed_to_anew(project, image, arrays, tmp_path, check):
    image.rename(tmp_path / "elsewhere.tif")
    assert "tonsil.ome.tif is not there any more; put it back" in project.notices[0]
    with pytest.raises(ProjectError, match="not there any more"):
        project.images[0].read_image()
    check(project, *arrays)  # the labels do not need it
    project.images[0].relocate(tmp_path / "elsewhere.tif")
    assert project.notices == ()
    project.close()
    with Project(project.folder) as again:
        assert again.images[0].read_image().source == tmp_path / "elsewhere.tif"


def test_how_bright_the_old_file_was_is_not_taken_for_another(project, image, drawn, tmp_path):
    (entry,) = project.images
    recipe = Recipe(channels=(0,), scaling_low=(900.0,), scaling_high=(4000.0,), diameter_px=15)
    entry.note_origin(Modality.FLUORESCENCE, recipe)
    image.rename(tmp_path / "moved.tif")
    entry.relocate(tmp_path / "moved.tif")
    assert entry.record.recipe == recipe, "it is the same file"
    tifffile.imwrite(image, drawn[0] // 2, photometric="minisblack")
    entry.relocate(image)
    assert entry.record.recipe == Recipe(channels=(0,), diameter_px=15)


def test_another_image_under_the_name_is_noticed(project, image, drawn):
    stat = image.stat()
    changed = drawn[0].copy()
    changed[500:, 100:] += 1
    tifffile.imwrite(image, changed, photometric="minisblack")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert image.stat().st_size == stat.st_size
    assert "is not the file that was labelled" in project.notices[0]
    with pytest.raises(ProjectError, match="not the file that was labelled"):
        project.images[0].read_image()
    project.images[0].relocate(image)  # a person says that it is right
    assert project.notices == ()
    tifffile.imwrite(image, drawn[0][:, :-1], photometric="minisblack")
    with pytest.raises(ProjectError, match=r"is \(540, 599\) pixels, its labels are \(540, 600\)"):
        project.images[0].relocate(image)


def test_a_copy_is_the_same_image(project, image):
    os.utime(image, (1, 1))
    assert project.notices == ()


def test_zarr_images_are_told_apart_too(tmp_path, drawn, flip):
    from napari_nucleus_kd.io import save_labels

    path = tmp_path / "i.ome.zarr"
    save_labels(drawn[1], path)
    with Project.create(tmp_path / "p.nucleus-kd") as project:
        finish(project.add_steps(project.refer_to(path), drawn[1], modality=Modality.HE))
        (path / "labels").mkdir()
        (path / "labels" / "zarr.json").write_text("{}")  # labels that were added are not the image
        (path / ".DS_Store").write_text("x")
        assert project.notices == ()
        flip(path / "0" / "c" / "0" / "0")
        assert "is not the file that was labelled" in project.notices[0]


def test_several_images_have_labels_of_their_own(project, image, arrays, tmp_path, check):
    stack = np.zeros((3, 40, 50), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    ones = np.ones((40, 50), np.uint8)
    for z in (0, 2):
        steps = project.add_steps(
            project.refer_to(tmp_path / "stack.tif", z=z),
            ones * (z + 1),
            ones,
            modality=Modality.FLUORESCENCE,
        )
        finish(steps)
    with pytest.raises(ProjectError, match="is in the project already"):
        finish(project.add_steps(project.refer_to(tmp_path / "stack.tif", z=2), ones, modality=Modality.HE))
    with pytest.raises(LabelsError, match=r"\(30, 50\) pixels, the image is \(40, 50\)"):
        other = project.refer_to(tmp_path / "stack.tif", t=0, z=1)
        finish(project.add_steps(other, ones[:30], modality=Modality.HE))
    project.close()
    with Project(project.folder) as again:
        assert [entry.record.id for entry in again.images] == ["image-0001", "image-0002", "image-0003"]
        assert again.images[2].record.reference.z == 2
        labels, verified = finish(again.images[2].load_steps())
        assert (labels == 3).all() and verified.all()
        check(again, *arrays)


def test_of_two_that_are_added_at_once_each_has_its_place_and_one_image_only_one(project, tmp_path):
    ones = np.ones((40, 50), np.uint8)
    adding = []
    for name in ("b", "c", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.full((40, 50), ord(name), np.uint8))
        adding.append(
            project.add_steps(
                project.refer_to(tmp_path / f"{name}.tif"), ones * len(adding), modality=Modality.HE
            )
        )
        next(adding[-1])
    assert [finish(steps).record.id for steps in adding[:2]] == ["image-0002", "image-0003"]
    with pytest.raises(ProjectError, match="is in the project already"):
        finish(adding[2])
    assert sorted(path.name for path in project.folder.glob("image-*")) == [
        f"image-000{i}" for i in (1, 2, 3)
    ]
    assert [finish(image.load_steps())[0].max() for image in project.images[1:]] == [0, 1]


def test_adding_that_is_stopped_leaves_nothing(project, tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((40, 50), np.uint8))
    steps = project.add_steps(
        project.refer_to(tmp_path / "b.tif"), np.zeros((40, 50), np.uint8), modality=Modality.HE
    )
    next(steps)
    steps.close()
    assert [path.name for path in project.folder.glob("image-*")] == ["image-0001"]


def test_an_image_is_found_by_its_path(project, image, tmp_path, monkeypatch):
    (found,) = project.images
    assert project.image_of(image) is found
    monkeypatch.chdir(image.parent)
    assert project.image_of(f"../{image.parent.name}/{image.name}") is found
    assert project.image_of(image, z=3) is None and project.image_of(tmp_path / "other.tif") is None
    assert has_image(project.folder, image) and not has_image(project.folder, image, z=3)
    assert not has_image(project.folder, tmp_path / "other.tif")


def planes_found(project, path, count):
    """Return what is found of the planes of a file, that of None last; with and without opening."""
    found = [project.image_of(path, z=z) for z in (*range(count), None)]
    assert [has_image(project.folder, path, z=z) for z in (*range(count), None)] == [*map(bool, found)]
    return found


@pytest.mark.parametrize("depth", [1, 4, 5])
@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize("older", [True, False])
def test_a_plane_is_found_by_its_number_and_as_the_usual_one(tmp_path, depth, chosen, older):
    path, ones, middle = tmp_path / "stack.tif", np.ones((40, 50), np.uint8), depth // 2
    stack = np.zeros((depth, 40, 50), np.uint8)
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    z = middle if chosen else None
    with Project.create(tmp_path / "p.nucleus-kd") as project:
        added = finish(project.add_steps(project.refer_to(path, z=z), ones, modality=Modality.HE))
        assert added.record.reference.z == (None if depth == 1 else middle)
        if older:  # as versions before noted it
            reference = added.record.reference.model_copy(update={"z": z})
            project.put(added.record.model_copy(update={"reference": reference}))
    with Project(tmp_path / "p.nucleus-kd") as project:
        (added,) = project.images
        expected = [added if i in (middle, depth) else None for i in range(depth + 1)]
        assert planes_found(project, path, depth) == expected
        for again in (middle, None):
            with pytest.raises(ProjectError, match="is in the project already"):
                finish(project.add_steps(project.refer_to(path, z=again), ones, modality=Modality.HE))
        added.relocate(path)
        assert added.record.reference.z == (None if depth == 1 else middle)
        path.unlink()
        assert project.image_of(path, z=added.record.reference.z) is added, "known without its file"


def test_pages_that_are_read_as_channels_are_not_one_of_them_read_as_a_plane(tmp_path):
    path, ones = tmp_path / "pages.tif", np.ones((40, 50), np.uint8)
    tifffile.imwrite(path, np.zeros((3, 40, 50), np.uint8), metadata=None, photometric="minisblack")
    with Project.create(tmp_path / "p.nucleus-kd") as project:
        pages = finish(project.add_steps(project.refer_to(path), ones, modality=Modality.FLUORESCENCE))
        assert planes_found(project, path, 3) == [None, None, None, pages]
        plane = finish(project.add_steps(project.refer_to(path, z=0), ones, modality=Modality.FLUORESCENCE))
        assert planes_found(project, path, 3) == [plane, None, None, pages]


def test_only_a_file_that_may_be_known_by_another_number_is_read(project, image, tmp_path, monkeypatch):
    planes = np.zeros((3, 40, 50), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", planes, metadata={"axes": "ZYX"}, photometric="minisblack")
    stack = project.refer_to(tmp_path / "stack.tif", z=1)
    finish(project.add_steps(stack, np.ones((40, 50), np.uint8), modality=Modality.HE))
    read = []
    monkeypatch.setattr(_reference, "read", lambda path, **which: read.append(path))
    assert project.image_of(image) and project.image_of(tmp_path / "stack.tif", z=1)
    assert project.image_of(tmp_path / "stack.tif", z=2) is None
    assert project.image_of(tmp_path / "other.tif") is None and not read
