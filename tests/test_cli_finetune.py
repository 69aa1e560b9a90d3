"""nucleus-kd finetune: from a project to a model of one's own."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from napari_nucleus_kd import package
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.engine import available_devices
from napari_nucleus_kd.networks.student import StudentConfig, build_student
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.project import Project, project_folder
from napari_nucleus_kd.train.finetune_folder import begun, run_folder
from napari_nucleus_kd.types import Modality, finish
from napari_nucleus_kd.versions import versions

TINY = StudentConfig(widths=(8, 8, 8), decoder_widths=(8, 8), head_width=8)


@pytest.fixture
def setting(tmp_path, draw, save_network, monkeypatch):
    """Make a verified project and a model, and keep what is installed apart."""
    roots = package.model_roots()[0], tmp_path / "installed"
    monkeypatch.setattr(package, "model_roots", lambda: roots)
    monkeypatch.setattr("napari_nucleus_kd.versions.model_roots", lambda: roots)
    pixels, labels = draw(540, 780)
    path = tmp_path / "tonsil.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack")
    with Project.create(project_folder(path)) as project:
        reference = project.refer_to(path)
        verified = np.ones(labels.shape, bool)
        finish(project.add_steps(reference, labels, verified, modality=Modality.FLUORESCENCE))
    torch.manual_seed(0)
    network = build_student(TINY)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    model = save_network(tmp_path / "mine", network, TINY)
    return ["finetune", "--project", str(project_folder(path)), "--model", str(model), "--device", "cpu"]


def run(arguments, *more):
    done = CliRunner().invoke(app, [*arguments, *map(str, more)])
    return done.exit_code, " ".join(done.output.split())


def test_a_project_teaches_a_model_that_is_installed(setting, tmp_path):
    code, text = run(setting, "--output", tmp_path / "run", "--steps", 2)
    assert code == 0, text
    assert "verified nuclei to learn from" in text
    assert "Too little is verified to judge" in text and "3 are needed" in text and "PQ on" not in text
    again = run(setting, "--output", tmp_path / "run")
    assert again[0] == 0 and "goes on to step 2" in again[1], "its own length, not that of a new run"
    assert "the same command with --install" in text
    assert not (tmp_path / "installed").exists(), "nothing is installed unless wished"
    code, text = run(setting, "--output", tmp_path / "run", "--steps", 3, "--install")
    assert code == 0 and "goes on to step 3 with what was verified" in text and "installed: mine-1" in text
    assert load_model("mine-1").spec.parent == "mine"


def test_a_run_that_is_done_says_that_more_was_saved_and_is_installed_once(setting, tmp_path):
    arguments = ("--steps", 1, "--keep", 0.5, "--learning-rate", 0.001, "--batch", 2, "--early-stop", 3)
    arguments = (*arguments, "--install")
    code, text = run(setting, *arguments)
    assert code == 0 and "installed: mine-1" in text and "more was saved" not in text
    _, settings = begun(run_folder(Path(setting[2])))
    told = settings.steps, settings.keep, settings.learning_rate, settings.batch, settings.early_stop
    assert told == (1, 0.5, 0.001, 2, 3)
    with Project(setting[2]) as project:
        labels, verified = finish(project.images[0].load_steps())
        labels[labels == labels.max()] = 0
        project.images[0].touch()
        assert project.images[0].save(labels, verified)
    code, text = run(setting[:3], "--install")  # with the model and the settings that it was begun with
    assert code == 0 and "more was saved since this run began" in text
    assert "was installed before: mine-1" in text and not (tmp_path / "installed/mine-2").exists()
    assert run(setting[:3], "--discard", "--install")[0] == 2
    code, text = run(setting[:3], "--discard")
    assert code == 0 and "is removed" in text and not run_folder(Path(setting[2])).exists()
    code, text = run(setting[:3], "--discard")
    assert code == 0 and "There is no run in" in text and load_model("mine-1").verify() < 1e-3


def test_an_older_version_is_brought_back(setting, tmp_path, save_network):
    for name in ("mine-1", "mine-2"):
        save_network(tmp_path / "installed" / name, build_student(TINY), TINY, parent="mine")
    code, text = run(["models", "restore", "mine-1"])
    assert code == 0 and "mine-1 is back: --model mine-3" in text
    assert load_model("mine-3").hash == load_model("mine-1").hash != load_model("mine-2").hash
    code, text = run(["models", "restore", "mine-3"])
    assert code == 0 and "mine-3 is the newest version" in text and len(versions("mine-1")) == 3
    assert run(["models", "restore", "nobody"])[0] == 2


def test_a_model_that_cannot_learn_is_refused_before_anything_is_written(setting, tmp_path):
    setting[4] = "nobody"
    code, text = run(setting, "--output", tmp_path / "run")
    assert code == 2 and "no model 'nobody'" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", 2**32), ("--seed", -1), ("--steps", 0), ("--device", "gpu")]
)
def test_settings_out_of_range_are_named_without_a_traceback(setting, tmp_path, option, value):
    done = CliRunner().invoke(app, [*setting, "--output", str(tmp_path / "run"), option, str(value)])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.exception
    assert option.removeprefix("--") in done.output and "nput should be" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif("cuda" in available_devices(), reason="needs a computer without a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(setting, tmp_path):
    code, text = run(setting[:-1], "cuda", "--output", tmp_path / "run")
    assert code == 2 and "device 'cuda' is not there" in text
    assert not (tmp_path / "run").exists()


def test_what_is_no_project_is_refused(setting, tmp_path):
    (tmp_path / "photos").mkdir()
    setting[2] = str(tmp_path / "photos")
    code, text = run(setting, "--output", tmp_path / "run")
    assert code != 0 and "photos" in text and "Traceback" not in text
    assert not (tmp_path / "run/data").exists()
    setting[2] = str(tmp_path / "typo.nucleus-kd")
    assert "there is no such folder" in run(setting, "--output", tmp_path / "run")[1]
