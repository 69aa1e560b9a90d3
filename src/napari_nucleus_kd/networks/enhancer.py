"""The networks of GeNSeg-Net: generators of ideal nuclei, discriminators, and a U-Net of three classes."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from napari_nucleus_kd.config import Settings

MULTIPLE_PX = 16  # height and width of the input of generators and U-Nets must be multiples of this
CLASSES = ("background", "body", "edge")  # of the segmentation, in the order of ideal.three_classes
_GROUPS = 4  # of channels that are normed together
_REDUCTION = 8  # of the channels, inside channel attention
_FULL_TOKENS = 16  # edge of a map of tokens, up to which all attend to all


class GeneratorConfig(Settings):
    """Shape of a generator."""

    blocks: Literal["res-cbam", "resnet", "unet"] = Field("res-cbam", description="What it is made of")
    width: int = Field(16, ge=4, le=128, multiple_of=4, description="Channels at full resolution")
    levels: int = Field(2, ge=0, le=4, description="How often the resolution is halved before the blocks")
    depth: int = Field(9, ge=1, le=30, description="Blocks, but for unet")


class ChannelAttention(nn.Module):
    """Weighs channels by what they hold on average and at most."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // _REDUCTION)
        self.shared = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W), unchanged in shape
        """Return x, weighted."""
        seen = self.shared(x.mean((2, 3), keepdim=True)) + self.shared(x.amax((2, 3), keepdim=True))
        return x * torch.sigmoid(seen)


class SpatialAttention(nn.Module):
    """Weighs places by the mean and the maximum of the channels around them."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W), unchanged in shape
        """Return x, weighted."""
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.around(seen))


class ConvGN(nn.Sequential):
    """Convolution, group norm, and ReLU unless act is False.

    Group norm sees one picture at a time, so that a batch of 2 is enough, and pictures are drawn as they were
    in training; the bias lets what is nearly empty stay so.
    """

    def __init__(self, c_in: int, c_out: int, k: int = 3, stride: int = 1, act: bool = True):
        layers = [nn.Conv2d(c_in, c_out, k, stride, k // 2), nn.GroupNorm(_GROUPS, c_out)]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; with attention it is the Res-CBAM block.

    Source: GeNSeg-Net, section 3.2.1; Woo et al., CBAM, ECCV 2018.
    """

    def __init__(self, channels: int, *, attention: bool) -> None:
        super().__init__()
        last: list[nn.Module] = [ChannelAttention(channels), SpatialAttention()] if attention else []
        self.body = nn.Sequential(ConvGN(channels, channels), ConvGN(channels, channels, act=False), *last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W), unchanged in shape
        """Return body(x) + x."""
        out: torch.Tensor = self.body(x) + x
        return out


class Generator(nn.Module):
    """Draws the ideal nuclei of a grey picture.

    Source: GeNSeg-Net, section 3.2.1 and table 6; the U-Net is that of MONAI.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        # Of one picture at a time, as all norms of generators: see ConvGN.
        norm = ("group", {"num_groups": _GROUPS})
        self.body = unet(config.width, 1, norm) if config.blocks == "unet" else _blocks(config)

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pictures before they are cut to [0, 1]: a squashed end would learn slowly by L1."""
        out: torch.Tensor = self.body(x.mean(1, keepdim=True))
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map grey (B, C, H, W) with equal channels to enhanced (B, 1, H, W), both in [0, 1].

        H and W are multiples of `MULTIPLE_PX`.
        """
        return self.draw(x).float().clamp(0, 1)


def _blocks(config: GeneratorConfig) -> nn.Sequential:
    """Return a convolution, halvings of the resolution, blocks, doublings, and one channel at the end."""
    widths = [min(2**level, 8) * config.width for level in range(config.levels + 1)]
    down = [ConvGN(a, b, stride=2) for a, b in pairwise(widths)]
    blocks = [Block(widths[-1], attention=config.blocks == "res-cbam") for _ in range(config.depth)]
    up: list[nn.Module] = []
    for a, b in pairwise(reversed(widths)):
        up += [nn.Upsample(scale_factor=2.0, mode="bilinear"), ConvGN(a, b)]
    return nn.Sequential(ConvGN(1, widths[0], 7), *down, *blocks, *up, nn.Conv2d(widths[0], 1, 7, padding=3))


class ThreeClassConfig(Settings):
    """Shape of the network that segments enhanced pictures."""

    width: int = Field(
        16, ge=4, le=128, multiple_of=4, description="Channels at full resolution; twice as many a level"
    )


class ThreeClassNet(nn.Module):
    """U-Net that says of each pixel of a grey picture whether it is background, nucleus body or edge.

    Source: GeNSeg-Net, section 3.3; the U-Net is that of MONAI.
    """

    def __init__(self, config: ThreeClassConfig) -> None:
        super().__init__()
        # Batch norm: what it says of a pixel depends on its surroundings only, in tiles of any size.
        self.body = unet(config.width, len(CLASSES), "batch")

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, H, W) before the softmax; see forward."""
        out: torch.Tensor = self.body(x.mean(1, keepdim=True))
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map grey (B, C, H, W) with equal channels to probabilities (B, 3, H, W) of CLASSES."""
        return torch.softmax(self.logits(x).float(), 1)


def unet(width: int, c_out: int, norm: str | tuple[str, dict[str, int]]) -> nn.Module:
    """Return a U-Net of five levels for one channel, with a norm of MONAI."""
    from monai.networks.nets import BasicUNet

    widths = tuple(width * 2**level for level in range(5))
    made: nn.Module = BasicUNet(2, 1, c_out, (*widths, width), act=("relu", {"inplace": True}), norm=norm)
    return made


def build_discriminator(kind: str) -> nn.Module | None:
    """Return the discriminator "transformer" or "patch", or None for "none"."""
    if kind == "none":
        return None
    return TransformerDiscriminator() if kind == "transformer" else PatchDiscriminator()


class PatchDiscriminator(nn.Module):
    """PatchGAN: convolutions that judge patches of 70 px.

    Source: Isola et al., Image-to-image translation with conditional adversarial networks, CVPR 2017.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for a, b, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(a * width, b * width, 4, stride, 1, bias=False),
                nn.BatchNorm2d(b * width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 1, H, W) -> (B, N) before the sigmoid
        """Return how real each patch looks."""
        verdicts: torch.Tensor = self.body(x)
        return verdicts.flatten(1)


