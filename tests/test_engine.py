from importlib.util import find_spec

import numpy as np
import pytest
import torch

from napari_nucleus_kd import engine as engines
from napari_nucleus_kd import metrics
from napari_nucleus_kd.channels import normalize_image
from napari_nucleus_kd.engine import Engine, available_devices, open_engine
from napari_nucleus_kd.errors import DeviceError
from napari_nucleus_kd.package import list_models, load_model
from napari_nucleus_kd.segmenters.student import StudentSegmenter
from napari_nucleus_kd.types import Modality

HAS_OPENVINO = find_spec("openvino") is not None
SHIPPED = {model.spec.name for model in list_models()}
PICTURE = np.random.default_rng(0).random((3, 64, 96), np.float32)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(engines, "_OPEN", {})


@pytest.fixture
def model(spots):
    return load_model(spots)


def reference(model):
    with torch.inference_mode():
        return model.network()(torch.from_numpy(PICTURE)[None])[0].numpy()


@pytest.mark.parametrize("device", ["auto", *available_devices()])
def test_every_device_gives_what_float32_gives(model, device):
    engine = open_engine(model, device)
    out = engine.run(PICTURE)
    assert out.shape == (5, 64, 96) and out.dtype == np.float32
    assert np.abs(out[1:] - reference(model)[1:]).max() < 0.02
    assert np.abs(out[0] - reference(model)[0]).mean() < 0.02
    assert not engine.notes and engine.description


@pytest.mark.parametrize("device", available_devices())
def test_any_size_can_follow_any_other(model, device):
    engine = open_engine(model, device)
    for height, width in ((32, 32), (160, 64), (64, 160)):
        assert engine.run(np.zeros((3, height, width), np.float32)).shape == (5, height, width)


def test_the_student_keeps_its_maps_on_every_device(save_network, tmp_path):
    from napari_nucleus_kd.networks.student import StudentConfig, build_student

    torch.manual_seed(0)
    config = StudentConfig(widths=(4, 6, 8), decoder_widths=(4, 6), head_width=4)
    network = build_student(config)
    network.train()
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))  # gives the batch norms statistics that matter
    model = load_model(save_network(tmp_path / "tiny", network, config, PICTURE))
    for device in available_devices():
        assert np.abs(open_engine(model, device).run(PICTURE) - reference(model)).max() < 0.05


def test_the_same_engine_is_given_again(model):
    assert open_engine(model, "cpu") is open_engine(model, "cpu")


def test_threads_are_left_alone(model):
    before = torch.get_num_threads()
    open_engine(model, "auto").run(PICTURE)
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has a GPU")
@pytest.mark.parametrize("bf16", [True, False])
def test_auto_says_why_it_took_the_cpu(model, monkeypatch, bf16):
    monkeypatch.setattr(engines, "_OPEN", {})
    monkeypatch.setattr(engines, "_cpu_has_bf16", lambda: bf16)
    description = open_engine(model).description
    assert description.startswith("CPU with OpenVINO" if HAS_OPENVINO and not bf16 else "CPU,")
    assert "thread" in description and "no GPU found" in description


@pytest.mark.parametrize(("device", "message"), [("cuda:99", "not there.*cpu"), ("tpu", "unknown device")])
def test_devices_that_are_not_there_are_refused(model, device, message):
    with pytest.raises(DeviceError, match=message):
        open_engine(model, device)


