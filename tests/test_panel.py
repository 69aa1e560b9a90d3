"""Panels: suggested from names and pixels, kept in files, checked against images; what is bad is said."""

from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
import tifffile
from scipy import ndimage
from typer.testing import CliRunner

import napari_nucleus_kd as nk
from napari_nucleus_kd._cli_recipe import build_recipe, read_recipe, write_recipe
from napari_nucleus_kd.cli import app
from napari_nucleus_kd.config import Recipe
from napari_nucleus_kd.errors import SettingsError, WriteError
from napari_nucleus_kd.io.samples import SAMPLES, sample
from napari_nucleus_kd.panel import (
    Panel,
    PanelChannel,
    Role,
    apply_panel,
    channel_color,
    check_panel,
    contrast,
    has_own_names,
    image_names,
    read_panel,
    suggest_panel,
    suggest_steps,
    taken_over,
    thumbnail,
)
from napari_nucleus_kd.panel._markers import roles_by_name
from napari_nucleus_kd.types import Channel, Image, Region

N, M, C, O, I = Role.NUCLEAR, Role.MEMBRANE, Role.CYTOPLASM, Role.OTHER, Role.IGNORE  # noqa: E741


def image(pixels, *names, **known):
    return Image((pixels,), tuple(Channel(name) for name in names), **known)


def flat(*names, value=None):
    """An image of noise with these channels, too small to show nuclei."""
    pixels = np.random.default_rng(0).integers(0, 200, (len(names), 32, 32)).astype(np.uint8)
    return image(pixels if value is None else np.full_like(pixels, value), *names, name="flat.tif")


def panel(**roles):
    return Panel(channels=tuple(PanelChannel(name=name, role=role) for name, role in roles.items()))


@pytest.fixture(scope="module")
def tissue(draw):
    """(5, Y, X) uint16: nuclei, membranes around them, cytoplasm, a few positive nuclei, noise."""
    grey, labels = draw(400, 420, seed=3)
    cells = ndimage.grey_dilation(labels, size=9)
    rim = (ndimage.grey_dilation(cells, size=3) != ndimage.grey_erosion(cells, size=3)).astype(float)
    cytoplasm = ((cells > 0) & (labels == 0)).astype(float)
    few = np.isin(labels, np.arange(1, labels.max(), 6)).astype(float)
    rng = np.random.default_rng(1)
    planes = [
        grey * 8.0,
        *(2000 * ndimage.gaussian_filter(p, 1) for p in (rim, cytoplasm, few)),
        np.zeros(grey.shape),
    ]
    return np.stack([(p + rng.normal(300, 20, grey.shape)).clip(0) for p in planes]).astype(np.uint16)


# Names


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (N, ["DAPI", "Hoechst 33342", "DRAQ5", "Histone H3", "DNA1", "191Ir_DNA1", "Ir193", "SYTO 13"]),
        (
            M,
            [
                "CD3",
                "CD8a",
                "CD20",
                "CD45RO",
                "E-cadherin",
                "ECAD",
                "Na/K-ATPase",
                "NaKATPase",
                "Na+K+-ATPase",
            ],
        ),
        (
            M,
            [
                "pan-membrane",
                "Membrane 1",
                "beta-catenin",
                "β-Catenin",
                "HLA-DR",
                "EpCAM",
                "HER2",
                "PD-L1",
                "PD1",
            ],
        ),
        (
            C,
            [
                "Vimentin",
                "panCK",
                "Pan-Cytokeratin",
                "CK19",
                "Keratin 14",
                "aSMA",
                "α-SMA",
                "SMA",
                "CD68",
                "GFAP",
            ],
        ),
        (O, ["Ki67", "Ki-67", "FOXP3", "PCNA", "p53", "ER", "PR", "pHH3", "Phospho-Histone H3", "Lamin B1"]),
        (I, ["blank", "Blank_2", "empty", "AF", "Autofluorescence", "R1_AF1", "auto-fluorescence"]),
    ],
)
def test_common_markers_are_known_by_name(role, names):
    for name in names:
        (told,) = roles_by_name((name,))
        assert told is not None and told[0] is role, f"{name}: {told}"


