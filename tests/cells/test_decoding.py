"""Files to pixels: every kind of good picture, and every kind of bad one with its reason."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allreview.cells.decoding import cell_pixels, foreground, read_rgb
from allreview.errors import UserError
from allreview.recipe import Preparation
from tests.cells.pictures import picture

LIMIT = 100_000_000


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # pyright: ignore[reportArgumentType]
    return path


@pytest.mark.parametrize("suffix", ["bmp", "png", "tif"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    image = read_rgb(saved(tmp_path / f"cell.{suffix}", picture(1)), LIMIT)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(picture(1)))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_come_back_closely(tmp_path: Path, suffix: str) -> None:
    flat = Image.new("RGB", (32, 32), (120, 60, 140))
    image = read_rgb(saved(tmp_path / f"cell.{suffix}", flat), LIMIT)
    assert np.abs(np.asarray(image).astype(int) - (120, 60, 140)).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    grey = np.asarray(read_rgb(saved(tmp_path / f"cell.{suffix}", Image.fromarray(ramp)), LIMIT))
    assert np.array_equal(grey[..., 0].ravel(), np.arange(256))
    assert np.array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_is_converted(tmp_path: Path, suffix: str) -> None:
    cmyk = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    pixels = np.asarray(read_rgb(saved(tmp_path / f"cell.{suffix}", cmyk), LIMIT)).astype(int)
    assert np.abs(pixels - (200, 40, 90)).max() <= 6


def test_transparency_lies_on_black(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    pixels = np.asarray(read_rgb(saved(tmp_path / "cell.png", image), LIMIT))
    assert pixels.tolist() == [[[200, 100, 50], [0, 0, 0]]]


def test_palettes_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 0), 1)
    pixels = np.asarray(read_rgb(saved(tmp_path / "cell.png", image, transparency=1), LIMIT))
    assert pixels.tolist() == [[[200, 0, 0], [0, 0, 0]]]


def test_bilevel_pictures(tmp_path: Path) -> None:
    pixels = np.asarray(read_rgb(saved(tmp_path / "cell.png", Image.new("1", (2, 2), 1)), LIMIT))
    assert (pixels == 255).all()


def huge_bmp() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(1).save(buffer, kind, **options)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def several(kind: str) -> bytes:
    return encoded(kind, save_all=True, append_images=[picture(2), picture(3)])


BAD = {
    "empty.bmp": (b"", "empty"),
    "text.bmp": (b"not an image at all\n", "text"),
    "noise.bmp": (b"\0\1\2\3" * 50, "not a BMP"),
    "short.bmp": (encoded("BMP")[:-100], "damaged or cut short"),
    "header.bmp": (encoded("BMP")[:20], "damaged|header"),
    "short.png": (encoded("PNG")[:200], "damaged or cut short"),
    "short.jpg": (encoded("JPEG")[:-60], "damaged or cut short"),
    "short.webp": (encoded("WEBP")[:-20], "damaged"),
    "short.tif": (encoded("TIFF")[:-200], "damaged"),
    "huge.bmp": (huge_bmp(), "pixels"),
    "moving.gif": (several("GIF"), "GIF"),
    "gif.bmp": (encoded("GIF"), "GIF"),
    "moving.webp": (several("WEBP"), "several pictures"),
    "moving.png": (several("PNG"), "several pictures"),
    "pages.tif": (several("TIFF"), "several pictures"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        read_rgb(tmp_path / name, LIMIT)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_without_a_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="32-bit"):
        read_rgb(saved(tmp_path / "x.tif", Image.fromarray(np.ones((4, 4), np.float32))), LIMIT)


def test_the_pixel_limit_is_the_settings_own(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", picture(1))
    assert read_rgb(path, 480).size == (24, 20)
    with pytest.raises(UserError, match="24 × 20 pixels, more than the limit of 479"):
        read_rgb(path, 479)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone"):
        read_rgb(tmp_path / "none.bmp", LIMIT)
    with pytest.raises(UserError, match="plain file"):
        read_rgb(tmp_path, LIMIT)


def test_the_crop_keeps_the_centre_unscaled() -> None:
    pixels = np.zeros((450, 450, 3), np.uint8)
    pixels[200:250, 200:250] = 99
    cut = cell_pixels(Image.fromarray(pixels), Preparation(100, 100))
    assert np.array_equal(cut, pixels[175:275, 175:275])


def test_a_crop_larger_than_the_picture_is_padded_black() -> None:
    cut = cell_pixels(Image.new("RGB", (10, 6), (9, 9, 9)), Preparation(20, 20))
    assert cut.shape == (20, 20, 3)
    assert (cut[7:13, 5:15] == 9).all()
    assert cut.sum() == 10 * 6 * 3 * 9


def test_pictures_that_are_not_square_get_bars_not_stretched() -> None:
    cut = cell_pixels(Image.new("RGB", (40, 20), (200, 200, 200)), Preparation(40))
    assert (cut[10:30] == 200).all()
    assert (cut[:10] == 0).all()
    assert (cut[30:] == 0).all()


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    cut = cell_pixels(Image.fromarray(stripes), Preparation(50)).astype(int)
    assert np.abs(cut[5:-5, 5:-5] - 127).max() < 12


def test_twice_the_cell_stays_twice_the_size() -> None:
    def covered(side: int) -> int:
        image = Image.new("RGB", (450, 450))
        image.paste((255, 255, 255), (225 - side, 225 - side, 225 + side, 225 + side))
        return int((cell_pixels(image, Preparation(224))[..., 0] > 127).sum())

    assert covered(100) == pytest.approx(4 * covered(50), rel=0.05)


def test_the_foreground_is_the_cell_with_its_holes() -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[5:15, 5:15] = 80
    pixels[9:11, 9:11] = 0
    expected = np.zeros((20, 20), bool)
    expected[5:15, 5:15] = True
    assert np.array_equal(foreground(Image.fromarray(pixels)), expected)


def test_full_background_is_all_foreground() -> None:
    pixels = np.full((20, 20, 3), 200, np.uint8)
    pixels[9:11, 9:11] = 0
    assert foreground(Image.fromarray(pixels)).all()
    assert foreground(Image.new("RGB", (5, 5), (0, 0, 1))).all()
    assert not foreground(Image.new("RGB", (5, 5))).any()


def test_real_cells_fill_a_tenth_to_a_half(cnmc: Path, pbc: Path) -> None:
    for path in sorted(cnmc.rglob("*.bmp"))[::40]:
        assert 0.05 < foreground(read_rgb(path, LIMIT)).mean() < 0.5
    for path in sorted(pbc.rglob("*.jpg"))[::80]:
        assert foreground(read_rgb(path, LIMIT)).mean() > 0.99
