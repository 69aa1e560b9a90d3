import time

from napari_nucleus_kd.types import Progress
from napari_nucleus_kd.widgets import _steps


def test_opening_the_model_does_not_count_as_work(finish):
    def steps():
        yield Progress(0, 0, "opening the model")
        time.sleep(0.2)
        yield Progress(0, 2, "running")
        time.sleep(0.02)
        return "labels"

    (result, seconds), seen = finish(_steps._timed(steps()))
    assert result == "labels"
    assert 0.02 <= seconds < 0.2
    assert [progress.message for progress in seen] == ["opening the model", "running"]


def test_closing_closes_the_steps_inside():
    closed = []

    def steps():
        try:
            yield Progress(0, 1)
        finally:
            closed.append(True)

    outer = _steps._timed(steps())
    next(outer)
    outer.close()
    assert closed == [True]
