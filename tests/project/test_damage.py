"""Damaged files are named, what came before is kept, and nothing is deleted."""

import hashlib
import zipfile

import pytest

from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.project import Project
from napari_nucleus_kd.types import Region


@pytest.fixture
def three_saves(project, arrays, paint):
    """Save three times and close; return what was saved, and the files of the journal."""
    states = []
    for number in (5, 6, 7):
        paint(project, arrays, Region(0, 0, 300, 300), number)
        project.images[0].save(*arrays)
        states.append((arrays[0].copy(), arrays[1].copy()))
    project.close()
    return states, sorted((project.images[0].folder / "journal").iterdir())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (None, "00000002-.*is damaged .its content is not what was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "00000002-.*is damaged"),
        (lambda path: path.write_bytes(b""), "00000002-.*is damaged"),
        (lambda path: path.unlink(), "entry 2 of .*is missing"),
        (
            lambda path: path.with_name("00000002-0123456789abcdef.zip").write_bytes(b"x"),
            "entry 2 of .*is there 2 times",
        ),
    ],
)
def test_a_damaged_entry_is_named_and_what_came_before_is_kept(
    project, arrays, harm, said, check, everything, flip, load, paint, three_saves
):
    states, files = three_saves
    (harm or flip)(files[1])
    before = everything(project.folder / "image-0001")
    with Project(project.folder) as damaged:
        (notice,) = damaged.notices
        assert "set it aside" in notice and "backup" in notice
        check(damaged, *states[0])
        for change in (
            lambda: damaged.images[0].save(*arrays),
            lambda: next(damaged.images[0].compact_steps()),
        ):
            with pytest.raises(ProjectError, match=said):
                change()
        assert everything(project.folder / "image-0001") == before  # nothing is deleted
        aside = damaged.images[0].set_damaged_aside()
        kept = everything(project.folder / "image-0001")
        assert sorted(kept.values()) == sorted(before.values())
        assert {path.name for path in aside.iterdir()} >= {files[2].name}
        assert damaged.notices == ()
        labels, verified = load(damaged)
        paint(damaged, (labels, verified), Region(0, 0, 2, 2), 9)
        assert damaged.images[0].save(labels, verified) == 1
        with pytest.raises(ProjectError, match="is not damaged"):
            damaged.images[0].set_damaged_aside()
    with Project(project.folder) as again:
        check(again, labels, verified)


def test_a_window_that_looks_leaves_what_is_half_written(project, arrays, check):
    project.close()
    stray = project.images[0].folder / "journal" / ".00000001-abcdef01.partial"
    stray.write_bytes(b"half")
    with Project(project.folder, write=False) as looking:
        check(looking, *arrays)
        assert stray.exists()
    with Project(project.folder) as writing:
        check(writing, *arrays)
        assert not stray.exists()


@pytest.mark.parametrize("what", ["labels/nuclei/0/c/0/0", "labels/verified/0/zarr.json", ""])
def test_a_damaged_base_is_named_and_nothing_deleted(project, arrays, what, load, three_saves):
    _, files = three_saves
    base = project.images[0].folder / "base-000001.ome.zarr"
    if what:
        (base / what).unlink()
    else:
        base.rename(base.with_name("elsewhere"))
    with Project(project.folder) as damaged:
        assert "base-000001.ome.zarr is damaged" in damaged.notices[0]
        with pytest.raises(ProjectError, match="restore this folder from a backup"):
            load(damaged)
        with pytest.raises(ProjectError, match="restore this folder"):
            damaged.images[0].save(*arrays)
        with pytest.raises(ProjectError, match="restore this folder"):
            damaged.images[0].set_damaged_aside()
    assert all(file.exists() for file in files)


def test_a_damaged_piece_of_the_base_is_named(project, flip, load):
    project.close()
    flip(project.images[0].folder / "base-000001.ome.zarr/labels/nuclei/0/c/0/0")
    with Project(project.folder) as damaged, pytest.raises(ProjectError, match=r"base-000001.* is damaged"):
        load(damaged)


def test_blocks_of_another_size_are_refused_before_memory_is_given(project, load, three_saves):

    _, files = three_saves
    with zipfile.ZipFile(files[2], "w") as archive:
        archive.writestr("labels/0/0", b"\0" * 10)
        archive.writestr("labels/9999999/0", b"\0" * 4)
    digest = hashlib.sha256(files[2].read_bytes()).hexdigest()[:16]
    files[2].rename(files[2].with_name(f"00000003-{digest}.zip"))
    with (
        Project(project.folder) as damaged,
        pytest.raises(ProjectError, match="labels/0/0 has not the 262144"),
    ):
        load(damaged)
