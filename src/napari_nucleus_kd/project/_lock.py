"""One window at a time writes a project; the next one learns which."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io.atomic import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from filelock import BaseFileLock

HOLDER = "holder.json"
_LOCK = "project.lock"


class _Holder(Settings):
    """Who writes a project."""

    host: str
    process: int
    since: str


class ProjectLock:
    """Held while a project is open for writing; the system frees it when the process ends, however it ends.

    Attributes
    ----------
    refusal : why the lock could not be had, and what to do, for a person; "" while it is held.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock: BaseFileLock | None = None
        self.refusal = self._take()

    def release(self) -> None:
        """Let others write."""
        if self._lock is not None:
            with suppress(OSError):
                (self._folder / HOLDER).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _take(self) -> str:
        from filelock import FileLock, Timeout

        folder = self._folder
        if not os.access(folder, os.W_OK):
            return _not_writable(folder, "no permission")
        # Not per thread: a worker may save what another thread opened. The file stays when the lock is
        # freed: unlinking it would give two windows a lock each.
        lock = FileLock(str(folder / _LOCK), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return f"{folder.name} is being changed by {_holder(folder)}; close it there to change it here"
        except (OSError, NotImplementedError) as error:
            return _not_writable(folder, getattr(error, "strerror", None) or str(error))
        self._lock = lock
        holder = _Holder(
            host=socket.gethostname(),
            process=os.getpid(),
            since=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        )
        with suppress(WriteError):  # a full disk shows when something is saved; this note can be missed
            write_text(folder / HOLDER, holder.model_dump_json())
        return ""


def _not_writable(folder: Path, why: str) -> str:
    return f"{folder} cannot be written ({why}); to change it, get permission, or copy it to a disk of yours"


def _holder(folder: Path) -> str:
    try:
        holder = _Holder.model_validate_json((folder / HOLDER).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return "another program that has not said which"
    return f"process {holder.process} on {holder.host} since {holder.since}"
