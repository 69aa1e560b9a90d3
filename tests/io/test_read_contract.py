"""One contract for every format: axes, levels, channels, pixel size and regions, in files made here."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as pil

from napari_nucleus_kd.io import IMAGE_SUFFIXES, read
from napari_nucleus_kd.types import Channel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60000, (70, 90), np.uint16)
FOUR = RNG.integers(0, 4000, (4, 70, 90), np.uint16)
RGB = RNG.integers(0, 255, (70, 90, 3), np.uint8)
RGBA = RNG.integers(0, 255, (70, 90, 4), np.uint8)
STACK = RNG.integers(0, 4000, (2, 5, 3, 70, 90), np.uint16)  # T, Z, C
LARGE = RNG.integers(0, 255, (2, 600, 800), np.uint8)
COLOURED = (Channel("red", "#ff0000"), Channel("green", "#00ff00"), Channel("blue", "#0000ff"))


def unnamed(count: int) -> tuple[Channel, ...]:
    return tuple(Channel(f"channel {i + 1}") for i in range(count))


@dataclass
class Case:
    """A way to write a file, and what reading it must give."""

    name: str
    write: Callable[[Path], None]
    levels: list[npt.NDArray[np.generic]]
    channels: tuple[Channel, ...]
    rgb: bool = False
    um: float | None = None
    note: str = ""


def first(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return np.moveaxis(pixels, 2, 0)[:3]


def write_ome_pyramid(path: Path) -> None:
    words = {
        "axes": "CYX",
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["DAPI", "CD8"], "Color": [0x0000FFFF, -16776961]},
    }
    options = {"tile": (128, 128), "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(LARGE, subifds=2, metadata=words, **options)
        tif.write(LARGE[:, ::2, ::2], subfiletype=1, **options)
        tif.write(LARGE[:, ::4, ::4], subfiletype=1, **options)


def write_qptiff(path: Path) -> None:
    """Lay pages out as PerkinElmer does: channels, thumbnail, then the same channels at half the size."""
    marks = [("DAPI", "0,0,255", None), ("Opal 520", "0,255,0", "CD8")]
    options = {"tile": (128, 128), "compression": "lzw", "photometric": "minisblack", "metadata": None}
    options |= {"software": "PerkinElmer-QPI", "resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}

    def page(name: str, color: str, marker: str | None, kind: str) -> str:
        extra = f"<Biomarker>{marker}</Biomarker>" if marker else ""
        return (
            '<?xml version="1.0" encoding="utf-8"?><PerkinElmer-QPI-ImageDescription>'
            f"<ImageType>{kind}</ImageType><Name>{name}</Name>{extra}<Color>{color}</Color>"
            "</PerkinElmer-QPI-ImageDescription>"
        )

    with tifffile.TiffWriter(path) as tif:
        for pixels, words in zip(LARGE, marks, strict=True):
            tif.write(pixels, description=page(*words, "FullResolution"), **options)
        thumbnail = np.zeros((60, 80, 3), np.uint8)
        tif.write(thumbnail, photometric="rgb", metadata=None, software="PerkinElmer-QPI")
        for pixels, words in zip(LARGE[:, ::2, ::2], marks, strict=True):
            tif.write(pixels, description=page(*words, "ReducedResolution"), **options)


def write_svs(path: Path) -> None:
    """Lay pages out as Aperio does: baseline, thumbnail in strips, reduced level, label, macro."""
    words = "Aperio Image Library v11.2.1 \r\n800x600 [0,0 800x600] (240x240) JPEG/RGB Q=90|AppMag = 20"
    tiles = {"tile": (240, 240), "compression": "jpeg", "compressionargs": {"level": 95}}
    options = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(SMOOTH, description=f"{words}|MPP = 0.4990|Left = 25.7", **tiles, **options)
        tif.write(SMOOTH[::8, ::8], description=f"{words} thumbnail", compression="jpeg", **options)
        tif.write(SMOOTH[::4, ::4], description=f"{words} reduced", **tiles, **options)
        small = {"compression": "lzw", "subfiletype": 1, **options}
        tif.write(SMOOTH[:50, :60], description="Aperio Image Library v11.2.1 \r\nlabel 60x50", **small)
        small |= {"subfiletype": 9}
        tif.write(SMOOTH[:50, :80], description="Aperio Image Library v11.2.1 \r\nmacro 80x50", **small)


_y, _x = np.mgrid[:600, :800]
SMOOTH = np.stack([_y * 255 // 600, _x * 255 // 800, (_x + _y) * 255 // 1400], -1).astype(np.uint8)


def write_zarr(path: Path, version: str) -> None:
    omero = {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "CD8", "color": "00FF00"}]}
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"]
    datasets = [
        {"path": f"{i}", "coordinateTransformations": [{"type": "scale", "scale": [1, s, s]}]}
        for i, s in enumerate((250.0, 500.0))
    ]
    words = {"multiscales": [{"axes": axes, "datasets": datasets, "name": "x"}], "omero": omero}
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for i, pixels in enumerate((LARGE, LARGE[:, ::2, ::2])):
        group.create_array(f"{i}", data=pixels, chunks=(1, 256, 256))
    if version == "0.4":
        words["multiscales"][0]["version"] = version
        group.attrs.update(words)
    else:
        group.attrs["ome"] = {"version": version, **words}


def tiff(pixels: npt.NDArray[np.generic], **options: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def imagej(path: Path) -> None:
    tifffile.imwrite(
        path,
        STACK,
        imagej=True,
        resolution=(1 / 0.65, 1 / 0.65),
        metadata={"axes": "TZCYX", "unit": "um"},
    )


def picture(pixels: npt.NDArray[np.generic], **options: object) -> Callable[[Path], None]:
    return lambda path: pil.fromarray(pixels).save(path, **options)


def palette(path: Path) -> None:
    image = pil.fromarray((GREY % 4).astype(np.uint8), "L").convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image.save(path)


PALETTE = np.moveaxis(np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)[GREY % 4], 2, 0)
DAPI_CD8 = (Channel("DAPI", "#0000ff"), Channel("CD8", "#00ff00"))
OME_CHANNELS = (Channel("DAPI", "#0000ff"), Channel("CD8", "#ff0000"))
QPI_CHANNELS = (Channel("DAPI", "#0000ff"), Channel("CD8 (Opal 520)", "#00ff00"))
PYRAMID2 = [LARGE, LARGE[:, ::2, ::2]]
BLACK = {"photometric": "minisblack"}


def write_vips_pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as tif:
        for step in (1, 2, 4):
            reduced = {"subfiletype": 1} if step > 1 else {}
            options = {"tile": (128, 128), "compression": "lzw", "photometric": "rgb", "metadata": None}
            tif.write(SMOOTH[::step, ::step], **options, **reduced)


CASES = [
    Case("grey.tif", tiff(GREY), [GREY[None]], unnamed(1)),
    Case("big-endian.tif", tiff(GREY, byteorder=">"), [GREY[None]], unnamed(1)),
    Case("big.btf", tiff(GREY, bigtiff=True), [GREY[None]], unnamed(1)),
    Case("strips.tif", tiff(GREY, compression="lzw", rowsperstrip=7), [GREY[None]], unnamed(1)),
    Case("float.tif", tiff(GREY.astype(np.float32)), [GREY[None].astype(np.float32)], unnamed(1)),
    Case("signed.tif", tiff(GREY.astype(np.int32)), [GREY[None].astype(np.int32)], unnamed(1)),
    Case("bits.tif", tiff(GREY > 30000, **BLACK), [GREY[None] > 30000], unnamed(1)),
    Case("rgb.tif", tiff(RGB, photometric="rgb"), [first(RGB)], COLOURED, rgb=True),
    Case("rgba.tif", tiff(RGBA, photometric="rgb"), [first(RGBA)], COLOURED, rgb=True, note="alpha"),
    Case(
        "rgb16.tif",
        tiff(RGB.astype(np.uint16) * 9, photometric="rgb", compression="zlib"),
        [first(RGB).astype(np.uint16) * 9],
        COLOURED,
        rgb=True,
    ),
    Case(
        "planar-rgb.tif",
        tiff(first(RGB), photometric="rgb", planarconfig="separate"),
        [first(RGB)],
        COLOURED,
        rgb=True,
    ),
    Case(
        "planar-fluorescence.tif",
        tiff(first(RGB), photometric="minisblack", planarconfig="separate"),
        [first(RGB)],
        unnamed(3),
    ),
    Case("three-pages.tif", tiff(first(RGB), **BLACK), [first(RGB)], unnamed(3), note="channels"),
    Case("four-pages.tif", tiff(FOUR, **BLACK), [FOUR], unnamed(4), note="channels"),
    Case("cyx.tif", tiff(FOUR, metadata={"axes": "CYX"}, **BLACK), [FOUR], unnamed(4)),
    Case("z.tif", tiff(FOUR, metadata={"axes": "ZYX"}, **BLACK), [FOUR[2:3]], unnamed(1), note="2 of 4"),
    Case("imagej.tif", imagej, [STACK[0, 2]], unnamed(3), um=0.65, note="z plane 2 of 5"),
    Case(
        "stack.ome.tif",
        tiff(STACK, ome=True, metadata={"axes": "TZCYX"}, **BLACK),
        [STACK[0, 2]],
        unnamed(3),
        note="time point 0 of 2",
    ),
    Case(
        "czyx.ome.tif",
        tiff(STACK[0].swapaxes(0, 1), ome=True, metadata={"axes": "CZYX"}, **BLACK),
        [STACK[0, 2]],
        unnamed(3),
        note="z plane 2 of 5, counted from 0",
    ),
    Case(
        "rgb.ome.tif",
        tiff(RGB, ome=True, photometric="rgb", metadata={"axes": "YXS"}),
        [first(RGB)],
        COLOURED,
        rgb=True,
    ),
    Case("pyramid.ome.tif", write_ome_pyramid, [*PYRAMID2, LARGE[:, ::4, ::4]], OME_CHANNELS, um=0.25),
    Case("scan.qptiff", write_qptiff, PYRAMID2, QPI_CHANNELS, um=0.5),
    Case(
        "vips.tif",
        write_vips_pyramid,
        [first(SMOOTH[::s, ::s]) for s in (1, 2, 4)],
        COLOURED,
        rgb=True,
    ),
    Case("new.ome.zarr", lambda p: write_zarr(p, "0.5"), PYRAMID2, DAPI_CD8, um=0.25),
    Case("old.ome.zarr", lambda p: write_zarr(p, "0.4"), PYRAMID2, DAPI_CD8, um=0.25),
    Case("rgb.png", picture(RGB), [first(RGB)], COLOURED, rgb=True),
    Case("rgba.png", picture(RGBA), [first(RGBA)], COLOURED, rgb=True, note="alpha"),
    Case("grey.png", picture(GREY), [GREY[None]], unnamed(1)),
    Case("bits.png", picture(GREY > 30000), [GREY[None] > 30000], unnamed(1)),
    Case("palette.png", palette, [PALETTE], COLOURED, rgb=True),
    Case("rgb.bmp", picture(RGB), [first(RGB)], COLOURED, rgb=True),
    Case("rgb.webp", picture(RGB, lossless=True), [first(RGB)], COLOURED, rgb=True),
    Case("rgb.jp2", picture(RGB), [first(RGB)], COLOURED, rgb=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_format_reads_as_it_was_written(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path)
    image = read(path)
    assert image.channels == case.channels
    assert image.rgb is case.rgb
    assert image.pixel_size_um == (None if case.um is None else pytest.approx(case.um))
    assert (image.name, image.source) == (case.name, path)
    assert any(case.note in note for note in image.notes) if case.note else image.notes == ()
    assert len(image.levels) == len(case.levels)
    for level, expected in zip(image.levels, case.levels, strict=True):
        assert isinstance(level, da.Array)
        assert level.dtype == expected.dtype
        assert level.dtype.isnative
        np.testing.assert_array_equal(level.compute(), expected)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_region_equals_the_array(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path)
    image = read(path)
    for level, expected in zip(image.levels, case.levels, strict=True):
        for window in (np.s_[:, 11:64, 5:77], np.s_[-1:, 3:60:7, 40::-3], np.s_[0, 5, :], np.s_[:, 5:5]):
            np.testing.assert_array_equal(level[window].compute(), expected[window])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_copy_for_another_process_reads_the_same(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path)
    image = read(path)
    image.levels[-1].compute()
    copy = pickle.loads(pickle.dumps(image.levels[-1]))
    np.testing.assert_array_equal(copy.compute(), case.levels[-1])


def test_an_aperio_slide_has_its_level_size_and_other_pictures(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_svs(path)
    image = read(path)
    assert [level.shape for level in image.levels] == [(3, 600, 800), (3, 150, 200)]
    assert image.rgb
    assert image.pixel_size_um == 0.499
    assert image.notes == ()
    assert np.abs(image.pixels.compute().astype(int) - first(SMOOTH)).mean() < 2  # JPEG
    thumbnail = read(path, series=1)
    assert thumbnail.shape_yx == (75, 100)
    assert thumbnail.pixel_size_um is None  # MPP is of the baseline


def test_a_jpeg_is_close_to_what_was_written(tmp_path: Path) -> None:
    pil.fromarray(SMOOTH).save(tmp_path / "a.jpg", quality=95)
    image = read(tmp_path / "a.jpg")
    assert image.rgb
    assert np.abs(image.pixels.compute().astype(int) - first(SMOOTH)).mean() < 2


def test_a_deep_colour_png_keeps_its_sixteen_bits(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    deep = RGBA.astype(np.uint16) * 257 - (RGBA > 9)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    image = read(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels.compute(), first(deep))


@pytest.mark.parametrize(("z", "t"), [(0, 0), (4, 1), (None, 1)])
@pytest.mark.parametrize("kind", ["imagej.tif", "stack.ome.tif"])
def test_any_plane_can_be_chosen(kind: str, z: int | None, t: int, tmp_path: Path) -> None:
    case = next(c for c in CASES if c.name == kind)
    case.write(tmp_path / kind)
    image = read(tmp_path / kind, z=z, t=t)
    np.testing.assert_array_equal(image.pixels.compute(), STACK[t, 2 if z is None else z])


def test_pages_without_a_word_are_planes_when_z_is_given(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FOUR, **BLACK)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", z=3).pixels.compute(), FOUR[3:])


def test_a_stack_of_colour_pictures_is_colour(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RGB, RGB // 2, RGB // 3]), photometric="rgb")
    image = read(tmp_path / "a.tif")
    assert image.rgb
    np.testing.assert_array_equal(image.pixels.compute(), first(RGB // 2))


def test_every_suffix_in_the_contract_is_known() -> None:
    assert all(any(c.name.endswith(s) for s in IMAGE_SUFFIXES) for c in CASES)
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)
