"""Files that are missing, damaged, huge or something else: one clear ReadError each, and no silence."""

from __future__ import annotations

import logging
import struct
import zlib
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

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 255, (200, 300, 3), np.uint8)
STACK = RNG.integers(0, 60000, (3, 4, 64, 80), np.uint16)
TIFFS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain.tif": (RGB, {"photometric": "rgb"}),
    "tiled.tif": (RGB, {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}),
    "strips.tif": (RGB, {"photometric": "rgb", "compression": "lzw", "rowsperstrip": 16}),
    "imagej.tif": (STACK, {"imagej": True, "metadata": {"axes": "ZCYX"}}),
    "pages.tif": (STACK, {"photometric": "minisblack", "compression": "zlib", "metadata": None}),
    "pages.ome.tif": (STACK, {"ome": True, "metadata": {"axes": "ZCYX"}, "photometric": "minisblack"}),
    "zlib.ome.tif": (
        STACK,
        {"ome": True, "metadata": {"axes": "ZCYX"}, "photometric": "minisblack", "compression": "zlib"},
    ),
}


def refusal(path: Path, **choice: Any) -> str:
    """Read, which must fail, and return the message, which must name the file."""
    with pytest.raises(ReadError) as caught:
        read(path, **choice).pixels.compute()
    message = str(caught.value)
    assert path.name in message
    assert len(message.split(". ")) >= 2 or ": " in message  # what happened, and a remedy
    return message


