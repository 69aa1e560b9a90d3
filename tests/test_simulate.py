"""Panels drawn around nuclei: seeded, of any number of channels, and true to the nuclei."""

import numpy as np
import pytest
from scipy import ndimage

from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.simulate import KINDS, simulate


@pytest.fixture
def nuclei():
    """A picture of 16 round nuclei, and their labels."""
    seeds = np.zeros((128, 128), bool)
    seeds[16::32, 16::32] = True
    labels, _ = ndimage.label(ndimage.distance_transform_edt(~seeds) < 8)
    picture = ndimage.gaussian_filter((labels > 0).astype(np.float32), 1)
    return picture, labels.astype(np.int32)


def test_the_same_seed_gives_the_same_image_and_another_another(nuclei):
    one, same, other = (simulate(*nuclei, np.random.default_rng(seed), 9) for seed in (3, 3, 4))
    assert one.names == same.names and np.array_equal(one.pixels, same.pixels)
    assert not (one.names == other.names and np.array_equal(one.pixels, other.pixels))


@pytest.mark.parametrize("channels", [1, 2, 7, 40])
def test_a_panel_has_as_many_channels_with_names_of_their_own(channels, nuclei):
    drawn = simulate(*nuclei, np.random.default_rng(channels), channels)
    assert drawn.pixels.shape == (channels, 128, 128) and np.isfinite(drawn.pixels).all()
    assert len(set(drawn.names)) == len(drawn.kinds) == channels
    assert drawn.kinds[drawn.nuclear] == "nuclear"


def test_order_and_number_type_differ(nuclei):
    drawn = [simulate(*nuclei, np.random.default_rng(seed), 5) for seed in range(30)]
    assert {d.pixels.dtype.name for d in drawn} == {"uint8", "uint16", "float32"}
    assert {d.nuclear for d in drawn} == set(range(5))


def test_the_nuclear_channel_shows_the_nuclei(nuclei):
    picture, labels = nuclei
    for seed in range(10):
        drawn = simulate(picture, labels, np.random.default_rng(seed), 4, ("dead", "membrane"))
        channel = drawn.pixels[drawn.nuclear].astype(float)
        assert channel[labels > 0].mean() > 2 * channel[labels == 0].mean()


def test_what_the_other_channels_show(nuclei):
    """Membranes are bright around nuclei, cytoplasm around and in them, of some nuclei only these."""
    picture, labels = nuclei
    away = ndimage.distance_transform_edt(labels == 0)
    places = {"in": labels > 0, "around": (away > 0) & (away < 8), "between": away > 9}

    def brightness(kind):
        found = []
        for seed in range(20):
            drawn = simulate(picture, labels, np.random.default_rng(seed), 2, (kind,))
            channel = drawn.pixels[1 - drawn.nuclear].astype(float)
            means = np.array([channel[where].mean() for where in places.values()])
            found.append((means - channel.mean()) / channel.std())
        return dict(zip(places, np.median(found, 0), strict=True))

    membrane, cytoplasm, some = (brightness(kind) for kind in ("membrane", "cytoplasm", "some nuclei"))
    assert membrane["around"] > 0 > max(membrane["in"], membrane["between"])
    assert min(cytoplasm["around"], cytoplasm["in"]) > 0 > cytoplasm["between"]
    assert some["in"] > 0.5 > 0 > max(some["around"], some["between"])
    dead = simulate(picture, labels, np.random.default_rng(0), 2, ("dead",))
    channel = dead.pixels[dead.kinds.index("dead")].astype(float)
    assert abs(channel[labels > 0].mean() - channel[labels == 0].mean()) < 0.2 * channel.std()


def test_of_some_nuclei_only_some_are_bright(nuclei):
    picture, labels = nuclei
    brightest = []
    for seed in range(12):
        drawn = simulate(picture, labels, np.random.default_rng(seed), 2, ("some nuclei",))
        of = ndimage.mean(drawn.pixels[1 - drawn.nuclear].astype(float), labels, np.arange(1, 17))
        brightest.append((of > of.min() + 0.3 * np.ptp(of)).mean())
    assert 0.05 < np.median(brightest) < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_nuclei_can_be_drawn(kind):
    empty = np.zeros((40, 50), np.float32)
    drawn = simulate(empty, empty.astype(np.int32), np.random.default_rng(0), 2, (kind,))
    assert drawn.pixels.shape == (2, 40, 50) and np.isfinite(drawn.pixels).all()


def test_what_makes_no_image_is_refused(nuclei):
    picture, labels = nuclei
    rng = np.random.default_rng(0)
    with pytest.raises(SettingsError, match="make no image"):
        simulate(picture, labels[1:], rng, 3)
    with pytest.raises(SettingsError, match="make no image"):
        simulate(picture, labels, rng, 1, ("dead",))
    with pytest.raises(SettingsError, match="no kind of channel bone; choose from nuclear, membrane"):
        simulate(picture, labels, rng, 3, ("bone",))