@pytest.mark.parametrize(
    "name", ["AF488", "Channel 3", "Laminin B", "X", "FITC", "Cy5", "error", "print", "TRITC"]
)
def test_what_says_nothing_is_not_guessed_from_the_name(name):
    assert roles_by_name((name,)) == [None]


def test_of_rounds_of_one_stain_the_first_is_nuclear():
    told = roles_by_name(("CD4", "DAPI_1", "DAPI_2", "pHH3", "Histone H3"))
    assert [role for role, _ in told] == [M, N, O, O, N]
    assert "shifted" in told[2][1]


def test_every_channel_has_a_role_with_its_reason():
    found = suggest_panel(sample("multiplex"))
    assert found.panel.names[found.panel.nuclear[0]] == "DAPI"
    assert len(found.reasons) == 8 and all(found.reasons)
    assert not found.question


# Pixels


def test_where_names_say_nothing_the_channel_full_of_nuclei_is_taken_and_it_is_said(tissue):
    order = [3, 1, 4, 0, 2]
    found = suggest_panel(image(tissue[order], *(f"Channel {i}" for i in range(5))))
    assert found.panel.nuclear == (3,)
    assert "by the pixels" in found.reasons[3] and "check" in found.reasons[3]
    assert found.question == "Is Channel 3 the nuclear channel? Only its pixels say so."
    assert all(reason == "the name is not known" for i, reason in enumerate(found.reasons) if i != 3)


def test_known_markers_are_not_taken_for_nuclear_by_their_pixels(tissue):
    found = suggest_panel(image(tissue[[0, 1, 2]], "CD45", "CD3", "Vimentin"))
    assert not found.panel.nuclear
    assert any("No channel looks nuclear" in note for note in found.notes)


@pytest.mark.parametrize("entry", [s.name for s in SAMPLES if s.name not in ("he", "ihc")])
def test_the_samples_nuclear_channel_is_found_without_its_name(entry):
    picture = sample(entry)
    names = [channel.name for channel in picture.channels]
    bare = Image(
        picture.levels,
        tuple(Channel(f"channel {i}") for i in range(len(names))),
        pixel_size_um=picture.pixel_size_um,
    )
    assert [names[i] for i in suggest_panel(bare).panel.nuclear] == [names[0] if len(names) == 1 else "DAPI"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((32, 32), 7.0), "all sampled pixels are 7"),
        (np.full((32, 32), np.nan), "no sampled pixel is a number"),
        (np.where(np.arange(1024).reshape(32, 32) % 4, 4095.0, 5.0), "saturated"),
    ],
)
@pytest.mark.parametrize("name", ["CD3", "DAPI", "Channel 2"])
def test_a_channel_that_shows_nothing_is_ignored_and_says_why(values, reason, name):
    rest = np.random.default_rng(0).normal(100, 10, (32, 32))
    found = suggest_panel(image(np.stack([rest, values]), "Histone H3", name))
    assert found.panel.channels[1].role is I
    assert reason in found.reasons[1]
    assert any(name in note and reason in note for note in found.notes)
    assert found.panel.nuclear == (0,)


def test_the_only_channel_is_nuclear_whatever_it_shows():
    found = suggest_panel(flat("CD3", value=3))
    assert found.panel.nuclear == (0,)
    assert found.notes == ("CD3: all sampled pixels are 3.",)


def test_negative_values_are_told():
    pixels = np.random.default_rng(0).normal(0, 10, (2, 32, 32)).astype(np.float32)
    (note,) = suggest_panel(image(pixels, "DAPI", "CD3")).notes
    assert "Negative values in DAPI, CD3" in note


def test_channels_of_different_ranges_are_each_judged_in_their_own(tissue):
    lazy = da.stack([da.from_array(tissue[1].astype(np.uint8)), da.from_array(tissue[0] / 65535.0)])
    found = suggest_panel(image(lazy, "1", "2"))
    assert found.panel.nuclear == (1,)
    assert contrast(image(lazy, "1", "2"), 1, (0, 100))[1] < 1


