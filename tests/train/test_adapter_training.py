"""Adapters learn in front of a student on drawn panels, resume, and become packages of their own."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from napari_nucleus_kd.channels import scaled_panel
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ModelError, ReadError
from napari_nucleus_kd.index import read_index
from napari_nucleus_kd.networks.adapter import Adapted, InvariantAdapter, InvariantConfig
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.simulate import simulate
from napari_nucleus_kd.train import losses
from napari_nucleus_kd.train.adapting import drawn_panel
from napari_nucleus_kd.train.begin import first_network
from napari_nucleus_kd.train.data import Batches, for_panels, load_steps
from napari_nucleus_kd.train.loop import train_steps
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import AdapterSettings, CropSettings, LossWeights, TrainSettings
from napari_nucleus_kd.types import finish


@pytest.fixture
def settings(parent, parent_config):
    """Three steps of an adapter in front of a frozen student that knows little."""
    return TrainSettings(
        name="adapter",
        start=str(parent),
        student=parent_config,
        adapter=AdapterSettings(panel=(2, 4)),
        crops=CropSettings(batch=2, crop_px=64),
        loss={"foreground": 0.3, "lovasz": 0.7, "dice": 0},
        steps=4,
        check_every=2,
        check_batches=1,
        warmup_steps=1,
        workers=0,
        precision="32-true",
        device="cpu",
    )


def test_batches_of_panels_have_as_many_channels_in_each_crop(index):
    samples = for_panels(finish(load_steps(index, "train")))
    batches = Batches(samples, CropSettings(batch=2, crop_px=64), 1, panel=(2, 6))
    shapes = {batches[step].x.shape for step in range(12)}
    assert {shape[1] for shape in shapes} > {2, 6} and all(shape[2:] == (64, 64) for shape in shapes)
    assert torch.equal(batches[3].x, batches[3].x)
    assert 0 <= batches[0].x.min() < batches[0].x.max() <= 1


def test_only_grey_fluorescence_has_panels_drawn_around_it(index):
    assert {sample.name for sample in for_panels(finish(load_steps(index, "train")))} == {"0.png", "2.png"}
    with pytest.raises(ReadError, match="learns from fluorescence pictures"):
        for_panels([s for s in finish(load_steps(index, "train")) if s.name == "1.png"])


@pytest.mark.parametrize("kind", ["invariant", "fixed"])
def test_an_adapter_becomes_a_package_that_segments(kind, settings, index, tmp_path):
    adapter = AdapterSettings(kind=kind, panel=(2, 4), channels=8)
    model = finish(run_steps(settings.model_copy(update={"adapter": adapter}), index, tmp_path / "run"))
    assert model.role == "adapter" and model.spec.architecture == f"{kind}-adapter"
    assert model.spec.parent == "mine" and model.verify() < 2e-3
    assert set(model.spec.metrics) == {"s0"}
    assert "drawn around the nuclei of the validation images" in model.card
    image, _ = drawn_panel(read_index(index, "val")[0], 5, (3, 6))
    result = segment(image, mapping=str(model.folder), model=settings.start)
    assert result.recipe.mapping_hash == model.hash
    assert not (tmp_path / "run" / "adapter-student").exists()


def test_a_student_that_learns_with_it_is_packaged_too(settings, index, tmp_path):
    together = settings.model_copy(
        update={"adapter": AdapterSettings(kind="fixed", channels=8, panel=(2, 4), frozen_student=False)}
    )
    finish(run_steps(together, index, tmp_path / "run"))
    behind = load_model(str(tmp_path / "run" / "adapter-student"))
    assert behind.hash != load_model(settings.start).hash
    panel, _ = drawn_panel(read_index(index, "val")[0], 5, (3, 3))
    segment(panel, Recipe(mapping=str(tmp_path / "run" / "adapter"), model=str(behind.folder)))


def test_which_channels_are_nuclear_is_learnt_without_the_student(settings, index, tmp_path, monkeypatch):
    """Then an adapter goes on from that one in front of it."""

    def none(*_):
        raise AssertionError("the student is not needed")

    names = ("foreground", "distance", "offset", "border", "diameter", "dice")
    loss = LossWeights(**dict.fromkeys(names, 0), selection=1)
    with monkeypatch.context() as patch:
        patch.setattr(Adapted, "logits", none)
        trained = finish(train_steps(settings.model_copy(update={"loss": loss}), index, tmp_path / "one"))
    first = settings.model_copy(update={"loss": loss, "name": "first"})
    model = finish(run_steps(first, index, tmp_path / "two"))
    start = settings.adapter.model_copy(update={"start": str(model.folder)})
    both = settings.loss.model_copy(update={"selection": 0.5})
    onward = settings.model_copy(update={"adapter": start, "loss": both})
    begun = first_network(onward).adapter.state_dict()
    saved = model.network().state_dict()
    assert all(torch.equal(begun[name], saved[name]) for name in saved) and trained.steps == 4
    finish(run_steps(onward, index, tmp_path / "three"))
    told = (tmp_path / "three" / "log.csv").read_text().splitlines()[0]
    assert "tune selection" in told and "tune lovasz" in told
    other = onward.model_copy(update={"adapter": start.model_copy(update={"width": 8})})
    with pytest.raises(ModelError, match=r"adapter\.start: .* is invariant-adapter"):
        first_network(other)


def test_batches_tell_which_channels_are_nuclear(index):
    samples = for_panels(finish(load_steps(index, "train")))
    batch = Batches(samples, CropSettings(batch=4, crop_px=64), 1, panel=(3, 3))[0]
    assert batch.nuclear.shape == (4, 3) and (batch.nuclear.sum(1) >= 1).all()
    assert Batches(samples, CropSettings(batch=2, crop_px=64), 1)[0].nuclear.sum() == 0


def test_a_run_that_an_earlier_version_began_goes_on(parent, parent_config, settings, index, tmp_path):
    """It knew neither adapters nor their terms of the objective."""
    plain = settings.model_copy(update={"adapter": None, "loss": LossWeights()})
    finish(train_steps(plain.model_copy(update={"steps": 2}), index, tmp_path / "run"))
    place = tmp_path / "run" / "checkpoint.pt"
    state = torch.load(place, weights_only=True)
    del state["made_from"]["adapter"]
    loss = json.loads(state["made_from"]["loss"])
    state["made_from"]["loss"] = json.dumps(
        {n: v for n, v in loss.items() if n not in ("lovasz", "selection")}
    )
    torch.save(state, place)
    assert finish(train_steps(plain, index, tmp_path / "run")).steps == 4


def test_a_stopped_run_goes_on_to_the_same_weights(settings, index, tmp_path, learn):
    at_once = finish(train_steps(settings, index, tmp_path / "one"))
    steps = train_steps(settings, index, tmp_path / "two")
    learn(steps, 3)
    steps.close()
    resumed = finish(train_steps(settings, index, tmp_path / "two"))
    for one, other in zip(at_once.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_frozen_student_stays_as_it_is(settings, index, tmp_path):
    network = finish(train_steps(settings, index, tmp_path / "run")).network
    assert isinstance(network, Adapted)
    before = load_model(settings.start).network().state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.student.state_dict().items())
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert not any("student" in name for name in kept["network"])


def test_an_adapter_learns_which_channel_shows_the_nuclei():
    """In front of a student that takes what is bright for a nucleus."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    seeds = np.zeros((64, 64), bool)
    seeds[12::20, 12::20] = True
    labels, _ = ndimage.label(ndimage.distance_transform_edt(~seeds) < 6)
    picture = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.8)
    adapter = InvariantAdapter(InvariantConfig(width=8)).train()
    optimizer = torch.optim.Adam(adapter.parameters(), 5e-3)
    target = torch.from_numpy((labels > 0).astype(np.float32))[None]

    def panel():
        drawn = simulate(picture, labels.astype(np.int32), rng, 4, ("membrane", "dead", "matrix"))
        return torch.from_numpy(scaled_panel(drawn.pixels))[None], drawn.nuclear

    for _ in range(60):
        x, _ = panel()
        loss = losses.lovasz_hinge((adapter(x)[:, 0] - 0.4) * 6, target, torch.ones_like(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    adapter.eval()
    drawn = [panel() for _ in range(10)]
    right = [int(adapter.weights(x)[0].argmax()) == nuclear for x, nuclear in drawn]
    assert sum(right) >= 8


def test_the_lovasz_hinge_is_no_smaller_than_one_less_the_iou():
    """At logits of at least 1 in size it is 1 - IoU where it errs by sign, and 0 if all are right."""
    true = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    known = torch.ones_like(true)
    assert losses.lovasz_hinge(4 * true - 2, true, known) == 0
    said = torch.tensor([[[1.0, -1.0, 1.0, -1.0]]]).requires_grad_()
    loss = losses.lovasz_hinge(said, true, known)
    assert loss >= 1 - 1 / 3
    loss.backward()
    assert (said.grad[0, 0, 1] < 0) and (said.grad[0, 0, 2] > 0)
    assert losses.lovasz_hinge(-said, true, known * 0) == 0
    half = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    assert losses.lovasz_hinge(said.detach(), true, half) == losses.lovasz_hinge(
        said.detach()[..., :2], true[..., :2], half[..., :2]
    )


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"panel": (5, 2)}, "in order"),
        ({"kind": "fixed", "channels": 4, "panel": (2, 5)}, "not more than a fixed adapter takes"),
    ],
)
def test_panels_that_cannot_be_drawn_are_refused(wrong, rule):
    with pytest.raises(ValidationError, match=rule):
        AdapterSettings.model_validate(wrong)


def test_only_an_invariant_adapter_selects():
    for adapter in (None, {"kind": "fixed", "frozen_student": False, "panel": (2, 5)}):
        with pytest.raises(ValidationError, match="only an invariant adapter has weights"):
            TrainSettings(adapter=adapter, loss={"selection": 1})


def test_a_frozen_student_must_have_learnt():
    with pytest.raises(ValidationError, match="must have learnt before; set start"):
        TrainSettings(adapter={})
