import csv
import json
import shutil
import signal
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from pydantic import ValidationError
from skimage.io import imread, imsave

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import (
    LabelsError,
    ModelError,
    ReadError,
    SettingsError,
    UnknownSegmenterError,
    WriteError,
)
from napari_nucleus_kd.evaluate import evaluate_steps, score_steps, summary
from napari_nucleus_kd.index import Row, read_index, read_labels, read_truth, true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.networks.student import STUDENTS, Student, StudentConfig, build_student
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train import loop, losses
from napari_nucleus_kd.train.begin import first_network
from napari_nucleus_kd.train.card import origin
from napari_nucleus_kd.train.data import Batches, load_steps
from napari_nucleus_kd.train.loop import train_steps
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, DistillSettings, TrainSettings
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.types import finish as take_all

TINY = TrainSettings(
    name="tiny",
    student=StudentConfig(widths=(8, 8, 8, 8, 8), decoder_widths=(8, 8, 8, 8), head_width=8),
    crops=CropSettings(batch=2, crop_px=64),
    steps=6,
    check_every=3,
    check_batches=1,
    warmup_steps=1,
    workers=0,
    precision="32-true",
    device="cpu",
)


def test_batches_depend_on_seed_and_step_only(index):
    samples = take_all(load_steps(index, "train"))
    crops = TINY.crops
    batch, again = Batches(samples, crops, 1)[5], Batches(samples, crops, 1)[5]
    assert batch.x.shape == (2, 3, 64, 64)
    assert batch.maps.shape == (2, 6, 64, 64)
    assert batch.valid.shape == (2, 1, 64, 64) and (batch.valid == 1).all()
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    assert not torch.equal(batch.x, Batches(samples, crops, 2)[5].x)


def test_what_is_not_annotated_teaches_nothing(index):
    """Pictures that are annotated in their left halves only."""
    half = np.zeros((96, 112), np.uint8)
    half[:, :56] = 255
    half[::24] = 0  # in several pieces
    imsave(index.with_name("valid.png"), half, check_contrast=False)
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[0] + ",valid", *(line + ",valid.png" for line in lines[1:])]) + "\n")
    samples = take_all(load_steps(index, "train"))
    assert all((sample.valid == (half > 0)).all() for sample in samples)
    crops = TINY.crops.model_copy(update={"crop_px": 128, "wide_share": 0, "batch": 6})
    x, maps, valid, *_ = Batches(samples, crops, 0)[3]
    assert 0 < valid.mean() < 1
    logits = build_student(TINY.student).logits(x).detach().requires_grad_()
    parts = losses.terms(logits, maps, valid)
    losses.total(parts, TINY.loss).backward()
    assert (logits.grad * (1 - valid)).abs().max() == 0
    assert (logits.grad * valid).abs().max() > 0
    lying = torch.where(valid > 0, maps, torch.rand_like(maps))
    for name, value in losses.terms(logits, lying, valid).items():
        torch.testing.assert_close(value, parts[name], msg=name)


def test_colours_in_channels_of_their_own_are_learnt_from(index):
    colours = read(index.with_name("1.png")).pixels
    tifffile.imwrite(index.with_name("apart.tif"), np.asarray(colours), photometric="minisblack")
    index.write_text(index.read_text().replace("1.png", "apart.tif"))
    assert not read(index.with_name("apart.tif")).rgb
    for sample in take_all(load_steps(index, "train")):
        assert len(sample.image) == (3 if sample.name == "apart.tif" else 1)
        if sample.name == "apart.tif":
            assert (np.ptp(sample.pixels(), axis=0) > 0.1).any()


def test_a_mask_of_another_size_is_named(index):
    imsave(index.with_name("valid.png"), np.ones((9, 9), np.uint8), check_contrast=False)
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[0] + ",valid", *(line + ",valid.png" for line in lines[1:])]) + "\n")
    with pytest.raises(ReadError, match=r"valid\.png: is \(9, 9\)"):
        take_all(load_steps(index, "train"))


