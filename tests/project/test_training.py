"""What a person verified becomes training data: exactly that, and nothing that judges is learnt from."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_nucleus_kd.channels import fit_input, given_input
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import ProjectError, ReadError, WriteError
from napari_nucleus_kd.index import check_rows_steps, read_labels, read_splits, read_valid, true_labels
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io.samples import sample, sample_labels
from napari_nucleus_kd.job import prepare
from napari_nucleus_kd.mappings import fit_mapping
from napari_nucleus_kd.metrics import median_diameter
from napari_nucleus_kd.project import (
    REHEARSED,
    UNKNOWN,
    Project,
    Role,
    _training,
    count_verified,
    place_of,
    read_training,
    tiles_of,
    training_steps,
)
from napari_nucleus_kd.train import data as train_data
from napari_nucleus_kd.train.data import Batches, load_steps
from napari_nucleus_kd.train.settings import CropSettings
from napari_nucleus_kd.types import Modality, finish

SHAPE = (780, 1030)  # 3 x 4 tiles


@pytest.fixture(scope="module")
def labels(draw):
    """Nuclei all over the image; one reaches across the margin of its tile."""
    drawn = draw(*SHAPE)[1]
    bar = np.s_[300:306, 60:500]
    drawn[np.isin(drawn, np.unique(drawn[bar]))] = 0
    drawn[bar] = drawn.max() + 1
    return drawn


def make(folder, labels, verified, modality=Modality.FLUORESCENCE, pixels=None, recipe=None, **how):
    """Return the open project of an image whose pixels tell where they are."""
    if pixels is None:
        pixels = np.arange(labels.size, dtype=np.uint32).reshape(labels.shape)
    tifffile.imwrite(folder / "i.ome.tif", pixels, ome=True, **{"photometric": "minisblack", **how})
    project = Project.create(folder / "i.nucleus-kd")
    reference = project.refer_to(folder / "i.ome.tif")
    finish(project.add_steps(reference, labels, verified, modality=modality, recipe=recipe))
    return project


def export(folder, labels, verified, **options):
    """Return the training data of such a project, of which the index lists what a person verified."""
    with make(folder, labels, verified, **options) as project:
        data = finish(training_steps(project, folder / "data"))
    with data.index.open(newline="") as file:
        head, *rows = csv.reader(file)
    annotated = data.index.with_name("annotated.csv")
    with annotated.open("w", newline="") as file:
        csv.writer(file).writerows([head, *(row for row in rows if row[1])])
    return replace(data, index=annotated)


def crops(data, split):
    """Yield labels, valid pixels and their places in the image, for each row."""
    for row in read_splits(data.index).get(split, []):
        place = np.unravel_index(np.asarray(read(row.image).pixels[0]), SHAPE)
        found = read_labels(row.labels)
        yield found, np.ones(found.shape, bool) if row.valid is None else read_valid(row.valid), place


def judged_tiles(shape=SHAPE):
    mask = np.zeros(shape, bool)
    for tile in tiles_of(shape, 1):
        mask[tile.region.slices] |= tile.role is Role.VAL
    return mask


def test_exactly_what_is_verified_teaches(tmp_path, labels):
    verified = np.zeros(SHAPE, bool)
    verified[100:690, 40:1000] = True
    data = export(tmp_path, labels, verified)
    area, seen = np.bincount(labels.ravel()), np.bincount(labels[verified], minlength=labels.max() + 1)
    whole = 2 * seen >= area
    whole[np.unique(labels[judged_tiles()])] = False
    whole[[0, labels.max()]] = True, False  # the long one
    wanted = verified & whole[labels] & ~judged_tiles()
    taught, learnt = np.zeros(SHAPE, bool), {"train": set(), "tune": set()}
    for split in ("train", "tune"):
        for found, valid, place in crops(data, split):
            taught[place] |= valid
            learnt[split] |= set(labels[place][valid & (found > 0)].tolist())
            assert max(found.shape) <= 512
            mine = np.unique(labels[place][found > 0])
            for number in mine:  # whole, and apart from the others
                inside = labels[place] == number
                assert inside.sum() == area[number]
                assert len(np.unique(found[inside])) == 1
            assert ((found > 0) == np.isin(labels[place], mine)).all()
            assert not (found[valid] > 0)[labels[place][valid] == 0].any()
            assert ((found > 0) == (labels[place] > 0))[valid].all()
    np.testing.assert_array_equal(taught, wanted)
    assert learnt["train"] | learnt["tune"] == set(labels[wanted].tolist()) - {0}
    assert data.taught == len(learnt["train"]), "what is only watched does not teach"


def test_no_teacher_says_again_what_was_corrected_around_a_tile(tmp_path, labels):
    data = export(tmp_path, labels, np.ones(SHAPE, bool))
    role = np.zeros(SHAPE, object)
    for tile in tiles_of(SHAPE, 1):
        role[tile.region.slices] = tile.role
    judged = np.isin(labels, np.unique(labels[role == Role.VAL])) & (labels > 0)
    open_ = (role == Role.TRAIN) & ~judged
    beyond = 0
    for found, valid, place in crops(data, "train"):
        assert (role[place][valid] == Role.TRAIN).all()
        cut = (found == 0) & (labels[place] > 0)  # a nucleus that is not there as a whole
        np.testing.assert_array_equal(valid, open_[place] & ~cut)
        beyond += (valid.sum() > 258 * 260) + 0
    assert beyond > 2


def test_what_is_not_verified_is_there_for_a_teacher(tmp_path, labels):
    verified = np.zeros(SHAPE, bool)
    verified[:500] = True
    data = export(tmp_path, labels, verified)
    index = data.index.with_name("index.csv")
    splits = read_splits(index)
    assert all(row.labels for split in ("tune", "val") for row in splits.get(split, []))
    rows = [row for row in splits["train"] if row.labels is None]
    assert {row.source for row in rows} == {UNKNOWN, REHEARSED}
    tiles = {tile.region: tile.role for tile in tiles_of(SHAPE, 1)}
    seen = np.zeros(SHAPE, bool)
    for row in (row for row in rows if row.source == UNKNOWN):
        place = np.unravel_index(np.asarray(read(row.image).pixels[0]), SHAPE)
        seen[place] = True
        assert (row.low, row.diameter_px) == (splits["train"][0].low, splits["train"][0].diameter_px)
    free = [r for r, role in tiles.items() if role is Role.TRAIN and not verified[r.slices].any()]
    assert free and all(seen[region.slices].all() for region in free)
    assert not seen[:400].any()
    kinds = {row.modality for row in rows if row.source == REHEARSED}
    assert kinds == set(Modality) - {splits["train"][0].modality}
    taught = finish(load_steps(index, "train", lambda picture: 17.0))
    assert all(not s.valid.any() for s in taught if s.source in (UNKNOWN, REHEARSED))
    assert {s.diameter_px for s in taught if s.source == REHEARSED} == {17.0}


def test_a_sample_that_a_person_corrected_is_not_rehearsed_as_whatever_it_was_taken(tmp_path):
    """A teacher would say again what was corrected."""
    pixels, numbers = np.asarray(sample("fluorescence").pixels)[0], sample_labels("fluorescence")
    whole = np.ones(numbers.shape, bool)
    data = export(tmp_path, numbers, whole, pixels=pixels, modality=Modality.IHC)
    rows = read_splits(data.index.with_name("index.csv"))["train"]
    assert {row.name for row in rows if row.source == REHEARSED} == {"sample-he.ome.tif"}


@pytest.mark.parametrize("source", [UNKNOWN, REHEARSED])
def test_no_project_has_the_name_of_what_is_not_verified(tmp_path, source):
    assert Project.create(tmp_path / f"{source}.nucleus-kd").folder.stem != source


def test_what_judges_is_completely_verified_and_never_taught(tmp_path, labels):
    verified = np.ones(SHAPE, bool)
    verified[-1, -1] = False
    data = export(tmp_path, labels, verified)
    judged = np.zeros(SHAPE, bool)
    for found, _, place in crops(data, "val"):
        judged[place] = True
        np.testing.assert_array_equal(found > 0, labels[place] > 0)
    assert judged.any() and not judged[-1, -1]
    assert (judged <= judged_tiles()).all()
    rows = read_splits(data.index)
    for row in rows["val"]:
        assert row.valid is None and true_labels(row).max() > 5
    assert data.judged == len(np.unique(labels[judged])) - 1
    assert finish(check_rows_steps([*rows["train"], *rows["tune"]], rows["val"])) == []
    assert data.notes == ()
    shared = {row.image for row in rows["train"]} & {row.image for row in rows["tune"]}
    assert not shared


def test_it_can_be_trained_on(tmp_path, labels):
    verified = np.ones(SHAPE, bool)
    pixels = (100 + 50 * (labels > 0)).astype(np.uint8)
    data = export(tmp_path, labels, verified, pixels=pixels)
    for split in ("train", "tune", "val"):
        samples = finish(load_steps(data.index, split))
        assert samples and all(sample.source == "i" for sample in samples)
    batches = Batches(finish(load_steps(data.index, "train")), CropSettings(crop_px=64, batch=4), seed=0)
    valid = sum(batches[step].valid.sum() for step in range(4))
    foreground = sum((batches[step].maps[:, :1] * batches[step].valid).sum() for step in range(4))
    assert 0 < foreground < valid


def picture(labels, dtype, *, colour, bright):
    """Nuclei whose light differs much from place to place, so that no tile is like the whole."""
    rng = np.random.default_rng(0)
    shade = np.linspace(0.1, 1, SHAPE[1]) * np.linspace(0.4, 1, SHAPE[0])[:, None]
    signal = np.where(labels > 0, 0.8, 0.2) + rng.uniform(0, 0.2, SHAPE)
    values = shade * (1.1 - signal if bright else signal) * (255 if dtype == np.uint8 else 4000)
    if colour:
        values = np.stack([values, 0.7 * values, 0.5 * values], -1)
    return values.astype(dtype)


def place_in(whole, part, name):
    """Return where the pixels of a crop are in the image: not far before the corner of its tile."""
    _, y1, x1 = place_of(name)
    height, width = part.shape[1:]
    for y in range(y1, max(-1, y1 - 129), -1):
        for x in range(x1, max(-1, x1 - 129), -1):
            if np.array_equal(whole[:, y, x : x + 4], part[:, 0, :4]):
                cut = np.s_[:, y : y + height, x : x + width]
                if np.array_equal(whole[cut], part):
                    return cut
    raise AssertionError(f"{name} is no part of the image")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("modality", "colour"),
    [
        (Modality.FLUORESCENCE, False),
        (Modality.FLUORESCENCE, True),
        (Modality.HE, True),
        (Modality.IHC, True),
        (Modality.HE, False),
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_part_is_seen_as_the_whole_image_is(tmp_path, labels, modality, colour, dtype, by_hand):
    pixels = picture(labels, dtype, colour=colour, bright=modality is not Modality.FLUORESCENCE)
    recipe, count = None, 3 if colour else 1
    if by_hand:  # a resolved recipe
        scaling = {"scaling_low": (1.0,) * count, "scaling_high": (90.0,) * count}
        recipe = Recipe(modality=modality, channels=tuple(range(count)), diameter_px=31.5, **scaling)
    how = {"photometric": "rgb"} if colour else {}
    data = export(
        tmp_path, labels, np.ones(SHAPE, bool), modality=modality, pixels=pixels, recipe=recipe, **how
    )
    image = read(tmp_path / "i.ome.tif")
    seen_whole = (
        given_input(image, None, modality, recipe.scaling_low, recipe.scaling_high)
        if by_hand
        else fit_input(image, None, modality)
    ).apply(image.pixels)
    whole = np.asarray(image.pixels)
    for split, rows in read_splits(data.index).items():
        learnt = {sample.name: sample for sample in finish(load_steps(data.index, split))}
        for row in rows[::3]:
            part = read(row.image)
            cut = place_in(whole, np.asarray(part.pixels), row.name)
            np.testing.assert_array_equal(
                learnt[row.name].pixels(), seen_whole[cut].astype(np.float16).astype(np.float32)
            )
            job = prepare(part, Recipe(segmenter="classical").model_copy(update=row.seen))  # to judge
            np.testing.assert_array_equal(job.tile(np.asarray(job.pixels)), seen_whole[cut])
            assert job.recipe.diameter_px == learnt[row.name].diameter_px
            assert job.recipe.diameter_px == pytest.approx(median_diameter(labels)), "verified, not estimated"


def test_a_blend_is_learnt_from_as_it_was_seen(tmp_path, labels):
    rng = np.random.default_rng(0)
    pixels = np.stack([picture(labels, np.uint16, colour=False, bright=True), rng.integers(0, 999, SHAPE)])
    recipe = Recipe(
        mapping="blend",
        modality=Modality.FLUORESCENCE,
        channels=(0, 1),
        channel_weights=(0.75, 0.25),
        scaling_low=(1.0, 2.0),
        scaling_high=(3000.0, 900.0),
    )
    data = export(tmp_path, labels, np.ones(SHAPE, bool), pixels=pixels.astype(np.uint16), recipe=recipe)
    image = read(tmp_path / "i.ome.tif")
    seen, _ = fit_mapping(image, recipe, Modality.FLUORESCENCE, recipe.percentiles)
    whole, seen_whole = np.asarray(image.pixels), seen.apply(image.pixels)
    (learnt, *_), (row, *_) = finish(load_steps(data.index, "train")), read_splits(data.index)["train"]
    assert row.seen["channel_weights"] == (0.75, 0.25)
    cut = place_in(whole, np.asarray(read(row.image).pixels), row.name)
    expected = seen_whole[cut].astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(learnt.pixels(), expected, atol=1e-3)
    job = prepare(read(row.image), Recipe(segmenter="classical").model_copy(update=row.seen))
    np.testing.assert_allclose(job.tile(np.asarray(job.pixels)), seen_whole[cut], atol=1e-6)


def test_what_no_model_can_learn_from_is_told(tmp_path, labels):
    recipe = Recipe(mapping="first", modality=Modality.FLUORESCENCE, channels=(0,))
    with pytest.raises(ProjectError, match="segmented with the mapping 'first', and no model can learn"):
        export(tmp_path, labels, np.ones(SHAPE, bool), recipe=recipe)


@pytest.mark.parametrize(("diameter_px", "shown_px"), [(15.0, 30.0), (31.0, 31.0), (60.0, 40.0)])
def test_nuclei_are_learnt_at_the_size_at_which_the_model_sees_them(
    tmp_path, labels, monkeypatch, diameter_px, shown_px
):
    """The model enlarges those below 24 px to 30 px, as the shipped one does."""
    monkeypatch.setattr(_training, "_TELLING", 10**6)  # else the verified nuclei say it
    recipe = Recipe(modality=Modality.FLUORESCENCE, diameter_px=diameter_px)
    data_set = export(tmp_path, labels, np.ones(SHAPE, bool), recipe=recipe)
    scales, true = [], train_data.warp
    monkeypatch.setattr(
        train_data,
        "warp",
        lambda image, marks, size, scale, rng: scales.append(scale) or true(image, marks, size, scale, rng),
    )
    crops = CropSettings(crop_px=64, batch=2, size_range=(24, 40), scale_jitter=0, wide_share=0)
    samples = finish(load_steps(data_set.index, "train"))
    Batches(samples, crops, 0, 30.0)[0]
    assert scales == pytest.approx([shown_px / diameter_px] * 2)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("scaling_low", "dark"),
        ("scaling_low", "1 2"),
        ("scaling_high", "nan"),
        ("diameter_px", "1"),
        ("channel_weights", "1 2"),
        ("channel_weights", "-1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, labels, column, value):
    data = export(tmp_path, labels, np.ones(SHAPE, bool))
    with data.index.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = value
    with data.index.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ReadError, match=column):
        read_splits(data.index)


@pytest.mark.parametrize("offset", [0, 2**31 - 5000])
def test_nuclei_that_are_verified_completely_are_counted(labels, offset):
    verified = np.zeros(SHAPE, bool)
    verified[100:300, 40:500] = True
    whole = {n for n in np.unique(labels[verified]).tolist() if n and verified[labels == n].all()}
    numbers = np.where(labels > 0, labels + offset, 0).astype(np.int32)
    assert count_verified(numbers, verified) == (len(whole), verified.mean()) and len(whole) > 10
    assert (
        count_verified(numbers, np.zeros(SHAPE, bool)) == count_verified(numbers[:0], verified[:0]) == (0, 0)
    )


def test_numbers_may_be_of_any_size(tmp_path, labels):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    verified = np.ones(SHAPE, bool)
    small = export(tmp_path / "a", labels, verified)
    large = export(tmp_path / "b", np.where(labels > 9, labels + (2**31 - 5000), labels), verified)
    assert (large.taught, large.judged, large.notes) == (small.taught, small.judged, small.notes)


def test_what_was_written_is_told_again(tmp_path, labels):
    data = export(tmp_path, labels, np.ones(SHAPE, bool))
    again = read_training(tmp_path / "data")
    assert replace(again, index=data.index) == data and data.taught > data.judged > 20
    with pytest.raises(ProjectError, match="holds no training data"):
        read_training(tmp_path)


def test_more_verified_never_teaches_what_judged(tmp_path, labels):
    verified = np.zeros(SHAPE, bool)
    judged = []
    for i, right in enumerate((400, 800, SHAPE[1])):
        verified[:, :right] = True
        (tmp_path / f"{i}").mkdir()
        data = export(tmp_path / f"{i}", labels, verified)
        taught = np.zeros(SHAPE, bool)
        for split in ("train", "tune"):
            for _, valid, place in crops(data, split):
                taught[place] |= valid
        mask = np.zeros(SHAPE, bool)
        for _, _, place in crops(data, "val"):
            mask[place] = True
        judged.append(mask)
        assert not (taught & np.logical_or.reduce(judged)).any()
    assert (judged[0] <= judged[1]).all() and (judged[1] <= judged[2]).all() and judged[2].any()


def test_too_little_to_judge_by_is_said(tmp_path, labels):
    verified = np.zeros(SHAPE, bool)
    verified[520:700, 300:500] = True
    data = export(tmp_path, labels, verified)
    rows = read_splits(data.index)
    assert data.judged == 0 and "val" not in rows
    assert "nothing can be judged: 0 verified nuclei" in data.notes[0]
    assert "watched on what it learns from" in data.notes[1]
    assert [row.image for row in rows["train"]] == [row.image for row in rows["tune"]]
    assert finish(check_rows_steps(rows["train"], [])) == [] and data.taught > 10


def test_a_tile_that_would_judge_but_for_a_few_pixels_is_named(tmp_path, labels):
    verified = np.ones(SHAPE, bool)
    judging = [tile.region for tile in tiles_of(SHAPE, 1) if tile.role is Role.VAL]
    for region in judging:
        verified[region.y1 - 1, region.x0 : region.x1] = False
    data = export(tmp_path, labels, verified)
    assert data.judged == 0
    (said,) = (note for note in data.notes if "nearly" in note)
    region = judging[0]
    assert f"of y {region.y0} to {region.y1}, x {region.x0} to {region.x1}" in said and "99." in said


def test_any_two_by_three_tiles_hold_one_that_judges():
    for offset in range(1, 6):
        roles = [tile.role for tile in tiles_of((256 * 10, 256 * 10), offset)]
        judges = np.array([role is Role.VAL for role in roles]).reshape(10, 10)
        for y in range(9):
            for x in range(8):
                assert judges[y : y + 2, x : x + 3].any()
        assert judges.mean() == 0.2
    single = [next(tiles_of((200, 300), offset)).role for offset in range(1, 11)]
    assert single.count(Role.VAL) == 2 and single.count(Role.TUNE) == 1


@pytest.mark.parametrize("area", [np.s_[0:0, 0:0], np.s_[200:203, 200:203], np.s_[260:520, 0:257]])
def test_nothing_to_learn_from_is_an_error_and_leaves_nothing(tmp_path, labels, area):
    """The last area is a tile that judges."""
    verified = np.zeros(SHAPE, bool)
    verified[area] = True
    assert area[0].stop != 520 or verified[judged_tiles()].any()
    with pytest.raises(ProjectError, match="no nucleus is verified"):
        export(tmp_path, labels, verified)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.nucleus-kd", "i.ome.tif"]


def test_loose_pieces_are_told_and_can_be_read(tmp_path, labels):
    spoilt = labels.copy()
    number = spoilt[600:640, 600:640].max()
    spoilt[520:522, 560:562], spoilt[640:642, 700:702] = number, number
    data = export(tmp_path, spoilt, np.ones(SHAPE, bool))
    assert "2 pieces with the number of another one" in data.notes[0]
    rows = read_splits(data.index)
    assert finish(check_rows_steps([*rows["train"], *rows["tune"]], rows["val"])) == []


@pytest.mark.parametrize("channels", [None, (2, 0), ("CD3",)])
def test_channels_are_those_of_the_recipe(tmp_path, labels, channels):
    names = ["DAPI", "CD3", "Histone H3"]
    pixels = np.stack([(labels > 0) * np.uint16(1000 * i) + 7 for i in (1, 2, 3)]).astype(np.uint16)
    recipe = None if channels is None else Recipe(channels=channels)
    data = export(
        tmp_path, labels, np.ones(SHAPE, bool), pixels=pixels, recipe=recipe,
        metadata={"axes": "CYX", "Channel": {"Name": names}, "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm",
                  "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"},
    )  # fmt: skip
    wanted = {None: [1007, 3007], (2, 0): [3007, 1007], ("CD3",): [2007]}[channels]
    for row in read_splits(data.index)["train"]:
        image = read(row.image)
        assert [int(plane.max().compute()) for plane in image.pixels] == wanted
        assert image.pixel_size_um == pytest.approx(0.5) and not image.rgb


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_pictures_stay_so(tmp_path, labels, dtype):
    pixels = np.stack([200 - (labels > 0) * np.int64(100 + i) for i in (1, 2, 3)], -1).astype(dtype)
    data = export(
        tmp_path, labels, np.ones(SHAPE, bool), pixels=pixels, modality=Modality.HE, photometric="rgb"
    )
    (row, *_) = read_splits(data.index)["train"]
    assert row.modality is Modality.HE
    image = read(row.image)
    assert image.rgb and image.pixels.dtype == dtype
    assert [int(plane.min().compute()) for plane in image.pixels] == [99, 98, 97]


def test_a_nuclear_channel_that_nobody_named_is_asked_for(tmp_path, labels):
    pixels = np.zeros((2, *SHAPE), np.uint8)
    with pytest.raises(ProjectError, match="no channel is named like a nuclear stain"):
        export(tmp_path, labels, np.ones(SHAPE, bool), pixels=pixels, metadata={"axes": "CYX"})


def test_several_images_share_an_index(tmp_path, draw):
    with Project.create(tmp_path / "p.nucleus-kd") as project:
        for i in range(6):
            pixels, labels = draw(200, 220, seed=i)
            tifffile.imwrite(tmp_path / f"{i}.tif", pixels, photometric="minisblack")
            reference = project.refer_to(tmp_path / f"{i}.tif")
            verified = np.full(labels.shape, i != 1)
            finish(project.add_steps(reference, labels, verified, modality=Modality.FLUORESCENCE))
        data = finish(training_steps(project, tmp_path / "data"))
    with data.index.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["labels"]]
    names = {split: sorted({r["image"] for r in rows if r["split"] == split}) for split in ("train", "val")}
    assert names["val"] == ["images/image-0005_y0_x0.ome.tif"]
    assert names["train"] == [f"images/image-000{i}_y0_x0.ome.tif" for i in (1, 3, 4, 6)]
    assert all(row["valid"] == "" for row in rows)  # they are verified to their borders


def test_planes_of_a_file_and_copies_of_it_judge_at_the_same_places(tmp_path, draw):
    pixels, labels = draw(540, 780)
    stack = np.stack([pixels] * 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    shutil.copy(tmp_path / "a.tif", tmp_path / "copy.tif")
    planes = [("a.tif", 0), ("a.tif", 2), ("copy.tif", 1)]
    with Project.create(tmp_path / "p.nucleus-kd") as project:
        for name, z in planes:
            reference = project.refer_to(tmp_path / name, z=z)
            verified = np.ones(labels.shape, bool)
            finish(project.add_steps(reference, labels, verified, modality=Modality.FLUORESCENCE))
        assert [project.offset_of(image) for image in project.images] == [1, 1, 1]
        assert [image.record.offset for image in project.images] == [1, 1, 1]
        splits = read_splits(finish(training_steps(project, tmp_path / "data")).index)
    places = {split: [place_of(row.name) for row in rows if row.labels] for split, rows in splits.items()}
    judged = {(y, x) for _, y, x in places["val"]}
    assert len(places["val"]) == len(planes) * len(judged) > 0
    assert not judged & {(y, x) for split in ("train", "tune") for _, y, x in places[split]}


def test_a_missing_image_or_a_used_folder_stops_it(tmp_path, labels):
    with make(tmp_path, labels, np.ones(SHAPE, bool)) as project:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "mine.txt").write_text("mine")
        with pytest.raises(WriteError, match="data is there and not empty"):
            finish(training_steps(project, tmp_path / "data"))
        assert (tmp_path / "data" / "mine.txt").read_text() == "mine"
        (tmp_path / "i.ome.tif").unlink()
        with pytest.raises(ProjectError, match=r"i\.ome\.tif is not there any more"):
            finish(training_steps(project, tmp_path / "other"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "i.nucleus-kd"]


def test_an_image_that_went_is_left_out_where_others_teach(tmp_path, labels):
    with make(tmp_path, labels, np.ones(SHAPE, bool)) as project:
        shutil.copy(tmp_path / "i.ome.tif", tmp_path / "gone.ome.tif")
        reference = project.refer_to(tmp_path / "gone.ome.tif")
        every = np.ones(SHAPE, bool)
        finish(project.add_steps(reference, labels, every, modality=Modality.FLUORESCENCE))
        (tmp_path / "gone.ome.tif").unlink()
        data = finish(training_steps(project, tmp_path / "data"))
        assert any("gone.ome.tif is not there any more" in note for note in data.notes)
        rows = [row for rows in read_splits(data.index).values() for row in rows if row.labels]
        assert rows and {place_of(row.name)[0] for row in rows} == {project.images[0].record.id}
        assert data.is_newest(project.images)


def test_stopping_leaves_nothing(tmp_path, labels):
    with make(tmp_path, labels, np.ones(SHAPE, bool)) as project:
        steps = training_steps(project, tmp_path / "data")
        for _ in range(4):
            next(steps)
        steps.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.nucleus-kd", "i.ome.tif"]
