"""The student's objective against ground truth: named terms, weighted and logged each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.losses import DiceLoss
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.train.settings import LossWeights

_dice = DiceLoss(batch=True, smooth_nr=1.0, smooth_dr=1.0)


def terms(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Compare maps with their targets where the targets are known.

    Parameters
    ----------
    logits, target : (B, M, H, W) float32; logits before any sigmoid.
    valid : (B, 1, H, W) float32, 1 where the annotation is complete, 0 where nobody has said anything:
        there nothing is learnt.
    names : what each of the M maps is; see instances.encode.

    Returns
    -------
    Scalars by term name. Maps that `names` lacks have no term.
    """
    said = dict(zip(names, logits.unbind(1), strict=True))
    true = dict(zip(names, target.unbind(1), strict=True))
    known = valid[:, 0]
    inside = true["foreground"] * known
    pixels, known_pixels = inside.sum().clamp(min=1), known.sum().clamp(min=1)
    nucleus = torch.sigmoid(said["foreground"]) * known
    out = {
        "foreground": F.binary_cross_entropy_with_logits(
            said["foreground"], true["foreground"], known, reduction="sum"
        )
        / known_pixels,
        "dice": _dice(nucleus[:, None], inside[:, None]),
    }
    if "distance" in said:
        error = (torch.sigmoid(said["distance"]) - true["distance"]).abs()
        out["distance"] = (error * known).sum() / known_pixels
    if "border" in said:
        weight = known * (1 + 9 * true["border"])  # touching edges are rare
        wrong = F.binary_cross_entropy_with_logits(said["border"], true["border"], weight, reduction="sum")
        out["border"] = wrong / known_pixels
    if "offset_y" in said:
        miss = sum(
            F.smooth_l1_loss(said[n], true[n], reduction="none", beta=0.1) for n in ("offset_y", "offset_x")
        )
        out["offset"] = (miss * inside).sum() / pixels
    if "log_diameter" in said:
        out["diameter"] = ((said["log_diameter"] - true["log_diameter"]).abs() * inside).sum() / pixels
    return out


def total(parts: dict[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """Return the weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