def same(one, other):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_killed_and_stopped_runs_go_on_to_the_same_weights(index, tmp_path, finish, learn, learnt):
    whole, _ = finish(train_steps(TINY, index, tmp_path / "whole"))
    steps = train_steps(TINY, index, tmp_path / "stopped")
    learn(steps, 4)  # past the checkpoint of step 3
    shutil.copytree(tmp_path / "stopped", tmp_path / "killed")
    steps.close()
    for folder, left in ("killed", [4, 5, 6]), ("stopped", [5, 6]):
        resumed, seen = finish(train_steps(TINY, index, tmp_path / folder))
        assert [p.done for p in learnt(seen)] == left
        same(whole.network, resumed.network)
        assert (tmp_path / folder / "log.csv").read_text() == (tmp_path / "whole/log.csv").read_text()


@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "bf16-mixed"), (torch.float32, "32-true")])
def test_the_precision_is_what_the_processor_is_fast_with(
    index, tmp_path, finish, monkeypatch, dtype, precision
):
    """Where bfloat16 is only emulated, a step takes ten times as long with it."""
    monkeypatch.setattr(loop, "number_type", lambda device: (dtype, "as told"))
    settings = TINY.model_copy(update={"precision": "auto", "steps": 1})
    trained, _ = finish(train_steps(settings, index, tmp_path / "run"))
    assert trained.processor == f"cpu ({precision})"


def test_a_stopped_run_can_be_ended_with_the_best_so_far(index, tmp_path, finish, learn, learnt):
    settings = TINY.model_copy(update={"schedule": "plateau"})  # unlike cosine, knows nothing of the end
    steps = train_steps(settings, index, tmp_path / "run")
    learn(steps, 4)
    steps.close()
    ended, seen = finish(train_steps(settings.model_copy(update={"steps": 1}), index, tmp_path / "run"))
    assert learnt(seen) == []
    assert (ended.steps, ended.best_step) == (4, 3)
    short, _ = finish(train_steps(settings.model_copy(update={"steps": 3}), index, tmp_path / "short"))
    same(ended.network, short.network)
    assert json.loads((tmp_path / "run/recipe.json").read_text())["steps"] == 4


def test_the_best_weights_are_kept_and_a_plateau_is_answered(index, tmp_path, finish):
    """Steps far too large: it gets worse, the rate is halved, and in the end it stops."""
    settings = TINY.model_copy(
        update={"learning_rate": 30.0, "average": 0.01, "steps": 90, "schedule": "plateau"}
        | {"patience": 1, "early_stop": 2}
    )
    trained, seen = finish(train_steps(settings, index, tmp_path / "run"))
    log = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    weights = {f"tune {name}": weight for name, weight in settings.loss.model_dump().items() if weight}
    assert {name for name in log[0] if name.startswith("tune ")} == {*weights, "tune objective"}
    objective = [sum(float(row[name]) * weight for name, weight in weights.items()) for row in log]
    assert objective == pytest.approx([float(row["tune objective"]) for row in log], rel=1e-4)
    worse = [i > 0 and value > min(objective[:i]) for i, value in enumerate(objective)]
    assert worse[-2:] == [True, True] and (True, True) not in pairwise(worse[:-1])
    assert seen[-1].done == trained.steps == 3 * len(log) < 90
    assert trained.best_step == 3 * (int(np.argmin(objective)) + 1)
    rates = [float(row["learning_rate"]) for row in log]
    assert rates == pytest.approx([30 / 2 ** sum(worse[: i + 1]) for i in range(len(log))])
    tune = Batches(take_all(load_steps(index, "tune")), settings.crops, settings.seed + 1)[0]
    with torch.no_grad():
        parts = losses.terms(trained.network.logits(tune.x), tune.maps, tune.valid)
    assert losses.total(parts, settings.loss).item() == pytest.approx(min(objective), rel=1e-3)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_statistics_of_batch_norm_can_stay(index, tmp_path, finish, frozen):
    settings = TINY.model_copy(update={"frozen_norms": frozen})
    network = first_network(settings)
    trained, _ = finish(train_steps(settings, index, tmp_path / "run"))
    same = [
        torch.equal(tensor, trained.network.state_dict()[name])
        for name, tensor in network.state_dict().items()
        if name.endswith(("running_mean", "running_var"))
    ]
    assert same and all(same) == any(same) == frozen