def test_alike_channels_without_names_are_asked_for_not_guessed(draw):
    grey = draw(200, 200)[0]
    planes = np.stack([ndimage.gaussian_filter(grey, 0.4 * i) for i in range(7)])
    unnamed = suggest_panel(image(planes, *(f"channel {i}" for i in range(1, 8))))
    assert any("Are these z planes or time points?" in note for note in unnamed.notes)
    assert not unnamed.panel.nuclear and not unnamed.question
    named = suggest_panel(image(planes, "DAPI", *(f"channel {i}" for i in range(2, 8))))
    assert not any("z planes" in note for note in named.notes)
    few = suggest_panel(image(planes[:3], "1", "2", "3"))
    assert not any("z planes" in note for note in few.notes)


def test_unlike_channels_without_names_are_not_asked_for(tissue):
    notes = suggest_panel(image(tissue, *(f"channel {i}" for i in range(1, 6)))).notes
    assert not any("z planes" in note for note in notes)


def test_a_colour_picture_has_no_panel():
    with pytest.raises(SettingsError, match="colour picture"):
        suggest_panel(sample("he"))
    with pytest.raises(SettingsError, match="colour picture"):
        apply_panel(panel(red=N, green=O, blue=O), sample("he"))


class Counted:
    """A (C, Y, X) array that counts what is read of each channel."""

    def __init__(self, shape):
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.uint16), 3
        self.read = np.zeros(shape[0], int)

    def __getitem__(self, index):
        values = np.broadcast_to(np.arange(self.shape[2]) % 251, self.shape)[index].astype(np.uint16)
        self.read[index[0]] += values[0].size
        return values

    def lazy(self):
        return da.from_array(self, chunks=(1, 256, 256), meta=np.zeros((0, 0, 0), np.uint16))


def test_only_a_sample_of_each_channel_is_read(finish):
    counted = Counted((6, 8192, 8192))
    found, seen = finish(suggest_steps(image(counted.lazy(), *"ABCDEF")))
    assert len(seen) == 6 and seen[-1].total == 6
    assert (counted.read > 0).all()
    assert counted.read.max() <= 16 * 4 * 256**2 < 0.07 * 8192**2  # a block may touch four pieces of the file
    before = counted.read.copy()
    thumbnail(image(counted.lazy(), *"ABCDEF"), 2, found.place, 40)
    assert np.flatnonzero(counted.read - before).tolist() == [2]


@pytest.mark.parametrize("modality", [None, "fluorescence"])
def test_only_the_chosen_channels_are_read_when_segmenting(modality):
    counted = Counted((8, 512, 512))
    nk.segment(
        image(counted.lazy(), *"ABCDEFGH"), channels=("C", "F"), modality=modality, segmenter="classical"
    )
    assert np.flatnonzero(counted.read).tolist() == [2, 5]


def test_a_thumbnail_is_small_and_grey_even_of_nothing():
    place = Region(0, 0, 32, 32)
    for value in (None, 5):
        picture = thumbnail(flat("A", value=value), 0, place, 40)
        assert picture.shape == (40, 40) and picture.dtype == np.uint8
    assert np.ptp(thumbnail(flat("A"), 0, place, 40)) > 100
    nothing = image(np.full((1, 32, 32), np.nan), "A")
    assert thumbnail(nothing, 0, place, 40).shape == (40, 40)


# The panel


def test_a_panel_is_kept_in_a_file(tmp_path):
    kept = panel(DAPI=N, CD3=M).with_color([1], "#FF8800").with_percentiles([0], (2, 99))
    kept.save(tmp_path / "a.json")
    assert read_panel(tmp_path / "a.json") == kept
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["channels"][1]["color"] == "#ff8800"


