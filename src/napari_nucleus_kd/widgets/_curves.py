"""Curves of a run as a picture, drawn in a thread; needs no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

PQ = "val PQ"  # name of a curve
_GREY = "#8a8a8a"  # of text, legible on napari's dark and light


class CurvesPicture:
    """Losses, each step faintly and smoothed, and below the accuracy at each check, on nothing.

    It is made once a run. A new figure each time would leave so much to be collected as garbage that the
    whole program stands still for half a second now and then.

    Parameters
    ----------
    total : steps of the run.
    judged : whether enough is held out to judge by; if not, no accuracy is drawn.
    """

    def __init__(self, total: int, *, judged: bool = True) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.4, 3.1), dpi=100)
        figure.subplots_adjust(left=0.11, right=0.72, top=0.93, bottom=0.13, hspace=0.35)
        figure.patch.set_alpha(0)
        self._canvas = FigureCanvasAgg(figure)
        self._losses, self._accuracy = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        self._lines: dict[str, tuple[Any, Any]] = {}
        (self._pq,) = self._accuracy.plot([], [], "o-", color="#e69f00", ms=3, lw=1)
        self._judged = judged
        if not judged:
            middle = {"ha": "center", "va": "center", "transform": self._accuracy.transAxes}
            self._accuracy.text(0.5, 0.5, "too little is verified", fontsize=9, color=_GREY, **middle)
        self._losses.set_yscale("log")
        self._losses.set_title("losses", fontsize=9, color=_GREY)
        self._accuracy.set_title("PQ of what is held out", fontsize=9, color=_GREY)
        self._accuracy.set_ylim(0, 1)
        self._accuracy.set_xlim(0, max(1, total))
        self._accuracy.set_xlabel("step", fontsize=8, color=_GREY)
        for axes in (self._losses, self._accuracy):
            axes.patch.set_alpha(0)
            axes.tick_params(colors=_GREY, labelsize=8, which="both")
            for edge in axes.spines.values():
                edge.set_color(_GREY)

    def draw(self, curves: Mapping[str, Sequence[tuple[float, float]]]) -> npt.NDArray[np.uint8]:
        """Draw curves by name, each a list of (step, value); those with a space but for PQ are left out.

        Returns
        -------
        (Y, X, 4) uint8
        """
        from scipy.ndimage import uniform_filter1d

        known = len(self._lines)
        for name, points in curves.items():
            seen = np.array([point for point in points if point[1] > 0])  # 0: nothing was known
            if " " in name or not len(seen):
                continue
            smooth, each = self._lines.get(name) or self._add(name)
            smooth.set_data(seen[:, 0], uniform_filter1d(seen[:, 1], 1 + len(seen) // 10, mode="nearest"))
            each.set_data(*seen.T)
        if len(self._lines) > known:
            place = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "borderaxespad": 0.2}
            self._losses.legend(fontsize=8, labelcolor=_GREY, framealpha=0, handlelength=1, **place)
        if self._judged and curves.get(PQ):
            self._pq.set_data(*np.array(curves[PQ]).T)
        self._losses.relim()
        self._losses.autoscale_view(scalex=False)
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba()).copy()

    def _add(self, name: str) -> tuple[Any, Any]:
        (smooth,) = self._losses.plot([], [], lw=1.2, label=name)
        (each,) = self._losses.plot([], [], lw=0.5, alpha=0.3, color=smooth.get_color())
        self._lines[name] = smooth, each
        return smooth, each
