import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from skimage.io import imsave
from typer.testing import CliRunner

from napari_nucleus_kd._cli_train import read_settings
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.networks.student import STUDENTS, StudentConfig
from napari_nucleus_kd.package import load_model

TINY = {
    "name": "tiny",
    "student": {"widths": [8, 8, 8], "decoder_widths": [8, 8], "head_width": 8},
    "crops": {"batch": 2, "crop_px": 64},
    "steps": 2,
    "check_every": 2,
    "check_batches": 1,
    "workers": 0,
    "precision": "32-true",
    "device": "cpu",
}


@pytest.fixture
def index(tmp_path):
    labels = np.zeros((80, 80), np.uint16)
    labels[10:30, 10:30], labels[40:62, 44:66] = 1, 2
    imsave(tmp_path / "image.png", (40 + 150 * (labels > 0)).astype(np.uint8), check_contrast=False)
    imsave(tmp_path / "other.png", (30 + 160 * (labels > 0)).astype(np.uint8), check_contrast=False)
    imsave(tmp_path / "labels.png", labels, check_contrast=False)
    path = tmp_path / "index.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "labels", "modality", "source", "split"])
        splits = {"train": "image.png", "tune": "image.png", "val": "other.png"}
        writer.writerows([image, "labels.png", "fluorescence", "set", s] for s, image in splits.items())
    return path


def test_train_makes_a_model_that_segment_takes(index, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY))
    run = CliRunner()
    done = run.invoke(app, ["train", "--data", str(index), "--output", str(tmp_path / "run"), str(config)])
    assert done.exit_code == 0, done.output
    model = tmp_path / "run/tiny"
    image = str(index.with_name("image.png"))
    used = run.invoke(app, ["segment", image, "-o", str(tmp_path / "out"), "--model", str(model)])
    assert used.exit_code == 0, used.output
    assert (tmp_path / "out/image_labels.tif").exists()


def test_evaluate_prints_the_metrics(index):
    done = CliRunner().invoke(app, ["evaluate", "--data", str(index), "--segmenter", "classical"])
    assert done.exit_code == 0, done.output
    assert "PQ" in done.output
    assert "set" in done.output


def test_a_folder_has_no_splits(index):
    done = CliRunner().invoke(app, ["evaluate", "--data", str(index.parent), "--split", "train"])
    assert done.exit_code == 2 and "no splits" in done.output


def test_no_index_is_one_clear_message(tmp_path):
    done = CliRunner().invoke(
        app, ["train", "--data", str(tmp_path / "no.csv"), "--output", str(tmp_path / "run")]
    )
    assert done.exit_code == 1
    assert "no.csv" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"pretrained": true, "student": {}}', "no such weights"),
        ('{"stepps": 3}', r"stepps: there is no such setting; did you mean steps\?"),
        ('{"crops": {"bach": 3}, "steps": -1}', r"crops\.bach: .* did you mean batch\?; steps = -1: "),
        ('{"crops": 5}', "crops = 5: Input should be an object"),
        ('{"distill": 5}', "distill must be a JSON object"),
        ('{"distill": {"temperature": 4}}', r"distill\.teachers: is missing"),
        ('{"student": "compat"}', r"student = 'compat': no student 'compat'; choose from compact"),
        ('{"steps": 0}', "greater than or equal to 1"),
        ("{", "JSON"),
    ],
)
def test_wrong_settings_name_the_setting(tmp_path, text, rule):
    config = tmp_path / "config.json"
    config.write_text(text)
    with pytest.raises(SettingsError, match=rule):
        read_settings(config)


def test_without_recipe_and_student_the_shipped_model_is_gone_on_from():
    shipped = load_model("nucleus-student").spec
    settings = read_settings(None, batch=3)
    assert settings.start == "nucleus-student"
    assert settings.student == StudentConfig.model_validate(shipped.options)
    assert (settings.crops.size_range, settings.enlarge_to_px) == (shipped.size_range, shipped.enlarge_to_px)
    assert (settings.decode, settings.crops.batch) == (shipped.decode, 3)
    anew = read_settings(None, student="nano", steps=7)
    assert (anew.start, anew.student, anew.steps) == (None, STUDENTS["nano"], 7)


def test_what_a_recipe_says_is_not_taken_over(tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"start": "nucleus-student", "crops": {"size_range": [10, 50]}, "steps": 9}')
    settings = read_settings(recipe)
    assert (settings.crops.size_range, settings.steps) == ((10, 50), 9)


