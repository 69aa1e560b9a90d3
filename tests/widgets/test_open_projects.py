"""Each project is open once, and a slow disk delays nobody who works on another one."""

import threading
from concurrent.futures import ThreadPoolExecutor

from napari_nucleus_kd.project import Project
from napari_nucleus_kd.widgets._open_projects import OpenProjects


def test_who_leaves_a_project_does_not_wait_until_another_one_is_open(tmp_path, monkeypatch):
    projects, slow, release = OpenProjects(), threading.Event(), threading.Event()
    quick = projects.take(tmp_path / "quick.nucleus-kd")
    truly = Project.open_or_create

    def open_slowly(folder):
        slow.set()
        assert release.wait(60)
        return truly(folder)

    monkeypatch.setattr(Project, "open_or_create", open_slowly)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(projects.take, tmp_path / "slow.nucleus-kd") for _ in range(2)]
        assert slow.wait(60)
        projects.leave(quick)  # would wait for ever
        release.set()
        first, second = (each.result() for each in both)
    assert first is second and first.writable
    assert tmp_path / "quick.nucleus-kd" not in projects
    projects.leave(first)
    assert first.writable
    projects.leave(first)
    assert not first.writable and tmp_path / "slow.nucleus-kd" not in projects
    projects.leave(first)  # once too often does no harm
    projects.close()
