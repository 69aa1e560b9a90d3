"""GeNSeg-Net's networks learn, resume, and become packages that runs take."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as pil
from typer.testing import CliRunner

from napari_nucleus_kd import segmenters
from napari_nucleus_kd._cli_train import kind_of
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.engine import Engine
from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.ideal import between_nuclei, ideal_nuclei
from napari_nucleus_kd.io.samples import sample, sample_labels
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.pipeline import segment
from napari_nucleus_kd.stains import grey_nuclei
from napari_nucleus_kd.train.data import load_steps
from napari_nucleus_kd.train.enhancing import EnhancerCourse, ThreeClassCourse, _targets, grey_batches
from napari_nucleus_kd.train.enhancing_run import enhancing_steps
from napari_nucleus_kd.train.enhancing_settings import EnhancingSettings, read_enhancing
from napari_nucleus_kd.train.loop import open_fabric
from napari_nucleus_kd.train.run import run_steps
from napari_nucleus_kd.train.settings import TrainSettings
from napari_nucleus_kd.types import Modality, finish

SMALL = {
    "generator": {"width": 4, "depth": 1, "levels": 2},
    "three_classes": {"width": 4},
    "crops": {"batch": 2, "crop_px": 64},
    "steps": 4,
    "check_every": 2,
    "check_batches": 1,
    "workers": 0,
    "learning_rate": 2e-3,
    "average": 0.5,
    "precision": "32-true",
}


def settings(**given):
    return EnhancingSettings.model_validate(SMALL | given)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.network().state_dict().items()}


def test_crops_are_grey_with_bright_nuclei_and_ideal_ones_to_draw(index):
    samples = finish(load_steps(index, "train"))
    assert {sample.modality for sample in samples} == {Modality.FLUORESCENCE, Modality.HE}
    batch = grey_batches(samples, settings(crops={"batch": 16, "crop_px": 96}), 0)[0]
    assert batch.x.shape == (16, 3, 96, 96) and torch.equal(batch.x[:, 0], batch.x[:, 2])
    bright = []
    for picture, (ideal, classes, between) in zip(batch.x[:, 0].numpy(), batch.maps.numpy(), strict=True):
        assert set(np.unique(between)) <= {0, 1}
        assert set(np.unique(classes)) <= {0, 1, 2} and 0 <= ideal.min() and ideal.max() <= 1
        if (ideal > 0).any():
            bright.append(picture[ideal > 0].mean() > picture[ideal == 0].mean())
    assert np.mean(bright) > 0.9


def test_crops_are_as_enhancers_see_them(index):
    samples = [replace(s, image=s.image * np.float16(0.4)) for s in finish(load_steps(index, "train"))]
    brightest = {}
    for kind, more in (("enhancer", {}), ("three-classes", {"learns_from": "pictures"})):
        batch = grey_batches(samples, settings(kind=kind, crops={"batch": 16, "crop_px": 96}, **more), 0)[0]
        brightest[kind] = batch.x.amax((1, 2, 3))
    assert brightest["enhancer"].mean() > brightest["three-classes"].mean() + 0.1


def test_grey_pictures_with_dark_nuclei_teach_as_they_are_seen_in_a_run(index):
    samples = [s for s in finish(load_steps(index, "train")) if s.modality is Modality.FLUORESCENCE]
    turned = [replace(s, image=1 - s.image) for s in samples]
    for some in (samples, turned):
        batch = grey_batches(some, settings(crops={"batch": 16, "crop_px": 96}), 0)[0]
        inside = batch.maps[:, :1] > 0
        assert batch.x[:, :1][inside].mean() > batch.x[:, :1][~inside].mean() + 0.2


def test_polarity_turns_dark_nuclei_around():
    picture = np.random.default_rng(0).random((3, 5, 6), np.float32)
    bright, dark = (grey_nuclei(picture, dark=dark) for dark in (False, True))
    assert bright.shape == (5, 6) and np.allclose(bright + dark, 1, atol=1e-6)
    assert np.allclose(grey_nuclei(np.full((3, 2, 2), 0.4, np.float32), dark=False), 0.4, atol=1e-3)


@pytest.mark.parametrize("kind", ["enhancer", "three-classes"])
@pytest.mark.parametrize(
    "more", [{"discriminator": "transformer"}, {"discriminator": "none", "learns_from": "pictures"}]
)
def test_training_lowers_the_objective(index, tmp_path, kind, more):
    run = settings(kind=kind, steps=60, check_every=20, **more)
    model = finish(enhancing_steps(run, index, tmp_path / "run"))
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    column = log[0].split(",").index("tune objective")
    tuned = [float(line.split(",")[column]) for line in log[1:]]
    assert len(tuned) == 3 and tuned[-1] < tuned[0]
    sheet = np.asarray(pil.open(tmp_path / "run" / "samples.png"))
    assert sheet.std() > 5 and (tmp_path / "run" / "curves.png").exists()
    assert model.role == ("enhancer" if kind == "enhancer" else "model")


@pytest.mark.parametrize("kind", ["enhancer", "three-classes"])
def test_a_stopped_run_ends_as_one_that_was_not(index, tmp_path, kind, learn):
    whole = finish(enhancing_steps(settings(kind=kind), index, tmp_path / "whole"))
    steps = enhancing_steps(settings(kind=kind), index, tmp_path / "parts")
    learn(steps, 3)  # between two checks
    steps.close()
    parts = finish(enhancing_steps(settings(kind=kind), index, tmp_path / "parts"))
    one, other = weights(whole), weights(parts)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_other_settings_is_refused(index, tmp_path):
    finish(enhancing_steps(settings(), index, tmp_path / "run"))
    with pytest.raises(SettingsError, match=r"other .*adversarial"):
        finish(enhancing_steps(settings(adversarial=0.5), index, tmp_path / "run"))
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(SettingsError, match="is damaged"):
        finish(enhancing_steps(settings(), index, tmp_path / "run"))


def test_a_run_of_another_kind_is_called_that(index, tmp_path):
    finish(enhancing_steps(settings(), index, tmp_path / "run"))
    student = TrainSettings(name="student", steps=2, crops={"batch": 2, "crop_px": 64})
    with pytest.raises(SettingsError, match=r"holds a run of another kind; .* --kind"):
        finish(run_steps(student, index, tmp_path / "run"))
    student_run = tmp_path / "student"
    student_run.mkdir()
    torch.save({"made_from": {}, "network": {}, "optimizer": {}}, student_run / "checkpoint.pt")
    with pytest.raises(SettingsError, match="holds a run of another kind"):
        finish(enhancing_steps(settings(), index, student_run))


@pytest.mark.parametrize("against", ["none", "patch"])
def test_the_card_names_the_discriminator_that_there_was(index, tmp_path, against):
    card = finish(enhancing_steps(settings(discriminator=against), index, tmp_path / "run")).card
    assert ("0.01 of its loss" in card) == ("patch discriminator" in card) == (against == "patch")


def test_an_enhancer_is_packaged_and_enhances(index, tmp_path, draw):
    model = finish(enhancing_steps(settings(name="mine"), index, tmp_path / "run"))
    assert model.folder.name == "mine" and "pq" in model.spec.metrics["s0"]
    assert "which sees the enhanced images" in " ".join(model.card.split())
    assert "--kind enhancer" in model.card and model.verify() < 1e-3
    pixels = draw(90, 100)[0]
    found = segment(pixels, enhance=str(model.folder), segmenter="classical")
    assert found.recipe.enhance_hash == model.hash and found.recipe.polarity == "bright"
    with pytest.raises(ModelError, match="finds no nuclei; choose it to enhance with"):
        segment(pixels, model=str(model.folder))


def test_three_classes_learn_behind_an_enhancer_and_segment(index, tmp_path, draw):
    enhancer = finish(enhancing_steps(settings(name="first"), index, tmp_path / "one"))
    run = settings(
        kind="three-classes",
        name="second",
        learns_from=str(enhancer.folder),
        steps=20,
        check_every=10,
        average=0.9,
    )
    model = finish(enhancing_steps(run, index, tmp_path / "two"))
    assert "It sees the images enhanced by" in model.card
    found = segment(
        draw(90, 100)[0], model=str(model.folder), enhance=str(enhancer.folder), modality="fluorescence"
    )
    assert found.maps.names == ("foreground", "background", "body", "edge")
    assert np.allclose(found.maps.values[1:].sum(0), 1, atol=0.02)
    assert np.allclose(found.maps["foreground"], found.maps.values[2:].sum(0), atol=0.02)
    assert found.nuclei.scores is not None and len(found.nuclei.scores) == found.nuclei.count
    with pytest.raises(ModelError, match="is no enhancer"):
        wrong = settings(kind="three-classes", learns_from="nucleus-student")
        next(enhancing_steps(wrong, index, tmp_path / "x"))
    with pytest.raises(ModelError, match="no model 'nothing'"):
        next(enhancing_steps(settings(kind="three-classes", learns_from="nothing"), index, tmp_path / "x"))


def test_what_learns_from_ideal_nuclei_alone_is_not_judged_alone(index, tmp_path):
    model = finish(enhancing_steps(settings(kind="three-classes"), index, tmp_path / "run"))
    assert model.spec.name == "my-classes" and "body or edge" in model.card
    assert not model.spec.metrics and "no enhancer was named" in model.card and "enlarged" not in model.card


def test_without_an_enhancer_pictures_are_grey_as_in_training(index, tmp_path, monkeypatch):
    run = settings(kind="three-classes", learns_from="pictures", steps=1)
    model, seen = finish(enhancing_steps(run, index, tmp_path / "run")), []
    running = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, picture: seen.append(picture) or running(self, picture))
    image, nuclei = sample("he"), sample_labels("he") > 0
    segment(image, model=str(model.folder))
    grey = seen[0][:, : nuclei.shape[0], : nuclei.shape[1]]
    assert np.array_equal(grey[0], grey[2]) and grey[0][nuclei].mean() > grey[0][~nuclei].mean() + 0.1


def test_what_is_found_does_not_depend_on_the_tile(index, tmp_path, draw):
    run = settings(kind="three-classes", learns_from="pictures", steps=1)
    model = finish(enhancing_steps(run, index, tmp_path / "run"))
    tile = np.repeat(draw(320, 320)[0][None] / 255, 3, 0).astype(np.float32)
    other = tile.copy()
    other[:, 240:] = 0
    segmenter = segmenters.load("student", Recipe(model=str(model.folder)))
    one, two = (segmenter.maps(each, None).values[:, :96] for each in (tile, other))
    assert np.abs(one - two).max() < 1e-3  # what is further away than its context


def test_recipes_are_read_and_faults_are_named(tmp_path):
    place = tmp_path / "recipe.json"
    place.write_text(json.dumps({"kind": "enhancer", "dataset": "data", "steps": 7}))
    read = read_enhancing(place, {"seed": 3, "name": None}, batch=5)
    assert (read.steps, read.seed, read.crops.batch) == (7, 3, 5) and read.dataset == tmp_path / "data"
    place.write_text('{"crops": {"crop_px": 96}}')
    crops = read_enhancing(place, {}, batch=5).crops
    assert (crops.batch, crops.crop_px, crops.wide_share, crops.scale_jitter) == (5, 96, 0.3, 0.3)
    for text in ('{"crops": null}', '{"crops": 5}'):
        place.write_text(text)
        with pytest.raises(SettingsError, match="crops"):
            read_enhancing(place, {})
    place.write_text('{"kind": "enhancr"}')
    with pytest.raises(SettingsError, match="choose from student, enhancer, three-classes"):
        kind_of(place)
    for text, words in (
        ("{", "is not JSON"),
        ("[]", "one JSON object"),
        ('{"stepz": 1}', "did you mean steps"),
    ):
        place.write_text(text)
        with pytest.raises(SettingsError, match=words):
            read_enhancing(place, {})


def test_the_command_trains_an_enhancer(index, tmp_path):
    place = tmp_path / "recipe.json"

    def train(*arguments):
        given = ["train", place, "--data", index, "--output", *arguments]
        return CliRunner().invoke(app, [str(each) for each in given])

    place.write_text(json.dumps(SMALL))
    done = train(tmp_path / "run", "--kind", "enhancer", "--steps", 2)
    assert done.exit_code == 0, done.output
    assert load_model(str(tmp_path / "run" / "my-enhancer")).role == "enhancer"
    place.write_text(json.dumps(SMALL | {"kind": "three-classes", "name": "unet"}))
    classes = train(tmp_path / "unet", "--steps", 1)
    assert classes.exit_code == 0  # the recipe says of what kind it is
    assert "Not judged: it learnt from ideal nuclei" in " ".join(classes.output.split())
    assert load_model(str(tmp_path / "unet" / "unet")).spec.architecture == "three-classes"
    refused = train(tmp_path / "x", "--kind", "enhancer", "--student", "nano")
    assert refused.exit_code == 2 and "--student is for students" in " ".join(refused.output.split())


def test_the_edges_between_nuclei_weigh_as_much_as_is_said(index, tmp_path):
    batch = grey_batches(finish(load_steps(index, "train")), settings(), 0)[0]
    labels = np.zeros((64, 64), np.int32)
    labels[10:30, 10:30], labels[10:30, 30:50] = 1, 2  # which touch
    maps = torch.from_numpy(_targets(labels))[None].repeat(2, 1, 1, 1)
    batch = batch._replace(maps=maps, valid=torch.ones(2, 1, 64, 64))
    errors, learnt = [], []
    for weight in (1, 3):
        torch.manual_seed(0)
        run = settings(between_weight=weight)
        course = EnhancerCourse(open_fabric(run), run, {}, tmp_path / str(weight))
        errors.append(float(course.judged(lambda x: torch.zeros_like(x[:, :1]), batch)[0]))
        learnt.append(course.learn(batch)["L1"])
    missed = ideal_nuclei(labels)[between_nuclei(labels, 2)].sum() / labels.size
    assert missed > 0 and errors[1] - errors[0] == pytest.approx(2 * missed, rel=1e-4)
    assert learnt[1] > 1.05 * learnt[0]


@pytest.mark.parametrize("kind", [EnhancerCourse, ThreeClassCourse])
def test_what_is_not_annotated_teaches_nothing(index, tmp_path, kind):
    batch = grey_batches(finish(load_steps(index, "train")), settings(), 0)[0]
    batch.valid[:, :, 32:] = 0
    other = batch._replace(maps=batch.maps.clone())
    other.maps[:, 0, 32:], other.maps[:, 1, 32:] = 1 - batch.maps[:, 0, 32:], 2
    learnt = []
    for number, each in enumerate((batch, other)):
        torch.manual_seed(0)
        run = settings(learns_from="pictures")
        course = kind(open_fabric(run), run, {}, tmp_path / str(number))
        course.learn(each)
        learnt.append(course.result().state_dict())
    assert all(torch.equal(learnt[0][name], learnt[1][name]) for name in learnt[0])