class TransformerDiscriminator(nn.Module):
    """Judges a picture by transformers over patches of four sizes.

    Patches of P pixels become tokens, which attend to each other within windows; their average over 2 x 2 is
    joined with the tokens of patches of 2P pixels, and so on to 8P; a class token in the last block says
    whether the picture is real. Maps of more than 16 x 16 tokens are cut into windows of 8 x 8.

    Parameters
    ----------
    width : C; patches of P, 2P, 4P and 8P pixels have C/8, C/8, C/4 and C/2 numbers each.
    patch_px : P.
    picture_px : edge of the pictures that positions are learnt for; they are stretched over others.

    Source: GeNSeg-Net, section 3.2.2; grid self-attention as in Jiang et al., TransGAN, NeurIPS 2021.
    """

    def __init__(self, width: int = 256, patch_px: int = 8, window: int = 8, picture_px: int = 256) -> None:
        super().__init__()
        self.patch_px, self.window = patch_px, window
        parts = (width // 8, width // 8, width // 4, width // 2)
        joined = (width // 8, width // 4, width // 2, width)
        sizes = [patch_px * 2**scale for scale in range(4)]
        self.tokens = nn.ModuleList(nn.Conv2d(1, c, px, px) for c, px in zip(parts, sizes, strict=True))
        self.places = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(1, c, max(1, picture_px // px), max(1, picture_px // px)))
            for c, px in zip(joined, sizes, strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                c, max(1, c // 32), 4 * c, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for c in joined
        )
        self.question = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.verdict = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 1, H, W) -> (B, 1) before the sigmoid
        """Return how real each picture looks."""
        largest = 8 * self.patch_px
        below, right = (-length % largest for length in x.shape[2:])
        x = F.pad(x, (0, right, 0, below))
        features: torch.Tensor | None = None
        for scale, (cut, place, block) in enumerate(zip(self.tokens, self.places, self.blocks, strict=True)):
            seen = cut(x)
            if features is not None:
                seen = torch.cat([F.avg_pool2d(features, 2), seen], 1)
            seen = seen + F.interpolate(place, seen.shape[2:], mode="bilinear", align_corners=False)
            if scale < len(self.blocks) - 1:
                features = self._attend(seen, block)
        tokens = seen.flatten(2).transpose(1, 2)
        tokens = block(torch.cat([self.question.expand(len(x), -1, -1), tokens], 1))
        found: torch.Tensor = self.verdict(tokens[:, 0])
        return found

    def _attend(self, seen: torch.Tensor, block: nn.Module) -> torch.Tensor:
        batch, channels, height, width = seen.shape
        edge = self.window if max(height, width) > _FULL_TOKENS else max(height, width)
        below, right = -height % edge, -width % edge
        padded = F.pad(seen, (0, right, 0, below))
        rows, columns = padded.shape[2] // edge, padded.shape[3] // edge
        cut = padded.reshape(batch, channels, rows, edge, columns, edge).permute(0, 2, 4, 3, 5, 1)
        done = block(cut.reshape(-1, edge * edge, channels)).reshape(cut.shape)
        whole = done.permute(0, 5, 1, 3, 2, 4).reshape(padded.shape)
        cropped: torch.Tensor = whole[:, :, :height, :width]
        return cropped
