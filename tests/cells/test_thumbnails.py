"""Thumbnails: made, remade, and never of another cell."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from allreview.cells.decoding import read_rgb
from allreview.cells.thumbnails import SIDE, make_thumbnail, placeholder, shrink, thumbnail, thumbnail_path
from allreview.settings import Settings, current_settings
from tests.cells.pictures import picture, put


@pytest.fixture
def settings(home: Path) -> Settings:
    return current_settings()


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_is_a_small_square_webp_at_the_promised_place(settings: Settings) -> None:
    path = make_thumbnail(settings, "ab" + "0" * 62, picture(1))
    assert path == settings.thumbnails / "ab" / f"ab{'0' * 62}.webp"
    with Image.open(path) as image:
        assert (image.format, image.size) == ("WEBP", (SIDE, SIDE))
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_or_broken_one_is_remade(settings: Settings, tmp_path: Path) -> None:
    source = put(tmp_path / "cell.bmp", 1)
    first = thumbnail(settings, sha(source), source)
    made = thumbnail_path(settings, sha(source))
    for damage in (b"", first[:50]):
        made.write_bytes(damage)
        assert thumbnail(settings, sha(source), source) == first
    assert made.read_bytes() == first


def test_a_made_one_needs_no_source(settings: Settings, tmp_path: Path) -> None:
    source = put(tmp_path / "cell.bmp", 1)
    name, first = sha(source), thumbnail(settings, sha(source), source)
    source.unlink()
    assert thumbnail(settings, name, source) == first


def test_a_source_that_is_gone_or_replaced_gives_the_placeholder(settings: Settings, tmp_path: Path) -> None:
    source = put(tmp_path / "cell.bmp", 1)
    name = sha(source)
    put(source, 2)
    assert thumbnail(settings, name, source) == placeholder()
    source.unlink()
    assert thumbnail(settings, name, source) == placeholder()
    with Image.open(io.BytesIO(placeholder())) as image:
        assert image.size == (SIDE, SIDE)


def plainly(image: Image.Image, resampling: Image.Resampling) -> np.ndarray:
    """The whole picture resampled, frame and all."""
    return np.asarray(ImageOps.pad(image, (SIDE, SIDE), resampling, "black")).astype(int)


@given(
    st.tuples(st.integers(20, 500), st.integers(20, 500)),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.integers(0, 99),
)
@hypothesis_settings(deadline=None, max_examples=40)
def test_leaving_the_frame_out_changes_no_pixel(size: tuple[int, int], frame: list[float], seed: int) -> None:
    (left, right), (top, bottom) = sorted(frame[:2]), sorted(frame[2:])
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    inside = np.zeros(pixels.shape[:2], bool)
    inside[int(top * size[1]) : int(bottom * size[1]) + 1, int(left * size[0]) : int(right * size[0]) + 1] = (
        True
    )
    image = Image.fromarray(pixels * inside[..., None])
    shrunk = np.asarray(shrink(image)).astype(int)
    assert np.abs(shrunk - plainly(image, Image.Resampling.HAMMING)).max() <= 1


def test_black_pictures_and_single_pixels() -> None:
    assert not np.asarray(shrink(Image.new("RGB", (450, 450)))).any()
    assert (
        np.asarray(shrink(Image.new("RGB", (1, 1), (9, 8, 7)))).reshape(-1, 3).tolist()
        == [[9, 8, 7]] * SIDE**2
    )


def test_real_cells_keep_their_detail(cnmc_few: Path) -> None:
    """Nearer to what a long filter (Lanczos) makes of them than a bilinear step is."""
    for path in sorted(cnmc_few.rglob("*.bmp"))[::12]:
        image = read_rgb(path, 10**8)
        best = plainly(image, Image.Resampling.LANCZOS)
        shrunk = np.asarray(shrink(image)).astype(int)
        bilinear = plainly(image, Image.Resampling.BILINEAR)
        assert ((shrunk - best) ** 2).mean() < ((bilinear - best) ** 2).mean()
