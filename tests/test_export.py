"""Real exports of the shipped model, run by the programs they are for, at sizes it was not traced at."""

import sys
import zipfile

import numpy as np
import pytest
import torch

from napari_nucleus_kd import export, package
from napari_nucleus_kd._cli_options import ModelFormat
from napari_nucleus_kd.errors import ModelError, SettingsError, WriteError
from napari_nucleus_kd.export import FORMATS, export_steps
from napari_nucleus_kd.install import install_model
from napari_nucleus_kd.package import load_model
from napari_nucleus_kd.types import finish


@pytest.fixture(scope="session")
def shipped():
    return load_model("nucleus-student")


@pytest.fixture(scope="session")
def network(shipped):
    """The network, as a function of arrays."""
    torch_network = shipped.network()

    def run(batch):
        with torch.inference_mode():
            return torch_network(torch.from_numpy(batch)).numpy()

    return run


@pytest.fixture(scope="session")
def bioimageio_package(shipped, tmp_path_factory):
    """One export for several tests, to a relative path: ONNX takes seconds."""
    pytest.importorskip("bioimageio.spec")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finish(export_steps(shipped, "zoo.zip", "bioimageio"))
    return folder / "zoo.zip"


def batches():
    rng = np.random.default_rng(0)
    return [rng.random(shape, np.float32) for shape in ((1, 3, 96, 256), (3, 3, 64, 32))]


def test_the_command_line_offers_every_format():
    assert set(FORMATS) == set(ModelFormat)


