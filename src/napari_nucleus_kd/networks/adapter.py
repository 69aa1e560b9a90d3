"""Adapters: from the channels of a panel, whatever their number and order, to the three a network sees."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field
from torch import nn

from napari_nucleus_kd.channels import NETWORK_CHANNELS
from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.networks.blocks import ConvBN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_nucleus_kd.networks.student import Student

_TINY = 1e-6
_ALONE, _LEVELS = 2, 5  # of an invariant adapter's encoder, each at half the resolution: by itself, in all


class FixedConfig(Settings):
    """Shape of a fixed adapter."""

    channels: int = Field(32, ge=1, le=256, description="To which those of an image are repeated")
    outputs: Literal[3] = Field(3, description="Channels the network sees")


class FixedAdapter(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, and a 1x1 projection, of 32 channels.

    An image with fewer channels is repeated until it has as many. Where the numbers of channels in and out
    are the same, the input is added to what comes out.

    Source: stain-agnostic segmentation, section 2.4.
    """

    def __init__(self, config: FixedConfig):
        super().__init__()
        self.channels = config.channels
        self.body = nn.Sequential(
            ConvBN(config.channels, config.channels),
            ConvBN(config.channels, config.channels),
            nn.Conv2d(config.channels, config.outputs, 1),
        )
        self.adds = config.channels == config.outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, 3, H, W)
        """Return what the network sees; C is at most that of the adapter."""
        repeated = x[:, torch.arange(self.channels, device=x.device) % x.shape[1]]
        seen: torch.Tensor = self.body(repeated)
        return seen + repeated if self.adds else seen


class InvariantConfig(Settings):
    """Shape of a channel-invariant adapter."""

    width: int = Field(16, ge=4, le=128, description="Channels of the second layer of the shared encoder")
    compares: bool = Field(True, description="Judge a channel beside the others, not by itself alone")


class InvariantAdapter(nn.Module):
    """Blends any number of channels, in any order, by weights that it learns to judge by their pictures.

    One small encoder looks at each channel: at two resolutions by itself, then at three more beside the mean
    and the maximum of all channels at the same place, so that it sees which nuclei a channel lacks. What it
    sees is averaged over the picture, compared with all channels again, and becomes one number. The softmax
    of these numbers are the weights. So the order of channels cannot matter, and one picture has one set of
    weights, whatever part of it the network is looking at.

    Source: the channel-invariant alternative of stain-agnostic segmentation, section 2.1; the averages over
    a set as in Zaheer et al., Deep Sets, 2017.
    """

    def __init__(self, config: InvariantConfig):
        super().__init__()
        width = config.width
        widths = (1, width // 2, width, *(2 * width for _ in range(_LEVELS - 2)))
        self.compares = config.compares
        self.encoder = nn.ModuleList(
            ConvBN(3 * a if config.compares and i == _ALONE else a, b, stride=2)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        seen = 2 * sum(widths[1:])  # mean and standard deviation
        self.own = nn.Sequential(nn.LayerNorm(seen), nn.Linear(seen, 2 * width), nn.ReLU())
        self.verdict = nn.Sequential(
            nn.Linear(2 * width * (3 if config.compares else 1), 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 1),
        )

    def describe(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, C, 2, F)
        """Return the mean of what the encoder sees in each channel, and of its square."""
        batch, channels, height, width = x.shape
        features, moments = x.reshape(batch * channels, 1, height, width), []
        for i, level in enumerate(self.encoder):
            if self.compares and i == _ALONE:
                features = features.reshape(batch, channels, *features.shape[1:])
                features = _beside_all(features, 2).flatten(0, 1)
            features = level(features)
            variance, mean = torch.var_mean(features.float(), (2, 3), correction=0)
            moments.append(torch.stack([mean, variance + mean.square()], 1))
        return torch.cat(moments, 2).reshape(batch, channels, 2, -1)

    def judge(self, moments: torch.Tensor) -> torch.Tensor:  # (B, C, 2, F) -> (B, C)
        """Return the weights of channels by what was described of them; they add up to 1."""
        mean, square = moments.unbind(2)
        deviation = (square - mean.square()).clamp(min=_TINY).sqrt()
        own = self.own(torch.cat([mean, deviation], -1))
        if self.compares:
            own = _beside_all(own, -1)
        return torch.softmax(self.verdict(own)[..., 0], 1)

    def weights(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, C)
        """Return the weights of the channels of pictures."""
        return self.judge(self.describe(x))

    @torch.inference_mode()
    def weights_of(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """Return the weights (C,) of the channels of one image by parts of it, each (C, h, w)."""
        total, pixels = torch.zeros(()), 0
        for part in parts:
            seen = part[0].numel()
            total = total + self.describe(part[None]) * seen
            pixels += seen
        return self.judge(total / pixels)[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, 3, H, W)
        """Return what the network sees: one blend of the channels, three times."""
        blend = torch.einsum("bc,bchw->bhw", self.weights(x).to(x.dtype), x)[:, None]
        return blend.expand(-1, NETWORK_CHANNELS, -1, -1)


def _beside_all(features: torch.Tensor, axis: int) -> torch.Tensor:
    """Return features (B, C, ...), and their mean and maximum over all channels, joined along an axis."""
    others = (features.mean(1, keepdim=True), features.amax(1, keepdim=True))
    return torch.cat([features, *(other.expand_as(features) for other in others)], axis)


class Adapted(nn.Module):
    """A student behind an adapter, to be trained together or the adapter alone."""

    def __init__(self, adapter: FixedAdapter | InvariantAdapter, student: Student, *, frozen: bool):
        super().__init__()
        self.adapter, self.student, self.frozen = adapter, student, frozen
        if frozen:
            student.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; a frozen student's batch norms stay as they are."""
        super().train(mode)
        if self.frozen:
            self.student.eval()
        return self

    def logits(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, M, H, W)
        """Return the student's maps before the sigmoid."""
        return self.student.logits(self.adapter(x))

    def selection(self, x: torch.Tensor, nuclear: torch.Tensor) -> torch.Tensor:
        """Return how surprising it is, by an invariant adapter's weights, which (B, C) are nuclear."""
        assert isinstance(self.adapter, InvariantAdapter)
        chosen = (self.adapter.weights(x) * nuclear).sum(1)
        return -torch.log(chosen.clamp(min=_TINY)).mean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, M, H, W)
        """Return the student's maps."""
        maps: torch.Tensor = self.student(self.adapter(x))
        return maps


def build_adapter(architecture: str, options: Mapping[str, Any]) -> FixedAdapter | InvariantAdapter:
    """Make an adapter with random weights, by what a package calls it."""
    if architecture == "fixed-adapter":
        return FixedAdapter(FixedConfig.model_validate(options))
    return InvariantAdapter(InvariantConfig.model_validate(options))
