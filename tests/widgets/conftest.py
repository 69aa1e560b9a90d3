"""A napari viewer for the widgets; tests that need a display are skipped, visibly, where there is none."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from napari_nucleus_kd import workspace

_QT_FIXTURES = {"qtbot", "qapp", "make_napari_viewer", "viewer", "session"}


def _can_draw() -> bool:
    if os.environ.get("QT_QPA_PLATFORM", "") in ("offscreen", "minimal"):
        return False  # the canvas stays empty there
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY"))


def pytest_collection_modifyitems(items):
    here = os.path.dirname(__file__)
    for item in items:
        if not str(item.path).startswith(here):
            continue
        if not _can_draw() and _QT_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.skip(reason="needs a display; on Linux run it under xvfb-run"))


@pytest.fixture(autouse=True)
def preferences(tmp_path, monkeypatch):
    """Keep the preferences of the person who runs the tests out of them, and them out of the person's."""
    path = tmp_path / "config" / "preferences.json"
    monkeypatch.setattr(workspace, "preferences_path", lambda: path)
    return path


@pytest.fixture
def viewer():
    """A viewer without its window, which takes seconds to build; test_window.py has the real one."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def session(viewer, qtbot):
    """The session of `viewer`, with the classical method chosen: it needs no model."""
    from napari_nucleus_kd.widgets._session import session_of

    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical")
    yield session
    qtbot.waitUntil(lambda: not session.busy, timeout=30_000)


@pytest.fixture
def settle(qtbot):
    """Return a function that waits until no job runs."""

    def wait(session, seconds=60):
        qtbot.waitUntil(lambda: not session.busy, timeout=seconds * 1000)

    return wait


@pytest.fixture
def nuclei(draw):
    """(Y, X) uint8 picture of nuclei on dark, 182 x 208."""
    return draw(182, 208)[0]


@pytest.fixture
def nuclei_file(nuclei, tmp_path):
    """An OME-TIFF of `nuclei` in two channels at 0.5 um a pixel: DAPI and an empty CD3."""
    import tifffile

    path = tmp_path / "two channels.ome.tif"
    tifffile.imwrite(
        path,
        np.stack([nuclei, np.zeros_like(nuclei)]),
        metadata={
            "axes": "CYX",
            "Channel": {"Name": ["DAPI", "CD3"]},
            "PhysicalSizeX": 0.5,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
        },
    )
    return path


@pytest.fixture
def stack_file(nuclei, tmp_path):
    """A TIFF of seven z planes; plane 2 holds the nuclei, the others are dark."""
    import tifffile

    planes = np.zeros((7, *nuclei.shape), np.uint8)
    planes[2] = nuclei
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, planes, metadata={"axes": "ZYX"})
    return path
