"""Which tiles are suggested for annotation."""

from dataclasses import replace

import numpy as np
import pytest

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.pipeline import to_image
from napari_nucleus_kd.project import TILE_PX, Role, grid, tiles_of
from napari_nucleus_kd.train.suggest import Surveyed, suggest, survey_steps
from napari_nucleus_kd.types import Modality, Region


@pytest.fixture(scope="module")
def picture(draw):
    """Bright nuclei; faint ones in the lower right quarter. Four tiles of unequal size."""
    pixels, _ = draw(500, 530, seed=3)
    pixels[250:, 265:] = 20 + (pixels[250:, 265:].astype(int) - 20) * 3 // 10
    return pixels


def recipe(model, **changes):
    return Recipe(model=str(model), modality=Modality.FLUORESCENCE, device="cpu", diameter_px=18, **changes)


def test_what_the_model_is_unsure_of_comes_first(spots, picture, finish):
    tiles, seen = finish(survey_steps(to_image(picture), recipe(spots)))
    assert [t.region for t in tiles] == [tile.region for tile in tiles_of(picture.shape, 1)]
    assert [(p.done, p.total) for p in seen[1:]] == [(i, 4) for i in (1, 2, 3, 4)]
    faint = max(tiles, key=lambda t: t.uncertainty)
    assert faint.region == Region(250, 265, 500, 530)
    assert all(0 <= t.uncertainty <= 1 and 0 <= t.disagreement <= 1 for t in tiles)
    assert all(t.nuclei >= 40 for t in tiles if t is not faint)
    assert suggest(tiles, 1, strategy="uncertainty") == [faint]
    verified = np.zeros(picture.shape, bool)
    verified[260:, 300:400] = True  # less than half of it
    assert suggest(tiles, 1, verified, strategy="uncertainty") == [faint]
    verified[260:, 300:500] = True
    assert suggest(tiles, 9, verified, strategy="uncertainty")[0] != faint


def test_a_model_that_mirrors_itself_agrees_with_itself(spots, draw, finish):
    half, _ = draw(128, 64, seed=4)
    image = to_image(np.concatenate([half, half[:, ::-1]], axis=1))
    (tile,), _ = finish(survey_steps(image, recipe(spots)))
    assert tile.disagreement < 0.05
    (tile,), _ = finish(survey_steps(image, recipe(spots), other=recipe(spots, decode={"foreground": 0.95})))
    assert tile.disagreement > 0.05, "another opinion differs"


def test_of_a_region_the_tiles_that_it_touches_are_looked_at_whole(spots, picture, finish):
    everything, _ = finish(survey_steps(to_image(picture), recipe(spots)))
    tiles, _ = finish(survey_steps(to_image(picture), recipe(spots, region=Region(100, 60, 240, 270))))
    assert [t.region for t in tiles] == [Region(0, 0, 250, 265), Region(0, 265, 250, 530)]
    for one, other in zip(tiles, everything, strict=False):
        assert (one.uncertainty, one.disagreement, one.nuclei) == (
            other.uncertainty, other.disagreement, other.nuclei
        )  # fmt: skip


def test_of_a_large_image_an_even_choice_is_looked_at(spots, finish):
    image = to_image(np.zeros((1280, 1280), np.uint8) + np.eye(1280, dtype=np.uint8))
    tiles, _ = finish(survey_steps(image, recipe(spots), most=12))
    assert len({t.region for t in tiles}) == 12 and {t.region for t in tiles} < set(grid((1280, 1280)))
    assert len({(t.region.y0 >= 640, t.region.x0 >= 640) for t in tiles}) == 4


@pytest.mark.parametrize("shape", [(1, 1), (300, 100), (384, 640), (1000, 2049)])
def test_tiles_cover_an_image_once(shape):
    times = np.zeros(shape, int)
    for region in grid(shape):
        times[region.slices] += 1
        assert max(region.shape_yx) <= 1.5 * TILE_PX
    assert (times == 1).all()


def tile(y, x, uncertainty, looks=0.0):
    return Surveyed(Region(y, x, y + 64, x + 64), uncertainty, 0.5, np.array([looks, 1], np.float32), 5)


