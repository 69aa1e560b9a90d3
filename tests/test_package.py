import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from napari_nucleus_kd import package
from napari_nucleus_kd.errors import ModelError, WriteError
from napari_nucleus_kd.package import list_models, load_model, save_model, survey_models


@pytest.fixture
def copy(spots, tmp_path):
    """A package to damage."""
    return shutil.copytree(spots, tmp_path / "copy")


def edit(folder, **changes):
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_package_holds_four_readable_files_and_gives_its_own_output(spots):
    assert sorted(f.name for f in spots.iterdir()) == [
        "card.md",
        "model.json",
        "test.safetensors",
        "weights.safetensors",
    ]
    model = load_model(spots)
    assert model.verify() < 1e-5
    assert model.card == "# Spots" and model.spec.name == "spots" and len(model.hash) == 64
    assert all(f.stat().st_mode & 0o044 for f in spots.iterdir())


def test_half_precision_weights_are_half_as_large_and_come_back_in_float32(make_model):
    folder = make_model(name="half", half=True)
    assert {a.dtype for a in load_file(folder / "weights.safetensors").values()} == {np.dtype("float16")}
    model = load_model(folder)
    assert {str(p.dtype) for p in model.network().parameters()} == {"torch.float32"}
    model.verify()


def test_the_same_network_has_the_same_hash(make_model, spots):
    assert load_model(make_model()).hash == load_model(spots).hash


def test_the_students_package_round_trips(save_network, tmp_path):
    import torch

    from napari_nucleus_kd.instances import MAP_NAMES
    from napari_nucleus_kd.networks.student import StudentConfig, build_student

    config = StudentConfig(widths=(4, 6, 8), decoder_widths=(4, 6), head_width=4)
    network = build_student(config).eval()
    image = np.random.default_rng(0).random((3, 64, 96), np.float32)
    model = load_model(save_network(tmp_path / "tiny", network, config, image, data=("some",)))
    assert (model.spec.name, model.spec.maps, model.spec.data) == ("tiny", MAP_NAMES, ("some",))
    assert StudentConfig.model_validate(model.spec.options) == config
    with torch.inference_mode():
        batch = torch.from_numpy(image[None])
        torch.testing.assert_close(model.network()(batch), network(batch))


def test_an_existing_package_is_replaced_only_on_purpose(spots_architecture, copy):
    network, config = spots_architecture
    spec, before = load_model(copy).spec, load_model(copy).hash
    new = network(config(sharpness=9))
    picture = np.zeros((3, 32, 32), np.float32)
    with pytest.raises(WriteError, match="exists"):
        save_model(copy, new, spec, "", picture)
    assert load_model(copy).hash == before
    save_model(copy, new, spec, "", picture, overwrite=True)
    assert load_model(copy).hash != before
    assert [f.name for f in copy.parent.iterdir()] == ["copy"]


def test_nothing_is_left_of_a_package_that_could_not_be_written(spots_architecture, spots, tmp_path):
    network, config = spots_architecture
    spec = load_model(spots).spec.model_copy(update={"maps": ("foreground",)})
    with pytest.raises(ModelError, match="gives 5 maps"):
        save_model(tmp_path / "bad", network(config()), spec, "", np.zeros((3, 32, 32), np.float32))
    assert not list(tmp_path.iterdir())


def damage_weights(folder):
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def other_shape(folder):
    save_file({"see.weight": np.zeros((2, 2), np.float32)}, folder / "weights.safetensors")
    edit(folder, weights_sha256=package.sha256(folder / "weights.safetensors"))


def foreign_bytes(folder):
    (folder / "weights.safetensors").write_bytes(b"\xff" * 4096)
    edit(folder, weights_sha256=package.sha256(folder / "weights.safetensors"))


def other_output(folder):
    pair = load_file(folder / "test.safetensors")
    save_file(pair | {"output": pair["output"] + 0.01}, folder / "test.safetensors")