def test_given_teachers_join_what_the_file_says_of_teaching(tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"distill": {"temperature": 4, "teachers": ["other"]}}')
    for file, temperature in ((recipe, 4), (None, 2)):
        distill = read_settings(file, teachers=["a", "segmenter:classical"]).distill
        assert (distill.temperature, distill.teachers) == (temperature, ("a", "segmenter:classical"))


def test_given_settings_replace_the_files(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"steps": 10, "name": "a"}')
    settings = read_settings(config, steps=3, name=None)
    assert (settings.steps, settings.name) == (3, "a")


def test_a_folder_of_one_image_is_trained_on_and_never_called_judged(index, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    index.with_name("image.png").rename(folder / "cells.png")
    index.with_name("labels.png").rename(folder / "cells_labels.png")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY))
    out = tmp_path / "run"
    arguments = ["train", "--data", str(folder), "--output", str(out), str(config)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Not judged" in done.output
    assert "Not judged" in (out / "tiny/card.md").read_text()
    assert json.loads((out / "tiny/model.json").read_text())["metrics"] == {}
    again = CliRunner().invoke(app, [*arguments, "--steps", "3"])
    assert again.exit_code == 0, again.output
    judged = CliRunner().invoke(app, ["evaluate", "--data", str(folder), "--model", str(out / "tiny")])
    assert judged.exit_code == 0, judged.output


def start(arguments, **options):
    """Run the command line as a program of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "napari_nucleus_kd.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_keeps_every_step_and_the_best_can_be_packaged(index, tmp_path):
    config, run = tmp_path / "config.json", tmp_path / "run"
    config.write_text(json.dumps(TINY | {"steps": 100_000, "check_every": 5, "workers": 1}))
    arguments = ["train", config, "--data", index, "--output", run]
    program = start(arguments, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not (run / "checkpoint.pt").exists() and time.monotonic() < until:
            time.sleep(0.1)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: the processes that cut batches, too
        said, _ = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 130, said
    assert "Stopped" in said and "Traceback" not in said
    assert said.startswith("To start from: random weights") and "the same command goes on" in said
    done = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    assert done >= 5
    ended = start([*arguments, "--steps", "1"])
    said, _ = ended.communicate(timeout=120)
    assert ended.returncode == 0, said
    assert "To go on with: the run in" in said
    assert (run / "tiny/model.json").exists()
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == done


def test_two_processors_share_the_work(index, tmp_path):
    config, run = tmp_path / "config.json", tmp_path / "run"
    fast = TINY | {"steps": 4, "warmup_steps": 0, "learning_rate": 0.01}
    config.write_text(json.dumps(fast | {"devices": 2}))
    program = start(["train", config, "--data", index, "--output", run])
    said, _ = program.communicate(timeout=180)
    assert program.returncode == 0, said
    assert said.count("model: ") == 1, "one of the two processes speaks"
    network = torch.load(run / "checkpoint.pt", weights_only=True)
    assert network["step"] == 4
    alone = tmp_path / "alone"
    config.write_text(json.dumps(fast | {"accumulate": 2}))
    done = CliRunner().invoke(app, ["train", str(config), "--data", str(index), "--output", str(alone)])
    assert done.exit_code == 0, done.output
    other = torch.load(alone / "checkpoint.pt", weights_only=True)
    # The same batches and the same mean gradient; only the running means of batch norms are each process's.
    for name, tensor in network["network"].items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(tensor, other["network"][name], atol=1e-4, rtol=1e-3)
    config.write_text(json.dumps(fast | {"devices": 2, "steps": 6}))
    said = start(["train", config, "--data", index, "--output", run]).communicate(timeout=180)[0]
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 6, said


def test_a_recipe_names_its_data(index, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(TINY | {"dataset": index.name, "student": TINY["student"]}))
    done = CliRunner().invoke(app, ["train", str(recipe), "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    saved = json.loads((tmp_path / "run/recipe.json").read_text())
    assert saved["dataset"] == str(index)
    assert str(index) not in (tmp_path / "run/tiny/card.md").read_text(), "a place on one computer"
    without = CliRunner().invoke(app, ["train", "--output", str(tmp_path / "other")])
    assert without.exit_code == 2
    assert "--data" in without.output


def test_students_go_by_name():
    assert read_settings(None, student="nano").student == STUDENTS["nano"]
    with pytest.raises(SettingsError, match="no student 'mini'; choose from compact, nano, vit, large"):
        read_settings(None, student="mini")


def test_the_model_to_start_from_says_what_network_it_is():
    shipped = load_model("nucleus-student").spec.options
    assert read_settings(None, start="nucleus-student").student.model_dump(mode="json") == shipped
