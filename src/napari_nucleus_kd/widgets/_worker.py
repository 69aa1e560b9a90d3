"""Runs a generator of Progress in a thread and reports in the GUI thread; the only place with threads."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal
from superqt.utils import WorkerBase
from superqt.utils._qthreading import WorkerBaseSignals

from napari_nucleus_kd import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_nucleus_kd.types import Progress


_AGAIN_MS = 1000  # a job that is to end may have begun to wait for another process since


class _DaskApart:
    """Keeps dask in our threads away from napari's cache of dask results, while any job runs.

    napari registers its cache with dask for the moment that a layer is sliced. Dask's registry is one
    for all threads and not safe between them: a thread that computes at that moment takes the cache
    along, and one of the two then fails with a KeyError. Without callbacks dask does not look there.
    """

    def __init__(self) -> None:
        self._users = 0
        self._held = contextlib.ExitStack()
        self._is_set = False

    def enter(self) -> None:
        """Count a job in; called in the GUI thread."""
        self._users += 1
        config = sys.modules.get("dask.config")  # not imported: nothing to keep apart
        if config is not None and not self._is_set and config.get("scheduler", None) is None:
            self._held.enter_context(config.set(scheduler=_get_without_callbacks))
            self._is_set = True

    def leave(self) -> None:
        """Count a job out; called in the GUI thread."""
        self._users -= 1
        if not self._users:
            self._held.close()
            self._is_set = False


def _get_without_callbacks(graph: Any, keys: Any, **options: Any) -> Any:
    from dask.threaded import get

    return get(graph, keys, **{**options, "callbacks": ()})


_DASK_APART = _DaskApart()


class _Signals(WorkerBaseSignals):
    progressed = Signal(object)


class _Steps(WorkerBase):
    """Draws a generator to its end; being asked to quit closes it after the step under way.

    superqt's own GeneratorWorker is not used because it takes every RuntimeError, and so every error of
    torch, for a deleted worker and drops it; it also leaves a cancelled generator to the garbage collector.
    """

    def __init__(self, steps: Generator[Progress, None, Any]) -> None:
        super().__init__(SignalsClass=_Signals)
        self._steps = steps
        self.thread_id: int | None = None

    def work(self) -> Any:
        self.thread_id = threading.get_ident()
        try:
            with contextlib.closing(self._steps):
                while not self.abort_requested:
                    try:
                        progress = next(self._steps)
                    except StopIteration as stop:
                        return stop.value
                    self.signals.progressed.emit(progress)
            return None
        finally:
            self.thread_id = None  # the thread goes on with other jobs


class Job(QObject):
    """One running generator. All its signals are emitted in the GUI thread.

    Signals
    -------
    progressed : types.Progress, as the generator yields them.
    succeeded : what the generator returned.
    failed : the exception and its traceback as text.
    cancelled : the generator was closed before its end.
    ended : after any of the three above.
    """

    progressed = Signal(object)
    succeeded = Signal(object)
    failed = Signal(object, str)
    cancelled = Signal()
    ended = Signal()

    def __init__(self, steps: Generator[Progress, None, Any]) -> None:
        super().__init__()
        self._cancelled = False
        self._settled = False
        self._worker: _Steps | None = _Steps(steps)
        signals = self._worker.signals
        # The slots belong to this object, which lives in the GUI thread: Qt queues the calls.
        signals.progressed.connect(self._on_progress)
        signals.returned.connect(self._on_returned)
        signals.errored.connect(self._on_errored)
        signals.finished.connect(self._on_finished)

    @property
    def running(self) -> bool:
        """True until `ended` is emitted."""
        return self._worker is not None

    def start(self) -> None:
        """Begin; the signals must be connected before."""
        if self._worker is not None:
            _RUNNING.add(self)
            _DASK_APART.enter()
            self._worker.start()

    def cancel(self) -> None:
        """Ask to stop; `cancelled` and `ended` follow when the step under way is finished."""
        self._cancelled = True
        if self._worker is not None:
            self._worker.quit()

    def end_waiting(self) -> None:
        """End the other process that the step under way waits for, again and again while the job runs."""
        if self._worker is None:
            return
        if self._worker.thread_id is not None:
            apart.end_waiting(self._worker.thread_id)
        QTimer.singleShot(_AGAIN_MS, self.end_waiting)

    def _on_progress(self, progress: Progress) -> None:
        if not self._cancelled:
            self.progressed.emit(progress)

    def _on_returned(self, value: Any) -> None:
        # A result that comes after Cancel is dropped: the person asked for none.
        if not self._cancelled:
            self._settled = True
            self.succeeded.emit(value)

    def _on_errored(self, error: BaseException) -> None:
        if not self._cancelled:
            self._settled = True
            self.failed.emit(error, "".join(traceback.format_exception(error)))

    def _on_finished(self) -> None:
        self._worker = None
        _RUNNING.discard(self)
        _DASK_APART.leave()
        if not self._settled:
            self.cancelled.emit()
        self.ended.emit()


_RUNNING: set[Job] = set()  # who began a job may be gone before its end, which must be noted all the same


def run_in_thread(
    steps: Generator[Progress, None, Any],
    *,
    done: Callable[[Any], None],
    failed: Callable[[BaseException, str], None],
    progress: Callable[[Progress], None] | None = None,
    ended: Callable[[], None] | None = None,
) -> Job:
    """Run a generator in a thread and call back in the GUI thread.

    Parameters
    ----------
    steps : yields Progress and returns the result. It must not be used by the caller any more.
    done : called with the result.
    failed : called with the error and its traceback as text.
    progress : called with each Progress.
    ended : called last, however the generator ended.

    Returns
    -------
    The job; cancel it by `Job.cancel()`.
    """
    job = Job(steps)
    job.succeeded.connect(done)
    job.failed.connect(failed)
    if progress is not None:
        job.progressed.connect(progress)
    if ended is not None:
        job.ended.connect(ended)
    job.start()
    return job


def one_step(work: Callable[[], Any]) -> Generator[Progress, None, Any]:
    """Make a generator of a plain function, so that it can run as a job."""
    yield from ()
    return work()