def test_a_smaller_student_starts_from_the_encoder_of_the_shipped_one(index):
    model = load_model("nucleus-student")
    shipped = model.network().state_dict()
    settings = TINY.model_copy(update={"student": STUDENTS["nano"], "encoder_of": "nucleus-student"})
    network = first_network(settings)
    encoder = {f"encoder.{name}": tensor for name, tensor in network.encoder.state_dict().items()}
    assert encoder and all(torch.equal(tensor, shipped[name]) for name, tensor in encoder.items())
    assert all(p.requires_grad for p in network.parameters())
    assert origin(settings) == "the weights of the encoder of nucleus-student"
    assert settings.learned_from(index)["encoder_of"] == json.dumps(model.hash)
    for other in (TINY.student, STUDENTS["large"]):
        with pytest.raises(ModelError, match="nucleus-student has another encoder"):
            first_network(settings.model_copy(update={"student": other}))


def test_a_run_shorter_than_the_warm_up_learns(index, tmp_path, finish):
    settings = TINY.model_copy(update={"steps": 10, "check_every": 1, "warmup_steps": 200})
    finish(train_steps(settings, index, tmp_path / "run"))
    log = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    assert max(float(row["learning_rate"]) for row in log) > 0.8 * settings.learning_rate


def test_a_refused_run_writes_nothing(index, tmp_path, finish):
    folder = index.parent
    index.unlink()
    imsave(folder / "3_labels.png", np.zeros((9, 9), np.uint8), check_contrast=False)
    with pytest.raises(ReadError, match=r"3\.png: is \(96, 112\) pixels, its labels are \(9, 9\)"):
        finish(run_steps(TINY, folder, tmp_path / "run"))
    assert list(tmp_path.iterdir()) == [folder]


def test_a_teacher_that_is_not_there_is_told_before_the_data_are_read(index, tmp_path, finish):
    settings = TINY.model_copy(update={"distill": DistillSettings(teachers=("nucleus-studnt",))})
    with pytest.raises(ModelError, match="nucleus-studnt"):
        next(run_steps(settings, tmp_path / "no such data", tmp_path / "run"))


def test_accumulated_batches_count_as_one_step(index, tmp_path, finish, learnt):
    settings = TINY.model_copy(update={"steps": 2, "check_every": 1, "accumulate": 3})
    _, seen = finish(train_steps(settings, index, tmp_path / "run"))
    assert [p.done for p in learnt(seen)] == [1, 2]
    batches = Batches(take_all(load_steps(index, "train")), settings.crops, settings.seed)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = Student(settings.student).train()
    with torch.no_grad():
        values = [
            losses.terms(network.logits(b.x), b.maps, b.valid)["dice"].item()
            for b in (batches[i] for i in range(3))
        ]
    assert learnt(seen)[0].values["dice"] == pytest.approx(np.mean(values), abs=1e-4)


def test_a_full_disk_leaves_the_checkpoint_before(index, tmp_path, finish, learn, learnt):
    resource = pytest.importorskip("resource")
    steps = train_steps(TINY, index, tmp_path / "run")
    learn(steps, 5)
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(WriteError, match=r"checkpoint\.pt cannot be written"):
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
    _, seen = finish(train_steps(TINY, index, tmp_path / "run"))
    assert [p.done for p in learnt(seen)] == [4, 5, 6]


