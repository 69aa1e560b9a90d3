"""The projects that a window has open, each once, however many of its images are worked on; needs no Qt."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nucleus_kd.project import Project


class OpenProjects:
    """Opens a project for the first who takes it, and closes it when the last one leaves it; for any thread.

    A project that is opened twice could be written only once, even by one program.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Path, tuple[Project, int]] = {}

    def __contains__(self, folder: Path) -> bool:
        """Tell whether a project is open."""
        return folder in self._open

    def take(self, folder: Path) -> Project:
        """Return a project; it is made if it is not there. See Project.open_or_create for the errors."""
        from napari_nucleus_kd.project import Project

        folder = folder.expanduser().absolute()
        with self._lock:
            if folder not in self._open:
                self._open[folder] = Project.open_or_create(folder), 0
            project, uses = self._open[folder]
            self._open[folder] = project, uses + 1
        return project

    def leave(self, project: Project) -> None:
        """Need a project no more."""
        with self._lock:
            if project.folder not in self._open:
                return
            _, uses = self._open.pop(project.folder)
            if uses > 1:
                self._open[project.folder] = project, uses - 1
            else:
                project.close()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for project, _ in self._open.values():
                project.close()
            self._open.clear()
