"""nucleus-kd finetune: from a project to a model of one's own."""

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from napari_nucleus_kd import package
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.networks.student import StudentConfig, build_student
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.project import Project, project_folder
from napari_nucleus_kd.types import Modality, finish

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
    assert "Not judged" in text and "3 are needed" in text and "PQ on" not in text
    assert "the same command with --install" in text
    assert not (tmp_path / "installed").exists(), "nothing is installed unless wished"
    code, text = run(setting, "--output", tmp_path / "run", "--steps", 3, "--install")
    assert code == 0 and "goes on with what was verified" in text and "installed: mine-1" in text
    assert load_model("mine-1").spec.parent == "mine"


def test_what_is_no_project_is_refused(setting, tmp_path):
    (tmp_path / "photos").mkdir()
    setting[2] = str(tmp_path / "photos")
    code, text = run(setting, "--output", tmp_path / "run")
    assert code != 0 and "photos" in text and "Traceback" not in text
    assert not (tmp_path / "run/data").exists()
