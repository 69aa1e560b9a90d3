"""Versions of a model: each has a number of its own, none is replaced, and each can be the newest again."""

import json
import threading

import pytest

from napari_nucleus_kd import package
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.package import ModelSpec, load_model
from napari_nucleus_kd.versions import add_version, base_name, restore, versions


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Folder of installed models."""
    folders = package.model_roots()[0], tmp_path / "installed"
    monkeypatch.setattr(package, "model_roots", lambda: folders)
    monkeypatch.setattr("napari_nucleus_kd.versions.model_roots", lambda: folders)
    return folders[1]


@pytest.mark.parametrize(
    ("name", "parent", "base"),
    [
        ("mine", None, "mine"),
        ("mine-1", "mine", "mine"),
        ("mine-12", "mine-3", "mine"),
        ("cells-2024", None, "cells-2024"),
        ("cells-2024-1", "cells-2024", "cells-2024"),
        ("cells-2024-2", "cells-2024-1", "cells-2024"),
        ("cells-2024", "other", "cells-2024"),
        ("x" * 64, None, "x" * 57),
    ],
)
def test_a_version_goes_back_to_a_model(name, parent, base):
    spec = ModelSpec(
        name=name, version="1", architecture="student", maps=("a",), diameter_px=20, size_range=(10, 40),
        parent=parent,
    )  # fmt: skip
    assert base_name(spec) == base


def test_of_those_that_add_at_once_each_gets_its_own_number(spots, own):
    added = []
    threads = [
        threading.Thread(target=lambda: added.append(add_version(spots, "spots", parent="spots")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    names = [f"spots-{i}" for i in (1, 2, 3, 4)]
    assert sorted(model.spec.name for model in added) == names == sorted(p.name for p in own.iterdir())
    assert [model.spec.name for model in versions("spots-3")] == names


def test_nothing_that_is_there_is_replaced(spots, own):
    (own / "spots-1").mkdir(parents=True)
    (own / "spots-1/mine.txt").write_text("mine")
    assert add_version(spots, "spots").folder == own / "spots-2"
    (own / "spots-2/weights.safetensors").write_bytes(b"damaged")
    third = add_version(spots, "spots", "## Said\n\nMore.\n")
    assert third.folder == own / "spots-3" and (own / "spots-1/mine.txt").read_text() == "mine"
    assert third.card == "# spots-3\n\n## Said\n\nMore.\n"
    assert load_model("spots-3").verify() < 1e-3
    spec = json.loads((spots / "model.json").read_text())
    assert spec["name"] == "spots", "what was copied is as it was"


def test_the_first_one_can_be_brought_back(spots, own):
    add_version(spots, "spots", parent="spots")
    original = load_model("spots-1")
    add_version(spots, "spots", parent="spots-1")
    again = restore("spots-1")
    assert (again.spec.name, again.spec.parent, again.hash) == ("spots-3", "spots-1", original.hash)
    assert "a copy of spots-1" in again.card
    assert restore("spots-3").folder == again.folder and len(versions("spots-2")) == 3
    shipped = restore("nucleus-student")
    assert shipped.spec.name == "nucleus-student", "it is the only version"


def test_a_damaged_package_becomes_no_version(spots, own, tmp_path):
    (tmp_path / "bad").mkdir()
    for file in spots.iterdir():
        (tmp_path / "bad" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bad/weights.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError):
        add_version(tmp_path / "bad", "bad")
    assert list(own.iterdir()) == []
