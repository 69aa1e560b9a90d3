"""The student's objective against ground truth: named terms, weighted and logged each by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from monai.losses import DiceLoss, TverskyLoss
from monai.losses.focal_loss import sigmoid_focal_loss
from torch.nn import functional as F

from napari_nucleus_kd.instances import MAP_NAMES

if TYPE_CHECKING:
    from napari_nucleus_kd.train.settings import TaughtWeights
    from napari_nucleus_kd.train.teacher import Lesson

_dice = DiceLoss(batch=True, smooth_nr=1.0, smooth_dr=1.0)
# A missed nucleus pixel weighs more than a spurious one (CellGenNet: asymmetric penalties).
_tversky = TverskyLoss(alpha=0.3, beta=0.7, batch=True, smooth_nr=1.0, smooth_dr=1.0)


def terms(
    logits: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor,
    smoothing: float = 0.0,
    lovasz: bool = False,
) -> dict[str, torch.Tensor]:
    """Compare maps with their targets where the targets are known.

    Parameters
    ----------
    logits, target : (B, M, H, W) float32, in the order of instances.MAP_NAMES; logits before any sigmoid.
    valid : (B, 1, H, W) float32, 1 where the annotation is complete, 0 where nobody has said anything:
        there nothing is learnt.
    smoothing : standard deviation, px, of the neighbourhood over which the cross-entropies take the
        foreground softly; 0 takes it as it is. See soften.
    lovasz : whether its hinge is wanted, too: it has to sort all pixels.

    Returns
    -------
    Scalars by term name.
    """
    said = dict(zip(MAP_NAMES, logits.unbind(1), strict=True))
    true = dict(zip(MAP_NAMES, target.unbind(1), strict=True))
    known = valid[:, 0]
    inside = true["foreground"] * known
    pixels, known_pixels = inside.sum().clamp(min=1), known.sum().clamp(min=1)
    nucleus = torch.sigmoid(said["foreground"]) * known
    soft = soften(true["foreground"], smoothing, known) if smoothing else true["foreground"]
    cross = F.binary_cross_entropy_with_logits(said["foreground"], soft, reduction="none")
    focal = sigmoid_focal_loss(said["foreground"], soft)
    out = {
        "foreground": (cross * known).sum() / known_pixels,
        "dice": _dice(nucleus[:, None], inside[:, None]),
        "tversky": _tversky(nucleus[:, None], inside[:, None]),
        "focal": (focal * known).sum() / known_pixels,
        # Keeps one easy feature from starving the others (Pezeshki et al., 2021).
        "spectral": (said["foreground"].square() * known).sum() / known_pixels,
    }
    if lovasz:
        out["lovasz"] = lovasz_hinge(said["foreground"], true["foreground"], known)
    error = (torch.sigmoid(said["distance"]) - true["distance"]).abs()
    out["distance"] = (error * known).sum() / known_pixels
    weight = known * (1 + 9 * true["border"])  # touching edges are rare
    wrong = F.binary_cross_entropy_with_logits(said["border"], true["border"], weight, reduction="sum")
    out["border"] = wrong / known_pixels
    out["offset"] = (_offset_error(said, true) * inside).sum() / pixels
    out["diameter"] = ((said["log_diameter"] - true["log_diameter"]).abs() * inside).sum() / pixels
    return out


def lovasz_hinge(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the Lovász hinge: a convex surrogate of 1 - IoU of the foreground, over all pixels of a batch.

    Parameters
    ----------
    logits : (B, H, W) float32
    target : (B, H, W) float32, 0 or 1.
    known : (B, H, W) float32; pixels with 0 do not count.

    Source: Berman et al., The Lovász-Softmax loss, CVPR 2018; stain-agnostic segmentation, section 2.5.
    """
    counts = known > 0
    said, true = logits[counts], target[counts]
    if not said.numel():
        return logits.sum() * 0
    errors, order = torch.sort(1 - said * (2 * true - 1), descending=True)
    true = true[order]
    union = true.sum() + torch.cumsum(1 - true, 0)
    jaccard = 1 - (true.sum() - torch.cumsum(true, 0)) / union
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(F.relu(errors), steps)


