"""Nuclei, rings and cells against scikit-image and SciPy; blocks must not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels

from napari_nucleus_kd import cells
from napari_nucleus_kd.cells import measure_cells, measure_cells_steps
from napari_nucleus_kd.errors import LabelsError, SettingsError
from napari_nucleus_kd.measure import features

DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float16, np.float32, np.float64)


def scattered(seed, shape=(61, 83), count=25):
    """Draw nuclei at random places, some in several pieces, with gaps in their numbers."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in rng.choice(np.arange(1, 1000), count, replace=False):
        y, x, height, width = *(rng.integers(0, n) for n in shape), *rng.integers(1, 14, 2)
        labels[y : y + height, x : x + width] = number
    return labels


def random_pixels(seed, shape, dtype):
    rng = np.random.default_rng(seed + 1)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    low, high = (-500, 500) if np.dtype(dtype).kind == "i" else (0, 250)
    return rng.integers(low, high, shape).astype(dtype)


def expected(part, pixels, name, percentile):
    """Measure one compartment with SciPy and NumPy; NaN of labels that have no pixel in it."""
    numbers = np.unique(part)[1:]
    found = {}
    for statistic, of in (
        ("mean", np.mean),
        ("median", np.median),
        (f"p{percentile:g}", lambda values: np.percentile(values, percentile)),
        ("integrated", np.sum),
    ):
        values = ndimage.labeled_comprehension(pixels.astype(float), part, numbers, of, float, np.nan)
        found[f"{statistic} {name}"] = dict(zip(numbers.tolist(), values.tolist(), strict=True))
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ring=st.sampled_from([0, 1, 2.5, 6]),
    block=st.sampled_from([7, 16, 50, 1024]),
    dtype=st.sampled_from(DTYPES),
    percentile=st.sampled_from([0, 30, 95, 99.5, 100]),
)
def test_agrees_with_scipy_whatever_the_blocks(seed, ring, block, dtype, percentile):
    labels = scattered(seed)
    stack = random_pixels(seed, (2, *labels.shape), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_BLOCK_PX", block)
        found = measure_cells(labels, stack, channel_names=["a", "b"], ring_px=ring, percentile=percentile)
    whole = expand_labels(labels, ring)
    parts = {"": labels, "ring ": np.where(labels, 0, whole), "cell ": whole}
    numbers = np.unique(labels)[1:]
    np.testing.assert_array_equal(found["label"], numbers)
    for begin, part in parts.items() if ring else [("", labels)]:
        for channel, name in zip(stack, "ab", strict=True):
            for column, values in expected(part, channel, name, percentile).items():
                wanted = [values.get(number, np.nan) for number in numbers.tolist()]
                np.testing.assert_allclose(found[begin + column], wanted, rtol=1e-9, atol=1e-9)
    if ring:
        areas = np.bincount(whole.ravel(), minlength=1000)[numbers]
        np.testing.assert_array_equal(found["cell_area_px2"], areas)
        np.testing.assert_array_equal(found["ring_area_px2"] + found["area_px2"], areas)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), ring=st.sampled_from([1, 3, 7.5]))
def test_rings_never_overlap_and_hold_no_nucleus(seed, ring):
    """The number of every pixel as its intensity: what belongs to two rings would be counted twice."""
    labels = scattered(seed)
    found = measure_cells(labels, np.ones((1, *labels.shape)), ring_px=ring)
    distance = ndimage.distance_transform_edt(labels == 0)
    assert np.nansum(found["ring integrated channel 1"]) == ((distance > 0) & (distance <= ring)).sum()
    assert found["ring_area_px2"].sum() == ((distance > 0) & (distance <= ring)).sum()


def test_shapes_are_those_of_scikit_image_and_of_a_run(draw):
    pixels, labels = draw(300, 340)
    found = measure_cells(labels, pixels[None], pixel_size_um=0.5, ring_um=1.5)
    theirs = regionprops_table(
        labels, properties=("label", "area", "eccentricity", "major_axis_length", "centroid")
    )
    np.testing.assert_allclose(found["area_um2"], theirs["area"] / 4)
    np.testing.assert_allclose(found["eccentricity"], theirs["eccentricity"], atol=1e-6)
    np.testing.assert_allclose(found["major_axis_um"], theirs["major_axis_length"] / 2)
    np.testing.assert_allclose(found["centroid_x"], theirs["centroid-1"])
    ring = (expand_labels(labels, 3) > 0) & (labels == 0)
    assert found["ring_area_um2"].sum() == pytest.approx(ring.sum() / 4)
    run = features(labels, pixels[None], pixel_size_um=0.5)
    for name, values in run.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_lazy_labels_and_pixels_are_read_block_by_block(draw, monkeypatch):
    dask = pytest.importorskip("dask.array")
    monkeypatch.setattr(cells, "_BLOCK_PX", 100)
    pixels, labels = draw(300, 310)
    stack, read = np.stack([pixels, 255 - pixels]), []

    class Watched:
        shape, dtype, ndim = stack.shape, stack.dtype, 3

        def __getitem__(self, key):
            read.append(stack[key].nbytes)
            return stack[key]

    lazy = dask.from_array(labels, chunks=64)
    found = measure_cells(lazy, Watched(), ring_px=2)
    assert max(read) <= 2 * 100 * 100 and sum(read) == stack.nbytes, "each pixel once"
    whole = measure_cells(labels, stack, ring_px=2)
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_what_is_no_number_is_left_out():
    labels = np.array([[1, 1, 1, 2, 2, 3]])
    pixels = np.array([[[1.0, np.nan, 4.0, np.nan, np.inf, -5.0]]])
    found = measure_cells(labels, pixels, channel_names=["CD3"])
    np.testing.assert_array_equal(found["mean CD3"], [2.5, np.nan, -5])
    np.testing.assert_array_equal(found["median CD3"], [2.5, np.nan, -5])
    np.testing.assert_array_equal(found["integrated CD3"], [5, np.nan, -5])
    np.testing.assert_array_equal(features(labels, pixels)["mean channel 1"], [2.5, np.nan, -5])


