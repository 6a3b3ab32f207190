"""Small WebP pictures of cells, made once at import and remade when one is missing."""

import hashlib
import io
import math
import os
import secrets
from functools import lru_cache
from pathlib import Path

from PIL import Image

from allreview.cells.decoding import decode_rgb, read_bytes
from allreview.errors import UserError
from allreview.places import cell_file
from allreview.settings import Settings

SIDE = 160
"""Width and height of a thumbnail in pixels. The whole picture is shown, so sizes of cells compare."""


def thumbnail_path(settings: Settings, sha256: str) -> Path:
    """Where the thumbnail of the cell lies, whether it was made or not."""
    return thumbnail_below(settings.thumbnails, sha256)


def thumbnail_below(folder: Path, sha256: str) -> Path:
    """`thumbnail_path` for many cells: the folder `settings.thumbnails` is resolved once."""
    return folder / sha256[:2] / f"{sha256}.webp"


def make_thumbnail(settings: Settings, sha256: str, image: Image.Image) -> Path:
    """Write the thumbnail of `image`, replacing an earlier one whole or not at all."""
    path = thumbnail_path(settings, sha256)
    write_thumbnail(path, image)
    return path


def write_thumbnail(path: Path, image: Image.Image) -> None:
    """Write the thumbnail of `image` at `path`, and the folder it needs."""
    data = _webp(shrink(image))
    try:
        write_whole(path, data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)


def is_made(path: Path) -> bool:
    """True where a complete thumbnail lies at `path`."""
    return _read_made(path) is not None


def shrink(image: Image.Image) -> Image.Image:
    """`image` (RGB) in a black square of `SIDE`, centred, with its proportions kept.

    Only what lies inside a black frame is resampled, on the grid of the whole picture: that gives the pixels which
    resampling all of it would give. In C-NMC pictures the frame is three quarters.
    """
    square = Image.new("RGB", (SIDE, SIDE))
    seen = image.getbbox()
    if seen is None:
        return square
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    across, down = image.width / width, image.height / height
    left, right = _reached(seen[0], seen[2], across, width)
    top, bottom = _reached(seen[1], seen[3], down, height)
    part = image.resize(
        (right - left, bottom - top),
        Image.Resampling.HAMMING,
        (left * across, top * down, right * across, bottom * down),
    )
    square.paste(part, (round((SIDE - width) / 2) + left, round((SIDE - height) / 2) + top))
    return square


def thumbnail(settings: Settings, sha256: str, path: Path | str) -> bytes:
    """The thumbnail of the cell whose image is at `path`, as WebP.

    A missing one is made from the source. Where the source is gone or no longer holds this cell, a grey
    square is given: never the picture of another cell.
    """
    made = _read_made(thumbnail_path(settings, sha256))
    if made is not None:
        return made
    try:
        data = read_bytes(cell_file(str(path)))
        if hashlib.sha256(data).hexdigest() != sha256:
            return placeholder()
        return make_thumbnail(settings, sha256, decode_rgb(data, settings.max_pixels)).read_bytes()
    except (UserError, OSError):
        return placeholder()


@lru_cache(maxsize=1)
def placeholder() -> bytes:
    """The grey square shown for a cell whose image is gone, as WebP."""
    return _webp(Image.new("RGB", (SIDE, SIDE), (128, 128, 128)))


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: a reader sees the old file or the new one, never a part."""
    partial = f"{path}.{secrets.token_hex(8)}.part"
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _reached(first: int, end: int, scale: float, most: int) -> tuple[int, int]:
    """The pixels of a shrunk line of `most` that source pixels from `first` up to `end` can reach.

    The filter spans one shrunk pixel to each side, or one source pixel where the picture grows.
    """
    margin = 1 + math.ceil(1 / scale)
    return max(0, math.floor(first / scale) - margin), min(most, math.ceil(end / scale) + margin)


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, method=1)
    return buffer.getvalue()


def _read_made(path: Path) -> bytes | None:
    """The bytes of a complete WebP file, or None: a power cut can leave an empty or short one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    complete = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return data if complete else None