def soften(target: torch.Tensor, sigma: float, known: torch.Tensor) -> torch.Tensor:
    """Return labels that are soft where classes meet: each pixel half itself, half its eight neighbours.

    Parameters
    ----------
    target : (B, H, W) float32 in [0, 1]
    sigma : standard deviation, px, of the Gaussian that weighs the neighbours.
    known : (B, H, W) float32, 1 where the labels are known; other neighbours do not count.

    Returns
    -------
    (B, H, W) float32; unchanged where all neighbours agree.

    Source: spatially varying label smoothing (Islam and Glocker, 2021); lightweight whole-slide model,
    section 3.
    """
    near, far = math.exp(-0.5 / sigma**2), math.exp(-1.0 / sigma**2)
    kernel = target.new_tensor([[[[far, near, far], [near, 0.0, near], [far, near, far]]]])
    seen = torch.stack([target * known, known], 1)  # (B, 2, H, W)
    seen = F.conv2d(F.pad(seen, (1, 1, 1, 1), mode="replicate"), kernel.expand(2, 1, 3, 3), groups=2)
    sums, weights = seen.unbind(1)
    around = torch.where(weights > 0, sums / weights.clamp(min=1e-9), target)
    return (target + around) / 2


def soft_terms(
    logits: torch.Tensor,
    lesson: Lesson,
    valid: torch.Tensor,
    temperature: float,
) -> dict[str, torch.Tensor]:
    """Compare maps with what a teacher says, where that is annotated or the teacher is sure.

    The probabilities of foreground and border are compared softened by a temperature T, as in Hinton et
    al. (2015) and the lightweight whole-slide model (section 4): T**2 times the Kullback-Leibler divergence,
    so that the size of the gradient does not depend on T. The other maps are regressed.

    Parameters
    ----------
    logits : (B, M, H, W) float32 of the student.
    valid : (B, 1, H, W) float32, 1 where the annotation is complete.

    Returns
    -------
    Scalars by term name; there is no "dice".
    """
    said = dict(zip(MAP_NAMES, logits.unbind(1), strict=True))
    taught = dict(zip(MAP_NAMES, lesson.maps.unbind(1), strict=True))
    heard = (torch.maximum(valid, lesson.sure) * lesson.said)[:, 0]
    pixels = heard.sum().clamp(min=1)
    nucleus = taught["foreground"] * heard
    nucleus_pixels = nucleus.sum().clamp(min=1)
    out: dict[str, torch.Tensor] = {}
    for name in ("foreground", "border"):
        soft = torch.sigmoid(torch.logit(taught[name], eps=1e-4) / temperature)
        cross = F.binary_cross_entropy_with_logits(said[name] / temperature, soft, reduction="none")
        own = F.binary_cross_entropy(soft, soft, reduction="none")  # what even the teacher would get
        out[name] = temperature**2 * ((cross - own) * heard).sum() / pixels
    error = (torch.sigmoid(said["distance"]) - taught["distance"]).abs()
    out["distance"] = (error * heard).sum() / pixels
    out["offset"] = (_offset_error(said, taught) * nucleus).sum() / nucleus_pixels
    error = (said["log_diameter"] - taught["log_diameter"]).abs()
    out["diameter"] = (error * nucleus).sum() / nucleus_pixels
    return out


def _offset_error(said: dict[str, torch.Tensor], true: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return how far the offsets are off, (B, H, W)."""
    down, right = (
        F.smooth_l1_loss(said[n], true[n], reduction="none", beta=0.1) for n in ("offset_y", "offset_x")
    )
    return down + right


def counted(parts: dict[str, torch.Tensor], weights: TaughtWeights) -> dict[str, torch.Tensor]:
    """Return the terms that have a weight."""
    return {name: value for name, value in parts.items() if getattr(weights, name)}


def total(parts: dict[str, torch.Tensor], weights: TaughtWeights) -> torch.Tensor:
    """Return the weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
