"""The student's objective against ground truth: named terms, weighted and logged each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.losses import DiceLoss
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.train.settings import LossWeights

_dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)


def terms(logits: torch.Tensor, target: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Compare maps with their targets.

    Parameters
    ----------
    logits, target : (B, M, H, W) float32; logits before any sigmoid.
    names : what each of the M maps is; see instances.encode.

    Returns
    -------
    Scalars by term name. Maps that `names` lacks have no term.
    """
    said = dict(zip(names, logits.unbind(1), strict=True))
    true = dict(zip(names, target.unbind(1), strict=True))
    inside = true["foreground"]
    pixels = inside.sum().clamp(min=1)
    out = {
        "foreground": F.binary_cross_entropy_with_logits(said["foreground"], inside),
        "dice": _dice(said["foreground"][:, None], inside[:, None]),
    }
    if "distance" in said:
        out["distance"] = (torch.sigmoid(said["distance"]) - true["distance"]).abs().mean()
    if "border" in said:
        weight = 1 + 9 * true["border"]  # touching edges are rare
        out["border"] = F.binary_cross_entropy_with_logits(said["border"], true["border"], weight)
    if "offset_y" in said:
        error = sum(
            F.smooth_l1_loss(said[n], true[n], reduction="none", beta=0.1) for n in ("offset_y", "offset_x")
        )
        out["offset"] = (error * inside).sum() / pixels
    if "log_diameter" in said:
        out["diameter"] = ((said["log_diameter"] - true["log_diameter"]).abs() * inside).sum() / pixels
    return out


def total(parts: dict[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """Return the weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