def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(index, tmp_path, monkeypatch, finish):
    true_terms = losses.terms
    spoilt = {"dice": torch.tensor(float("nan"), requires_grad=True)}
    monkeypatch.setattr(losses, "terms", lambda *a, **k: true_terms(*a, **k) | spoilt)
    with pytest.raises(SettingsError, match=r"astray at step 1: dice is no number.*lower learning_rate"):
        finish(train_steps(TINY, index, tmp_path / "run"))


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"device": "cuda"}, "is not to be had"),
        ({"encoder_weights": "none.bin"}, r"none\.bin cannot be read"),
        ({"student": StudentConfig(widths=(8, 8), decoder_widths=(8, 8))}, "these widths make no network"),
    ],
)
def test_settings_that_cannot_be_are_named(index, tmp_path, update, said, finish):
    if update.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    update = {k: Path(v) if k == "encoder_weights" else v for k, v in update.items()}
    with pytest.raises(SettingsError, match=said):
        finish(train_steps(TINY.model_copy(update=update), index, tmp_path / "run"))


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"crops": {"size_range": [40, 16]}}, "in order, not 40 to 16"),
        ({"student": {"maps": ["foreground", "distance"]}}, "needs all of them, in order: foreground"),
        ({"precision": "16-mixed"}, "bf16-mixed"),
        (
            {"pretrained": True, "start": "nucleus-student", "student": "compact"},
            "pretrained and start: the weights come from one of these; .*or name a student to begin anew",
        ),
        (
            {"pretrained": True, "encoder_of": "nucleus-student", "student": "nano"},
            "pretrained and encoder_of",
        ),
        ({"crops": {"source_weights": {"s0": -1.0}}}, "greater than or equal to 0"),
        ({"device": "abacus"}, "cuda"),
    ],
)
def test_settings_that_would_fail_later_are_refused(update, said):
    with pytest.raises(ValueError, match=said):
        TrainSettings.model_validate(update)


def test_nothing_annotated_and_nobody_to_teach(index, tmp_path, finish):
    imsave(index.with_name("valid.png"), np.zeros((96, 112), np.uint8), check_contrast=False)
    lines = index.read_text().splitlines()
    lines = [lines[0] + ",valid", *(line + ",valid.png" * line.endswith("train") for line in lines[1:])]
    index.write_text("\n".join(line if line.count(",") == 5 else line + "," for line in lines) + "\n")
    with pytest.raises(ReadError, match="nothing is annotated in the images to train on"):
        finish(train_steps(TINY, index, tmp_path / "run"))


def test_a_folder_that_is_no_model_is_never_replaced(index, tmp_path):
    mine = tmp_path / "run/tiny/my_only_copy.tif"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"data")
    with pytest.raises(WriteError, match="tiny is there and no model"):
        next(run_steps(TINY, index, tmp_path / "run"))
    assert mine.read_bytes() == b"data"


def test_a_model_that_no_run_there_has_made_is_never_replaced(index, tmp_path, finish):
    model, _ = finish(run_steps(TINY, index, tmp_path / "run"))
    (tmp_path / "run/checkpoint.pt").unlink()
    with pytest.raises(
        WriteError, match=r"holds no run of that name to go on with; choose another name or output"
    ):
        next(run_steps(TINY.model_copy(update={"seed": 3}), index, tmp_path / "run"))
    assert (model.folder / "card.md").read_text() == model.card


def test_a_refused_run_leaves_the_index_of_the_other(index, tmp_path, finish, learn):
    folder = index.parent
    index.unlink()
    for i in range(5, 9):
        for name in (f"{i}.png", f"{i}_labels.png"):
            shutil.copy(folder / name.replace(str(i), str(i - 5), 1), folder / name)
            picture = imread(folder / name)
            imsave(folder / name, np.roll(picture, 11 * i, 0), check_contrast=False)
    steps = run_steps(TINY, folder, tmp_path / "run")
    learn(steps, 1)
    steps.close()
    before = (tmp_path / "run/index.csv").read_bytes()
    (folder / "8.png").unlink()
    (folder / "8_labels.png").unlink()
    with pytest.raises(SettingsError, match=r"index\.csv would change; choose another output"):
        finish(run_steps(TINY, folder, tmp_path / "run"))
    assert (tmp_path / "run/index.csv").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))


def test_events_are_written_for_tensorboard(index, tmp_path, finish):
    pytest.importorskip("tensorboard")
    finish(train_steps(TINY.model_copy(update={"tensorboard": True}), index, tmp_path / "run"))
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_missing_tensorboard_is_named(index, tmp_path, monkeypatch, finish):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingsError, match="pip install tensorboard"):
        finish(train_steps(TINY.model_copy(update={"tensorboard": True}), index, tmp_path / "run"))


def test_a_folder_of_another_run_is_not_gone_on_with(index, tmp_path, finish):
    finish(train_steps(TINY, index, tmp_path / "run"))
    other = TINY.model_copy(update={"seed": 5})
    with pytest.raises(SettingsError, match=r"other seed \(0, not 5\); discard it, choose another output"):
        finish(train_steps(other, index, tmp_path / "run"))
    index.write_text(index.read_text() + "\n")
    with pytest.raises(SettingsError, match="other data"):
        finish(train_steps(TINY, index, tmp_path / "run"))


