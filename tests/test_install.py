"""Foreign packages: what is sound gets installed, whole; anything else leaves nothing behind."""

import json
import shutil
import stat
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from napari_nucleus_kd import install, package
from napari_nucleus_kd.errors import ModelError, SettingsError, WriteError
from napari_nucleus_kd.install import install_model, pack, remove_model
from napari_nucleus_kd.package import FILES, load_model


@pytest.fixture
def roots(monkeypatch, tmp_path):
    """The folders of shipped and of own models, both empty."""
    found = tmp_path / "shipped", tmp_path / "own"
    monkeypatch.setattr(package, "model_roots", lambda: found)
    monkeypatch.setattr(install, "model_roots", lambda: found)
    return found


@pytest.fixture
def copy(spots, tmp_path):
    """A package to damage."""
    return shutil.copytree(spots, tmp_path / "copy")


def zipped(path, files, folder="spots/"):
    """Write a zip file; `files` are (name, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(folder + name, content)
    return path


def contents(folder):
    return [(name, (folder / name).read_bytes()) for name in FILES]


def edit(folder, **changes):
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def left(root):
    return [path.name for path in root.iterdir()] if root.exists() else []


@pytest.mark.parametrize("form", ["folder", "zip", "zip without folder", "zip with more in it"])
def test_a_sound_package_is_installed_whole_and_found_by_its_name(spots, roots, tmp_path, form):
    source = spots
    if form == "zip":
        pack(spots, source := tmp_path / "spots.zip")
    elif form == "zip without folder":
        source = zipped(tmp_path / "s.zip", contents(spots), folder="")
    elif form == "zip with more in it":
        more = [("notes.txt", "x"), ("sub/model.json", "{}"), ("../model.json"[3:] + ".bak", "x")]
        source = zipped(tmp_path / "s.zip", contents(spots) + more)
    model = install_model(source)
    assert model == load_model("spots")
    assert sorted(left(model.folder)) == sorted(FILES) and left(roots[1]) == ["spots"]
    model.verify()
    assert all(file.stat().st_mode & stat.S_IRGRP for file in model.folder.iterdir())


def test_an_installed_model_is_replaced_only_on_purpose(make_model, spots, roots):
    before = install_model(spots)
    other = make_model(sharpness=9)
    with pytest.raises(WriteError, match=r"spots is installed in .*--overwrite"):
        install_model(other)
    assert load_model("spots") == before
    assert install_model(other, overwrite=True).hash != before.hash
    assert left(roots[1]) == ["spots"]


def test_a_model_in_a_folder_of_another_name_is_replaced_there(make_model, spots, roots):
    shutil.copytree(spots, roots[1] / "a-run")
    with pytest.raises(WriteError, match="a-run"):
        install_model(spots)
    new = install_model(make_model(sharpness=9), overwrite=True)
    assert left(roots[1]) == ["a-run"] and load_model("spots") == new


def test_a_folder_that_holds_something_else_stays(spots, roots):
    shutil.copytree(spots, roots[1] / "spots")
    edit(roots[1] / "spots", name="other")
    for overwrite in (False, True):
        with pytest.raises(WriteError, match="something else"):
            install_model(spots, overwrite=overwrite)
    assert load_model("other").folder == roots[1] / "spots"


@pytest.mark.parametrize("name", ["spots", "SPOTS"])
def test_the_name_of_a_shipped_model_is_refused(copy, spots, roots, name):
    shutil.copytree(spots, roots[0] / "spots")
    edit(copy, name=name)
    with pytest.raises(WriteError, match="shipped model"):
        install_model(copy, overwrite=True)
    assert left(roots[1]) == []


def wrong_hash(folder):
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def other_output(folder):
    pair = load_file(folder / "test.safetensors")
    save_file(pair | {"output": pair["output"] + 0.1}, folder / "test.safetensors")


def test_input(*shape):
    def change(folder):
        pair = load_file(folder / "test.safetensors")
        save_file(pair | {"input": np.zeros(shape, np.float32)}, folder / "test.safetensors")

    return change


test_input.__test__ = False  # its name is that of the thing it changes


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_hash, "SHA-256"),
        (other_output, "differs"),
        (test_input(1, 3, 33, 64), "multiples of 32"),
        (test_input(3, 64, 64), "must be"),
        (test_input(1, 3, 0, 0), "must be"),
        (lambda f: (f / "model.json").write_text("{"), "not JSON"),
        (lambda f: (f / "model.json").write_text(" " * 300_000), "model.json"),
        (lambda f: edit(f, name="../../evil"), "name: String should match pattern"),
        (lambda f: edit(f, maps=["foreground"]), "must be"),
        (lambda f: (f / "test.safetensors").unlink(), "test.safetensors is missing"),
        (lambda f: (f / "model.json").unlink(), "model.json is missing"),
    ],
)
@pytest.mark.parametrize("as_zip", [False, True])
def test_a_damaged_package_is_refused_by_file_and_rule(copy, roots, tmp_path, damage, message, as_zip):
    damage(copy)
    source = copy
    if as_zip:
        pack(copy, source := tmp_path / "copy.zip")
    with pytest.raises(ModelError, match=message) as caught:
        install_model(source)
    assert str(source) in str(caught.value) or "model.json" in str(caught.value)
    assert "partial" not in str(caught.value) and ".scratch-" not in str(caught.value)
    assert left(roots[1]) == []


def test_a_network_that_cannot_take_its_test_input_is_refused(save_network, tmp_path, roots):
    """multiple_px of the file says 1, the network needs 2."""
    from napari_nucleus_kd.networks.student import StudentConfig, build_student

    config = StudentConfig(widths=(4, 6), decoder_widths=(4,), head_width=4, maps=("foreground",))
    picture = np.zeros((3, 32, 32), np.float32)
    folder = save_network(tmp_path / "odd", build_student(config), config, picture, multiple_px=1)
    save_file(
        {"input": np.zeros((1, 3, 33, 33), np.float32), "output": np.zeros((1, 1, 33, 33), np.float32)},
        folder / "test.safetensors",
    )
    with pytest.raises(ModelError, match="cannot take its test input"):
        install_model(folder)


@pytest.mark.parametrize(
    "name", ["../model.json", "/model.json", "a/../../model.json", "..\\model.json", "C:/model.json"]
)
def test_a_zip_with_an_unsafe_name_is_refused(spots, roots, tmp_path, name):
    source = zipped(tmp_path / "s.zip", [(name, "{}"), *contents(spots)], folder="")
    with pytest.raises(ModelError, match="unsafe name"):
        install_model(source)
    assert left(roots[1]) == [] and sorted(left(tmp_path)) == ["own", "s.zip"]


def test_a_link_in_a_zip_is_refused(spots, roots, tmp_path):
    source = zipped(tmp_path / "s.zip", [c for c in contents(spots) if c[0] != "card.md"])
    link = zipfile.ZipInfo("spots/card.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match=r"card.md is a link"):
        install_model(source)
    assert left(roots[1]) == []


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(spots, roots, tmp_path, name, monkeypatch):
    monkeypatch.setattr(install, "_RATIO_FREE_BYTES", 2**20)
    files = [(n, b"\0" * 2**21 if n == name else data) for n, data in contents(spots)]
    monkeypatch.setattr(install, "_write_entry", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ModelError, match=rf"{name} unpacks from \d+ to 2097152 bytes"):
        install_model(zipped(tmp_path / "bomb.zip", sorted(files, key=lambda f: f[0] != name)))
    assert left(roots[1]) == []


def test_a_zip_that_lies_about_a_size_is_refused(spots, roots, tmp_path):
    """The directory says 3 bytes; the data is larger."""
    source = zipped(tmp_path / "s.zip", contents(spots))
    with zipfile.ZipFile(source) as archive:
        true = archive.getinfo("spots/card.md").file_size
    data = bytearray(source.read_bytes())
    at = data.rindex(b"spots/card.md") - 46 + 24  # of the uncompressed size in the central directory
    assert struct.unpack_from("<I", data, at) == (true,)
    struct.pack_into("<I", data, at, 3)
    source.write_bytes(data)
    with pytest.raises(ModelError, match=r"can be read|larger than"):
        install_model(source)
    assert left(roots[1]) == []


def cut(source):
    source.write_bytes(source.read_bytes()[:-200])


def garble(source):
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 0xFF
    source.write_bytes(data)


def encrypt(source):
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    source.write_bytes(data)


def unknown_method(source):
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\1\2") + 10] = 77
    source.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [cut, garble, encrypt, unknown_method, lambda s: s.write_bytes(b"no zip"), lambda s: s.unlink()]
)
def test_a_damaged_zip_is_one_clear_error(spots, roots, tmp_path, damage):
    pack(spots, source := tmp_path / "s.zip")
    damage(source)
    with pytest.raises(ModelError, match=r"s\.zip"):
        install_model(source)
    assert left(roots[1]) == []


def test_a_zip_must_hold_one_package(spots, roots, tmp_path):
    with pytest.raises(ModelError, match="no model packages"):
        install_model(zipped(tmp_path / "none.zip", [("picture.tif", "x")]))
    two = zipped(tmp_path / "two.zip", [(f"{f}/{n}", d) for f in "ab" for n, d in contents(spots)], folder="")
    with pytest.raises(ModelError, match="2 model packages"):
        install_model(two)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(tmp_path / "twice.zip", [*contents(spots), ("card.md", "another")])
    with pytest.raises(ModelError, match=r"card\.md twice"):
        install_model(twice)
    many = zipped(tmp_path / "many.zip", [(f"{i}.txt", "") for i in range(1001)])
    with pytest.raises(ModelError, match="1001 files"):
        install_model(many)


def test_a_disk_that_refuses_is_one_clear_error(spots, roots):
    roots[1].write_text("a file where the folder should be")
    with pytest.raises(WriteError, match="cannot be installed"):
        install_model(spots)


def test_the_folder_of_a_run_points_to_the_model_in_it(spots, roots, tmp_path):
    shutil.copytree(spots, tmp_path / "run/spots")
    (tmp_path / "run/log.csv").touch()
    for take in (install_model, load_model):
        with pytest.raises(
            ModelError, match=r"run is no model, but there is one in it; did you mean .*spots\?"
        ):
            take(tmp_path / "run")
    assert left(roots[1]) == []


@pytest.mark.parametrize("form", ["zip", "zip with a folder", "folder"])
@pytest.mark.parametrize("name", ["rdf.yaml", "bioimageio.yaml"])
def test_a_package_of_bioimageio_is_called_so(roots, tmp_path, form, name):
    files = [(name, "format_version: 0.5.4"), ("weights.onnx", "x")]
    source = tmp_path / "theirs"
    if form == "folder":
        source.mkdir()
        for file, text in files:
            (source / file).write_text(text)
    else:
        source = zipped(tmp_path / "theirs.zip", files, folder="" if form == "zip" else "model/")
    with pytest.raises(ModelError, match=r"theirs.* is a package for BioImage\.IO .* --format zip"):
        install_model(source)
    assert left(roots[1]) == []


@pytest.mark.parametrize("by", ["name", "folder"])
def test_an_installed_model_is_removed_and_nothing_else(make_model, spots, roots, by):
    install_model(make_model("other"))
    installed = install_model(spots).folder
    if by == "folder":
        installed = installed.rename(roots[1] / "a-run")
    assert remove_model("spots" if by == "name" else "a-run") == installed
    assert left(roots[1]) == ["other"] and load_model("other").verify() < 1e-3
    with pytest.raises(
        ModelError, match=r"no model 'othr' is installed; installed are: other; did you mean other\?"
    ):
        remove_model("othr")


def test_a_damaged_model_can_be_removed(spots, roots):
    install_model(spots)
    (roots[1] / "spots/model.json").write_text("{")
    remove_model("spots")
    assert left(roots[1]) == []


def test_shipped_models_and_folders_elsewhere_are_never_removed(copy, spots, roots, monkeypatch):
    shutil.copytree(spots, roots[0] / "spots")
    with pytest.raises(SettingsError, match="came with the program"):
        remove_model("spots")
    monkeypatch.chdir(copy.parent)
    for place in (str(copy), copy.name, str(roots[0] / "spots")):
        with pytest.raises(ModelError, match="not among the installed models"):
            remove_model(place)
    with pytest.raises(ModelError, match="no model"):
        remove_model("")
    assert sorted(left(copy)) == sorted(left(roots[0] / "spots")) == sorted(FILES)


def test_of_a_link_only_the_link_is_removed(copy, roots):
    roots[1].mkdir()
    (roots[1] / "spots").symlink_to(copy, target_is_directory=True)
    remove_model("spots")
    assert left(roots[1]) == [] and sorted(left(copy)) == sorted(FILES)


def test_what_a_link_in_a_model_points_to_stays(spots, roots, tmp_path):
    install_model(spots)
    (tmp_path / "card.md").write_text("precious")
    card = roots[1] / "spots/card.md"
    card.unlink()
    card.symlink_to(tmp_path / "card.md")
    remove_model("spots")
    assert left(roots[1]) == [] and (tmp_path / "card.md").read_text() == "precious"


def test_a_model_folder_with_something_else_in_it_stays(spots, roots):
    install_model(spots)
    (roots[1] / "spots/notes.txt").touch()
    (roots[1] / "spots/.DS_Store").touch()
    with pytest.raises(
        WriteError, match=r"holds notes\.txt, which is no part of a model; nothing was removed"
    ):
        remove_model("spots")
    assert load_model("spots").folder == roots[1] / "spots"
    (roots[1] / "spots/notes.txt").unlink()
    remove_model("spots")
    assert left(roots[1]) == []
