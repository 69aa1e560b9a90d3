import time

import numpy as np
import pytest
from skimage.measure import regionprops_table

from napari_nucleus_kd.errors import LabelsError, SettingsError
from napari_nucleus_kd.measure import features


def test_agrees_with_scikit_image(draw):
    pixels, labels = draw(700, 200)
    labels[labels == 5] = 0  # a gap
    stack = np.stack([pixels, 255 - pixels])
    ours = features(labels, stack, channel_names=["DAPI", "CD3"], pixel_size_um=0.5)
    theirs = regionprops_table(
        labels,
        np.moveaxis(stack, 0, -1),
        properties=("label", "area", "eccentricity", "major_axis_length", "centroid", "mean_intensity"),
    )
    np.testing.assert_array_equal(ours["label"], theirs["label"])
    np.testing.assert_allclose(ours["area_um2"], theirs["area"] / 4)
    np.testing.assert_allclose(ours["diameter_um"], np.sqrt(theirs["area"] / np.pi))
    np.testing.assert_allclose(ours["eccentricity"], theirs["eccentricity"], atol=1e-6)
    np.testing.assert_allclose(ours["major_axis_um"], theirs["major_axis_length"] / 2)
    np.testing.assert_allclose(ours["centroid_y"], theirs["centroid-0"])
    np.testing.assert_allclose(ours["centroid_x"], theirs["centroid-1"])
    np.testing.assert_allclose(ours["mean DAPI"], theirs["mean_intensity-0"])
    np.testing.assert_allclose(ours["mean CD3"], theirs["mean_intensity-1"])


def test_scores_follow_labels_with_gaps():
    labels = np.array([[0, 1, 1], [4, 4, 2]])
    out = features(labels, scores=np.array([0.1, 0.2, 0.3], np.float32))
    assert out["label"].tolist() == [1, 2, 4]
    np.testing.assert_allclose(out["score"], [0.1, 0.2, np.nan])


@pytest.mark.parametrize(("dtype", "large"), [(np.int64, 2**40), (np.uint64, 2**62), (np.uint32, 2**32 - 1)])
def test_memory_does_not_go_with_the_largest_label(dtype, large):
    labels = np.array([[0, 7, 7], [large, large, large], [3, 0, 0]], dtype)
    labels.setflags(write=False)
    out = features(labels, np.arange(9.0).reshape(1, 3, 3), scores=np.array([0.1, 0.2, 0.3], np.float32))
    assert out["label"].tolist() == [3, 7, large]
    assert out["area_px2"].tolist() == [1, 2, 3]
    assert out["mean channel 1"].tolist() == [6, 1.5, 4]
    np.testing.assert_allclose(out["score"], [0.3, np.nan, np.nan])


def test_no_nuclei_give_empty_columns():
    out = features(np.zeros((9, 9), int), np.zeros((1, 9, 9)), scores=np.zeros(0, np.float32))
    assert {len(column) for column in out.values()} == {0}
    assert {"label", "area_px2", "mean channel 1", "score"} <= set(out)


def test_one_pixel_is_a_circle():
    out = features(np.eye(1, dtype=int))
    assert out["eccentricity"] == 0 and out["area_px2"] == 1


def test_lazy_pixels_give_the_same(draw):
    dask = pytest.importorskip("dask.array")
    pixels, labels = draw(600, 100)
    lazy = dask.from_array(pixels[None], chunks=(1, 100, 100))
    np.testing.assert_array_equal(
        features(labels, lazy)["mean channel 1"], features(labels, pixels[None])["mean channel 1"]
    )


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 2), int), np.zeros((2, 2)), np.array([[-1]])])
def test_other_than_labels_is_refused(labels):
    with pytest.raises(LabelsError):
        features(labels)


def test_pixels_and_names_must_fit():
    labels = np.zeros((4, 4), int)
    with pytest.raises(SettingsError, match=r"\(C, Y, X\)"):
        features(labels, np.zeros((1, 4, 5)))
    with pytest.raises(SettingsError, match="2 channel names for 1 channels"):
        features(labels, np.zeros((1, 4, 4)), channel_names=["a", "b"])


def test_a_hundred_thousand_nuclei_take_seconds():
    small = np.kron(np.arange(1, 100 * 1000 + 1).reshape(100, 1000), np.ones((5, 5), np.int32))
    began = time.perf_counter()
    assert len(features(small.astype(np.int32), small[None])["area_px2"]) == 100_000
    assert time.perf_counter() - began < 10
