"""Small WebP pictures of cells, made once at import and remade when one is missing."""

import hashlib
import io
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from allreview.cells.decoding import decode_rgb, read_bytes
from allreview.errors import UserError
from allreview.settings import Settings

SIDE = 160
"""Width and height of a thumbnail in pixels. The whole picture is shown, so sizes of cells compare."""


def thumbnail_path(settings: Settings, sha256: str) -> Path:
    """Where the thumbnail of the cell lies, whether it was made or not."""
    return settings.thumbnails / sha256[:2] / f"{sha256}.webp"


def make_thumbnail(settings: Settings, sha256: str, image: Image.Image) -> Path:
    """Write the thumbnail of `image`, replacing an earlier one whole or not at all."""
    path = thumbnail_path(settings, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _webp(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BILINEAR, "black")))
    return path


def thumbnail(settings: Settings, sha256: str, path: Path | str) -> bytes:
    """The thumbnail of the cell whose image is at `path`, as WebP.

    A missing one is made from the source. Where the source is gone or no longer holds this cell, a grey
    square is given: never the picture of another cell.
    """
    made = _read_made(thumbnail_path(settings, sha256))
    if made is not None:
        return made
    try:
        data = read_bytes(Path(path))
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
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
