"""Several models as one."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from napari_nucleus_kd.cli import app
from napari_nucleus_kd.errors import ModelError, SettingsError, WriteError
from napari_nucleus_kd.join import join_models
from napari_nucleus_kd.networks.student import StudentConfig, build_student
from napari_nucleus_kd.package import load_model


@pytest.fixture
def students(save_network, tmp_path):
    """Return two students of different shape, and one for other nuclei."""
    found = []
    for i, widths in enumerate([(8, 8, 8), (8, 16, 8), (8, 8, 8)]):
        options = StudentConfig(widths=widths, decoder_widths=(8, 8), head_width=8)
        torch.manual_seed(i)
        picture = np.random.default_rng(i).random((3, 64, 64), np.float32)
        folder = save_network(
            tmp_path / f"s{i}",
            build_student(options),
            options,
            picture,
            card=f"# s{i}",
            diameter_px=20 + 4 * (i == 2),
            licence="BSD-3-Clause",
            data=("shared", f"own {i}"),
        )
        found.append(load_model(folder))
    return found


def test_the_joint_model_says_the_mean(students, tmp_path):
    both = join_models(students[:2], "both", tmp_path / "both", flips=False)
    assert both.verify() < 1e-3
    x = torch.from_numpy(students[0].test_pair()[0])
    with torch.inference_mode():
        expected = sum(model.network()(x) for model in students[:2]) / 2
        torch.testing.assert_close(both.network()(x), expected, atol=5e-3, rtol=0)  # kept in float16
    assert both.spec.data == ("shared", "own 0", "own 1")
    assert both.spec.licence == "BSD-3-Clause"
    assert "## Card of s1\n\n## s1" in both.card


def test_models_that_do_not_fit_each_other(students, tmp_path):
    with pytest.raises(ModelError, match="s2 and s0 differ in diameter_px"):
        join_models([students[0], students[2]], "both", tmp_path / "both")
    both = join_models(students[:2], "both", tmp_path / "both")
    with pytest.raises(ModelError, match="itself an ensemble"):
        join_models([both, students[0]], "more", tmp_path / "more")
    with pytest.raises(WriteError, match="exists"):
        join_models(students[:2], "both", tmp_path / "both")


def test_the_command_joins(students, tmp_path):
    folders = [str(model.folder) for model in students[:2]]
    done = CliRunner().invoke(app, ["models", "join", *folders, "--output", str(tmp_path / "both")])
    assert done.exit_code == 0, done.output
    both = load_model(tmp_path / "both")
    assert both.spec.name == "both"
    assert both.spec.options["flips"]


def test_a_model_counts_once(students, tmp_path):
    with pytest.raises(SettingsError, match=r"s0 and .*s0 have the same weights: .* leave one out"):
        join_models([students[0], students[1], students[0]], "both", tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_joined_model_is_replaced_only_on_purpose(students, tmp_path):
    arguments = ["models", "join", str(students[0].folder), "--output", str(tmp_path / "one")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    before = load_model(tmp_path / "one").hash
    arguments.insert(2, str(students[1].folder))
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1 and "--overwrite replaces it" in " ".join(again.output.split())
    assert load_model(tmp_path / "one").hash == before
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert load_model(tmp_path / "one").hash != before
    (tmp_path / "else").mkdir()
    with pytest.raises(WriteError, match="is no model"):
        join_models(students[:2], "both", tmp_path / "else", overwrite=True)