def test_a_blend_lies_between_the_old_weights_and_the_learnt_ones(index, tmp_path, finish):
    first = finish(run_steps(TINY, index, tmp_path / "first"))[0]
    told = {"start": str(first.folder), "seed": 1}
    learnt, blend = (
        finish(run_steps(TINY.model_copy(update=told | {"blend": share}), index, tmp_path / f"{share}"))[0]
        for share in (1.0, 0.25)
    )
    old, new, mixed = (model.network().state_dict() for model in (first, learnt, blend))
    assert any(not torch.equal(old[name], new[name]) for name in old)
    for name, tensor in mixed.items():
        if not tensor.is_floating_point():  # counts of batches
            continue
        torch.testing.assert_close(tensor, old[name] + 0.25 * (new[name] - old[name]), atol=1e-3, rtol=1e-2)
    assert "25% of the learnt weights and 75%" in blend.card and "learnt weights and" not in learnt.card
    with pytest.raises(ValidationError, match="blend: below 1 there must be a model to blend with"):
        TrainSettings.model_validate(TINY.model_dump() | {"blend": 0.5})


def test_a_model_to_start_from_is_taken_as_it_is(index, tmp_path, finish):
    first, _ = finish(run_steps(TINY, index, tmp_path / "first"))
    again = TINY.model_copy(update={"start": str(first.folder), "steps": 1, "learning_rate": 1e-12})
    second, _ = finish(run_steps(again, index, tmp_path / "second"))
    assert second.spec.parent == "tiny"
    for a, b in zip(first.network().parameters(), second.network().parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
    another = again.model_copy(update={"student": StudentConfig(widths=(8, 8), decoder_widths=(8,))})
    with pytest.raises(ModelError, match="another network"):
        finish(train_steps(another, index, tmp_path / "third"))


def test_a_stopped_run_leaves_no_half_judged_package(index, tmp_path):
    steps = run_steps(TINY, index, tmp_path / "run")
    while "running the network" not in next(steps).message:
        pass
    steps.close()
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "recipe.json",
        "log.csv",
        "curves.png",
        "checkpoint.pt",
    }


def test_training_learns(index, tmp_path, finish, learnt):
    settings = TINY.model_copy(update={"steps": 60, "check_every": 20, "average": 0.8, "learning_rate": 5e-3})
    _, seen = finish(train_steps(settings, index, tmp_path / "run"))
    first, last = (
        np.mean([p.values["foreground"] for p in part]) for part in (learnt(seen)[:10], learnt(seen)[-10:])
    )
    assert last < 0.8 * first
    log = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in log] == [20, 40, 60]


def test_a_run_becomes_a_package_with_card_and_metrics(index, tmp_path, finish):
    model, _ = finish(run_steps(TINY, index, tmp_path / "run"))
    assert model.spec.name == "tiny"
    assert model.verify() < 1e-3
    assert model.spec.metrics["s0"]["images"] == [1.0]
    assert all(len(numbers) == 1 for numbers in model.spec.metrics["s0"].values()), "1 image has no interval"
    assert "the diameter is estimated by the model" in model.card
    assert "## Limits" in model.card
    assert "; on cpu (32-true)." in model.card
    embedded = json.loads(model.card.split("```json\n")[1].split("```")[0])
    assert TrainSettings.model_validate(embedded) == TINY
    assert model.spec.data == (
        "s0: 2 images annotated, to learn from, 1 image watched during training, 1 image only to judge by.",
        "s1: 1 image annotated, to learn from.",
    )
    assert "- s1: 1 image annotated" in model.card and "Licence of the weights: not stated\n" in model.card