def test_a_panel_that_cannot_be_written_leaves_what_was_there(tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        panel(DAPI=N).save(tmp_path / "no folder" / "a.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no panel"),
        ("{", "no panel"),
        ('{"channels": []}', "channels"),
        (Recipe().model_dump_json(), "is a recipe and no panel; give it with --recipe"),
        ('{"panel": 2, "channels": [{"name": "DAPI"}]}', "panel"),
        ('{"channels": [{"name": " "}]}', r"channels\.0\.name"),
        ('{"channels": [{"name": "DAPI"}, {"name": " dapi"}]}', "channels 1 and 2 are both named “dapi”"),
        ('{"channels": [{"name": "DAPI", "role": "nucleus"}]}', "role"),
        ('{"channels": [{"name": "DAPI", "color": "red"}]}', "color"),
        ('{"channels": [{"name": "DAPI", "percentiles": [99, 1]}]}', "percentiles must rise"),
        ('{"channels": [{"name": "DAPI", "percentiles": [NaN, 1]}]}', "percentiles"),
        (b"\xff\xfe\x00", "no panel"),
        (" " * (1 << 21), "more than any panel"),
    ],
)
def test_a_file_that_is_no_panel_says_what_is_wrong(tmp_path, text, said):
    path = tmp_path / "bad.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=said) as raised:
        read_panel(path)
    assert "bad.json" in str(raised.value) and "Save panel" in str(raised.value)


def test_a_panel_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_panel(tmp_path / "none.json")


def test_nuclear_channels_share_their_percentiles():
    first = panel(DAPI=N, CD3=M, H3=N).with_percentiles([2], (5, 99))
    assert [c.percentiles for c in first.channels] == [(5, 99), (1, 99.8), (5, 99)]
    assert first.with_role([1], N).channels[1].percentiles == (5, 99)
    rows = [PanelChannel(name="DAPI", role=N), PanelChannel(name="H3", role=N, percentiles=(5, 99))]
    with pytest.raises(ValueError, match="different percentiles"):
        Panel(channels=tuple(rows))
    with pytest.raises(SettingsError, match="rise"):
        first.with_percentiles([0], (99, 5))


def test_other_nuclear_channels_can_be_chosen():
    suggested = panel(DAPI=N, CD3=M, X=O)
    chosen = suggested.with_nuclear([1], suggested)
    assert [c.role for c in chosen.channels] == [O, N, O]
    assert [c.role for c in chosen.with_nuclear([0, 2], suggested).channels] == [N, M, N]


def test_a_panel_says_to_a_recipe_what_differs_from_the_model():
    assert panel(CD3=M, DAPI=N).settings() == {"channels": (1,)}
    assert panel(DAPI=N).with_percentiles([0], (0, 100)).settings() == {
        "channels": (0,),
        "percentiles": (0, 100),
    }
    with pytest.raises(SettingsError, match=r"no channel of the panel is nuclear.*CD3"):
        panel(CD3=M, CD8=M).settings()


# Another image


def test_names_are_compared_without_capitals_and_spaces():
    assert not check_panel(panel(DAPI=N, CD3=M), flat(" dapi", "cd3 "))


def test_every_kind_of_difference_is_named():
    differences = check_panel(panel(DAPI=N, CD3=M, CD8=M, CK=C), flat("CD3", "DAPI", "CD8a", "X", "Y"))
    assert differences.renamed == (("CD8", "CD8a"), ("CK", "X"))
    assert differences.reordered == (("DAPI", 1, 2), ("CD3", 2, 1))
    assert differences.additional == ("Y",)
    words = " ".join(differences.words())
    assert "“CD8” is perhaps “CD8a” here" in words and "“DAPI” (no. 1 in the panel, no. 2 here)" in words
    assert check_panel(panel(DAPI=N, CD3=M), flat("DAPI")).missing == ("CD3",)
    assert not differences.fits


def test_one_channel_more_does_not_reorder_the_others():
    differences = check_panel(panel(DAPI=N, CD3=M), flat("AF", "DAPI", "CD3"))
    assert differences.fits and differences.additional == ("AF",) and not differences.reordered


def test_a_panel_is_applied_by_name_whatever_the_order():
    fitted = apply_panel(panel(DAPI=N, CD3=M), flat("CD3", "AF", "dapi"))
    assert fitted.names == ("CD3", "AF", "dapi")
    assert [c.role for c in fitted.channels] == [M, I, N]
    assert fitted.settings() == {"channels": (2,)}


