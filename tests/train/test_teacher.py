"""Teachers say what they see, and a student learns it where nobody annotated."""

import csv
import json

import numpy as np
import pytest
import torch
from skimage.io import imsave
from skimage.segmentation import clear_border
from typer.testing import CliRunner

from napari_nucleus_kd.cli import app
from napari_nucleus_kd.errors import ModelError, ReadError, SettingsError, UnknownSegmenterError
from napari_nucleus_kd.folders import unlabelled_steps
from napari_nucleus_kd.index import read_index, true_labels
from napari_nucleus_kd.instances import MAP_NAMES, encode
from napari_nucleus_kd.join import join_models
from napari_nucleus_kd.networks.student import StudentConfig, build_student
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.train import losses
from napari_nucleus_kd.train.data import Batch, load_steps
from napari_nucleus_kd.train.loop import train_steps
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import CropSettings, DistillSettings, LossWeights, TrainSettings
from napari_nucleus_kd.train.teacher import Lesson, load_teacher
from napari_nucleus_kd.types import finish as take_all

CPU = torch.device("cpu")
TINY = StudentConfig(widths=(8, 8, 8), decoder_widths=(8, 8), head_width=8)
SETTINGS = TrainSettings(
    name="taught",
    student=TINY,
    crops=CropSettings(batch=2, crop_px=64),
    steps=4,
    check_every=2,
    check_batches=1,
    warmup_steps=1,
    workers=0,
    precision="32-true",
    device="cpu",
)


@pytest.fixture(scope="module")
def model(save_network, tmp_path_factory):
    """A package of a student with random weights."""
    torch.manual_seed(0)
    network = build_student(TINY)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    folder = tmp_path_factory.mktemp("models") / "teacher"
    return save_network(folder, network, TINY)


@pytest.fixture
def data(tmp_path, draw):
    """An index of two annotated images, and a folder of two that nobody annotated."""
    rows = []
    for i in range(4):
        pixels, labels = draw(96, 96, seed=i)
        folder = tmp_path / ("unlabelled" if i > 1 else "data")
        folder.mkdir(exist_ok=True)
        imsave(folder / f"{i}.png", pixels, check_contrast=False)
        if i < 2:
            imsave(folder / f"{i}_labels.png", labels.astype(np.uint16), check_contrast=False)
            rows += [[f"{i}.png", f"{i}_labels.png", "fluorescence", "s", s] for s in ("train", "tune")]
    index = tmp_path / "data/index.csv"
    with index.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "labels", "modality", "source", "split"], *rows])
    return index, tmp_path / "unlabelled"


def distill(*teachers, **more):
    return DistillSettings(teachers=tuple(map(str, teachers)), **more)


def batch(x, told=0.0):
    """Pictures of which people said nothing, and perhaps a folder of labels something."""
    one = torch.zeros(len(x), 1, *x.shape[2:])
    maps = torch.rand(len(x), len(MAP_NAMES), *x.shape[2:], generator=torch.Generator().manual_seed(3))
    return Batch(x, maps, one, one + told, torch.zeros(len(x), 3))


def test_a_network_says_of_mirror_pictures_what_it_says_of_the_picture(model):
    teacher = load_teacher(distill(model), CPU)
    x = torch.rand(2, 3, 64, 96)
    lesson = teacher(batch(x))
    assert lesson.maps.shape == (2, 6, 64, 96) and lesson.sure.shape == (2, 1, 64, 96)
    assert not lesson.maps.requires_grad
    mirrored = teacher(batch(x.flip(3))).maps.flip(3)
    mirrored[:, MAP_NAMES.index("offset_x")] *= -1
    torch.testing.assert_close(mirrored, lesson.maps, atol=1e-5, rtol=0)
    once = load_teacher(distill(model, flips=False), CPU)(batch(x)).maps
    assert (once - lesson.maps).abs().max() > 1e-3


INSIDE = [name in ("offset_y", "offset_x", "log_diameter") for name in MAP_NAMES]
PROBABLE = [name in ("foreground", "border") for name in MAP_NAMES]


