"""Several ways to find nuclei on the same images: who is right where, how fast, and how sure that is."""

from napari_nucleus_kd.compare.comparison import Case, Comparison, Contestant, Facts, Outcome, Size
from napari_nucleus_kd.compare.folder import forget_former, holds_comparison, refuse_others
from napari_nucleus_kd.compare.memory import memory_steps
from napari_nucleus_kd.compare.pictures import figure_steps
from napari_nucleus_kd.compare.report import report_steps
from napari_nucleus_kd.compare.run import cases_of, compare_steps
from napari_nucleus_kd.compare.standings import Agreement, Standing, agreement_steps, standings

__all__ = [
    "Agreement",
    "Case",
    "Comparison",
    "Contestant",
    "Facts",
    "Outcome",
    "Size",
    "Standing",
    "agreement_steps",
    "cases_of",
    "compare_steps",
    "figure_steps",
    "forget_former",
    "holds_comparison",
    "memory_steps",
    "refuse_others",
    "report_steps",
    "standings",
]
