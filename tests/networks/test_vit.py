"""Transformer encoders; timm's own little test transformer stands in for the large ones."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.networks.student import STUDENTS, StudentConfig, build_student
from napari_nucleus_kd.networks.vit import FOUNDATIONS, VitEncoder, _build
from napari_nucleus_kd.package import load_model

WIDTHS = (4, 8, 8, 16)
TINY = StudentConfig(encoder="test_vit", widths=WIDTHS, decoder_widths=(4, 8, 8), head_width=4)


@pytest.fixture(autouse=True)
def _timm(timm):
    pass


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_dinov2"])
def test_features_halve_from_level_to_level(name):
    encoder = VitEncoder(name, WIDTHS).eval()
    with torch.inference_mode():
        features = encoder(torch.rand(2, 3, 96, 64))
    assert [tuple(f.shape) for f in features] == [
        (2, w, 96 // s, 64 // s) for w, s in zip(WIDTHS, (2, 4, 8, 16), strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "millions", "blocks"),
    [
        ("h-optimus-0", 1134.8, [1, 14, 26, 38]),  # the paper names these blocks
        ("uni", 303.4, [1, 8, 15, 22]),
        ("virchow", 631.2, [1, 11, 21, 30]),
        ("virchow2", 631.2, [1, 11, 21, 30]),
    ],
)
def test_foundation_models_have_their_published_size(name, millions, blocks):
    with torch.device("meta"):
        whole, encoder = _build(name), VitEncoder(name, WIDTHS)
    assert sum(p.numel() for p in whole.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert encoder.taken == blocks
    assert len(encoder.transformer.blocks) == blocks[-1] + 1, "the rest would be run for nothing"
    assert set(FOUNDATIONS) == {"h-optimus-0", "uni", "virchow", "virchow2"}


def test_the_vit_student_is_as_large_as_the_papers():
    with torch.device("meta"):
        network = build_student(STUDENTS["vit"])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(24.1, abs=0.5)


def test_every_weight_learns():
    network = build_student(TINY).train()
    network.logits(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_colours_reach_the_transformer_as_it_was_trained():
    encoder = VitEncoder("test_vit", WIDTHS)
    seen = []
    encoder.transformer.patch_embed.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    picture = torch.rand(1, 3, 32, 32)
    encoder((picture - 0.5) * 4)  # as the student hands it on
    mean, std = (
        torch.tensor(encoder.transformer.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std")
    )
    torch.testing.assert_close(seen[0], (picture - mean) / std)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_are_taken_from_a_file(tmp_path, suffix):
    source, encoder = _build("test_vit"), VitEncoder("test_vit", WIDTHS)
    state = source.state_dict() | {"head.weight": torch.zeros(3, 64), "head.bias": torch.zeros(3)}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "bin":
        torch.save(state, path)
    else:
        save_file(state, path)
    encoder.load_pretrained(path)
    for name, tensor in encoder.transformer.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_a_wrong_file_is_named(tmp_path):
    encoder = VitEncoder("test_vit", WIDTHS)
    (tmp_path / "text.bin").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.bin: cannot be read as weights"):
        encoder.load_pretrained(tmp_path / "text.bin")
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors: not the weights of test_vit"):
        encoder.load_pretrained(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("uni", r"huggingface\.co/MahmoodLab/UNI.*Ask for access.*1\.2 GB"),
        ("vit_tiny_patch16_224", "Go online"),
    ],
)
def test_weights_that_cannot_be_fetched(monkeypatch, timm, name, said):
    def refuse(*_args, pretrained, **_options):
        raise OSError("401 or no network")

    encoder = VitEncoder("test_vit", WIDTHS)
    encoder.name = name
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ModelError, match=said + r".*give its path as encoder_weights"):
        encoder.load_pretrained()


def test_unknown_encoders_are_named():
    with pytest.raises(ModelError, match=r"no encoder 'nope': not plain, efficientnet_lite0.*h-optimus-0"):
        build_student(TINY.model_copy(update={"encoder": "nope"}))
    with pytest.raises(ModelError, match=r"resnet18: .* no vision transformer"):
        build_student(TINY.model_copy(update={"encoder": "resnet18"}))
    with pytest.raises(ModelError, match=r"has 4 widths, not 2: \(4, 8\)"):
        build_student(TINY.model_copy(update={"widths": (4, 8)}))


def test_missing_timm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"napari-nucleus-kd\[foundation\]"):
        build_student(TINY)


def test_a_package_holds_a_transformer(save_network, tmp_path):
    save_network(tmp_path / "vit", build_student(TINY), TINY)
    assert load_model(tmp_path / "vit").verify() < 1e-3