def test_several_teachers_are_averaged_and_sure_where_they_agree(model):
    x = torch.rand(1, 3, 64, 64)
    both = load_teacher(distill(model, "segmenter:classical", sure=0.7), CPU)(batch(x))
    one, other = (load_teacher(distill(n, sure=0.7), CPU)(batch(x)) for n in (model, "segmenter:classical"))
    weights = [lesson.said.expand(-1, len(MAP_NAMES), -1, -1).clone() for lesson in (one, other)]
    for weight, lesson in zip(weights, (one, other), strict=True):
        weight[:, INSIDE] *= lesson.maps[:, :1]  # where it sees no nucleus, it knows nothing of offsets
    mean = (weights[0] * one.maps + weights[1] * other.maps) / (weights[0] + weights[1])
    torch.testing.assert_close(both.maps, mean, atol=1e-5, rtol=1e-4)
    nucleus = both.maps[:, :1]
    assert torch.equal(both.sure > 0, torch.maximum(nucleus, 1 - nucleus) >= 0.7)


def test_labels_are_nowhere_quite_certain_and_cut_nuclei_are_left_out(draw):
    pixels, _ = draw(128, 128)
    x = torch.from_numpy(np.repeat(pixels[None, None].astype(np.float32) / 255, 3, 1))
    lesson = load_teacher(distill("segmenter:classical"), CPU)(batch(x))
    for probable in lesson.maps[0, PROBABLE][:, lesson.said[0, 0] > 0]:
        assert 0.0199 < probable.min() and probable.max() < 0.9801
    silent = lesson.said[0, 0].numpy() == 0
    assert silent.any() and not clear_border(silent).any()
    assert (lesson.maps[0, 0].numpy()[~silent] > 0.5).any(), "whole nuclei are taught"


def test_a_joined_model_is_not_mirrored_twice(model, tmp_path):
    joined = join_models([load_model(model)], "joined", tmp_path / "joined")
    x = torch.rand(1, 3, 64, 64)
    calls = []
    teacher = load_teacher(distill(joined.folder), CPU)
    member = teacher._members[0].network.members[0]
    member.register_forward_hook(lambda *_: calls.append(1))
    lesson = teacher(batch(x))
    assert len(calls) == 4
    torch.testing.assert_close(
        lesson.maps, load_teacher(distill(model), CPU)(batch(x)).maps, atol=5e-3, rtol=0
    )


def test_a_segmenter_teaches_its_labels(draw):
    pixels, labels = draw(128, 128)
    x = torch.from_numpy(np.repeat(pixels[None, None].astype(np.float32) / 255, 3, 1))
    lesson = load_teacher(distill("segmenter:classical"), CPU)(batch(x))
    heard = lesson.said[0, 0] > 0
    said, true = lesson.maps[0, 0][heard] > 0.5, torch.from_numpy(labels > 0)[heard]
    assert (said & true).sum() / (said | true).sum() > 0.8
    assert lesson.maps.shape == encode(labels)[None].shape


def test_a_segmenter_teaches_stained_tissue_as_such(draw):
    pixels, labels = draw(128, 128)
    light = (
        1 - 0.8 * pixels[None].astype(np.float32) / 255 * np.array([0.6, 1, 0.4], np.float32)[:, None, None]
    )
    x = torch.from_numpy(light[None])
    lesson = load_teacher(distill("segmenter:classical"), CPU)(batch(x))
    heard = lesson.said[0, 0] > 0
    said, true = lesson.maps[0, 0][heard] > 0.5, torch.from_numpy(labels > 0)[heard]
    assert (said & true).sum() / (said | true).sum() > 0.6


def test_teachers_that_are_not_there_are_named(model, make_model):
    with pytest.raises(ModelError, match="no map border"):
        load_teacher(distill(make_model("bare")), CPU)
    with pytest.raises(ModelError, match="nowhere"):
        load_teacher(distill("nowhere"), CPU)
    with pytest.raises(UnknownSegmenterError, match="cellsomething"):
        load_teacher(distill("segmenter:cellsomething"), CPU)


