"""The real Cellpose and StarDist: what comes back is what they find by themselves.

Where a tool is not in this environment, NUCLEUS_KD_CELLPOSE_PYTHON and NUCLEUS_KD_STARDIST_PYTHON name an
interpreter that has it; NUCLEUS_KD_BASELINE_WEIGHTS names a folder with cellpose/cyto.pth and
stardist/dsb2018.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from napari_nucleus_kd import baselines, segmenters
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import BaselineError, ModelError
from napari_nucleus_kd.metrics import match, overlap

WEIGHTS = Path(os.environ.get("NUCLEUS_KD_BASELINE_WEIGHTS", "baselines"))
OWN = {
    "cellpose": """
from cellpose.models import CellposeModel
model = CellposeModel(gpu=False, pretrained_model=sys.argv[1])
diameter = float(sys.argv[4]) or model.diam_mean
labels = model.eval(x.mean(0), channels=[0, 0], normalize=False, diameter=diameter, min_size=15)[0]
""",
    "stardist": """
import os
from stardist.models import StarDist2D
folder = os.path.abspath(sys.argv[1])
model = StarDist2D(None, name=os.path.basename(folder), basedir=os.path.dirname(folder))
labels = model.predict_instances(x.mean(0))[0]
""",
}


def python_with(name):
    named = os.environ.get(f"NUCLEUS_KD_{name.upper()}_PYTHON")
    try:
        return baselines.use(name, Path(named or sys.executable)).python
    except BaselineError as error:
        if named:
            raise
        pytest.skip(f"{name}: {error}")


@pytest.fixture(
    params=[("cellpose", "cellpose/cyto.pth"), ("stardist", "stardist/dsb2018")], ids=lambda p: p[0]
)
def tool(request, monkeypatch, tmp_path):
    """Return name, weights and interpreter of a tool that is there."""
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_, **__: tmp_path / "home")
    name, place = request.param
    python = python_with(name)
    if not (WEIGHTS / place).exists():
        pytest.skip(f"no weights of {name} in {WEIGHTS}")
    return name, str(WEIGHTS / place), python


@pytest.mark.parametrize("diameter", [None, 20.0])
def test_it_finds_what_the_tool_finds_by_itself(tool, diameter, draw, tmp_path):
    name, weights, python = tool
    pixels, truth = draw(160, 200)
    picture = np.repeat(pixels[None].astype(np.float32) / 255, 3, axis=0)
    segmenter = segmenters.load(name, Recipe(segmenter=name, weights=weights, device="cpu"))
    found = segmenter.decode(segmenter.maps(picture, diameter), segmenter.decode_defaults)
    scores = match(overlap(truth, found.labels))
    assert scores.pq > 0.6, scores
    np.save(tmp_path / "x.npy", picture)
    script = f"import sys, numpy as np; x = np.load(sys.argv[2])\n{OWN[name]}\nnp.save(sys.argv[3], labels)"
    seen = 0 if diameter is None else segmenter.default_diameter_px / segmenter._enlarged(diameter)
    arguments = [weights, str(tmp_path / "x.npy"), str(tmp_path / "own.npy"), str(seen)]
    subprocess.run([str(python), "-c", script, *arguments], check=True, capture_output=True)
    own = np.load(tmp_path / "own.npy").astype(np.int32)
    same = match(overlap(own, found.labels))
    assert same.f1 > 0.97 and same.sq > 0.97, same


@pytest.mark.parametrize(("radius", "spacing", "diameter"), [((3, 4), 12, 6.5), ((40, 50), 120, 85.0)])
def test_nuclei_of_other_sizes_are_brought_to_the_tools(tool, radius, spacing, diameter, draw):
    name, weights, _ = tool
    pixels, truth = draw(480 if diameter > 50 else 120, 480 if diameter > 50 else 150, 0, radius, spacing)
    picture = np.repeat(pixels[None].astype(np.float32) / 255, 3, axis=0)
    segmenter = segmenters.load(name, Recipe(segmenter=name, weights=weights, device="cpu"))
    found = segmenter.decode(segmenter.maps(picture, diameter), segmenter.decode_defaults)
    scores = match(overlap(truth, found.labels))
    assert scores.pq > 0.5, scores
    same = np.unique(found.labels[found.labels > 0])
    for number in same[:20]:  # neither drifts to a side
        y, x = np.argwhere(found.labels == number).mean(0)
        under = truth[round(y), round(x)]
        if under:
            assert np.abs(np.argwhere(truth == under).mean(0) - (y, x)).max() < 0.15 * diameter


def test_wrong_weights_are_refused_with_what_there_is(tool, tmp_path):
    name, _, _ = tool
    for weights in ("no-such-model", str(tmp_path)):
        with pytest.raises(ModelError, match=r"which (Cellpose|StarDist) downloads itself"):
            segmenters.load(name, Recipe(segmenter=name, weights=weights))
