import numpy as np
import pytest
from scipy import ndimage

from napari_nucleus_kd.metrics import median_diameter
from napari_nucleus_kd.train.augment import _immuno, recolor, warp
from napari_nucleus_kd.types import Modality


@pytest.fixture
def disc():
    yy, xx = np.mgrid[:200, :240]
    labels = np.zeros((200, 240), np.int32)
    for i, (y, x) in enumerate([(60, 60), (60, 160), (140, 110)], 1):
        labels[np.hypot(yy - y, xx - x) < 12] = i
    image = ndimage.gaussian_filter((labels > 0).astype(np.float32), 1)[None]
    return image, labels


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_picture_and_labels_move_together(disc, scale, seed):
    picture, labels = warp(*disc, 256, scale, np.random.default_rng(seed))
    assert picture.shape == (1, 256, 256)
    agree = (picture[0] > 0.5) == (labels > 0)
    assert agree.mean() > 0.98


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scale_magnifies(disc, scale):
    found = [
        median_diameter(labels)
        for seed in range(8)
        if (labels := warp(*disc, 256, scale, np.random.default_rng(seed))[1]).any()
    ]
    assert np.median(found) == pytest.approx(24 * scale, rel=0.2)


def test_mirrored_copies_are_nuclei_of_their_own(disc):
    _, labels = warp(*disc, 256, 0.4, np.random.default_rng(0))  # far more than the image: copies
    assert labels.max() > 3
    for i in range(1, labels.max() + 1):
        assert ndimage.label(labels == i, np.ones((3, 3)))[1] == 1


def test_only_the_surroundings_matter():
    """The cut before warping must not be seen: a far larger image gives the same crop."""
    rng = np.random.default_rng(1)
    labels = np.zeros((1200, 1200), np.int32)
    labels[590:610, 590:610] = 1
    image = rng.random((1, 1200, 1200), np.float32)
    centre = (slice(None), slice(300, 900), slice(300, 900))
    whole = warp(image, labels, 128, 1.0, np.random.default_rng(4))
    part = warp(image[centre], labels[centre[1:]], 128, 1.0, np.random.default_rng(4))
    assert whole[1].any()  # centred on the one nucleus, so both look at the same place
    np.testing.assert_allclose(whole[0], part[0], atol=2e-3)


@pytest.mark.parametrize("edge", [200, 201, 401, 403])
@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0])
def test_picture_and_labels_stay_together_also_in_the_far_corner(edge, scale):
    yy, xx = np.mgrid[:edge, :edge]
    labels = ((yy - edge + 40) ** 2 + (xx - edge + 40) ** 2 < 24**2).astype(np.int32)
    overlaps = []
    for seed in range(12):
        picture, found = warp(
            labels[None].astype(np.float32), labels, 128, scale, np.random.default_rng(seed)
        )
        there, drawn = found > 0, picture[0] > 0.5
        if there.sum() > 50:
            overlaps.append((there & drawn).sum() / (there | drawn).sum())
    assert len(overlaps) > 5
    assert np.mean(overlaps) > 0.97


@pytest.mark.parametrize("modality", list(Modality))
def test_recolor_stays_in_range_and_repeats(disc, modality):
    image = np.repeat(disc[0], 3, 0)
    for seed in range(20):
        first = recolor(image, disc[1], modality, np.random.default_rng(seed))
        again = recolor(image, disc[1], modality, np.random.default_rng(seed))
        assert first.dtype == np.float32
        assert first.shape == image.shape
        assert np.isfinite(first).all()
        assert first.min() >= 0
        assert first.max() <= 1
        np.testing.assert_array_equal(first, again)


@pytest.fixture
def tissue():
    """Nine blue nuclei in pale cytoplasm, in optical density, and their labels."""
    yy, xx = np.mgrid[:96, :96]
    labels = ((np.hypot(yy % 32 - 16, xx % 32 - 16) < 8) * (1 + yy // 32 * 3 + xx // 32)).astype(np.int32)
    picture = np.where(labels > 0, np.array([0.4, 0.3, 0.6])[:, None, None], 0.9).astype(np.float32)
    return -np.log(picture), labels


def browner(density, where):
    """How much more blue than red light a part swallows; brown stain does, blue does not."""
    return float(density[2][where].mean() - density[0][where].mean())


@pytest.mark.parametrize("modality", [Modality.FLUORESCENCE, Modality.HE])
def test_pictures_are_turned_around_only_where_nobody_says_how_they_look(disc, modality):
    image, labels = disc
    bright = modality is Modality.FLUORESCENCE
    picture = np.repeat(image if bright else 0.9 - 0.6 * image, 3, 0)

    def turned(**how):
        out = []
        for seed in range(60):
            seen = recolor(picture, labels, modality, np.random.default_rng(seed), **how).mean(0)
            out.append((seen[labels > 0].mean() > seen[labels == 0].mean()) != bright)
        return np.sum(out)

    assert turned() > turned(turned=False) == 0


def test_immunostains_are_painted_on_nuclei_or_around_them(tissue):
    density, labels = tissue
    kinds = set()
    for seed in range(40):
        seen = _immuno(density, labels, np.random.default_rng(seed))
        assert seen.shape == density.shape and np.isfinite(seen).all() and seen.min() >= 0
        nuclei = [browner(seen, labels == i) for i in range(1, 10)]
        around = ndimage.binary_dilation(labels > 0, iterations=3) & (labels == 0)
        if max(nuclei) > 0.1 > min(nuclei):
            kinds.add("some nuclei")
        if browner(seen, around) > 0.05 and max(nuclei) < 0.05:
            kinds.add("around blue nuclei")
    assert kinds == {"some nuclei", "around blue nuclei"}


def test_some_stained_pictures_become_immunostains(tissue):
    density, labels = tissue
    image = np.exp(-density)
    seen = [recolor(image, labels, Modality.HE, np.random.default_rng(seed)) for seed in range(40)]
    brown = [browner(-np.log(np.clip(picture, 0.01, 1)), ...) for picture in seen]
    assert min(brown) < 0 < max(brown)
