"""Several networks as one."""

import pytest
import torch

from napari_nucleus_kd.networks.ensemble import EnsembleConfig, build_ensemble, mirrored_mean
from napari_nucleus_kd.networks.student import StudentConfig
from napari_nucleus_kd.package import load_model

SMALL = StudentConfig(widths=(8, 8, 8), decoder_widths=(8, 8), head_width=8)
OTHER = StudentConfig(widths=(8, 8), decoder_widths=(8,), head_width=8)
NAMES = SMALL.maps


def slopes(x):
    """Maps that follow the picture as they should: what is bright, and where it gets brighter."""
    grey = x.mean(1)
    slope_y, slope_x = torch.gradient(grey, dim=(1, 2))
    maps = {"foreground": grey, "offset_y": slope_y, "offset_x": slope_x}
    return torch.stack([maps.get(name, grey) for name in NAMES], 1)


def test_mirrors_do_not_change_what_follows_the_picture():
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored_mean(slopes, x, NAMES), slopes(x))


def test_a_mirror_picture_gives_mirrored_maps():
    torch.manual_seed(0)
    network = build_ensemble(EnsembleConfig(members=(SMALL,))).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        there, back = network(x), network(x.flip(3)).flip(3)
    sign = torch.tensor([-1.0 if name == "offset_x" else 1.0 for name in NAMES]).view(1, -1, 1, 1)
    torch.testing.assert_close(there, back * sign)


def test_the_mean_of_the_members():
    torch.manual_seed(0)
    network = build_ensemble(EnsembleConfig(members=(SMALL, OTHER), flips=False)).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = (network.members[0](x) + network.members[1](x)) / 2
        torch.testing.assert_close(network(x), expected)


def test_a_package_holds_an_ensemble(save_network, tmp_path):
    config = EnsembleConfig(members=(SMALL, OTHER))
    save_network(tmp_path / "both", build_ensemble(config), config, architecture="ensemble", maps=NAMES)
    assert load_model(tmp_path / "both").verify() < 1e-3


def test_members_must_have_the_same_maps():
    other = OTHER.model_copy(update={"maps": ("foreground", "distance")})
    with pytest.raises(ValueError, match="same maps"):
        build_ensemble(EnsembleConfig(members=(SMALL, other)))
