"""Disks that are full or cannot be written: what was saved stays."""

import contextlib
import errno
import os
import signal

import filelock
import numpy as np
import pytest
import tifffile

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ProjectError, WriteError
from napari_nucleus_kd.project import Project
from napari_nucleus_kd.types import Modality, Region, finish


@pytest.fixture
def full_disk():
    """Return a context in which no file can grow beyond some bytes."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limit(size):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


def test_a_full_disk_leaves_what_was_saved(project, arrays, full_disk, check, everything, paint):
    image = project.images[0]
    paint(project, arrays, Region(0, 0, 9, 9), 5)
    image.save(*arrays)
    saved, before = (arrays[0].copy(), arrays[1].copy()), everything(project.folder)
    arrays[0][:] = np.random.default_rng(0).integers(1, 2**31, arrays[0].shape)  # cannot be compressed
    image.touch()
    with full_disk(5000):
        with pytest.raises(WriteError, match=r"entry 2 of .*journal cannot be written: File too large.*safe"):
            image.save(*arrays)
        assert everything(project.folder) == before
        with pytest.raises(WriteError, match=r"project\.json cannot be written"):
            image.note_origin(Modality.HE, Recipe(model="x" * 9000))
        with pytest.raises(WriteError, match=r"base-000002.* cannot be written.*safe"):
            finish(image.compact_steps())
        assert everything(project.folder) == before
        assert image.record.recipe is None
    check(project, *saved)
    assert image.save(*arrays) == 9  # what was touched is not forgotten
    check(project, *arrays)


def test_an_image_that_finds_no_room_leaves_nothing(project, tmp_path, full_disk, arrays, everything):
    noise = np.random.default_rng(0).integers(1, 2**31, arrays[0].shape)
    tifffile.imwrite(tmp_path / "other.tif", np.zeros(noise.shape, np.uint8))
    steps = project.add_steps(project.refer_to(tmp_path / "other.tif"), noise, modality=Modality.HE)
    before = everything(project.folder)
    with full_disk(5000), pytest.raises(WriteError, match="cannot be written"):
        finish(steps)
    assert everything(project.folder) == before and len(project.images) == 1


def test_a_folder_without_permission_is_open_for_looking(project, arrays, monkeypatch, check, everything):
    project.close()
    if os.name == "posix" and os.geteuid() != 0:
        project.folder.chmod(0o500)
    else:  # an administrator may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    before = everything(project.folder)
    try:
        with pytest.raises(ProjectError, match=r"cannot be written .*no permission.*copy it to a disk"):
            Project(project.folder, write=True)
        with Project(project.folder) as looking:
            check(looking, *arrays)
            assert "no permission" in looking.notices[0]
    finally:
        project.folder.chmod(0o700)
    assert everything(project.folder) == before


def test_a_disk_that_cannot_be_written_is_open_for_looking(project, arrays, monkeypatch, check):
    project.close()

    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with Project(project.folder) as looking:
        assert "Read-only file system" in looking.refusal
        check(looking, *arrays)