@pytest.mark.parametrize("temperature", [1.0, 14.0])
def test_who_says_the_same_as_the_teacher_has_nothing_to_learn(temperature):
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 32, 32)
    squashed = torch.tensor([name in ("foreground", "distance", "border") for name in MAP_NAMES])
    maps = torch.where(squashed.view(1, -1, 1, 1), torch.sigmoid(logits), logits)
    everywhere = torch.ones(2, 1, 32, 32)
    lesson, valid = Lesson(maps, everywhere, everywhere), torch.zeros(2, 1, 32, 32)
    same = losses.soft_terms(logits, lesson, valid, temperature)
    assert set(same) == {"foreground", "border", "distance", "offset", "diameter"}
    assert all(abs(float(value)) < 1e-4 for value in same.values())
    other = losses.soft_terms(logits + 1, lesson, valid, temperature)
    assert all(float(value) > 0.05 for value in other.values())


def test_a_teacher_that_is_not_sure_teaches_only_where_people_annotated():
    logits = torch.zeros(1, 6, 32, 32, requires_grad=True)
    sure, valid = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    sure[..., :8], valid[..., 24:] = 1, 1
    lesson = Lesson(torch.full((1, 6, 32, 32), 0.8), sure, torch.ones_like(sure))
    parts = losses.soft_terms(logits, lesson, valid, 2.0)
    losses.total(parts, LossWeights()).backward()
    assert (logits.grad[..., 8:24] == 0).all()
    assert (logits.grad[..., :8] != 0).any() and (logits.grad[..., 24:] != 0).any()


def test_images_without_labels_join_the_index(data, tmp_path, finish):
    index, folder = data
    combined, _ = finish(unlabelled_steps(index, folder, tmp_path / "run.csv"))
    rows = read_index(combined, "train")
    assert [row.labels is None for row in rows] == [False, False, True, True]
    assert all(row.image.is_file() for row in rows) and rows[2].source == "unlabelled"
    with pytest.raises(ReadError, match="not among the annotated ones"):
        finish(unlabelled_steps(index, index.parent, tmp_path / "run.csv"))
    with pytest.raises(ReadError, match="overwritten"):
        finish(unlabelled_steps(index, folder, index))
    with pytest.raises(ReadError, match="nothing can be judged"):
        true_labels(rows[2])
    with pytest.raises(ReadError, match="no teacher"):
        take_all(load_steps(combined, "train"))
    samples = take_all(load_steps(combined, "train", lambda picture: 17.0))
    assert samples[2].diameter_px == 17 and not samples[2].valid.any() and samples[0].valid is None


def test_a_student_learns_what_the_teacher_says_of_unannotated_images(data, tmp_path, finish, learnt):
    index, folder = data
    rows = [r for r in index.read_text().splitlines() if not r.endswith("train")]
    index.write_text("\n".join(rows) + "\n")  # nothing is annotated to learn from
    combined, _ = finish(unlabelled_steps(index, folder, index.with_name("run.csv")))
    settings = SETTINGS.model_copy(
        update={
            "steps": 60,
            "check_every": 20,
            "learning_rate": 1e-2,
            "distill": distill("segmenter:classical", temperature=1.0),
        }
    )
    _, seen = finish(train_steps(settings, combined, tmp_path / "run"))
    first, last = (
        np.mean([p.values["soft foreground"] for p in part]) for part in (learnt(seen)[:5], learnt(seen)[-5:])
    )
    assert last < 0.7 * first
    assert learnt(seen)[0].values["foreground"] == 0, "what nobody annotated is no truth"


def test_a_folder_of_labels_is_one_more_teacher(model):
    x = torch.rand(1, 3, 64, 64)
    for told, others in ((1.0, []), (0.0, []), (1.0, [model]), (0.0, [model])):
        given = batch(x, told)
        lesson = load_teacher(distill("labels:somewhere", *others), CPU)(given)
        assert (lesson.said == (told > 0 or bool(others))).all()
        network = load_teacher(distill(model), CPU)(batch(x)).maps
        labels = given.maps.clone()
        labels[:, PROBABLE] = labels[:, PROBABLE].clamp(0.02, 0.98)
        said = [labels] * (told > 0) + [network] * bool(others)
        if len(said) == 1:
            torch.testing.assert_close(lesson.maps, said[0])
        elif said:
            outside = [not inside for inside in INSIDE]
            torch.testing.assert_close(lesson.maps[:, outside], torch.stack(said).mean(0)[:, outside])