def mask(*regions):
    verified = np.zeros((1024, 1024), bool)
    for region in regions:
        verified[region.slices] = True
    return verified


def test_suggestions_are_not_all_from_one_corner():
    corner = [tile(0, 64 * i, 0.5 + 0.01 * i) for i in range(4)]
    far = tile(960, 960, 0.45)
    strange = tile(0, 256, 0.45, looks=1.0)
    chosen = suggest([*corner, far, strange], 3)
    assert chosen[0] == corner[3] and set(map(id, chosen[1:])) == {id(far), id(strange)}
    after = suggest([*corner, far, strange], 1, mask(corner[0].region))
    assert after[0] in (far, strange), "what is annotated counts, too"


def test_of_several_images_not_all_are_from_one():
    one, other = ([replace(tile(64 * i, 0, 0.5), image=name) for i in range(3)] for name in "ab")
    chosen = suggest([*one, *other], 3)
    assert {t.image for t in chosen} == {"a", "b"}
    assert suggest([one[2], *other], 1) == [one[2]]
    after = suggest([one[2], *other], 1, known=one[:2])
    assert after[0].image == "b", "what is known of another image counts, too"


def test_what_the_model_does_not_see_at_all_is_suggested_too():
    """A model that sees no nucleus, mirrored or not, agrees with itself."""
    missed = replace(tile(0, 0, 0.6), disagreement=0.0)
    sure = [replace(tile(64 * i, 512, 0.02), disagreement=0.5) for i in range(3)]
    assert suggest([*sure, missed], 1) == [missed]


def test_an_image_that_nothing_is_known_of_comes_before_another_corner():
    corner, *others = (replace(tile(64 * i, 64 * j, 0.5), image="a") for i in range(4) for j in range(4))
    new = replace(tile(0, 0, 0.4), image="b")
    assert suggest([*others, new], 1, known=[corner]) == [new]


def test_tiles_that_count_alike_are_far_apart():
    tiles = [replace(tile(64 * y, 64 * x, 0.0), disagreement=0.0) for y in range(5) for x in range(5)]
    places = [(t.region.y0, t.region.x0) for t in suggest(tiles, 4)]
    assert sorted(places) == [(0, 0), (0, 256), (256, 0), (256, 256)]


def test_tiles_that_judge_are_known_and_come_last(spots, picture, finish):
    tiles, _ = finish(survey_steps(to_image(picture), recipe(spots), offset=1))
    judging = {t.region for t in tiles_of(picture.shape, 1) if t.role is Role.VAL}
    assert {t.region for t in tiles if t.judges} == judging and 0 < len(judging) < 4
    assert [t.judges for t in suggest(tiles, 4)] == [False] * (4 - len(judging)) + [True] * len(judging)
    assert suggest([], 4) == []
    unknown, _ = finish(survey_steps(to_image(picture), recipe(spots)))
    assert not any(t.judges for t in unknown)


def test_who_checks_what_is_suggested_can_soon_judge_by_it():
    places = [(t.region, t.role is Role.VAL) for t in tiles_of((2048, 2048), 1)]
    rng = np.random.default_rng(0)
    tiles = [
        replace(tile(0, 0, rng.random()), region=region, judges=judges, disagreement=rng.random())
        for region, judges in places
    ]
    at_once = suggest(tiles, 30)
    one_by_one = []
    for _ in range(30):
        one_by_one += suggest([t for t in tiles if t not in one_by_one], 1, known=one_by_one)
    for chosen in (at_once, one_by_one):
        assert [i for i, t in enumerate(chosen, 1) if t.judges] == [6, 11, 16, 21, 26]


def test_nothing_is_suggested_twice():
    tiles = [tile(64 * i, 0, 0.1) for i in range(10)]
    for strategy in ("promise", "uncertainty"):
        assert len({t.region for t in suggest(tiles, 99, strategy=strategy)}) == 10
        assert suggest(tiles, 3, mask(Region(0, 0, 640, 64)), strategy=strategy) == []


def test_a_region_outside_the_image_is_refused(spots, picture):
    with pytest.raises(SettingsError, match="not inside"):
        list(survey_steps(to_image(picture), recipe(spots, region=Region(0, 0, 999, 10))))
