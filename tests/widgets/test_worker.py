import gc
import threading

import dask
import dask.array as da
import numpy as np
import pytest
from dask.callbacks import Callback
from napari.components import ViewerModel

from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets._worker import Job, one_step, run_in_thread


def _count(to, begun=None, closed=None, gate=None):
    try:
        if begun is not None:
            begun.set()
        for done in range(to):
            if gate is not None:
                gate.wait(10)
            yield Progress(done, to)
    finally:
        if closed is not None:
            closed.set()
    return to


def test_progress_result_and_end_come_in_order_in_the_gui_thread(qtbot):
    job, seen = Job(_count(3)), []

    def note(what):
        return lambda *args: seen.append(
            (what, threading.current_thread() is threading.main_thread(), *args[:1])
        )

    for name in ("progressed", "succeeded", "failed", "cancelled", "ended"):
        getattr(job, name).connect(note(name))
    with qtbot.waitSignal(job.ended):
        job.start()
    assert [what for what, *_ in seen] == ["progressed"] * 3 + ["succeeded", "ended"]
    assert all(in_gui for _, in_gui, *_ in seen)
    assert seen[3][2] == 3
    assert not job.running


def test_the_steps_run_in_another_thread(qtbot):
    job = Job(one_step(threading.get_ident))
    with qtbot.waitSignal(job.succeeded) as blocker:
        job.start()
    assert blocker.args[0] != threading.get_ident()


def test_cancel_closes_the_generator_and_gives_no_result(qtbot):
    begun, closed, gate, seen = threading.Event(), threading.Event(), threading.Event(), []
    job = Job(_count(1000, begun, closed, gate))
    job.succeeded.connect(lambda _: seen.append("succeeded"))
    job.progressed.connect(lambda _: seen.append("progressed"))
    job.start()
    qtbot.waitUntil(begun.is_set)
    job.cancel()
    gate.set()
    with qtbot.waitSignals([job.cancelled, job.ended], order="strict"):
        pass
    assert closed.is_set()
    assert seen == []


def test_a_result_that_comes_after_cancel_is_dropped(qtbot):
    gate, seen = threading.Event(), []
    job = Job(one_step(lambda: gate.wait(10)))
    job.succeeded.connect(seen.append)
    job.start()
    qtbot.wait(20)
    job.cancel()
    with qtbot.waitSignal(job.cancelled):
        gate.set()
    assert seen == []


@pytest.mark.parametrize("error", [RuntimeError("torch says no"), ValueError("bad"), KeyError("name")])
def test_every_error_is_told_with_its_traceback(qtbot, error):
    def fail():
        raise error

    job, seen = Job(one_step(fail)), []
    job.failed.connect(lambda *args: seen.append(args))
    with qtbot.waitSignals([job.failed, job.ended], order="strict"):
        job.start()
    ((told, details),) = seen
    assert told is error
    assert "in fail" in details


def test_naparis_dask_cache_and_our_threads_do_not_meet(qtbot):
    """Without care one of the two fails with a KeyError, or the cache stays registered for good."""
    pixels = da.from_array(np.arange(64 * 64).reshape(64, 64), chunks=8)
    viewer = ViewerModel()
    layer = viewer.add_image(pixels, contrast_limits=(0, 4096))
    before = Callback.active.copy()

    def compute():
        for _ in range(60):
            assert np.asarray(pixels[::2] + 1).shape == (32, 64)
            yield Progress(0, 0)

    job, seen = Job(compute()), []
    job.failed.connect(lambda *args: seen.append(args))
    job.start()
    while job.running:
        layer.refresh(force=True)
        qtbot.wait(1)
    assert seen == []
    assert Callback.active == before
    assert dask.config.get("scheduler", None) is None


def test_a_scheduler_that_a_person_chose_is_left_alone(qtbot):
    job = Job(one_step(lambda: dask.config.get("scheduler")))
    with dask.config.set(scheduler="synchronous"):
        with qtbot.waitSignal(job.succeeded) as blocker:
            job.start()
        assert blocker.args == ["synchronous"]
        qtbot.waitUntil(lambda: not job.running)


def test_a_job_that_nobody_holds_ends_all_the_same(qtbot):
    """As that of a layer that is closed while it is saved."""
    gate, seen = threading.Event(), []
    run_in_thread(_count(1, gate=gate), done=seen.append, failed=lambda *_: None)
    gc.collect()
    gate.set()
    qtbot.waitUntil(lambda: seen == [1])
    qtbot.waitUntil(lambda: dask.config.get("scheduler", None) is None)
