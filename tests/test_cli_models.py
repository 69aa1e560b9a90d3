"""`nucleus-kd models`: real runs of its commands."""

import json
import shutil

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from napari_nucleus_kd import install, package
from napari_nucleus_kd.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["models", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def own(monkeypatch, tmp_path):
    """The user's models folder, empty; the shipped models stay."""
    roots = package.model_roots()[0], tmp_path / "own"
    monkeypatch.setattr(package, "model_roots", lambda: roots)
    monkeypatch.setattr(install, "model_roots", lambda: roots)
    return roots[1]


def test_without_a_command_the_models_are_listed(own):
    assert run().output == run("list").output
    assert "nucleus-student" in run().output
    assert "gives its test output" in run("list", "--check").output
    assert run("--check", "show", "nucleus-student").exit_code == 2


def test_show_says_what_is_known_of_the_shipped_model(own):
    result = run("show", "nucleus-student")
    assert result.exit_code == 0, result.output
    model = package.load_model("nucleus-student")
    spec = model.spec
    count = sum(array.size for array in load_file(model.folder / "weights.safetensors").values())
    for text in (
        spec.version,
        "efficientnet_lite0",
        f"{count / 1e6:.2f} M",
        model.hash,
        spec.licence,
        "24 to 40 px",
    ):
        assert text in result.output
    for text in (*spec.maps, *(line[:60] for line in spec.data), spec.parent, "min_score 0.85", "MB"):
        assert text in result.output
    assert "dsb2018-fluorescence: 67 images" in result.output
    assert "Limits" in result.output and "## Limits" not in result.output


@pytest.mark.parametrize("metrics", [{}, {"mine": 0.9}, {"mine": {"pq": [0.9]}}, {"mine": {"images": []}}])
def test_show_takes_foreign_metrics_and_control_characters(spots, tmp_path, metrics, own):
    folder = shutil.copytree(spots, tmp_path / "foreign")
    spec = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(spec | {"metrics": metrics, "licence": "a\x1b[2J[b]"}))
    (folder / "card.md").write_text("# Card\x1b]0;title\x07")
    result = run("show", folder)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output and "a[2J[b]" in result.output
    assert "metrics: " in result.output


def test_an_enhancer_is_installed_by_its_own_option(random_enhancer, own):
    result = run("install", random_enhancer)
    assert result.exit_code == 0 and "installed: --enhance drawer" in result.output


def test_an_export_is_installed_and_exported_again(spots, own, tmp_path):
    assert run("export", spots, "--format", "zip", "-o", tmp_path / "s.zip").exit_code == 0
    result = run("install", tmp_path / "s.zip")
    assert result.exit_code == 0 and "installed: --model spots" in result.output
    assert "spots" in run("list").output
    again = run("install", tmp_path / "s.zip")
    assert again.exit_code == 1 and "--overwrite" in again.output
    assert run("install", tmp_path / "s.zip", "--overwrite").exit_code == 0
    result = run("export", "spots", "--format", "torchscript", "-o", tmp_path / "s.pt")
    assert result.exit_code == 0 and "exported: " in result.output
    assert (tmp_path / "s.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "nothing"), "no model"),
        (("show", "Nucleus-Studnet"), "did you mean nucleus-student?"),
        (("remove", "nothing"), "no model 'nothing' is installed; installed are: none"),
        (("remove", "nucleus-student", "--yes"), "came with the program"),
        (("install", "nothing.zip"), "is not there"),
        (("export", "nothing", "--format", "zip", "-o", "x.zip"), "no model"),
        (("export", "nucleus-student", "--format", "onnx", "-o", "x.pt"), "must end in .onnx"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_message(own, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output.strip().splitlines()[-1]


def test_the_shipped_model_cannot_be_replaced(own):
    result = run("install", package.model_roots()[0] / "nucleus-student", "--overwrite")
    assert result.exit_code == 1 and "shipped" in result.output
    assert not list(own.iterdir())


def test_remove_asks_first(spots, own):
    assert run("install", spots).exit_code == 0

    def answered(text, *more):
        return CliRunner().invoke(
            app, ["models", "remove", "spots", *more], input=text, env={"COLUMNS": "300"}
        )

    for text in ("n\n", "\n"):
        kept = answered(text)
        assert (
            kept.exit_code == 0 and "Remove spots (" in kept.output and "Nothing was removed" in kept.output
        )
    nobody = answered("")
    assert nobody.exit_code == 2 and "add --yes" in nobody.output
    assert (own / "spots").is_dir()
    gone = answered("y\n")
    assert gone.exit_code == 0 and f"removed: {own / 'spots'}" in gone.output
    assert list(own.iterdir()) == []
    assert run("install", spots).exit_code == 0
    assert answered("", "--yes").exit_code == 0 and list(own.iterdir()) == []


def test_few_images_show_no_interval(spots, tmp_path, own):
    folder = shutil.copytree(spots, tmp_path / "foreign")
    spec = json.loads((folder / "model.json").read_text())
    metrics = {"two": {"images": [2.0], "pq": [0.71, 0.62, 0.83], "count_r2": [0.99, 0.98, 1.0]}}
    (folder / "model.json").write_text(json.dumps(spec | {"metrics": metrics}))
    said = run("show", folder).output
    assert "0.710" in said and "0.620" not in said and "0.99" not in said
    assert "No 95% intervals: 2 images say nothing of the spread" in said
