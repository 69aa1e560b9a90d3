"""Names, colours and pixel sizes in every dialect; what a file does not say stays unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as pil

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io import read

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80)
THREE = np.stack([PIXELS, PIXELS + 1, PIXELS + 2])


def ome(path: Path, **words: Any) -> None:
    tifffile.imwrite(path, THREE, ome=True, photometric="minisblack", metadata={"axes": "CYX", **words})


@pytest.mark.parametrize(
    ("value", "unit", "um"),
    [
        (0.5, "µm", 0.5),
        (500, "nm", 0.5),
        (5e-4, "mm", 0.5),
        (5e-5, "cm", 0.5),
        (5000, "Å", 0.5),
        (1, "pixel", None),
    ],
)
def test_ome_units_become_micrometres(value: float, unit: str, um: float | None, tmp_path: Path) -> None:
    sizes = {f"PhysicalSize{a}{k}": v for a in "XY" for k, v in (("", value), ("Unit", unit))}
    ome(tmp_path / "a.ome.tif", **sizes)
    assert read(tmp_path / "a.ome.tif").pixel_size_um == (None if um is None else pytest.approx(um))


def test_pixels_that_are_not_square_get_their_mean_and_a_note(tmp_path: Path) -> None:
    ome(tmp_path / "a.ome.tif", PhysicalSizeX=0.5, PhysicalSizeY=0.6)
    image = read(tmp_path / "a.ome.tif")
    assert image.pixel_size_um == pytest.approx(0.55)
    assert any("0.5 um wide and 0.6 um high" in note for note in image.notes)
    ome(tmp_path / "b.ome.tif", PhysicalSizeX=0.5, PhysicalSizeY=0.504)
    assert read(tmp_path / "b.ome.tif").notes == ()


def test_each_ome_series_has_its_own_names(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for name, um, number in (("left", 0.5, 3), ("right", 0.25, 2)):
            words = {"axes": "CYX", "Name": name, "PhysicalSizeX": um, "PhysicalSizeY": um}
            words["Channel"] = {"Name": [f"{name} {i}" for i in range(number)]}
            tif.write(THREE[:number], metadata=words, photometric="minisblack")
    image = read(path, series=1)
    assert [c.name for c in image.channels] == ["right 0", "right 1"]
    assert image.pixel_size_um == 0.25
    assert any("series 1 of 2" in note and "right" in note for note in image.notes)


@pytest.mark.parametrize(
    ("unit", "um"), [("um", 0.5), ("micron", 0.5), ("\\u00B5m", 0.5), ("nm", 0.0005), ("pixel", None)]
)
def test_imagej_scale_labels_and_colours(unit: str, um: float | None, tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8)
    blue = np.stack([ramp * 0, ramp * 0, ramp])
    words = {"axes": "CYX", "unit": unit, "Labels": ["DAPI", "CD3", "CD8"], "LUTs": [blue, blue[::-1], blue]}
    tifffile.imwrite(tmp_path / "a.tif", THREE, imagej=True, resolution=(2, 2), metadata=words)
    image = read(tmp_path / "a.tif")
    assert [(c.name, c.color) for c in image.channels] == [
        ("DAPI", "#0000ff"),
        ("CD3", "#ff0000"),
        ("CD8", "#0000ff"),
    ]
    assert image.pixel_size_um == (None if um is None else pytest.approx(um))


@pytest.mark.parametrize("dpi", [1, 72, 96, 150, 300, 600, 1200, 4800])
@pytest.mark.parametrize("name", ["a.tif", "imagej.tif", "a.png", "a.jpg", "a.bmp"])
def test_a_printing_resolution_is_no_pixel_size(name: str, dpi: int, tmp_path: Path) -> None:
    small = PIXELS.astype(np.uint8)
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, small, resolution=(dpi, dpi), resolutionunit="INCH")
    elif name == "imagej.tif":
        tifffile.imwrite(
            tmp_path / name, small, imagej=True, resolution=(dpi, dpi), metadata={"unit": "inch"}
        )
    else:
        pil.fromarray(small).save(tmp_path / name, dpi=(dpi, dpi))
    image = read(tmp_path / name)
    assert image.pixel_size_um is None
    assert image.notes == ()


def test_a_microscopes_resolution_tags_are_taken_and_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, resolution=(40000, 40000), resolutionunit="CENTIMETER")
    image = read(tmp_path / "a.tif")
    assert image.pixel_size_um == pytest.approx(0.25)
    assert any("resolution tags" in note for note in image.notes)


def test_page_names_are_channel_names(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for pixels, name in zip(THREE, ("dsDNA", "CD3", "CD8"), strict=True):
            tif.write(pixels, metadata=None, extratags=[(285, "s", 0, name, True)], photometric="minisblack")
    assert [c.name for c in read(tmp_path / "a.tif").channels] == ["dsDNA", "CD3", "CD8"]


def test_a_damaged_ome_description_is_said_aloud(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    ome(path, PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    path.write_bytes(path.read_bytes().replace(b"</Image>", b"</Imagx>"))
    image = read(path)
    assert image.pixel_size_um is None
    assert any("description is damaged" in note for note in image.notes)


@pytest.mark.parametrize(
    ("before", "after", "ignored"),
    [
        ('PhysicalSizeX="0.5"', 'PhysicalSizeX="wide"', "PhysicalSizeX"),
        ('PhysicalSizeX="0.5"', 'PhysicalSizeX=""', "PhysicalSizeX"),
        ('PhysicalSizeX="0.5"', 'PhysicalSizeX="nan"', "PhysicalSizeX"),
        ('Color="65535"', 'Color="red"', "Color"),
        ('Color="65535"', 'Color="1e999"', "Color"),
        ('SamplesPerPixel="1"', 'SamplesPerPixel="999999999"', "SamplesPerPixel"),
        ('SamplesPerPixel="1"', 'SamplesPerPixel="-4"', "SamplesPerPixel"),
    ],
)
def test_junk_in_an_ome_description_is_ignored_with_a_note(
    before: str, after: str, ignored: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.ome.tif"
    words = {"Name": ["DAPI", "CD3", "CD8"], "Color": [65535] * 3}
    ome(path, PhysicalSizeX=0.5, PhysicalSizeY=0.5, Channel=words)
    text = tifffile.tiffcomment(path)
    assert before in text
    junk = text.replace(before, after).encode()
    tifffile.imwrite(path, THREE, description=junk, metadata=None, photometric="minisblack")
    image = read(path)
    assert [c.name for c in image.channels] == ["DAPI", "CD3", "CD8"]
    assert image.pixel_size_um == 0.5  # of the other axis where one is junk
    assert len([n for n in image.notes if ignored in n and n.endswith("ignored")]) == 1
    assert {c.color for c in image.channels} == ({None} if ignored == "Color" else {"#0000ff"})
    np.testing.assert_array_equal(image.pixels.compute(), THREE)


def zarr_image(path: Path, pixels: np.ndarray, omero: Any = None, **changes: Any) -> zarr.Group:
    """Write one multiscale with axes "tczyx"[-ndim:] at 0.5 x 0.5 um."""
    names = changes.pop("axes", "tczyx"[-pixels.ndim :])
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": a, "type": kinds.get(a, "space")} for a in names]
    for axis in axes[-2:]:
        axis["unit"] = "micrometer"
    group = zarr.open_group(str(path), mode="a")
    group.create_array("0", data=pixels, chunks=tuple(min(32, n) for n in pixels.shape))
    scale = [{"type": "scale", "scale": [1.0] * (pixels.ndim - 2) + [0.5, 0.5]}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], **changes}
    words: dict[str, Any] = {"version": "0.5", "multiscales": [multiscale]}
    group.attrs["ome"] = words | ({"omero": {"channels": omero}} if omero else {})
    return group


def test_zarr_with_all_axes_takes_the_middle_plane(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (2, 3, 5, 40, 50), np.uint16)
    zarr_image(tmp_path / "a.zarr", pixels)
    image = read(tmp_path / "a.zarr", t=1)
    np.testing.assert_array_equal(image.pixels.compute(), pixels[1, :, 2])
    assert any("z plane 2 of 5" in note for note in image.notes)
    assert image.z_plane == (2, 5) and image.z == 2
    np.testing.assert_array_equal(read(tmp_path / "a.zarr", z=4).pixels.compute(), pixels[0, :, 4])


def test_zarr_axes_in_another_order(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (40, 50, 3), np.uint16)
    zarr_image(tmp_path / "a.zarr", pixels, axes="yxc")
    assert read(tmp_path / "a.zarr").pixels.compute().shape == (3, 40, 50)
    np.testing.assert_array_equal(read(tmp_path / "a.zarr").pixels.compute(), pixels.transpose(2, 0, 1))


def test_zarr_scales_multiply_and_need_a_unit(tmp_path: Path) -> None:
    factor = [{"type": "scale", "scale": [2.0, 2.0]}]
    zarr_image(tmp_path / "a.zarr", PIXELS, coordinateTransformations=factor)
    assert read(tmp_path / "a.zarr").pixel_size_um == pytest.approx(1.0)
    group = zarr_image(tmp_path / "b.zarr", PIXELS)
    words = dict(group.attrs["ome"])
    for axis in words["multiscales"][0]["axes"]:
        axis.pop("unit", None)
    group.attrs["ome"] = words
    assert read(tmp_path / "b.zarr").pixel_size_um is None


@pytest.mark.parametrize(
    ("names", "bright", "rgb"),
    [
        (("Red", "Green", "Blue"), False, True),
        (("Channel 0", "Channel 1", "Channel 2"), True, True),
        (("Channel 0", "Channel 1", "Channel 2"), False, False),
        (("DAPI", "FITC", "TRITC"), True, False),
        ((None, None, None), True, True),
    ],
)
def test_zarr_colour_pictures(names: tuple[str | None, ...], bright: bool, rgb: bool, tmp_path: Path) -> None:
    pixels = np.full((3, 40, 50), 220 if bright else 5, np.uint8)
    colors = ("FF0000", "00FF00", "0000FF")
    omero = [{"color": c} | ({"label": n} if n else {}) for n, c in zip(names, colors, strict=True)]
    zarr_image(tmp_path / "a.zarr", pixels, omero, axes="cyx")
    assert read(tmp_path / "a.zarr").rgb is rgb


def test_zarr_of_bioformats2raw_has_series(tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for number in range(2):
        zarr_image(tmp_path / "a.zarr" / str(number), PIXELS + number)
    np.testing.assert_array_equal(read(tmp_path / "a.zarr", series=1).pixels.compute()[0], PIXELS + 1)


def test_a_zarr_plate_says_how_to_open_a_field(tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.attrs["ome"] = {"version": "0.5", "plate": {"wells": []}}
    with pytest.raises(ReadError, match="one field"):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_ome_image_over_two_files(compression: str | None, tmp_path: Path) -> None:
    names = ("a.ome.tif", "b.ome.tif")
    parts = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{n}">urn:uuid:0000000{i}</UUID></TiffData>'
        for i, n in enumerate(names)
    )
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" Name="{n}" SamplesPerPixel="1"/>' for i, n in enumerate("ab")
    )
    for i, name in enumerate(names):
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{i}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
            f'Type="uint16" SizeX="80" SizeY="64" SizeC="2" SizeZ="1" SizeT="1">'
            f"{channels}{parts}</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / name, THREE[i], description=text, metadata=None, compression=compression)
    for name in names:
        image = read(tmp_path / name)
        assert [c.name for c in image.channels] == ["a", "b"]
        np.testing.assert_array_equal(image.pixels.compute(), THREE[:2])
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes()[:-90])
    with pytest.raises(ReadError, match=r"b\.ome\.tif"):
        read(tmp_path / names[0])
