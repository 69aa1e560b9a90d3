"""Matches against those of StarDist, which many published numbers come from.

Two conventions differ, and both are kept on purpose:

- From 0.5 on a pair matches here if its IoU is above the threshold, in StarDist also if it equals it. PQ is
  defined so (Kirillov et al., 2019), and only so no nucleus can have two partners at 0.5.
- Two empty images agree and score 1 here, as no nucleus is the right answer; in StarDist they score 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.spatial import cKDTree
from stardist.matching import matching

from napari_nucleus_kd.io.samples import sample, sample_labels
from napari_nucleus_kd.metrics import STRICT_IOU, Counts, match, overlap
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Callable

    Labels = np.ndarray

# The next number that StarDist, which counts in float32, tells from the threshold: at least this is above it.
ABOVE = [float(np.nextafter(np.float32(iou), np.float32(1))) for iou in STRICT_IOU]
LOW_IOU = (0.1, 0.25, 0.4)  # must be reached, here as there


def discs(rng: np.random.Generator) -> Labels:
    """Return nuclei apart and overlapping, some cut by the border."""
    yy, xx = np.mgrid[:70, :80]
    labels = np.zeros((70, 80), np.int32)
    for number in range(1, int(rng.integers(2, 25))):
        y, x, radius = rng.uniform(-3, 73), rng.uniform(-3, 83), rng.uniform(1.5, 9)
        labels[np.hypot(yy - y, xx - x) < radius] = number
    return labels


def touching(rng: np.random.Generator) -> Labels:
    """Return a plane full of nuclei: each pixel belongs to the nearest of some points."""
    points = rng.uniform(0, 64, (12, 2))
    _, nearest = cKDTree(points).query(np.argwhere(np.ones((64, 64))))
    return (nearest.reshape(64, 64) + 1).astype(np.int32)


def moved(labels: Labels, rng: np.random.Generator) -> Labels:
    """Return another opinion: shifted, some nuclei missed, some split, some spurious."""
    found = np.roll(labels, rng.integers(-1, 2, 2), (0, 1))
    for number in np.unique(found[found > 0]):
        chance = rng.random()
        if chance < 0.15:
            found[found == number] = 0
        elif chance < 0.3:
            half = (found == number) & (np.arange(found.shape[1]) % 20 < rng.integers(4, 16))
            found[half] = found.max() + 1
    found[5:9, 60:] = found.max() + 1
    return found


def with_gaps(labels: Labels, rng: np.random.Generator) -> Labels:
    """Give the nuclei other numbers, in another order and not consecutive."""
    numbers = np.concatenate([[0], rng.permutation(np.arange(3, 900, 7))[: labels.max()]])
    return numbers[labels].astype(np.int32)


def agrees(ours: Counts, theirs: object) -> None:
    assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
    assert ours.f1 == pytest.approx(theirs.f1)
    assert ours.ap == pytest.approx(theirs.accuracy)
    assert ours.sq == pytest.approx(theirs.mean_matched_score, rel=1e-5)
    assert ours.pq == pytest.approx(theirs.panoptic_quality, rel=1e-5)


@pytest.mark.parametrize("draw", [discs, touching], ids=lambda draw: draw.__name__)
def test_counts_of_many_images_are_those_of_stardist(draw: Callable) -> None:
    pairs = matched = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        true = draw(rng)
        pred = with_gaps(moved(true, rng), rng)
        true = with_gaps(true, rng)
        shared = overlap(true, pred)
        limits = [*LOW_IOU, *ABOVE]
        for iou, theirs in zip((*LOW_IOU, *STRICT_IOU), matching(true, pred, thresh=limits), strict=True):
            ours = match(shared, iou)
            agrees(ours, theirs)
            pairs, matched = pairs + ours.tp + ours.fn, matched + ours.tp
    assert 0.2 < matched / pairs < 0.8, "the images are neither trivial nor hopeless"


@pytest.mark.parametrize("name", ["fluorescence", "he"])
@pytest.mark.parametrize("segmenter", ["student", "classical"])
def test_counts_of_what_segmenters_find_are_those_of_stardist(segmenter: str, name: str) -> None:
    true, modality = sample_labels(name), Modality.HE if name == "he" else Modality.FLUORESCENCE
    found = segment(sample(name), segmenter=segmenter, modality=modality, device="cpu").nuclei.labels
    counts = [match(overlap(true, found), iou) for iou in STRICT_IOU]
    for ours, theirs in zip(counts, matching(true, found, thresh=ABOVE), strict=True):
        agrees(ours, theirs)
    assert 0 < counts[-1].tp < counts[0].tp and counts[0].fn > 0, "neither perfect nor hopeless"


@pytest.mark.parametrize("which", ["true", "pred"])
def test_one_empty_image_is_that_of_stardist(which: str) -> None:
    some = discs(np.random.default_rng(1))
    none = np.zeros_like(some)
    pair = (none, some) if which == "true" else (some, none)
    for iou, theirs in zip(STRICT_IOU, matching(*pair, thresh=ABOVE), strict=True):
        agrees(match(overlap(*pair), iou), theirs)
        assert theirs.panoptic_quality == 0


def test_two_empty_images_agree_here_and_not_in_stardist() -> None:
    empty = np.zeros((9, 9), np.int32)
    ours, theirs = match(overlap(empty, empty)), matching(empty, empty)
    assert (ours.f1, ours.ap, ours.sq, ours.pq) == (1, 1, 1, 1)
    assert (theirs.f1, theirs.accuracy, theirs.mean_matched_score, theirs.panoptic_quality) == (0, 0, 0, 0)


@pytest.mark.parametrize("iou", STRICT_IOU)
def test_an_iou_that_equals_the_threshold_matches_in_stardist_only(iou: float) -> None:
    true, pred = np.zeros((2, 10, 20), np.int32)
    true.flat[:100] = 1
    pred.flat[: round(100 * iou)] = 1  # inside the true nucleus: the IoU is the share of its 100 pixels
    assert match(overlap(true, pred), iou).tp == 0
    assert matching(true, pred, thresh=iou).tp == 1
    pred.flat[round(100 * iou)] = 1  # one pixel more
    assert match(overlap(true, pred), iou).tp == matching(true, pred, thresh=iou).tp == 1
