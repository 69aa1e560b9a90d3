"""What a comparison comes to: means with intervals, who is better beyond chance, who agrees with whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from napari_nucleus_kd import metrics
from napari_nucleus_kd.evaluate import FEWEST_IMAGES, OVERALL
from napari_nucleus_kd.mistakes import chance, pq_over_nuclei
from napari_nucleus_kd.project import grid
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    from napari_nucleus_kd.compare.comparison import Case, Comparison, Outcome
    from napari_nucleus_kd.mistakes import Mistakes
    from napari_nucleus_kd.types import LabelArray, Region

MEANS = ("pq", "dq", "sq", "aji", "aji_plus", "dice", "ap50", "ap75", "f1")
_ENOUGH_TO_TEST = 6  # images: with fewer, no rank test can come below 0.05
_MOST_PLACES = 12

Interval = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """What one contestant reached on one source.

    Attributes
    ----------
    means : by metric: mean over images with its 95% bootstrap interval; NaN ends with fewer than 3 images.
        Of a comparison on one image, the interval of the PQ is over its nuclei, see mistakes.pq_over_nuclei.
    counts : nuclei by verdict, and "found" all of them; without ground truth only these.
    seconds : median over the images that all could segment; None without any, and for labels from a folder.
    ahead : mean over images of this PQ less that of the first contestant; None of the first.
    p : of a two-sided Wilcoxon signed-rank test of that; None with fewer than 6 images. Of a comparison on
        one image, of a test over its nuclei, see mistakes.chance.
    """

    contestant: str
    source: str
    images: int
    failed: int
    means: dict[str, Interval]
    counts: dict[str, int]
    seconds: float | None
    ahead: Interval | None = None
    p: float | None = None


def standings(comparison: Comparison) -> list[Standing]:
    """Return what each contestant reached on each source, and of several sources on all images together."""
    sources = sorted({case.row.source for case in comparison.cases})
    groups = [*sources, OVERALL] if len(sources) > 1 else sources
    names = list(comparison.outcomes)
    timed = [of for of in comparison.outcomes.values() if any(o.seconds is not None for o in of)]
    untimed = {o.image for of in timed for o in of if o.seconds is None}  # by whoever failed on them
    out = []
    for source in groups:
        of = {
            name: [o for o in found if source in (o.source, OVERALL)]
            for name, found in comparison.outcomes.items()
        }
        first = of[names[0]]
        out += [_standing(source, of[name], None if of[name] is first else first, untimed) for name in names]
    return _over_nuclei(comparison, out) if comparison.judged and len(comparison.cases) == 1 else out


def _over_nuclei(comparison: Comparison, standings: list[Standing]) -> list[Standing]:
    """Return the standings on one image with what its nuclei tell."""
    (case,) = comparison.cases
    out: list[Standing] = []
    first: Mistakes | None = None
    for standing in standings:
        found = comparison.mistakes_of(standing.contestant, case)
        pq = standing.means["pq"][0], *pq_over_nuclei(found)[1:]
        p = None if first is None else chance(first, found)
        out.append(replace(standing, means=standing.means | {"pq": pq}, p=p))
        first = first or found
    return out


def _standing(
    source: str, outcomes: Sequence[Outcome], first: Sequence[Outcome] | None, untimed: Collection[str]
) -> Standing:
    means, ahead, p = {}, None, None
    if outcomes[0].values:
        means = {name: _mean([o.values[name] for o in outcomes]) for name in MEANS}
        if first is not None:
            less = [
                mine.values["pq"] - theirs.values["pq"] for mine, theirs in zip(outcomes, first, strict=True)
            ]
            ahead = _mean(less)
            p = _chance(less)
    counts = {"found": sum(o.count for o in outcomes)}
    for outcome in outcomes:
        for verdict, number in outcome.verdicts.items():
            counts[verdict] = counts.get(verdict, 0) + number
    times = [o.seconds for o in outcomes if o.seconds is not None and o.image not in untimed]
    return Standing(
        outcomes[0].contestant,
        source,
        len(outcomes),
        sum(bool(o.problem) for o in outcomes),
        means,
        counts,
        float(np.median(times)) if times else None,
        ahead,
        p,
    )


def _mean(values: Sequence[float]) -> Interval:
    mean, low, high = metrics.bootstrap(values)
    return (mean, low, high) if len(values) >= FEWEST_IMAGES else (mean, float("nan"), float("nan"))


def _chance(differences: Sequence[float]) -> float | None:
    """Return how likely such differences are by chance; None with too few of them to tell."""
    if len(differences) < _ENOUGH_TO_TEST:
        return None
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences).pvalue)


@dataclass(frozen=True, slots=True)
class Place:
    """A tile of an image on which contestants disagree.

    Attributes
    ----------
    agreement : mean F1 (IoU above 0.5) of the pairs of contestants there.
    """

    case: Case
    region: Region
    agreement: float


class Agreement(NamedTuple):
    """How far contestants agree where nobody knows the truth.

    Attributes
    ----------
    pairs : mean over images of the F1 at IoU 0.5 of each pair of contestants, one judged by the other (it is
        the same both ways), with its interval. An image that one of a pair failed on does not count.
    places : tiles of 256 px of least agreement, the worst first, one an image before any has a second.
    """

    pairs: dict[tuple[str, str], Interval]
    places: list[Place]


def agreement_steps(comparison: Comparison) -> Generator[Progress, None, Agreement]:
    """Return how far contestants agree; with ground truth nothing, because that tells more.

    Yields
    ------
    Progress after each image.
    """
    if comparison.judged:
        return Agreement({}, [])
    pairs: dict[tuple[str, str], list[float]] = {}
    tiles: list[list[Place]] = []
    for done, case in enumerate(comparison.cases, 1):
        found = {name: comparison.labels_of(name, case) for name in comparison.outcomes}
        there = {name: labels for name, labels in found.items() if labels is not None}
        for one, other in combinations(there, 2):
            pairs.setdefault((one, other), []).append(_f1(there[one], there[other]))
        if len(there) > 1:
            tiles.append(_places(case, list(there.values())))
        yield Progress(done, len(comparison.cases), "looking where segmenters agree")
    ranked = [
        (rank, place.agreement, number, place)
        for number, places in enumerate(tiles)
        for rank, place in enumerate(places)
    ]
    ranked.sort(key=lambda entry: entry[:3])
    means = {pair: _mean(values) for pair, values in pairs.items()}
    return Agreement(means, [entry[3] for entry in ranked[:_MOST_PLACES]])


def _f1(one: LabelArray, other: LabelArray) -> float:
    return metrics.match(metrics.overlap(one, other)).f1


def _places(case: Case, found: Sequence[LabelArray]) -> list[Place]:
    """Return the tiles of an image on which not all agree, the worst first."""
    places = []
    for region in grid(found[0].shape):
        parts = [labels[region.slices] for labels in found]
        agreement = float(np.mean([_f1(one, other) for one, other in combinations(parts, 2)]))
        if agreement < 1:
            places.append(Place(case, region, agreement))
    return sorted(places, key=lambda place: place.agreement)
