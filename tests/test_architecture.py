"""The rules of the layout: which module may import which, and what the bare package loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import napari_nucleus_kd

ROOT = Path(napari_nucleus_kd.__file__).parent
NAME = ROOT.name
GROUPS = {
    0: {"types", "errors", "config", "words"},
    1: {
        "apart",
        "baselines",
        "io",
        "channels",
        "modality",
        "panel",
        "instances",
        "tiling",
        "metrics",
        "mistakes",
        "measure",
        "cells",
        "compartments",
        "edit",
        "faults",
        "index",
        "pairs",
        "folders",
        "review",
        "simulate",
        "stains",
        "ideal",
        "project",
    },
    2: {"networks", "package", "engine", "join", "install", "versions", "export", "export_bioimageio"},
    3: {"segmenters"},
    4: {
        "mappings",
        "enhancer",
        "job",
        "ondisk",
        "pipeline",
        "add",
        "train",
        "compare",
        "workspace",
        "evaluate",
    },
    5: {"cli", "demo", "widgets"},
}
GROUP_OF = {part: group for group, parts in GROUPS.items() for part in parts}
GUI = {"napari", "qtpy", "magicgui", "superqt", "PySide6", "PyQt6", "PyQt5"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def part(module_path):
    """First name below the package: the module, or the folder it is in. _cli_x belongs to cli."""
    first = module_path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "cli" if first.startswith("_cli") else first


def imports(path):
    """Yield dotted names of all imports, wherever in the file; not those for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_its_own_group_or_an_earlier_one(path):
    assert part(path) in GROUP_OF, f"{path.name} is in no group; add it to GROUPS and to the design"
    own = GROUP_OF[part(path)]
    for name in imports(path):
        pieces = name.split(".")
        if (
            pieces[0] == NAME
            and len(pieces) > 1
            and (ROOT / pieces[1]).with_suffix(".py").exists() | (ROOT / pieces[1]).is_dir()
        ):
            target = "cli" if pieces[1].startswith("_cli") else pieces[1]
            assert GROUP_OF[target] <= own, f"{path.name} (group {own}) imports {name}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if part(p) != "widgets"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_only_widgets_know_the_gui(path):
    found = {name for name in imports(path) if name.split(".")[0] in GUI}
    assert not found, f"{path.name} imports {found}"


def test_only_readers_tiling_and_widgets_may_use_dask():
    users = {part(p) for p in MODULES if any(n.split(".")[0] == "dask" for n in imports(p))}
    assert users <= {"io", "tiling", "widgets"}


def test_the_bare_package_is_quick_and_loads_nothing_heavy():
    code = (
        "import time; t = time.process_time(); import napari_nucleus_kd; t = time.process_time() - t;"
        "import sys; print(t); print(*{m.split('.')[0] for m in sys.modules})"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    heavy = {"torch", "numpy", "dask", "skimage", "scipy", "zarr", "openvino", "pydantic", *GUI}
    assert not heavy & set(runs[0].split())
    assert min(float(run.splitlines()[0]) for run in runs) < 0.2  # of processor time: machines are busy


def test_the_public_names_are_there():
    for name in napari_nucleus_kd.__all__:
        assert getattr(napari_nucleus_kd, name) is not None
    assert set(napari_nucleus_kd.__all__) <= set(dir(napari_nucleus_kd))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        napari_nucleus_kd.nope  # noqa: B018