def test_a_panel_of_another_image_is_refused_with_what_is_missing():
    with pytest.raises(SettingsError, match=r"does not fit flat.tif.*Missing: “CD8”.*Correct the names"):
        apply_panel(panel(DAPI=N, CD3=M, CD8=M), flat("CD3", "DAPI"))


def test_a_panel_without_a_nuclear_channel_is_refused():
    with pytest.raises(SettingsError, match="no channel of the panel is nuclear"):
        apply_panel(panel(CD3=M), flat("CD3"))


def test_nuclear_channels_that_show_nothing_are_refused_with_the_reason():
    with pytest.raises(SettingsError, match=r"show nothing.*DAPI.*all sampled pixels are 3"):
        apply_panel(panel(DAPI=N, CD3=M), flat("DAPI", "CD3", value=3))


def test_repeated_and_empty_names_are_told_apart_and_told():
    picture = flat("DAPI", "CD3", "dapi", "", "DAPI")
    assert image_names(picture) == ("DAPI", "CD3", "dapi (2)", "channel 4", "DAPI (3)")
    found = suggest_panel(picture)
    assert found.panel.nuclear == (0,)
    assert any("more than once" in note and "dapi (2)" in note for note in found.notes)
    assert any("no name" in note for note in found.notes)
    assert not check_panel(found.panel, picture)


def test_a_taken_number_is_not_given_twice():
    assert image_names(flat("A", "A (2)", "A")) == ("A", "A (2)", "A (3)")


def test_what_a_panel_does_not_name_keeps_its_role_but_is_not_nuclear():
    merged = taken_over(panel(H3=N, CD8=O), panel(DAPI=N, CD8=M, H3=O, CK=C))
    assert {c.name: c.role for c in merged.channels} == {"DAPI": O, "CD8": O, "H3": N, "CK": C}
    assert taken_over(panel(CD8=O), panel(DAPI=N, CD8=M)).nuclear == (0,)


def test_only_names_that_say_something_are_worth_remembering():
    assert has_own_names(("DAPI", "CD3", "channel 3"))
    assert not has_own_names(("Channel:0:0", "Channel:0:1", "C2", "3", "ch_4"))


def test_colours_are_the_files_or_safe_ones():
    picture = Image((np.zeros((3, 8, 8)),), (Channel("A", "#AB00FF"), Channel("B"), Channel("C", "red")))
    assert channel_color(picture, 0) == "#AB00FF"
    colors = [channel.color for channel in suggest_panel(picture).panel.channels]
    assert colors[0] == "#ab00ff" and colors[1:] == ["#e69f00", "#009e73"]


# The command line


@pytest.fixture
def files(tmp_path, tissue):
    """Two images of the same channels, the second in another order and with one more."""
    names = ["DAPI", "CD3", "Vimentin", "Ki67"]
    orders = {"a": [0, 1, 2, 3], "b": [3, 2, 0, 1, 4]}
    for name, order in orders.items():
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif",
            tissue[order],
            metadata={"axes": "CYX", "Channel": {"Name": [[*names, "AF"][i] for i in order]}},
        )
    return tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"