def test_openvino_that_is_not_installed_says_how_to_get_it(model, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="pip install"):
        open_engine(model, "openvino")
    assert "OpenVINO" not in open_engine(model, "auto").description


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs openvino")
def test_openvino_that_fails_to_open_falls_back_and_says_so(model, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no such op\nlong trace")

    monkeypatch.setattr("openvino.convert_model", fail)
    engine = open_engine(model, "openvino")
    assert engine.notes == [f"OpenVINO failed (no such op); went on with {engine.description}"]
    assert engine.description.startswith("CPU, ")
    assert np.abs(engine.run(PICTURE) - reference(model)).max() < 0.3


class Small:
    """A device with room for so many pixels; doubles its input."""

    description = "tiny GPU"

    def __init__(self, room_px, error=None):
        self.batch_size, self.room_px, self.batches = 4, room_px, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def __call__(self, batch):
        if batch[:, 0].size > self.room_px:
            raise self.error
        self.batches.append(batch.shape)
        return batch * 2


class Big(Small):
    description = "CPU"


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 px, 16 at least, with 16 px around them."""
    monkeypatch.setattr(engines, "_BLOCK_PX", 64)
    monkeypatch.setattr(engines, "_LEAST_BLOCK_PX", 16)
    monkeypatch.setattr(engines, "CONTEXT_PX", 16)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("room_px", "notes"),
    [
        (4 * 96**2, []),
        (2 * 96**2, ["blocks at once now 2"]),
        (80**2, ["blocks at once now 2", "blocks at once now 1"]),
        (64**2, ["at once now 2", "at once now 1", "blocks of 32 px"]),
        (10, ["now 2", "now 1", "of 32 px", "of 16 px", "failed (out of memory); went on with CPU"]),
    ],
)
def test_out_of_memory_takes_fewer_then_smaller_blocks_then_the_cpu(room_px, notes):
    gpu, cpu = Small(room_px), Big(10**6)
    engine = Engine(gpu, lambda: cpu, 16)
    picture = np.random.default_rng(0).random((3, 128, 128), np.float32)
    np.testing.assert_array_equal(engine.run(picture), picture * 2)
    assert all(part in note for part, note in zip(notes, engine.notes, strict=True))
    assert bool(gpu.batches) != bool(cpu.batches), "one of them ran the whole picture"
    before = list(engine.notes)
    engine.run(picture)
    assert engine.notes == before, "it starts with what fitted"


@pytest.mark.usefixtures("small_blocks")
def test_a_small_picture_that_does_not_fit_goes_in_blocks_at_once():
    engine = Engine(Small(48**2), lambda: Big(10**6), 16)
    picture = np.random.default_rng(0).random((3, 48, 64), np.float32)
    np.testing.assert_array_equal(engine.run(picture), picture * 2)
    assert "blocks of 27 px" in engine.notes[0] and "at once now 1" in engine.notes[1]


def test_any_other_failure_of_a_device_takes_the_cpu_and_says_so():
    engine = Engine(Small(0, RuntimeError("driver gone")), lambda: Big(99), 4)
    engine.run(np.zeros((3, 4, 4), np.float32))
    assert engine.notes == ["tiny GPU failed (driver gone); went on with CPU"]


def test_the_cpu_says_when_its_own_memory_does_not_suffice(model, monkeypatch):
    engine = open_engine(model, "cpu")
    monkeypatch.setattr(
        engines._TorchRunner, "__call__", lambda self, batch: (_ for _ in ()).throw(MemoryError())
    )
    with pytest.raises(DeviceError, match="not enough memory"):
        engine.run(PICTURE)


class Float32:
    """The network as it was trained."""

    description, batch_size = "float32", 1

    def __init__(self, network):
        self.network = network

    def __call__(self, batch):
        with torch.inference_mode():
            return self.network(torch.from_numpy(batch)).numpy()


@pytest.mark.skipif("nucleus-student" not in SHIPPED, reason="no model is shipped yet")
@pytest.mark.parametrize("device", available_devices())
def test_the_shipped_model_finds_the_same_nuclei_on_every_device(draw, device):
    model = load_model("nucleus-student")
    model.verify()
    picture = normalize_image(draw(384, 384)[0][None], Modality.FLUORESCENCE)

    def find(engine):
        segmenter = StudentSegmenter(model, engine)
        return segmenter.decode(segmenter.maps(picture, None), segmenter.decode_defaults)

    exact = find(Engine(Float32(model.network()), lambda: None, model.spec.multiple_px))
    here = find(open_engine(model, device))
    assert exact.count > 100
    assert metrics.scores(exact.labels, here.labels)["pq"] >= 0.99