def test_a_zip_can_be_installed_and_is_the_same_model(spots, tmp_path, monkeypatch):
    model, steps = load_model(spots), []
    for step in export_steps(model, tmp_path / "new" / "spots.zip", "zip"):
        steps.append((step.done, step.total))
    assert steps == sorted(steps) and steps[-1] == (3, 3)
    with zipfile.ZipFile(tmp_path / "new" / "spots.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"spots"}
    own = tmp_path / "own"
    monkeypatch.setattr("napari_nucleus_kd.install.model_roots", lambda: (tmp_path / "none", own))
    monkeypatch.setattr(package, "model_roots", lambda: (tmp_path / "none", own))
    again = install_model(tmp_path / "new" / "spots.zip")
    assert (again.spec, again.hash, again.card) == (model.spec, model.hash, model.card)
    assert again.verify() == model.verify()


def test_torchscript_takes_any_batch_height_and_width(shipped, network, tmp_path):
    path = finish(export_steps(shipped, tmp_path / "model.pt", "torchscript"))
    extra = {"model.json": ""}
    with pytest.warns(DeprecationWarning, match="torch.jit.load"):
        loaded = torch.jit.load(path, _extra_files=extra)
    assert package.ModelSpec.model_validate_json(extra["model.json"]) == shipped.spec
    with torch.inference_mode():
        for batch in batches():
            np.testing.assert_allclose(loaded(torch.from_numpy(batch)), network(batch), atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_openvino_takes_any_batch_height_and_width(shipped, network, tmp_path):
    openvino = pytest.importorskip("openvino")
    path = finish(export_steps(shipped, tmp_path / "model", "openvino"))
    assert sorted(file.name for file in path.iterdir()) == ["nucleus-student.bin", "nucleus-student.xml"]
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    loaded = openvino.Core().compile_model(path / "nucleus-student.xml", "CPU", options)
    for batch in batches():
        np.testing.assert_allclose(loaded({"input": batch})["output"], network(batch), atol=1e-3)


def test_an_openvino_folder_is_replaced_only_if_it_is_one(spots, tmp_path):
    pytest.importorskip("openvino")
    model, path = load_model(spots), tmp_path / "model"
    finish(export_steps(model, path, "openvino"))
    with pytest.raises(WriteError, match="exists"):
        finish(export_steps(model, path, "openvino"))
    finish(export_steps(model, path, "openvino", overwrite=True))
    (path / "notes.txt").write_text("mine")
    with pytest.raises(WriteError, match="something else"):
        finish(export_steps(model, path, "openvino", overwrite=True))
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_onnx_is_one_file_that_says_what_it_is(spots, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = load_model(spots)
    path = finish(export_steps(model, tmp_path / "spots.onnx", "onnx"))
    onnx.checker.check_model(path, full_check=True)
    described = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert package.ModelSpec.model_validate_json(described["model.json"]) == model.spec
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    spots_network = model.network()
    for batch in batches():
        with torch.inference_mode():
            expected = spots_network(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(session.run(["output"], {"input": batch})[0], expected, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["spots.onnx"]


def test_the_onnx_of_the_shipped_model_takes_any_batch_height_and_width(bioimageio_package, network):
    runtime = pytest.importorskip("onnxruntime")
    with zipfile.ZipFile(bioimageio_package) as archive:
        session = runtime.InferenceSession(archive.read("weights.onnx"), providers=["CPUExecutionProvider"])
    for batch in batches():
        np.testing.assert_allclose(session.run(None, {"input": batch})[0], network(batch), atol=1e-3)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # left open by bioimageio
def test_the_bioimageio_package_says_what_the_model_says(bioimageio_package, shipped):
    from bioimageio.spec import load_model_description

    described = load_model_description(bioimageio_package)
    assert described.format_version.startswith("0.5.")
    assert str(described.license) == "BSD-3-Clause" and str(described.version) == shipped.spec.version
    assert [author.name for author in described.authors] == ["napari-nucleus-kd developers"]
    assert {str(paper.doi) for paper in described.cite} >= {"10.1038/s41592-019-0612-7"}
    y = described.inputs[0].axes[2]
    assert (y.id, y.size.min, y.size.step) == ("y", 32, 32)
    assert tuple(described.outputs[0].axes[1].channel_names) == shipped.spec.maps
    assert described.config.nucleus_kd["decode"] == shipped.spec.decode.model_dump()
    scaling = next(step for step in described.inputs[0].preprocessing if step.id == "scale_range")
    assert (scaling.kwargs.min_percentile, scaling.kwargs.max_percentile) == shipped.spec.percentiles
    with zipfile.ZipFile(bioimageio_package) as archive:
        readme = archive.read("README.md").decode()
    assert readme.startswith(shipped.card.rstrip()) and "Where it differs" in readme


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.load:DeprecationWarning")
def test_bioimageio_core_runs_the_package_and_agrees(bioimageio_package):
    """Its own preprocessing, both networks, several sizes and batches."""
    core = pytest.importorskip("bioimageio.core")
    summary = core.test_model(bioimageio_package, devices=["cpu"])
    assert summary.status == "passed", summary.format()
    assert sum("Reproduce test outputs" in detail.name for detail in summary.details) == 2


@pytest.mark.parametrize(
    ("file_format", "library"),
    [
        ("onnx", "onnxscript"),
        ("onnx", "onnxruntime"),
        ("openvino", "openvino"),
        ("bioimageio", "bioimageio.spec"),
    ],
)
def test_a_missing_library_is_named_with_the_command(spots, tmp_path, monkeypatch, file_format, library):
    monkeypatch.setitem(sys.modules, library, None)
    suffix = FORMATS[file_format][0]
    with pytest.raises(SettingsError, match=rf"needs {library}.*pip install 'napari-nucleus-kd\[export\]'"):
        finish(export_steps(load_model(spots), tmp_path / f"x{suffix}", file_format))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "file_format", "message"),
    [
        ("x.zip", "keras", "unknown format 'keras'"),
        ("x.zip", "torchscript", r"must end in \.pt"),
        ("x.pt", "zip", r"must end in \.zip"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(spots, tmp_path, name, file_format, message):
    with pytest.raises(SettingsError, match=message):
        finish(export_steps(load_model(spots), tmp_path / name, file_format))
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_only_on_purpose(spots, tmp_path):
    path, model = tmp_path / "x.zip", load_model(spots)
    path.write_text("mine")
    with pytest.raises(WriteError, match=r"exists; .*--overwrite"):
        finish(export_steps(model, path, "zip"))
    assert path.read_text() == "mine"
    finish(export_steps(model, path, "zip", overwrite=True))
    assert zipfile.is_zipfile(path)
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(WriteError, match="something else"):
        finish(export_steps(model, tmp_path / "folder.pt", "torchscript", overwrite=True))
    with pytest.raises(WriteError, match="cannot be written"):
        finish(export_steps(model, path / "below.zip", "zip"))


def test_an_export_that_gives_another_output_gets_no_name(spots, tmp_path, monkeypatch):
    def save_wrongly(network, model, target):
        target.write_text("wrong")
        return lambda batch: np.full((len(batch), 5, *batch.shape[2:]), 0.7, np.float32)

    monkeypatch.setitem(export._WRITERS, "torchscript", (save_wrongly, 2e-3))
    with pytest.raises(ModelError, match="spots as torchscript: the test output differs"):
        finish(export_steps(load_model(spots), tmp_path / "x.pt", "torchscript"))
    assert not list(tmp_path.iterdir())


def test_a_converter_that_fails_is_one_clear_error(spots, tmp_path, monkeypatch):
    def fail(network, model, target):
        raise KeyError("no such operator")

    monkeypatch.setitem(export._WRITERS, "torchscript", (fail, 2e-3))
    with pytest.raises(ModelError, match=r"spots cannot be converted to torchscript: .*operator"):
        finish(export_steps(load_model(spots), tmp_path / "x.pt", "torchscript"))
    assert not list(tmp_path.iterdir())


def test_a_cancelled_export_leaves_nothing(spots, tmp_path):
    steps = export_steps(load_model(spots), tmp_path / "x.pt", "torchscript")
    next(steps), next(steps)
    steps.close()
    assert not list(tmp_path.iterdir())