def test_a_model_that_started_from_another_says_what_each_learnt_from(index, tmp_path, finish):
    first = TINY.model_copy(update={"data": ("Mine; CC0.",), "licence": "BSD-3-Clause"})
    parent, _ = finish(run_steps(first, index, tmp_path / "first"))
    again = TINY.model_copy(update={"start": str(parent.folder), "name": "second"})
    model, _ = finish(run_steps(again, index, tmp_path / "second"))
    assert model.spec.data[-1] == "Before, as tiny: Mine; CC0." and model.spec.data[0].startswith("s0: ")
    assert model.spec.licence == ""
    assert "not stated; mind that of tiny, from which it started" in model.card
    third, _ = finish(
        run_steps(again.model_copy(update={"start": str(model.folder)}), index, tmp_path / "third")
    )
    assert third.spec.data[-1] == "Before, as tiny: Mine; CC0."
    assert sum(line.startswith("Before, as second: s0") for line in third.spec.data) == 0, "the same images"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"learning_rate": 0.5}, r"learning_rate \(0\.002, not 0\.5\);"),
        ({"crops": CropSettings(batch=3, crop_px=64)}, r"crops\.batch \(2, not 3\);"),
    ],
)
def test_a_changed_setting_is_named_with_both_values(index, tmp_path, finish, changed, said):
    finish(run_steps(TINY, index, tmp_path / "run"))
    with pytest.raises(SettingsError, match=f"holds a run with other {said}"):
        finish(run_steps(TINY.model_copy(update=changed), index, tmp_path / "run"))


def test_a_misspelt_segmenter_is_told_before_anything_is_read(index, tmp_path, finish):
    wrong = TINY.model_copy(update={"distill": DistillSettings(teachers=("segmenter:clasical",))})
    with pytest.raises(UnknownSegmenterError, match="choose from student, classical"):
        finish(run_steps(wrong, index, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_evaluate_scores_every_image_of_the_split(index, finish):
    from napari_nucleus_kd.config import Recipe

    scores, _ = finish(evaluate_steps(index, "val", Recipe(segmenter="classical")))
    assert [s.name for s in scores] == ["4.png"]
    assert scores[0].values["dice"] > 0.8
    assert 0 <= summary(scores)["s0"]["pq"][0] <= 1


def test_index_errors_name_file_and_remedy(index):
    with pytest.raises(ReadError, match="no row has split 'test'"):
        read_index(index, "test")
    with pytest.raises(ReadError, match=r"nowhere\.csv"):
        read_index(index.with_name("nowhere.csv"), "train")
    text = index.read_text()
    index.write_text(text.replace("modality", "stain"))
    with pytest.raises(ReadError, match="no column modality"):
        read_index(index, "train")
    index.write_text(text.replace("H&E", "HE"))
    with pytest.raises(ReadError, match="'HE' is not one of"):
        read_index(index, "train")


def test_labels_that_are_no_labels(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG broken")
    with pytest.raises(ReadError, match=r"broken\.png"):
        read_labels(path)


LABELS = np.zeros((96, 112), np.uint16)
for i in range(6):
    LABELS[20:34, 4 + 18 * i : 18 + 18 * i] = i + 1


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.where(LABELS > 0, 255, 0).astype(np.uint8), "a mask, not labels"),
        (LABELS + np.float32(0.5), "whole numbers"),
        (-LABELS.astype(np.int16), "whole numbers from 0 on.*-6"),
        (np.stack([LABELS] * 3, -1).astype(np.uint8), "3 channels"),
    ],
)
def test_what_is_no_label_image_says_why(labels, said, tmp_path):
    tifffile.imwrite(tmp_path / "l.tif", labels, photometric="rgb" if labels.ndim == 3 else "minisblack")
    with pytest.raises(LabelsError, match=said):
        read_labels(tmp_path / "l.tif")


def test_whole_numbers_saved_as_float_are_labels(tmp_path):
    tifffile.imwrite(tmp_path / "l.tif", LABELS.astype(np.float32))
    np.testing.assert_array_equal(read_labels(tmp_path / "l.tif"), LABELS)


def test_faults_of_all_splits_show_before_training(index, tmp_path):
    """The labels of the val image are only needed at the end."""
    imsave(index.with_name("4_labels.png"), np.zeros((8, 8), np.uint8), check_contrast=False)
    imsave(index.with_name("0_labels.png"), 255 * (LABELS > 0).astype(np.uint8), check_contrast=False)
    with pytest.raises(ReadError, match=r"(?s)0_labels\.png.*4\.png: is \(96, 112\) pixels|4\.png.*0_labels"):
        list(run_steps(TINY, index, tmp_path / "run"))


