"""Several ways to find nuclei on the same images: who is right where, how fast, and how sure that is."""

from napari_nucleus_kd.compare.comparison import Case, Comparison, Contestant, Facts, Outcome, Size
from napari_nucleus_kd.compare.folder import forget_former, holds_comparison, refuse_others
from napari_nucleus_kd.compare.memory import memory_steps
from napari_nucleus_kd.compare.pictures import figures
from napari_nucleus_kd.compare.report import report_steps
from napari_nucleus_kd.compare.run import cases_of, compare_steps
from napari_nucleus_kd.compare.standings import Standing, agreements, standings

__all__ = [
    "Case",
    "Comparison",
    "Contestant",
    "Facts",
    "Outcome",
    "Size",
    "Standing",
    "agreements",
    "cases_of",
    "compare_steps",
    "figures",
    "forget_former",
    "holds_comparison",
    "memory_steps",
    "refuse_others",
    "report_steps",
    "standings",
]
