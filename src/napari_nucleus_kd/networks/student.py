"""The student: a U-Net whose body works at half resolution, with a thin full-resolution head.

Nearly all of its arithmetic happens on a quarter of the pixels; a 16-channel path at full
resolution keeps the edges sharp. On a CPU this is about as fast as a network of half its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from napari_nucleus_kd.config import Settings
from napari_nucleus_kd.instances import MAP_NAMES
from napari_nucleus_kd.networks.blocks import ConvBN, Decoder, LiteEncoder, PlainEncoder

if TYPE_CHECKING:
    from napari_nucleus_kd.networks.vit import VitEncoder

    Encoder = PlainEncoder | LiteEncoder | VitEncoder

# How far around a pixel the input matters. Cut off nearer, the foreground changes by up to 0.1 at 96 px,
# 0.02 at 128 px, 0.006 at 160 px and 0.004 at 192 px (measured in H&E).
CONTEXT_PX = 160
MULTIPLE_PX = 32  # height and width of the input must be multiples of this
PROBABILITIES = ("foreground", "distance", "border")


class StudentConfig(Settings):
    """Shape of a student network."""

    encoder: str = Field(
        "plain", description="plain, efficientnet_lite0, 1 or 2, or a vision transformer: see networks.vit"
    )
    widths: tuple[int, ...] = Field(
        (32, 64, 96, 128, 192), description="Channels of a plain or transformer encoder, finest first"
    )
    decoder_widths: tuple[int, ...] = Field(
        (32, 64, 96, 128), description="Channels of the decoder, finest first; one fewer than levels"
    )
    head_width: int = 16
    dropout: float = Field(
        0.0, ge=0, lt=1, description="While training, share of the deepest features left out"
    )
    maps: tuple[str, ...] = MAP_NAMES


STUDENTS = {
    # the shipped one
    "compact": StudentConfig(encoder="efficientnet_lite0", decoder_widths=(32, 64, 96)),
    # for a live preview
    "nano": StudentConfig(encoder="efficientnet_lite0", decoder_widths=(16, 24), head_width=8),
    # 24 million parameters, like the student of the lightweight whole-slide model (its table 4)
    "vit": StudentConfig(
        encoder="vit_tiny_patch16_224",
        widths=(64, 128, 384, 512),
        decoder_widths=(128, 320, 736),
        head_width=32,
    ),
    # a teacher
    "large": StudentConfig(encoder="efficientnet_lite2", decoder_widths=(64, 96, 128, 192), head_width=32),
}


def _encoder(config: StudentConfig) -> Encoder:
    if config.encoder == "plain":
        return PlainEncoder(config.widths)
    if config.encoder in LiteEncoder.SIZES:
        return LiteEncoder(config.encoder, len(config.decoder_widths) + 1)
    from napari_nucleus_kd.networks.vit import VitEncoder

    return VitEncoder(config.encoder, config.widths)


class Student(nn.Module):
    """Maps (B, 3, H, W) pixels in [0, 1] to (B, M, H, W) maps; see instances.encode for their meaning."""

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.squashed: torch.Tensor
        self.dropout = config.dropout
        self.encoder = _encoder(config)
        self.decoder = Decoder(self.encoder.widths, config.decoder_widths)
        self.fine = ConvBN(3, config.head_width)
        self.head = nn.Sequential(
            ConvBN(config.decoder_widths[0] // 4 + config.head_width, config.head_width),
            nn.Conv2d(config.head_width, len(config.maps), 1),
        )
        squashed = torch.tensor([name in PROBABILITIES for name in config.maps])
        self.register_buffer("squashed", squashed.view(1, -1, 1, 1), persistent=False)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return maps before the sigmoid of the probability-like ones; what losses take."""
        x = (x - 0.5) * 4  # about zero mean and unit variance
        features: list[torch.Tensor] = self.encoder(x)
        if self.training and self.dropout:
            # Layer by layer: the deeper, the more (CellGenNet).
            rates = [self.dropout * (i + 1) / len(features) for i in range(len(features))]
            features = [F.dropout2d(f, rate) for f, rate in zip(features, rates, strict=True)]
        body = self.decoder(features)  # (B, C, H/2, W/2)
        x = torch.cat([F.pixel_shuffle(body, 2), self.fine(x)], 1)  # (B, C/4 + F, H, W)
        maps: torch.Tensor = self.head(x)
        return maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps; foreground, distance and border as numbers in [0, 1]."""
        maps = self.logits(x).float()
        return torch.where(self.squashed, torch.sigmoid(maps), maps)


def build_student(config: StudentConfig) -> Student:
    """Make a student with random weights."""
    return Student(config)
