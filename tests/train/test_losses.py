"""Terms of the objective against their definitions."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from napari_nucleus_kd.instances import MAP_NAMES
from napari_nucleus_kd.train import losses


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(MAP_NAMES), 16, 16, generator=rng)
    target = torch.rand(2, len(MAP_NAMES), 16, 16, generator=rng)
    target[:, 0] = (target[:, 0] > 0.6).float()
    valid = (torch.rand(2, 1, 16, 16, generator=rng) > 0.3).float()
    return logits, target, valid


def test_focal_and_spectral_terms(batch):
    logits, target, valid = batch
    parts = losses.terms(*batch)
    z, y, known = (a.double().numpy() for a in (logits[:, 0], target[:, 0], valid[:, 0]))
    p = 1 / (1 + np.exp(-z))
    right = np.where(y == 1, p, 1 - p)
    focal = -((1 - right) ** 2) * np.log(right)  # Lin et al., 2017, gamma 2
    assert parts["focal"].item() == pytest.approx((focal * known).sum() / known.sum(), rel=1e-5)
    assert parts["spectral"].item() == pytest.approx((z**2 * known).sum() / known.sum(), rel=1e-5)


def test_a_missed_nucleus_costs_more_than_a_spurious_one_in_the_tversky_term():
    target, everywhere = torch.zeros(1, len(MAP_NAMES), 8, 8), torch.ones(1, 1, 8, 8)
    target[:, 0, :4] = 1
    costs = []
    for wrong in (slice(3, 4), slice(4, 5)):  # a row of the nucleus missed; a row beside it found
        logits = 20 * (2 * target - 1)
        logits[:, 0, wrong] *= -1
        costs.append(losses.terms(logits, target, everywhere)["tversky"].item())
    missed, spurious = costs
    assert missed == pytest.approx(1 - 25 / (25 + 0.7 * 8)) and spurious == pytest.approx(
        1 - 33 / (33 + 0.3 * 8)
    )
    assert missed > spurious


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_soft_labels_are_half_their_neighbours(sigma):
    """Islam and Glocker: a Gaussian whose centre weighs as much as all its neighbours together."""
    target = (torch.rand(1, 12, 9, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    y, x = np.mgrid[-1:2, -1:2]
    kernel = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    kernel[1, 1] = 0
    kernel[1, 1] = kernel.sum()
    expected = correlate(target[0].double().numpy(), kernel / kernel.sum(), mode="nearest")
    everywhere = torch.ones_like(target)
    np.testing.assert_allclose(losses.soften(target, sigma, everywhere)[0], expected, atol=1e-6)


def test_soft_labels_ask_only_neighbours_that_are_known():
    target, known = torch.ones(1, 8, 8), torch.ones(1, 8, 8)
    target[..., 4:], known[..., 4:] = 0, 0
    assert (losses.soften(target, 1.0, known)[..., :4] == 1).all()


def test_smoothing_changes_the_cross_entropies_at_borders_only(batch):
    logits, target, valid = batch
    plain, soft = (losses.terms(*batch, smoothing) for smoothing in (0.0, 1.0))
    assert {name for name in plain if not torch.equal(plain[name], soft[name])} == {"foreground", "focal"}
    target = target.clone()
    target[:, 0] = 1  # no border anywhere
    plain, soft = (losses.terms(logits, target, valid, smoothing) for smoothing in (0.0, 1.0))
    torch.testing.assert_close(plain["foreground"], soft["foreground"])
