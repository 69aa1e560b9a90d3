"""The real Cellpose and StarDist: what comes back is what they find by themselves.

`tox run -e tools` installs them and runs this. By hand: NUCLEUS_KD_TEST_TOOLS=1 takes them from where
`nucleus-kd baselines` has them; NUCLEUS_KD_BASELINE_WEIGHTS names a folder with cellpose/cyto.pth and
stardist/dsb2018, and without it each learns from a few drawn nuclei first, for a minute or two.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from napari_nucleus_kd import baselines, segmenters
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.metrics import match, overlap

WEIGHTS = os.environ.get("NUCLEUS_KD_BASELINE_WEIGHTS")
KNOWN = {"cellpose": "cellpose/cyto.pth", "stardist": "stardist/dsb2018"}
LEARN = {
    "cellpose": """
import numpy as np, torch
from cellpose import models, train
torch.manual_seed(0)
model = models.CellposeModel(gpu=False, pretrained_model=False, diam_mean=18.0)
pictures = [np.stack([x, 0 * x]) for x in np.load("x.npy")]
train.train_seg(
    model.net, pictures, list(np.load("y.npy")), normalize=False, rescale=False, batch_size=4, bsize=64,
    n_epochs=80, nimg_per_epoch=8, learning_rate=0.001, SGD=False, min_train_masks=1, model_name="small",
)
""",
    "stardist": """
import numpy as np
from stardist.models import Config2D, StarDist2D
x, y = np.load("x.npy"), np.load("y.npy")
config = Config2D(
    n_rays=32, grid=(2, 2), unet_n_depth=2, train_patch_size=(96, 96), train_batch_size=8, train_epochs=3,
    train_steps_per_epoch=50, train_learning_rate=1e-3, train_tensorboard=False, train_shape_completion=False,
)
model = StarDist2D(config, name="small", basedir="models")
model.train(x[:-2], y[:-2], validation_data=(x[-2:], y[-2:]))
model.optimize_thresholds(x[-2:], y[-2:], nms_threshs=[0.4])
""",
}
OWN = {
    "cellpose": """
from cellpose.models import CellposeModel
model = CellposeModel(gpu=False, pretrained_model=sys.argv[1])
diameter = float(sys.argv[4]) or None
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


@pytest.fixture(scope="module", params=["cellpose", "stardist"])
def tool(request, draw, tmp_path_factory):
    """Return name, weights and interpreter of a tool."""
    name = request.param
    if "NUCLEUS_KD_TEST_TOOLS" not in os.environ:
        pytest.skip("run tox run -e tools")
    python = baselines.find(name).python
    if WEIGHTS is not None:
        return name, str(Path(WEIGHTS) / KNOWN[name]), python
    folder = tmp_path_factory.mktemp(name)
    drawn = [draw(160, 160, seed=seed) for seed in range(10, 18)]
    if name == "stardist":  # has no size of its own: it is to know the one that others are brought to
        drawn[::2] = [draw(160, 160, seed, (10.0, 15.0), 36) for seed in range(4)]
    np.save(folder / "x.npy", np.stack([pixels.astype(np.float32) / 255 for pixels, _ in drawn]))
    np.save(folder / "y.npy", np.stack([labels for _, labels in drawn]))
    subprocess.run([str(python), "-c", LEARN[name]], check=True, capture_output=True, cwd=folder)
    return name, str(folder / "models" / "small"), python


@pytest.mark.parametrize("diameter", [None, 20.0])
def test_it_finds_what_the_tool_finds_by_itself(tool, diameter, draw, tmp_path):
    name, weights, python = tool
    pixels, truth = draw(159, 201)
    picture = np.repeat(pixels[None].astype(np.float32) / 255, 3, axis=0)
    segmenter = segmenters.load(name, Recipe(segmenter=name, weights=weights, device="cpu"))
    found = segmenter.decode(segmenter.maps(picture, diameter), segmenter.decode_defaults)
    scores = match(overlap(truth, found.labels))
    assert scores.pq > 0.6, scores
    np.save(tmp_path / "x.npy", picture)
    script = f"import sys, numpy as np; x = np.load(sys.argv[2])\n{OWN[name]}\nnp.save(sys.argv[3], labels)"
    size = segmenter._about.diameter_px or 0
    seen = 0 if diameter is None else size / segmenter._enlarged(diameter)
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