def run(*arguments, status=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


def test_a_panel_is_suggested_and_used_for_images_in_another_order(files, tmp_path):
    path, out = tmp_path / "panel.json", tmp_path / "out"
    said = run("panel", files[0], "--output", path)
    assert "CD3" in said and "membrane marker" in said
    assert [c.role for c in read_panel(path).channels] == [N, M, C, O]
    said = run("segment", *files, "--panel", path, "--segmenter", "classical", "--output", out)
    assert "In another order" in said and "Not in the panel: “AF”" in said
    one, two = (Recipe.model_validate_json((out / f"{n}_recipe.json").read_text("utf-8")) for n in "ab")
    assert one.channels == two.channels == ("DAPI",)
    a, b = (np.asarray(nk.read(out / f"{n}_labels.tif").pixels) for n in "ab")
    np.testing.assert_array_equal(a, b)
    assert "done before" in run(
        "segment", *files, "--panel", path, "--segmenter", "classical", "--output", out
    )


def test_a_panel_says_what_is_enhanced(files, tmp_path):
    path, out = tmp_path / "panel.json", tmp_path / "out"
    panel(Vimentin=N, CD3=M).with_percentiles([0], (10, 90)).save(path)
    asked = ["enhance", *files, "--panel", path, "--output", out]
    assert "In another order" in run(*asked)
    said = [
        Recipe.model_validate_json((out / f"{n}_enhancement_recipe.json").read_text("utf-8")) for n in "ab"
    ]
    assert [(one.channels, one.percentiles) for one in said] == [(("Vimentin",), (10, 90))] * 2
    assert run(*asked).count("done before") == 2
    assert "leave --channel" in run(*asked, "--channel", "CD3", status=2)


def test_a_recipe_names_what_an_adapter_chose_from(files, tmp_path):
    recipe = Recipe(mapping="nucleus-adapter", channels=(0,), adapter_channels=(0, 3))
    write_recipe(tmp_path / "recipe.json", recipe, nk.read(files[0]))
    again = build_recipe(read_recipe(tmp_path / "recipe.json"), {})
    assert (again.channels, again.adapter_channels) == (("DAPI",), ("DAPI", "Ki67"))


def test_percentiles_of_a_panel_reach_the_run(files, tmp_path):
    path, out = tmp_path / "panel.json", tmp_path / "out"
    panel(Vimentin=N, CD3=M).with_percentiles([0], (10, 90)).save(path)
    run("segment", files[0], "--panel", path, "--segmenter", "classical", "--output", out)
    recipe = Recipe.model_validate_json((out / "a_recipe.json").read_text("utf-8"))
    assert (recipe.channels, recipe.percentiles) == (("Vimentin",), (10, 90))
    run("segment", files[0], "--channel", "Vimentin", "--percentiles", 10, 90, "--segmenter", "classical",
        "--output", tmp_path / "same")  # fmt: skip
    assert (tmp_path / "same" / "a_labels.tif").exists()
    same = Recipe.model_validate_json((tmp_path / "same" / "a_recipe.json").read_text("utf-8"))
    assert same == recipe


def test_an_image_that_does_not_fit_fails_with_what_differs(files, tmp_path):
    path = tmp_path / "panel.json"
    panel(DAPI=N, CD8=M).save(path)
    said = run(
        "segment", files[0], "--panel", path, "--segmenter", "classical", "--output", tmp_path, status=1
    )
    assert "does not fit" in said and "“CD8” is perhaps “CD3” here" in said


def test_impossible_panels_exit_2(files, tmp_path):
    path = tmp_path / "panel.json"
    rest = (files[0], "--output", tmp_path, "--segmenter", "classical", "--panel", path)
    assert "cannot be read" in run("segment", *rest, status=2)
    panel(CD3=M).save(path)
    assert "no channel of the panel is nuclear" in run("segment", *rest, status=2)
    assert "leave --channel" in run("segment", *rest, "--channel", "DAPI", status=2)


def test_a_panel_file_is_not_replaced_unasked(files, tmp_path):
    path = tmp_path / "panel.json"
    path.write_text("mine", encoding="utf-8")
    assert "--overwrite" in run("panel", files[0], "-o", path, status=1)
    assert path.read_text("utf-8") == "mine"
    run("panel", files[0], "-o", path, "--overwrite")
    assert read_panel(path).names[0] == "DAPI"


def test_a_z_stack_without_axes_is_asked_for(tmp_path, draw):
    grey = draw(200, 200)[0]
    tifffile.imwrite(
        tmp_path / "stack.tif", np.stack([ndimage.gaussian_filter(grey, 0.4 * i) for i in range(6)])
    )
    said = run("panel", tmp_path / "stack.tif", "-o", tmp_path / "p.json")
    assert "Are these z planes or time points?" in said
    read_panel(tmp_path / "p.json")
