"""The networks of GeNSeg-Net: shapes and gradients of every block, at several sizes."""

import pytest
import torch

from napari_nucleus_kd.networks.enhancer import (
    MULTIPLE_PX,
    Block,
    ChannelAttention,
    Generator,
    GeneratorConfig,
    PatchDiscriminator,
    SpatialAttention,
    ThreeClassConfig,
    ThreeClassNet,
    TransformerDiscriminator,
    build_discriminator,
)

GENERATORS = {
    "res-cbam": GeneratorConfig(width=8, depth=2),
    "resnet": GeneratorConfig(blocks="resnet", width=8, depth=2),
    "resnet at full resolution": GeneratorConfig(blocks="resnet", width=8, depth=2, levels=0),
    "unet": GeneratorConfig(blocks="unet", width=8),
}


def learns(network, out):
    """Tell whether a gradient reaches every parameter."""
    network.zero_grad(set_to_none=True)
    out.sum().backward()
    return all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (33, 20)])
@pytest.mark.parametrize(
    "block", [ChannelAttention(16), SpatialAttention(), Block(16, attention=True), Block(16, attention=False)]
)
def test_blocks_keep_any_size_and_pass_gradients_on(block, size):
    torch.manual_seed(0)
    x = torch.randn(2, 16, *size)
    out = block(x)
    assert out.shape == x.shape and learns(block, out * torch.randn_like(out))


def test_attention_only_weighs():
    x = torch.rand(2, 16, 12, 12)
    for part in (ChannelAttention(16), SpatialAttention()):
        share = part(x) / x
        assert ((share > 0) & (share < 1)).all()
    channel, spatial = ChannelAttention(16)(x) / x, SpatialAttention()(x) / x
    assert torch.allclose(channel, channel[..., :1, :1].expand_as(x), atol=1e-5)  # alike at all places
    assert torch.allclose(spatial, spatial[:, :1].expand_as(x), atol=1e-5)  # alike in all channels


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("size", [(MULTIPLE_PX, 5 * MULTIPLE_PX), (96, 64)])
def test_generators_draw_one_channel_of_the_same_size(name, size):
    torch.manual_seed(0)
    network = Generator(GENERATORS[name])
    out = network(torch.rand(2, 3, *size))
    assert out.shape == (2, 1, *size) and 0 <= out.min() and out.max() <= 1
    assert learns(network, out * torch.randn_like(out))


def test_the_shipped_generator_has_the_blocks_of_the_paper():
    network = Generator(GeneratorConfig())
    blocks = [part for part in network.modules() if isinstance(part, Block)]
    assert len(blocks) == 9 and all(isinstance(part.body[-1], SpatialAttention) for part in blocks)
    assert sum(p.numel() for p in network.parameters()) * 2 < 8e6  # bytes, as they are stored


@pytest.mark.parametrize("size", [(64, 64), (192, 192), (130, 75), (256, 320)])
@pytest.mark.parametrize("kind", ["transformer", "patch"])
def test_discriminators_judge_pictures_of_any_size(kind, size):
    torch.manual_seed(0)
    network = build_discriminator(kind)
    out = network(torch.rand(2, 1, *size))
    assert len(out) == 2 and out.isfinite().all()
    assert learns(network, out * torch.randn_like(out))


def test_the_transformer_sees_four_sizes_of_patches():
    network = TransformerDiscriminator(width=256)
    assert [(t.kernel_size[0], t.out_channels) for t in network.tokens] == [
        (8, 32),
        (16, 32),
        (32, 64),
        (64, 128),
    ]
    assert [place.shape[1] for place in network.places] == [32, 64, 128, 256]


def test_tokens_attend_within_windows_only_where_there_are_many():
    torch.manual_seed(0)
    network = TransformerDiscriminator().eval()
    block = network.blocks[0]
    for edge, reaches in ((16, True), (24, False)):
        tokens = torch.randn(1, 32, edge, edge)
        other = tokens.clone()
        other[:, :, -1, -1] += torch.randn(32)
        change = (network._attend(other, block) - network._attend(tokens, block)).abs().sum(1)[0]
        assert (change[0, 0] > 1e-6) == reaches
        assert change[-1, -1] > 1e-3


def test_no_discriminator_is_none():
    assert build_discriminator("none") is None
    assert isinstance(build_discriminator("patch"), PatchDiscriminator)


def test_three_classes_are_probabilities():
    torch.manual_seed(0)
    network = ThreeClassNet(ThreeClassConfig(width=8))
    out = network(torch.rand(2, 1, 48, 80))
    assert out.shape == (2, 3, 48, 80) and torch.allclose(out.sum(1), torch.ones(2, 48, 80), atol=1e-5)
    assert learns(network, out * torch.randn_like(out))
