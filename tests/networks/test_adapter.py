"""Adapters: any number of channels in any order, and the student behind them."""

import pytest
import torch
from torch import nn

from napari_nucleus_kd.networks.adapter import (
    Adapted,
    FixedAdapter,
    FixedConfig,
    InvariantAdapter,
    InvariantConfig,
    build_adapter,
)
from napari_nucleus_kd.networks.student import StudentConfig, build_student

SMALL = StudentConfig(widths=(4, 8), decoder_widths=(4,), head_width=4)


@pytest.fixture
def invariant():
    torch.manual_seed(0)
    return InvariantAdapter(InvariantConfig()).eval()


@pytest.mark.parametrize("channels", [1, 2, 3, 40])
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_any_number_of_channels_and_any_size(invariant, channels, size):
    x = torch.rand(2, channels, *size)
    weights = invariant.weights(x)
    assert weights.shape == (2, channels) and torch.allclose(weights.sum(1), torch.ones(2))
    assert invariant(x).shape == (2, 3, *size)


def test_order_cannot_matter(invariant):
    x, order = torch.rand(2, 7, 40, 40), torch.randperm(7)
    assert torch.allclose(invariant.weights(x)[:, order], invariant.weights(x[:, order]), atol=1e-6)
    assert torch.allclose(invariant(x), invariant(x[:, order]), atol=1e-6)


def test_a_single_channel_stays_as_it_is(invariant):
    x = torch.rand(1, 1, 32, 32)
    assert torch.allclose(invariant(x), x.expand(-1, 3, -1, -1))


def test_an_image_in_parts_has_the_weights_of_the_whole(invariant):
    x = torch.rand(1, 5, 64, 64) ** torch.arange(1, 6).view(1, -1, 1, 1)
    whole = invariant.weights(x)[0]
    parts = invariant.weights_of([x[0, :, :32], x[0, :, 32:]])
    assert torch.allclose(whole, parts, atol=0.02)
    assert torch.allclose(invariant.weights_of([x[0]]), whole, atol=1e-5)


def test_judged_by_itself_alone_a_channel_does_not_know_the_others():
    torch.manual_seed(0)
    alone = InvariantAdapter(InvariantConfig(compares=False)).eval()
    x = torch.rand(1, 4, 32, 32)
    ratio = alone.weights(x)[0]
    fewer = alone.weights(x[:, :2])[0]
    assert torch.allclose(ratio[0] / ratio[1], fewer[0] / fewer[1], atol=1e-5)


def test_the_fixed_adapter_is_that_of_the_paper():
    """Two 3x3 convolutions with batch norm and ReLU from 32 to 32, then 1x1 to 3."""
    adapter = FixedAdapter(FixedConfig())
    convolutions = [m for m in adapter.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (32, 32, (3, 3)),
        (32, 32, (3, 3)),
        (32, 3, (1, 1)),
    ]
    kinds = [type(m).__name__ for m in adapter.modules()]
    assert kinds.count("BatchNorm2d") == kinds.count("ReLU") == 2
    assert adapter(torch.rand(1, 5, 33, 20)).shape == (1, 3, 33, 20)


def test_fewer_channels_are_repeated():
    adapter = FixedAdapter(FixedConfig(channels=8)).eval()
    x = torch.rand(1, 3, 16, 16)
    assert torch.allclose(adapter(x), adapter(torch.cat([x, x, x[:, :2]], 1)), atol=1e-6)


def test_as_many_channels_out_as_in_keep_the_input():
    adapter = FixedAdapter(FixedConfig(channels=3)).eval()
    nn.init.zeros_(adapter.body[-1].weight)
    nn.init.zeros_(adapter.body[-1].bias)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(adapter(x), x)
    assert not FixedAdapter(FixedConfig()).adds


@pytest.mark.parametrize("architecture", ["fixed-adapter", "invariant-adapter"])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_the_adapter_and_a_frozen_student_stays(architecture, frozen):
    network = Adapted(build_adapter(architecture, {}), build_student(SMALL), frozen=frozen).train()
    network.logits(torch.rand(2, 6, 64, 64)).square().mean().backward()
    learning = {
        name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert any(name.startswith("adapter.") for name in learning)
    assert any(name.startswith("student.") for name in learning) == (not frozen)
    norms = [m for m in network.student.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training != frozen for m in norms)
    maps = network.eval()(torch.rand(1, 2, 64, 64))
    assert maps.shape[1] == len(SMALL.maps) and 0 <= maps[:, 0].min() <= maps[:, 0].max() <= 1
