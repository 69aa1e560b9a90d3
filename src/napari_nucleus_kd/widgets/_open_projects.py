"""The projects that a window has open, each once, however many of its images are worked on; needs no Qt."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nucleus_kd.project import Project


class OpenProjects:
    """Opens a project for the first who takes it, and closes it when the last one leaves it; for any thread.

    A project that is opened twice could be written only once, even by one program. Who takes or leaves
    another one does not wait for a slow disk.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the two tables
        self._open: dict[Path, tuple[Project, int]] = {}
        self._locks: dict[Path, threading.Lock] = {}  # held while a project is opened or closed

    def __contains__(self, folder: Path) -> bool:
        """Tell whether a project is open."""
        return folder in self._open

    def take(self, folder: Path) -> Project:
        """Return a project; it is made if it is not there. See Project.open_or_create for the errors."""
        from napari_nucleus_kd.project import Project

        folder = folder.expanduser().absolute()
        with self._lock_of(folder):
            project, uses = self._open.get(folder) or (Project.open_or_create(folder), 0)
            with self._lock:
                self._open[folder] = project, uses + 1
        return project

    def leave(self, project: Project) -> None:
        """Need a project no more."""
        with self._lock_of(project.folder):
            with self._lock:
                _, uses = self._open.pop(project.folder, (project, 0))
                if uses > 1:
                    self._open[project.folder] = project, uses - 1
            if uses == 1:
                project.close()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            left = [project for project, _ in self._open.values()]
            self._open.clear()
        for project in left:
            project.close()

    def _lock_of(self, folder: Path) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(folder, threading.Lock())