def test_a_constant_channel_has_its_value_everywhere(draw):
    _, labels = draw(100, 100)
    found = measure_cells(labels, np.full((1, *labels.shape), 7, np.uint8), ring_px=2)
    for name in ("mean", "median", "p95", "ring mean", "cell p95"):
        assert set(found[f"{name} channel 1"]) == {7.0}


def test_a_nucleus_without_room_for_a_ring_has_none():
    labels = np.kron([[1, 2]], np.ones((5, 5), int))
    found = measure_cells(labels, np.ones((1, 5, 10)), ring_px=3)
    assert found["ring_area_px2"].tolist() == [0, 0]
    assert np.isnan(found["ring mean channel 1"]).all() and (found["cell mean channel 1"] == 1).all()


def test_names_are_made_distinct():
    labels, stack = np.eye(3, dtype=int), np.ones((3, 3, 3))
    found = measure_cells(labels, stack, channel_names=["CD3", "", "CD3"])
    assert {"mean CD3", "mean channel 2", "mean CD3 (2)"} <= set(found)
    clash = measure_cells(labels, stack, channel_names=["CD3", "CD3 (2)", "CD3"])
    assert {"mean CD3", "mean CD3 (2)", "mean CD3 (3)"} <= set(clash)


@pytest.mark.parametrize(("dtype", "large"), [(np.int64, 2**40), (np.uint64, 2**62), (np.uint32, 2**32 - 1)])
def test_memory_does_not_go_with_the_largest_label(dtype, large):
    labels = np.array([[0, 7, 7], [large, large, large], [3, 0, 0]], dtype)
    found = measure_cells(labels, np.arange(9.0).reshape(1, 3, 3))
    assert found["label"].tolist() == [3, 7, large]
    assert found["median channel 1"].tolist() == [6, 1.5, 4]


@pytest.mark.parametrize("pixels", [None, np.zeros((2, 9, 9)), np.zeros((0, 9, 9))])
def test_no_nuclei_or_no_channels_are_no_error(pixels):
    found = measure_cells(np.zeros((9, 9), int), pixels, ring_px=2)
    assert {len(column) for column in found.values()} == {0}
    assert {"label", "cell_area_px2"} <= set(found)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"labels": np.zeros((4, 4))}, LabelsError, "2-D integer"),
        ({"labels": np.full((4, 4), -1)}, LabelsError, "negative"),
        ({"pixels": np.zeros((1, 4, 5))}, SettingsError, "4 x 4 pixels and the image has 4 x 5"),
        ({"pixels": np.zeros((1, 4, 4), complex)}, SettingsError, "real numbers"),
        ({"channel_names": ["a", "b"]}, SettingsError, "2 channel names for 1 channels"),
        ({"ring_um": 2.0}, SettingsError, "needs a pixel size"),
        ({"ring_um": 2.0, "ring_px": 3.0}, SettingsError, "give one of them"),
        ({"ring_px": -1}, SettingsError, "at least one pixel"),
        ({"ring_um": 0.2, "pixel_size_um": 0.5}, SettingsError, "0.4 pixels wide"),
        ({"percentile": 101}, SettingsError, "between 0 and 100"),
    ],
)
def test_what_does_not_fit_is_refused(given, error, said):
    settings = {"labels": np.eye(4, dtype=int), "pixels": np.zeros((1, 4, 4))} | given
    with pytest.raises(error, match=said):
        measure_cells(**settings)


def test_it_says_how_far_it_is_and_can_be_stopped(monkeypatch, finish):
    monkeypatch.setattr(cells, "_BLOCK_PX", 10)
    labels, stack = scattered(0), np.ones((1, 61, 83))
    _, seen = finish(measure_cells_steps(labels, stack))
    assert [p.done for p in seen if p.total] == list(range(1, 7 * 9 + 1))
    steps = measure_cells_steps(labels, stack)
    next(steps)
    steps.close()


def test_forty_channels_need_memory_for_their_table_only(monkeypatch):
    """2,500 nuclei x 40 channels of a picture that is made where it is asked for."""
    import tracemalloc

    monkeypatch.setattr(cells, "_BLOCK_PX", 256)
    monkeypatch.setattr(cells, "_AT_ONCE_BYTES", 2**20)
    labels = np.kron(np.arange(1, 2501, dtype=np.int32).reshape(50, 50), np.ones((30, 30), np.int32))
    labels[::30], labels[:, ::30] = 0, 0

    class Made:
        shape, dtype, ndim = (40, *labels.shape), np.dtype(np.uint16), 3

        def __getitem__(self, key):
            channels, rows, cols = key
            shape = len(range(40)[channels]), len(range(1500)[rows]), len(range(1500)[cols])
            return np.full(shape, 5, np.uint16)

    table_bytes = 12 * 40 * 2500 * 8
    tracemalloc.start()
    try:
        found = measure_cells(labels, Made(), ring_px=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < table_bytes + 40 * 2**20 < 40 * labels.size * 2
    assert len(found["cell p95 channel 40"]) == 2500