def test_images_annotated_in_part_are_judged_by_what_lies_there(tmp_path):
    valid, places = np.zeros(LABELS.shape, np.uint8), [tmp_path / f"{name}.tif" for name in ("i", "l", "v")]
    valid[:, :60] = 1  # cuts nucleus 4
    for place, pixels in zip(places, ((LABELS > 0) * np.uint8(200), LABELS, valid), strict=True):
        tifffile.imwrite(place, pixels)
    image, labels, part = places
    row = Row(image, labels, Modality.FLUORESCENCE, "mine", part)
    assert set(np.unique(true_labels(row))) == {0, 1, 2, 3}
    found = LABELS.astype(np.int32)
    found[60:90, 70:100] = 9  # nobody looked there
    true, judged = read_truth(row).and_found(found)
    np.testing.assert_array_equal(true, judged)
    found[60:90, 40:62] = 10
    assert set(np.unique(read_truth(row).and_found(found)[1])) == {0, 1, 2, 3, 10}, "here somebody did"
    (score,) = take_all(score_steps([row], Recipe(segmenter="classical", diameter_px=14)))
    assert score.values["true_count"] == score.values["pred_count"] == 3
    tifffile.imwrite(part, valid[:50])
    with pytest.raises(ReadError, match=r"v\.tif: is \(50, 112\) pixels"):
        true_labels(row)


def test_large_label_numbers_stay_apart(tmp_path):
    labels = LABELS.astype(np.uint32) * 700_000_001 % (2**32 - 5)
    tifffile.imwrite(tmp_path / "l.tif", labels)
    found = read_labels(tmp_path / "l.tif")
    assert found.max() == 6 and len(np.unique(np.stack([found, LABELS]).reshape(2, -1), axis=1).T) == 7


def test_other_pixels_in_a_file_as_large_are_other_data(index, tmp_path, finish):
    pixels = imread(index.with_name("0.png"))
    tifffile.imwrite(index.with_name("0.tif"), pixels)
    index.write_text(index.read_text().replace("0.png", "0.tif"))
    finish(train_steps(TINY, index, tmp_path / "run"))
    tifffile.imwrite(index.with_name("0.tif"), pixels[::-1])
    with pytest.raises(SettingsError, match="other data"):
        finish(train_steps(TINY, index, tmp_path / "run"))


def test_what_a_person_should_know_of_the_splits_stands_in_the_card(index, tmp_path, finish):
    *lines, _tuned, judged = index.read_text().splitlines()
    index.write_text(
        "\n".join([*lines, lines[1].replace(",train", ",tune"), judged.replace(",val", ",test")])
    )
    weights = CropSettings(batch=2, crop_px=64, source_weights={"s9": 2.0})
    model, _ = finish(run_steps(TINY.model_copy(update={"crops": weights}), index, tmp_path / "run"))
    assert "Not used: 1 image of the split 'test'" in model.card
    assert "none has the split val" in model.card
    assert "the weights that fit the learnt images best are kept" in model.card
    assert "the source s9, which source_weights names; there are s0, s1" in model.card


def test_sources_that_all_weigh_nothing_are_refused(index, tmp_path, finish):
    weights = CropSettings(batch=2, crop_px=64, source_weights={"s0": 0.0, "s1": 0.0})
    with pytest.raises(SettingsError, match="all of s0 weigh 0"):
        finish(run_steps(TINY.model_copy(update={"crops": weights}), index, tmp_path / "run"))


def test_corrected_labels_are_other_data(index, tmp_path, finish):
    finish(train_steps(TINY, index, tmp_path / "run"))
    imsave(index.with_name("0_labels.png"), LABELS, check_contrast=False)
    with pytest.raises(SettingsError, match="other data"):
        finish(train_steps(TINY, index, tmp_path / "run"))


def test_image_and_labels_must_have_one_size(index):
    imsave(index.with_name("0_labels.png"), np.zeros((8, 8), np.uint8), check_contrast=False)
    with pytest.raises(ReadError, match=r"0\.png: is \(96, 112\)"):
        take_all(load_steps(index, "train"))
