"""A model made one's own."""

import csv

import pytest
import torch

from napari_nucleus_kd import package
from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.networks.student import StudentConfig, build_student
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train.finetune import FinetuneSettings, accept, finetune_steps, next_name, reject
from napari_nucleus_kd.train.loop import train_steps
from napari_nucleus_kd.train.settings import CropSettings, DistillSettings, TrainSettings

TINY = StudentConfig(widths=(8, 8, 8), decoder_widths=(8, 8), head_width=8)
QUICK = FinetuneSettings(steps=4, batch=2, crop_px=64, check_every=1, device="cpu")


@pytest.fixture
def parent(save_network, tmp_path):
    torch.manual_seed(0)
    network = build_student(TINY)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    return save_network(tmp_path / "mine", network, TINY, data=("somewhere",))


@pytest.fixture
def roots(tmp_path, monkeypatch):
    folders = package.model_roots()[0], tmp_path / "installed"
    monkeypatch.setattr(package, "model_roots", lambda: folders)
    monkeypatch.setattr("napari_nucleus_kd.install.model_roots", lambda: folders)
    return folders


def test_old_and_new_are_judged_on_what_is_held_out(parent, index, tmp_path, roots, finish):
    previews = []
    tuned, seen = finish(finetune_steps(str(parent), index, tmp_path / "run", QUICK, previews.append))
    assert tuned.parent.spec.name == "mine" and tuned.model.spec.name == "mine-1"
    assert tuned.model.spec.parent == "mine" and tuned.model.spec.data[0] == "somewhere"
    assert [s.name for s in tuned.before] == [s.name for s in tuned.after] == ["4.png"]
    assert tuned.gain is None, "one image judges nothing"
    assert len(previews) == 4 and len({model.hash for model in previews}) == 4
    log = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    assert [0 <= float(line["val PQ"]) <= 1 for line in log] == [True] * 4
    changed = tuned.model.network().state_dict()
    assert any(not torch.equal(t, changed[n]) for n, t in tuned.parent.network().state_dict().items())
    assert next(p for p in seen if p.message == "training").total == 4

    installed = accept(tuned)
    assert installed.folder == roots[1] / "mine-1" and load_model("mine-1").hash == tuned.model.hash
    assert next_name("mine-1") == "mine-2", "each version stays"
    reject(tmp_path / "run")
    assert not (tmp_path / "run").exists() and load_model("mine-1").verify() < 1e-3


def test_a_gain_comes_with_its_interval(parent, index, tmp_path, roots, finish):
    text = index.read_text()
    rows = [line for line in text.splitlines() if line.endswith(",val")]
    more = "".join(f"{rows[0].replace(',s0,val', f',s{i},val')}\n" for i in range(1, 4))
    index.write_text(text + more)
    tuned, _ = finish(finetune_steps(str(parent), index, tmp_path / "run", QUICK))
    mean, low, high = tuned.gain
    assert low <= mean <= high
    differences = [b.values["pq"] - a.values["pq"] for a, b in zip(tuned.before, tuned.after, strict=True)]
    assert mean == pytest.approx(sum(differences) / 4)


def test_without_held_out_images_there_is_no_number(parent, index, tmp_path, roots, finish):
    index.write_text("".join(f"{line}\n" for line in index.read_text().splitlines() if ",val" not in line))
    tuned, _ = finish(finetune_steps(str(parent), index, tmp_path / "run", QUICK))
    assert (tuned.before, tuned.after, tuned.gain) == ((), (), None)
    assert "val PQ" not in (tmp_path / "run/log.csv").read_text()


def test_only_runs_are_removed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    with pytest.raises(SettingsError, match="holds no training run"):
        reject(tmp_path / "photos")
    assert (tmp_path / "photos/cat.png").exists()
    (tmp_path / "photos/recipe.json").touch()
    with pytest.raises(SettingsError, match=r"cat\.png, which no training run writes"):
        reject(tmp_path / "photos")
    assert (tmp_path / "photos/cat.png").exists()
    reject(tmp_path / "nothing")


def test_what_is_no_student_is_refused(spots, index, tmp_path, roots):
    with pytest.raises(ModelError, match="cannot be trained on"):
        list(finetune_steps(str(spots), index, tmp_path / "run", QUICK))


def test_annotation_corrects_the_teacher(parent, index, tmp_path, finish):
    """Where everything is annotated and only elsewhere is taught, the teacher has no say."""
    common = {
        "student": TINY,
        "start": str(parent),
        "crops": CropSettings(batch=2, crop_px=64),
        "steps": 2,
        "check_every": 2,
        "check_batches": 1,
        "warmup_steps": 0,
        "workers": 0,
        "precision": "32-true",
        "device": "cpu",
    }
    alone = finish(train_steps(TrainSettings(**common), index, tmp_path / "alone"))[0].network
    distill = DistillSettings(teachers=(str(parent),), truth=1, taught=1, flips=False, elsewhere=True)
    corrected, seen = finish(
        train_steps(TrainSettings(**common, distill=distill), index, tmp_path / "corrected")
    )
    assert seen[-1].values["soft foreground"] == 0
    for name, tensor in corrected.network.state_dict().items():
        torch.testing.assert_close(tensor, alone.state_dict()[name])
