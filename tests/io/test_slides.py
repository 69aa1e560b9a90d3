"""OpenSlide, and real slides where this machine has some."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_nucleus_kd.errors import ReadError
from napari_nucleus_kd.io import read
from napari_nucleus_kd.io._choice import Choice
from napari_nucleus_kd.io._slides import has_openslide, read_slide
from napari_nucleus_kd.modality import suggest_modality
from napari_nucleus_kd.types import Modality

needs_openslide = pytest.mark.skipif(not has_openslide(), reason="OpenSlide is not installed (slides extra)")
APERIO = Path(__file__).with_name("slides") / "CMU-1-Small-Region.svs"
MORE = [Path(p) for p in os.environ.get("NUCLEUS_KD_REAL_SLIDES", "").split(os.pathsep) if p]


@pytest.fixture
def slide(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Return a tiled pyramid that OpenSlide takes as generic-tiff, and its pixels (Y, X, 3)."""
    pixels = np.random.default_rng(0).integers(0, 255, (512, 768, 3), np.uint8)
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tif:
        for step in (1, 2, 4):
            options = {"subfiletype": int(step > 1), "resolution": (20000 / step, 20000 / step)}
            options |= {"resolutionunit": "CENTIMETER", "compression": "zlib", "metadata": None}
            tif.write(pixels[::step, ::step], tile=(256, 256), photometric="rgb", **options)
    return path, pixels


@needs_openslide
def test_openslide_levels_equal_what_was_written(slide: tuple[Path, np.ndarray]) -> None:
    path, pixels = slide
    image = read_slide(path, Choice())
    assert image.rgb
    assert image.pixel_size_um == pytest.approx(0.5)
    assert [level.shape for level in image.levels] == [(3, 512, 768), (3, 256, 384), (3, 128, 192)]
    for level, step in zip(image.levels, (1, 2, 4), strict=True):
        expected = pixels[::step, ::step].transpose(2, 0, 1)
        np.testing.assert_array_equal(level.compute(), expected)
        np.testing.assert_array_equal(level[:, 10:50, 33:90].compute(), expected[:, 10:50, 33:90])


@needs_openslide
def test_a_file_that_openslide_refuses_is_a_read_error(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff not a slide")
    with pytest.raises(ReadError, match=r"a\.mrxs"):
        read(tmp_path / "a.mrxs")


@needs_openslide
@pytest.mark.parametrize("choice", [Choice(z=1), Choice(t=1), Choice(series=1)])
def test_a_slide_has_one_plane(slide: tuple[Path, np.ndarray], choice: Choice) -> None:
    with pytest.raises(ReadError, match="counts from 0"):
        read_slide(slide[0], choice)


@pytest.mark.parametrize("suffix", [".mrxs", ".vms", ".vmu", ".svslide", ".dcm"])
def test_without_openslide_the_remedy_is_named(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / f"a{suffix}").write_bytes(b"something")
    with pytest.raises(ReadError, match=r'pip install "napari-nucleus-kd\[slides\]"'):
        read(tmp_path / f"a{suffix}")


# More slides may be named in NUCLEUS_KD_REAL_SLIDES, separated like PATH.
@pytest.mark.parametrize("path", [APERIO, *MORE], ids=lambda p: p.name)
def test_a_real_slide(path: Path) -> None:
    image = read(path)
    assert len(image.channels) == image.pixels.shape[0]
    assert image.pixel_size_um is not None
    assert 0.05 < image.pixel_size_um < 5
    sizes = [level.shape[1] * level.shape[2] for level in image.levels]
    assert sizes == sorted(sizes, reverse=True)
    height, width = image.shape_yx
    middle = np.s_[:, height // 2 : height // 2 + 256, width // 2 : width // 2 + 256]
    region = image.pixels[middle].compute()
    assert region.min() < region.max()
    if has_openslide() and image.rgb:
        other = read_slide(path, Choice()).pixels[middle].compute()
        assert np.abs(region.astype(int) - other).mean() < 3  # two JPEG decoders


def test_the_metadata_of_the_aperio_slide() -> None:
    image = read(APERIO)
    assert image.shape_yx == (2967, 2220) and image.rgb
    assert [channel.name for channel in image.channels] == ["red", "green", "blue"]
    assert image.pixel_size_um == pytest.approx(0.499)
    assert suggest_modality(image)[0] is Modality.HE
