import threading

import numpy as np
import pytest
import zarr

from napari_nucleus_kd.tiling import plan_tiles, run_tiles
from napari_nucleus_kd.types import Nuclei


def oracle(truth):
    """Predict from the truth: pixels hold the true labels; numbers are new in each tile, as a network's."""

    def predict(pixels):
        values = pixels[0]
        ids, flat = np.unique(values, return_inverse=True)
        number = np.cumsum(ids > 0)
        number[ids == 0] = 0
        labels = number[flat].reshape(values.shape).astype(np.int32)
        return Nuclei(labels, np.arange(1, labels.max(initial=0) + 1, dtype=np.float32))

    return predict


def run(finish, truth, out=None, **options):
    out = np.zeros(truth.shape, np.int32) if out is None else out
    options = {"tile_px": 96, "halo_px": 32} | options
    predict = options.pop("predict", oracle(truth))
    count, seen = finish(run_tiles(truth[None], predict, out=out, **options))
    return count, out, seen


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 200), (333, 257)])
@pytest.mark.parametrize("align", [1, 7, 32])
def test_cores_cover_every_pixel_once_and_windows_are_aligned(shape, align):
    covered = np.zeros(shape, int)
    for tile in plan_tiles(shape, 60, 20, align, 10):
        covered[tile.core.y0 : tile.core.y1, tile.core.x0 : tile.core.x1] += 1
        assert tile.window.y0 % align == tile.view.x0 % align == 0
        assert 0 <= tile.view.y0 <= tile.window.y0 <= tile.core.y0
        assert tile.core.y1 <= tile.window.y1 <= tile.view.y1 <= shape[0]
    assert (covered == 1).all()


@pytest.mark.parametrize("tile_px", [32, 50, 96, 128, 1000])
def test_tiling_does_not_change_the_nuclei(draw, finish, same_nuclei, tile_px):
    _, truth = draw(300, 260)
    count, out, seen = run(finish, truth, tile_px=tile_px)
    assert count == truth.max() == out.max()
    assert same_nuclei(truth, out) == 1
    assert (np.unique(out) == np.arange(count + 1)).all()
    assert seen[-1].done == seen[-1].total == len(seen)


def test_touching_nuclei_at_a_seam_stay_two(finish):
    truth = np.zeros((64, 192), np.int32)
    truth[20:40, 80:96], truth[20:40, 96:112] = 1, 2
    count, out, _ = run(finish, truth)
    assert count == 2 and out[30, 95] != out[30, 96]


def test_a_nucleus_whose_centroid_two_tiles_place_apart_is_neither_lost_nor_doubled(finish):
    truth = np.zeros((64, 192), np.int32)
    truth[20:40, 86:106] = 1  # centroid at 95.5, the seam at 96
    for shift in (-1, 0, 1):
        for first in (True, False):
            calls = []

            def predict(pixels, shift=shift, first=first, calls=calls):
                calls.append(0)
                move = shift if (len(calls) == 1) is first else -shift
                return oracle(truth)(np.roll(pixels, move, axis=2))

            count, out, _ = run(finish, truth, predict=predict)
            assert count == out.max() == 1


def test_a_fragment_written_before_is_completed(finish):
    truth = np.zeros((64, 192), np.int32)
    truth[20:40, 84:124] = 1  # centroid 103.5, in the second tile

    def predict(pixels):
        seen = pixels.copy()
        if pixels.shape[2] == 128:  # the first window ends at 128: let it see a fragment only
            seen[:, :, 96:] = 0
        return oracle(truth)(seen)

    count, out, _ = run(finish, truth, predict=predict)
    assert count == 1 and (out > 0).sum() == (truth > 0).sum()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_goes_on_where_it_stopped(draw, finish, stop):
    _, truth = draw(200, 260)
    _, whole, _ = run(finish, truth)
    out, done = np.zeros(truth.shape, np.int32), []
    steps = run_tiles(truth[None], oracle(truth), tile_px=96, halo_px=32, out=out, on_tile_done=done.append)
    for _ in range(stop):
        next(steps)
    steps.close()
    core = plan_tiles(truth.shape, 96, 32)[stop].core
    left_behind = out[core.y0 : core.y0 + 40, core.x0 + 30 : core.x0 + 50]  # by the interrupted tile
    left_behind[left_behind == 0] = done[-1].next_label + 7
    count, out, seen = run(finish, truth, out, start_tile=done[-1].index + 1, next_label=done[-1].next_label)
    np.testing.assert_array_equal(out, whole)
    assert count == truth.max() and seen[0].done == stop + 1


def test_labels_go_to_zarr_and_pixels_come_lazily(draw, finish, tmp_path):
    dask = pytest.importorskip("dask.array")
    _, truth = draw(200, 260)
    out = zarr.create_array(tmp_path / "l.zarr", shape=truth.shape, chunks=(64, 64), dtype="uint32")
    lazy = dask.from_array(truth[None], chunks=(1, 50, 70))
    count, _ = finish(run_tiles(lazy, oracle(truth), tile_px=96, halo_px=32, out=out))
    _, expected, _ = run(finish, truth)
    np.testing.assert_array_equal(out[:], expected)
    assert count == truth.max()


def test_scores_follow_their_nuclei(draw, finish):
    _, truth = draw(200, 260)
    area = np.bincount(truth.ravel())

    def predict(pixels):
        nuclei = oracle(truth)(pixels)
        return Nuclei(nuclei.labels, np.bincount(nuclei.labels.ravel())[1:].astype(np.float32))

    scores = []
    _, out, _ = run(finish, truth, predict=predict, on_tile_done=lambda done: scores.append(done.scores))
    np.testing.assert_array_equal(np.concatenate(scores), np.bincount(out.ravel())[1:])
    assert sorted(np.concatenate(scores)) == sorted(area[1:])


def test_the_next_tile_is_prepared_beside_and_in_order(draw, finish):
    _, truth = draw(200, 260)
    prepared = []

    def prepare(pixels, inside):
        prepared.append((threading.current_thread(), pixels.shape))
        return pixels[:, inside.y0 : inside.y1, inside.x0 : inside.x1]

    _, out, _ = run(finish, truth, prepare=prepare, context_px=20)
    _, expected, _ = run(finish, truth)
    np.testing.assert_array_equal(out, expected)
    assert threading.main_thread() not in {thread for thread, _ in prepared}
    assert [shape for _, shape in prepared] == [
        (1, *tile.view.shape_yx) for tile in plan_tiles(truth.shape, 96, 32, context_px=20)
    ]


def test_a_prediction_error_reaches_the_caller(finish):
    def predict(pixels):
        raise ZeroDivisionError("in the network")

    with pytest.raises(ZeroDivisionError):
        run(finish, np.zeros((50, 50), np.int32), predict=predict)
