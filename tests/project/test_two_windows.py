"""One window writes a project; others look, and nothing is lost between them."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from napari_nucleus_kd.errors import ProjectError
from napari_nucleus_kd.project import Project
from napari_nucleus_kd.types import Modality, Region, finish


def test_a_second_window_only_looks(project, arrays, check, paint):
    with pytest.raises(ProjectError, match=rf"process {os.getpid()} on .* since 20.*close it there"):
        Project(project.folder, write=True)
    with Project(project.folder) as other:
        reference = project.images[0].record.reference
        assert not other.writable and f"process {os.getpid()}" in other.notices[0]
        for change in (
            lambda: other.images[0].save(*arrays),
            lambda: next(other.images[0].compact_steps()),
            lambda: other.images[0].note_origin(Modality.HE, None),
            lambda: other.images[0].relocate("x"),
            lambda: other.images[0].set_damaged_aside(),
            lambda: next(other.add_steps(reference, *arrays, modality=Modality.HE)),
        ):
            with pytest.raises(ProjectError, match=r"cannot be changed: .* is being changed by process"):
                change()
        paint(project, arrays, Region(0, 0, 300, 9), 5)
        project.images[0].save(*arrays)
        check(other, *arrays)
        steps = other.images[0].load_steps()
        next(steps)
        finish(project.images[0].compact_steps())  # takes away what the other reads
        found = finish(steps)
        np.testing.assert_array_equal(found[0], arrays[0])
    project.close()
    assert not (project.folder / "holder.json").exists()
    Project(project.folder, write=True).close()


def test_a_base_that_is_replaced_while_a_window_opens_is_no_damage(
    project, arrays, monkeypatch, check, paint
):
    from napari_nucleus_kd.project import _project

    old = _project.read_file(project.folder)
    paint(project, arrays, Region(0, 0, 300, 9), 5)
    project.images[0].save(*arrays)
    finish(project.images[0].compact_steps())
    told = iter([old, old])
    true = _project.read_file
    monkeypatch.setattr(_project, "read_file", lambda folder: next(told, None) or true(folder))
    with Project(project.folder, write=False) as other:
        assert other.notices == ("it was opened for looking only",)
        check(other, *arrays)


def test_a_closed_project_is_not_written(project, arrays, paint):
    project.close()
    paint(project, arrays, Region(0, 0, 9, 9), 5)
    with pytest.raises(ProjectError, match="was closed; open it again"):
        project.images[0].save(*arrays)


def test_closing_waits_for_a_save_in_another_thread(project, arrays, check, paint):
    reached, go_on = threading.Event(), threading.Event()

    class Slow:
        shape = arrays[0].shape

        def __getitem__(self, part):
            reached.set()
            assert go_on.wait(20)
            return arrays[0][part]

    paint(project, arrays, Region(0, 0, 9, 9), 5)
    saving = threading.Thread(target=project.images[0].save, args=(Slow(), arrays[1]))
    closing = threading.Thread(target=project.close)
    saving.start()
    assert reached.wait(20)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    with pytest.raises(ProjectError, match="is being changed by process"):
        Project(project.folder, write=True)
    go_on.set()
    saving.join(20)
    closing.join(20)
    with Project(project.folder, write=True) as again:
        check(again, *arrays)


def test_the_lock_of_a_dead_process_is_taken_over(project):
    project.close()
    code = (
        "import sys, time; from napari_nucleus_kd.project import Project;"
        "p = Project(sys.argv[1], write=True); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project.folder)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "open\n"
            with Project(project.folder) as second:
                assert f"process {other.pid} on" in second.refusal
        finally:
            other.kill()
    with Project(project.folder, write=True) as mine:
        assert mine.writable
        assert json.loads((project.folder / "holder.json").read_text())["process"] == os.getpid()
