"""Which tiles are suggested for annotation."""

import numpy as np
import pytest

from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import SettingsError
from napari_nucleus_kd.pipeline import to_image
from napari_nucleus_kd.train.suggest import Tile, suggest, survey_steps
from napari_nucleus_kd.types import Modality, Region


@pytest.fixture(scope="module")
def picture(draw):
    """Bright nuclei; faint ones in the lower right quarter."""
    pixels, _ = draw(256, 256, seed=3)
    pixels[128:, 128:] = 20 + (pixels[128:, 128:].astype(int) - 20) * 3 // 10
    return pixels


def recipe(model, **changes):
    return Recipe(model=str(model), modality=Modality.FLUORESCENCE, device="cpu", diameter_px=18, **changes)


def test_what_the_model_is_unsure_of_comes_first(spots, picture, finish):
    tiles, seen = finish(survey_steps(to_image(picture), recipe(spots), tile_px=128))
    assert {(t.region.y0, t.region.x0) for t in tiles} == {(0, 0), (0, 128), (128, 0), (128, 128)}
    assert [(p.done, p.total) for p in seen[1:]] == [(i, 4) for i in (1, 2, 3, 4)]
    faint = max(tiles, key=lambda t: t.uncertainty)
    assert faint.region == Region(128, 128, 256, 256)
    assert all(0 <= t.uncertainty <= 1 and 0 <= t.disagreement <= 1 for t in tiles)
    assert all(t.nuclei >= 10 for t in tiles if t is not faint)
    assert suggest(tiles, 1, strategy="uncertainty") == [faint]
    assert suggest(tiles, 9, taken=[Region(200, 200, 210, 210)], strategy="uncertainty")[0] != faint


def test_a_model_that_mirrors_itself_agrees_with_itself(spots, draw, finish):
    half, _ = draw(128, 64, seed=4)
    image = to_image(np.concatenate([half, half[:, ::-1]], axis=1))
    (tile,), _ = finish(survey_steps(image, recipe(spots), tile_px=128))
    assert tile.disagreement < 0.05
    (tile,), _ = finish(
        survey_steps(image, recipe(spots), other=recipe(spots, decode={"foreground": 0.95}), tile_px=128)
    )
    assert tile.disagreement > 0.05, "another opinion differs"


def test_a_region_keeps_its_place_in_the_image(spots, picture, finish):
    region = Region(100, 60, 200, 190)
    tiles, _ = finish(survey_steps(to_image(picture), recipe(spots, region=region), tile_px=64))
    assert min(t.region.y0 for t in tiles) == 100 and max(t.region.y1 for t in tiles) == 200
    assert min(t.region.x0 for t in tiles) == 60 and max(t.region.x1 for t in tiles) == 190
    assert {t.region.shape_yx for t in tiles} == {(64, 64)}


def test_of_a_large_image_an_even_choice_is_looked_at(spots, finish):
    image = to_image(np.zeros((640, 640), np.uint8) + np.eye(640, dtype=np.uint8))
    tiles, _ = finish(survey_steps(image, recipe(spots), tile_px=64, most=20))
    assert len({t.region for t in tiles}) == 20
    quarters = {(t.region.y0 >= 320, t.region.x0 >= 320) for t in tiles}
    assert len(quarters) == 4


def tile(y, x, uncertainty, looks=0.0):
    return Tile(Region(y, x, y + 64, x + 64), uncertainty, 0.5, np.array([looks, 1], np.float32), 5)


def test_suggestions_are_not_all_from_one_corner():
    corner = [tile(0, 64 * i, 0.5 + 0.01 * i) for i in range(4)]
    far = tile(960, 960, 0.45)
    strange = tile(0, 256, 0.45, looks=1.0)
    chosen = suggest([*corner, far, strange], 3)
    assert chosen[0] == corner[3] and set(map(id, chosen[1:])) == {id(far), id(strange)}
    after = suggest([*corner, far, strange], 1, taken=[corner[0].region])
    assert after[0] in (far, strange), "what is annotated counts, too"


def test_random_tiles_follow_the_seed_and_nothing_is_suggested_twice():
    tiles = [tile(64 * i, 0, 0.1) for i in range(10)]
    first = suggest(tiles, 4, strategy="random", seed=1)
    assert (
        first == suggest(tiles, 4, strategy="random", seed=1) != suggest(tiles, 4, strategy="random", seed=2)
    )
    for strategy in ("gain", "uncertainty", "random"):
        assert len({t.region for t in suggest(tiles, 99, strategy=strategy)}) == 10
        assert suggest(tiles, 3, [Region(0, 0, 640, 64)], strategy=strategy) == []


def test_a_region_outside_the_image_is_refused(spots, picture):
    with pytest.raises(SettingsError, match="not inside"):
        list(survey_steps(to_image(picture), recipe(spots, region=Region(0, 0, 999, 10))))