def nan_output(folder):
    pair = load_file(folder / "test.safetensors")
    save_file(pair | {"output": pair["output"] * np.float32(np.nan)}, folder / "test.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, "SHA-256"),
        (other_shape, "do not fit"),
        (foreign_bytes, "not a safetensors file"),
        (other_output, "differs"),
        (nan_output, "differs"),
        (lambda f: (f / "weights.safetensors").unlink(), "missing"),
        (lambda f: (f / "test.safetensors").write_bytes(b""), "not a safetensors file"),
        (lambda f: save_file({"x": np.zeros(1)}, f / "test.safetensors"), "must hold"),
        (lambda f: (f / "model.json").write_text("{"), "not JSON"),
        (lambda f: (f / "model.json").write_text("[]"), "one JSON object"),
        (lambda f: (f / "model.json").write_text("[" * 100_000), "not JSON"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda f: (f / "model.json").write_text(" " * 300_000), "more than"),
        (lambda f: edit(f, architecture="evil.module:run"), "unknown architecture"),
        (lambda f: edit(f, options={"nonsense": 1}), "options do not fit"),
        (lambda f: edit(f, surprise=1), "surprise"),
        (lambda f: edit(f, diameter_px="wide"), "diameter_px"),
    ],
)
def test_damaged_and_foreign_packages_are_refused_in_words(copy, damage, message):
    damage(copy)
    with pytest.raises(ModelError, match=message):
        load_model(copy).verify()


def test_options_that_ask_for_terabytes_are_refused_without_taking_them(copy, spots_architecture):
    edit(copy, architecture="student", options={"widths": [10**6, 10**6], "decoder_widths": [10**6]})
    with pytest.raises(ModelError, match=r"do not fit|options"):
        load_model(copy).network()


def test_names_are_looked_up_in_shipped_then_own_models(copy, monkeypatch, tmp_path):
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    monkeypatch.setattr(package, "model_roots", lambda: (shipped, own))
    with pytest.raises(ModelError, match=r"no model 'spots'.*\(none\)"):
        load_model("spots")
    shutil.copytree(copy, own / "spots")
    assert load_model("spots").folder == own / "spots"
    shutil.copytree(copy, shipped / "spots")
    assert load_model("spots").folder == shipped / "spots"
    (own / "broken").mkdir()
    (own / "broken" / "model.json").write_text("{")
    assert [m.folder for m in list_models()] == [shipped / "spots"]
    with pytest.raises(ModelError, match="broken, spots"):
        load_model("nothing")
    models, damaged = survey_models()
    assert models == list_models()
    assert list(damaged) == [own / "broken"] and "not JSON" in damaged[own / "broken"]
    with pytest.raises(ModelError, match="not JSON"):
        load_model("broken")


def test_a_model_is_loaded_by_the_name_that_is_shown_and_by_its_folders(copy, monkeypatch, tmp_path):
    own = tmp_path / "own"
    monkeypatch.setattr(package, "model_roots", lambda: (tmp_path / "shipped", own))
    shutil.copytree(copy, own / "a-run")
    shutil.copytree(copy, own / "spots")
    edit(own / "spots", name="other")
    for model in list_models():
        assert load_model(model.spec.name) == model
    assert load_model("a-run").folder == own / "a-run"
    assert load_model("spots").folder == own / "a-run"
    with pytest.raises(ModelError, match=r"\(other, spots\)"):
        load_model("nothing")


def test_a_package_stays_if_its_successor_cannot_take_its_place(spots_architecture, copy, monkeypatch):
    network, config = spots_architecture
    before, rename = load_model(copy), Path.rename

    def refuse(self, target):
        if target == copy and not self.name.endswith("-old"):
            raise PermissionError("held open")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    picture = np.zeros((3, 32, 32), np.float32)
    with pytest.raises(PermissionError):
        save_model(copy, network(config(sharpness=9)), before.spec, "", picture, overwrite=True)
    assert load_model(copy) == before
    assert [f.name for f in copy.parent.iterdir()] == ["copy"]


def test_a_misspelt_name_or_place_is_asked_for(spots, tmp_path):
    with pytest.raises(ModelError, match=r"no model 'nucleus_studnet': .*; did you mean nucleus-student\?$"):
        load_model("nucleus_studnet")
    shutil.copytree(spots, tmp_path / "my-nuclei")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "my-nucleii")
    assert str(caught.value).endswith(f"; did you mean {tmp_path / 'my-nuclei'}?")
    with pytest.raises(ModelError) as caught:
        load_model("stardist")
    assert "did you mean" not in str(caught.value)


def test_a_zip_file_given_as_a_model_asks_for_install(tmp_path):
    (tmp_path / "m.zip").touch()
    with pytest.raises(
        ModelError, match=r"m\.zip is a file; a model is a folder\. nucleus-kd models install"
    ):
        load_model(tmp_path / "m.zip")
