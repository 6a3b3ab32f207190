"""Thumbnails: made, remade, and never of another cell."""

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from allreview.cells.thumbnails import SIDE, make_thumbnail, placeholder, thumbnail, thumbnail_path
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