def test_a_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(tmp_path / "no.tif")
    assert "no such file" in refusal(tmp_path / "no.ome.zarr")


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.svs", "a.qptiff", "a.zarr"])
def test_an_empty_file_is_called_empty(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert "0 bytes" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.bmp", "a.svs", "a"])
def test_text_is_not_an_image(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("id,name\n1,not an image at all\n")
    assert "OME-TIFF" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("head", "name"), [(b"\x89HDF\r\n", "HDF5"), (b"ZISRAWFILE", "CZI"), (b"%PDF-1", "PDF")]
)
def test_a_known_other_format_is_named(head: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(head + bytes(100))
    assert name in refusal(tmp_path / "a.tif")


def test_a_folder_must_be_a_zarr(tmp_path: Path) -> None:
    assert "not an OME-Zarr" in refusal(tmp_path)


def test_a_zarr_must_describe_an_image(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    assert "multiscales" in refusal(tmp_path / "group.zarr")
    zarr.create_array(str(tmp_path / "bare.zarr"), data=RGB)
    assert "bare zarr array" in refusal(tmp_path / "bare.zarr")
    group = zarr.open_group(str(tmp_path / "hole.zarr"), mode="w")
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    assert "level '0'" in refusal(tmp_path / "hole.zarr")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{not json")
    refusal(tmp_path / "bad.zarr")


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("name", TIFFS)
def test_a_cut_tiff_is_found_when_it_is_read(name: str, share: float, tmp_path: Path) -> None:
    pixels, options = TIFFS[name]
    path = tmp_path / name
    tifffile.imwrite(path, pixels, **options)
    whole = read(path).pixels.compute()
    content = path.read_bytes()
    path.write_bytes(content[: max(5, int(share * len(content)))])
    try:
        rest = read(path)
    except ReadError as error:
        assert name in str(error)
    else:  # the chosen plane may lie before the cut: then it is complete
        np.testing.assert_array_equal(rest.pixels.compute(), whole)


@pytest.mark.parametrize("name", ["plain.tif", "tiled.tif", "strips.tif"])
def test_a_tiff_without_its_last_bytes_is_cut_short(name: str, tmp_path: Path) -> None:
    pixels, options = TIFFS[name]
    tifffile.imwrite(tmp_path / name, pixels, **options)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-40])
    with pytest.raises(ReadError, match="cut short"):
        read(tmp_path / name)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.jp2"])
def test_a_cut_picture_is_found_when_it_is_read(name: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    pil.fromarray(RGB[..., 0] if name == "a.gif" else RGB).save(path)  # grey: GIF has no true colour
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ReadError, match=name):
        read(path)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_never_escape_as_another_error(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    name = sorted(TIFFS)[seed % len(TIFFS)]
    pixels, options = TIFFS[name]
    tifffile.imwrite(tmp_path / name, pixels, **options)
    content = bytearray((tmp_path / name).read_bytes())
    for where in rng.integers(4, 400, 12):
        content[where] = rng.integers(0, 256)
    (tmp_path / name).write_bytes(content)
    try:
        image = read(tmp_path / name)
        if np.prod(image.pixels.shape) < 1e7:
            image.pixels.compute()
    except ReadError as error:
        assert name in str(error)


@pytest.mark.parametrize(
    ("held", "name"), [("PNG", "a.tif"), ("JPEG", "a.png"), ("TIFF", "a.jpg"), ("PNG", "a.svs")]
)
def test_a_wrongly_named_file_is_read_by_content_and_says_so(held: str, name: str, tmp_path: Path) -> None:
    pil.fromarray(RGB).save(tmp_path / name, format=held)
    image = read(tmp_path / name)
    assert image.shape_yx == (200, 300)
    assert image.rgb
    assert f"holds {held}" in image.notes[0]


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def test_a_picture_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(100_000, 100_000))
    assert "100000 x 100000" in refusal(tmp_path / "bomb.png")


def test_pillows_own_lower_limit_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pil.fromarray(RGB).save(tmp_path / "large.png")
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 1000)
    assert read(tmp_path / "large.png").shape_yx == (200, 300)


def test_a_tiff_that_claims_absurdly_many_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB[..., 0], compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(2**31 - 1)
        tif.pages[0].tags["ImageLength"].overwrite(2**31 - 1)
        tif.pages[0].tags["RowsPerStrip"].overwrite(2**31 - 1)
    assert f"{2**31 - 1}" in refusal(path)


def test_a_compressed_piece_that_unfolds_beyond_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB[..., 0], compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(100_000)
        tif.pages[0].tags["ImageLength"].overwrite(100_000)
        tif.pages[0].tags["RowsPerStrip"].overwrite(100_000)
    assert "tiled OME-TIFF" in refusal(path)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"z": 4}, "z from 0 to 3"),
        ({"z": -1}, "z from 0 to 3"),
        ({"t": 1}, "t from 0 to 0"),
        ({"series": 1}, "series"),
    ],
)
def test_a_choice_outside_the_file_names_the_range(choice: dict[str, int], said: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "z.tif", STACK[0], metadata={"axes": "ZYX"}, photometric="minisblack")
    assert said in refusal(tmp_path / "z.tif", **choice)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_plane_is_not_chosen_in_a_flat_picture(name: str, tmp_path: Path) -> None:
    pil.fromarray(RGB).save(tmp_path / name)
    for choice in ({"z": 1}, {"t": 1}, {"series": 1}):
        assert "0" in refusal(tmp_path / name, **choice)


@pytest.mark.parametrize("photometric", ["separated", "cielab"])
def test_other_colour_models_are_refused_by_name(photometric: str, tmp_path: Path) -> None:
    samples = 4 if photometric == "separated" else 3
    pixels = RNG.integers(0, 255, (32, 32, samples), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, planarconfig="contig")
    assert photometric.upper() in refusal(tmp_path / "a.tif")


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.complex64))
    assert "complex" in refusal(tmp_path / "a.tif")


def test_a_file_that_changes_after_opening_is_found(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", compression="zlib")
    image = read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", RGB[:50], photometric="rgb", compression="zlib")
    with pytest.raises(ReadError, match="changed"):
        image.pixels.compute()


def test_damaged_pixels_found_later_are_a_read_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression="zlib", metadata=None)
    content = bytearray(path.read_bytes())
    content[-20_000:-10_000] = bytes(10_000)
    path.write_bytes(content)
    image = read(path)
    with pytest.raises(ReadError, match=r"a\.tif"):
        image.pixels.compute()


def test_libraries_do_not_talk(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", metadata=None, description="<OME>broken")
    with caplog.at_level(logging.DEBUG):
        read(path)
    assert [r for r in caplog.records if r.name.startswith(("tifffile", "PIL"))] == []
    assert capfd.readouterr() == ("", "")
