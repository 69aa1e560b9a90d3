"""Several networks as one: the mean of what they say of a picture, and of its mirror pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn

from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.networks.student import StudentConfig, build_student

if TYPE_CHECKING:
    from collections.abc import Sequence

_AXIS = {"offset_y": 2, "offset_x": 3}  # along which a mirror turns the map's sign


class EnsembleConfig(Settings):
    """What an ensemble consists of."""

    members: tuple[StudentConfig, ...] = Field(min_length=1, description="Networks with the same maps")
    flips: bool = Field(True, description="Ask each of the three mirror pictures, too")


class Ensemble(nn.Module):
    """Maps (B, 3, H, W) pixels in [0, 1] to (B, M, H, W) maps, like each of its members.

    Raises
    ------
    ValueError : the members do not have the same maps.
    """

    def __init__(self, config: EnsembleConfig):
        super().__init__()
        self.names = config.members[0].maps
        if any(member.maps != self.names for member in config.members):
            raise ValueError("the members of an ensemble must have the same maps, in the same order")
        self.members = nn.ModuleList(build_student(member) for member in config.members)
        self.flips = config.flips

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of the members' maps."""
        said = [mirrored_mean(m, x, self.names) if self.flips else m(x) for m in self.members]
        return torch.stack(said).mean(0)


def mirrored_mean(network: nn.Module, x: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Return the mean of the maps of a picture and of its mirror pictures, turned back.

    Parameters
    ----------
    network : gives (B, M, H, W) maps of (B, 3, H, W) pixels.
    names : of the M maps; offsets change their sign in a mirror.
    """
    said = []
    for axes in ((), (2,), (3,), (2, 3)):
        signs = torch.tensor([-1.0 if _AXIS.get(name) in axes else 1.0 for name in names], device=x.device)
        said.append(network(x.flip(axes)).float().flip(axes) * signs.view(1, -1, 1, 1))
    return torch.stack(said).mean(0)


def build_ensemble(config: EnsembleConfig) -> Ensemble:
    """Make an ensemble with random weights."""
    return Ensemble(config)