def test_labels_of_a_folder_teach_where_nobody_annotated(data, tmp_path, draw, finish):
    index, folder = data
    labels = tmp_path / "by_others"
    labels.mkdir()
    imsave(labels / "2_masks.png", draw(96, 96, seed=2)[1].astype(np.uint16), check_contrast=False)
    alone = SETTINGS.model_copy(update={"distill": distill(f"labels:{labels}")})
    settings = alone.model_copy(update={"unlabelled": folder})
    with pytest.raises(ReadError, match=r"3\.png: has no labels, and no teacher says what is in it"):
        finish(run_steps(settings, index, tmp_path / "run"))
    (folder / "3.png").unlink()
    _, seen = finish(run_steps(settings, index, tmp_path / "run"))
    assert any(p.values.get("soft foreground", 0) > 0 for p in seen)
    taught = [
        sample for sample in take_all(load_steps(tmp_path / "run/combined.csv", "train")) if sample.taught
    ]
    assert [sample.name for sample in taught] == ["2.png"]
    assert taught[0].labels.any() and not taught[0].valid.any()
    with pytest.raises(SettingsError, match="name the images that these labels belong to"):
        finish(run_steps(alone, index, tmp_path / "forgotten"))
    (labels / "2_masks.png").rename(labels / "other.png")
    with pytest.raises(ReadError, match="no label image in it has the name of an image"):
        finish(run_steps(settings, index, tmp_path / "other"))
    with pytest.raises(ValueError, match="one labels:FOLDER"):
        distill("labels:a", "labels:b")


def test_every_extra_of_the_objective_goes_on_after_a_stop(data, model, tmp_path, finish, learn, learnt):
    index, _ = data
    settings = SETTINGS.model_copy(
        update={
            "student": TINY.model_copy(update={"dropout": 0.3}),
            "loss": LossWeights(foreground=0.0, focal=1.0, tversky=1.0, consistency=0.5),
            "distill": distill(model),
        }
    )
    whole, seen = finish(train_steps(settings, index, tmp_path / "whole"))
    assert {"focal", "tversky", "consistency", "soft offset"} <= set(learnt(seen)[0].values)
    # The teachers' foreground is taught also where the annotation's cross-entropy is left out.
    assert "foreground" not in learnt(seen)[0].values and learnt(seen)[0].values["soft foreground"] > 0
    steps = train_steps(settings, index, tmp_path / "cut")
    learn(steps, 3)  # past the checkpoint of step 2
    steps.close()
    resumed, seen = finish(train_steps(settings, index, tmp_path / "cut"))
    assert [p.done for p in learnt(seen)] == [4]
    states = (trained.network.state_dict().values() for trained in (whole, resumed))
    for a, b in zip(*states, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_is_for_training_alone():
    network = build_student(TINY.model_copy(update={"dropout": 0.5}))
    x = torch.rand(1, 3, 64, 64)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_the_command_distills(data, model, tmp_path, draw):
    index, folder = data
    for name, pixels in zip(("val.png", "val_labels.png"), draw(96, 96, seed=9), strict=True):
        imsave(index.with_name(name), pixels.astype(np.uint16), check_contrast=False)
    with index.open("a", newline="") as file:
        csv.writer(file).writerow(["val.png", "val_labels.png", "fluorescence", "s", "val"])
    config = tmp_path / "config.json"
    config.write_text(SETTINGS.model_dump_json())
    arguments = ["distill", "--data", index, "--teacher", model, "--teacher", "segmenter:classical"]
    arguments += ["--unlabelled", folder, "--output", tmp_path / "run", config]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe["distill"]["teachers"] == [str(model), "segmenter:classical"]
    assert "Taught by" in (tmp_path / "run/taught/card.md").read_text()
