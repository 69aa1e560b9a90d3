"""Vision transformers of timm as encoders, the pathology foundation models by their names among them.

Source: the lightweight whole-slide model, section 3: a UNETR form, in which a convolutional decoder takes the
outputs of four evenly spaced blocks of a transformer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.networks.blocks import ConvBN, LiteEncoder, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_GRID_PX = 16  # one token for so many pixels of the network's input, whatever patch the transformer cuts
_LEVELS = 4


@dataclass(frozen=True, slots=True)
class Foundation:
    """A transformer that its makers give away on the Hugging Face hub, most of them only on request.

    Attributes
    ----------
    hub : repository on the hub.
    timm : the architecture's name in timm.
    size : of its weights, for people.
    options : of the architecture, as timm takes them.
    mean, std : (3,) of red, green and blue that it was trained with, in [0, 1].
    swiglu : its blocks have timm's packed SwiGLU layers.
    """

    hub: str
    timm: str
    size: str
    options: dict[str, Any]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    swiglu: bool = False


_VIRCHOW = {"init_values": 1e-5, "mlp_ratio": 5.3375, "img_size": 224}
FOUNDATIONS = {
    "h-optimus-0": Foundation(
        "bioptimus/H-optimus-0",
        "vit_giant_patch14_reg4_dinov2",
        "4.5 GB",
        {"init_values": 1e-5, "img_size": 224},
        (0.707223, 0.578729, 0.703617),
        (0.211883, 0.230117, 0.177517),
    ),
    "uni": Foundation("MahmoodLab/UNI", "vit_large_patch16_224", "1.2 GB", {"init_values": 1e-5}),
    "virchow": Foundation("paige-ai/Virchow", "vit_huge_patch14_224", "2.5 GB", _VIRCHOW, swiglu=True),
    "virchow2": Foundation(
        "paige-ai/Virchow2", "vit_huge_patch14_224", "2.5 GB", _VIRCHOW | {"reg_tokens": 4}, swiglu=True
    ),
}


class VitEncoder(nn.Module):
    """Four evenly spaced blocks of a transformer, brought to 1/2, 1/4, 1/8 and 1/16 of the resolution.

    Parameters
    ----------
    name : one of FOUNDATIONS, or a vision transformer of timm, like vit_tiny_patch16_224.
    widths : channels at 1/2, 1/4, 1/8 and 1/16 of the resolution.

    Raises
    ------
    ModelError : timm is not installed, or knows no such transformer; or not four widths.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, name: str, widths: Sequence[int]):
        super().__init__()
        if len(widths) != _LEVELS:
            raise ModelError(
                f"a transformer encoder has {_LEVELS} widths, not {len(widths)}: {tuple(widths)}"
            )
        self.name, self.widths = name, tuple(widths)
        self.transformer, self.taken = _cut(_build(name))
        self.patch_px = int(self.transformer.patch_embed.patch_size[0])
        tokens = int(self.transformer.embed_dim)
        self.ways_up = nn.ModuleList(
            _way_up(tokens, width, doublings) for width, doublings in zip(widths, (3, 2, 1, 0), strict=True)
        )
        mean, std = _normalisation(name, self.transformer)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # (B, 3, H, W), H and W multiples of 16
        """Return features at 1/2, 1/4, 1/8 and 1/16 of the resolution."""
        x = (x / 4 + 0.5 - self.mean) / self.std  # from what all encoders get to what this one was trained on
        if self.patch_px != _GRID_PX:
            size = [edge // _GRID_PX * self.patch_px for edge in x.shape[2:]]
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        tokens = self.transformer.forward_intermediates(
            x, indices=self.taken, intermediates_only=True, output_fmt="NCHW"
        )
        return [way(found) for way, found in zip(self.ways_up, tokens, strict=True)]

    @property
    def pretrained_part(self) -> nn.Module:
        """What load_pretrained fills: the transformer, not the ways up."""
        part: nn.Module = self.transformer
        return part

    def load_pretrained(self, file: Path | None = None) -> None:
        """Fill the transformer from a file, or from the hub.

        Parameters
        ----------
        file : weights as the hub has them, .safetensors or .bin; None fetches them.

        Raises
        ------
        ModelError : they cannot be had, or are those of another network; says what to do.
        """
        if file is None:
            whole = _fetch(self.name)
        else:
            whole = _build(self.name)
            try:
                whole.load_state_dict(_read(file, whole), strict=True)
            except RuntimeError as error:
                raise ModelError(
                    f"{file}: not the weights of {self.name}: {str(error).splitlines()[1].strip()}"
                ) from error
        self.transformer, _ = _cut(whole)


def _cut(transformer: Any) -> tuple[Any, list[int]]:
    """Return a transformer without what follows the last block that is taken, and the blocks that are."""
    taken = [int(i) for i in np.ceil(np.linspace(1, len(transformer.blocks) - 2, _LEVELS))]
    transformer.prune_intermediate_layers(taken, prune_norm=True, prune_head=True)
    return transformer, taken


def _way_up(c_in: int, c_out: int, doublings: int) -> nn.Sequential:
    """Return what brings tokens to a level: doubled as often as need be, the channels halving to c_out."""
    layers: list[nn.Module] = []
    for left in reversed(range(doublings)):
        out = c_out * 2**left
        layers += [
            nn.ConvTranspose2d(c_in, out, 2, 2, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
        c_in = out
    return nn.Sequential(*layers, ConvBN(c_in, c_out))


def _timm() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        raise ModelError(
            f"transformer encoders need timm, which cannot be loaded ({error}): "
            'pip install "napari-nucleus-kd[foundation]"'
        ) from error
    return timm


def _build(name: str, *, fetch: bool = False) -> Any:
    """Return the transformer with random weights, or those of the hub."""
    timm, known = _timm(), FOUNDATIONS.get(name)
    options: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True, "pretrained": fetch}
    if known is not None:
        options |= known.options
        if known.swiglu:
            options |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
        return timm.create_model(f"hf-hub:{known.hub}" if fetch else known.timm, **options)
    if not timm.is_model(name):
        raise ModelError(
            f"no encoder {name!r}: not plain, {', '.join((*LiteEncoder.SIZES, *FOUNDATIONS))}, "
            f"nor a model of timm {timm.__version__}"
        )
    try:
        built = timm.create_model(name, **options)
    except TypeError:  # it has no dynamic_img_size
        built = None
    if not hasattr(built, "blocks") or not hasattr(built, "patch_embed"):
        raise ModelError(f"{name}: timm has it, but it is no vision transformer; take one named vit_...")
    return built


def _normalisation(name: str, transformer: Any) -> tuple[Sequence[float], Sequence[float]]:
    if name in FOUNDATIONS:
        return FOUNDATIONS[name].mean, FOUNDATIONS[name].std
    return transformer.pretrained_cfg["mean"], transformer.pretrained_cfg["std"]


def _read(file: Path, transformer: Any) -> dict[str, torch.Tensor]:
    """Return the weights in a file, without a classifier, and with as many places as the transformer has."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    fitted: dict[str, torch.Tensor] = checkpoint_filter_fn(read_weights(file), transformer)
    return {name: tensor for name, tensor in fitted.items() if not name.startswith(("head.", "fc_norm."))}


def _fetch(name: str) -> Any:
    """Return the transformer with the weights of the hub."""
    known = FOUNDATIONS.get(name)
    try:
        return _build(name, fetch=True)
    except Exception as error:  # the hub's own errors, and whatever a broken connection raises
        where, remedy = "the Hugging Face hub", "Go online, or fetch the file elsewhere"
        if known is not None:
            where = f"https://huggingface.co/{known.hub}"
            remedy = f"Ask for access there and log in with 'hf auth login', or fetch the file ({known.size})"
        raise ModelError(
            f"the weights of {name} cannot be fetched from {where}: {type(error).__name__}. {remedy} "
            "and give its path as encoder_weights."
        ) from error
