"""From a file to pixels, safely; then to what a network sees.

Everything that looks at a cell (thumbnails, features, saliency) decodes it here, so all see the same pixels.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from allreview.cells.staining import normalized
from allreview.errors import UserError
from allreview.places import File, read_object
from allreview.recipe import Preparation

FORMATS = ("BMP", "PNG", "JPEG", "TIFF", "WEBP")
MAX_FILE_BYTES = 1 << 30
"""Files above 1 GiB are not opened; no single cell is that large."""

_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262  # TIFF 6.0, section 8

# Sizes are checked here, against the settings, before any pixel is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_bytes(path: File) -> bytes:
    """The bytes of a file on a disk or in object storage.

    Raises:
        UserError: the file cannot be opened, is empty, is no plain file, or is above `MAX_FILE_BYTES`.
    """
    data = _read_file(path) if isinstance(path, Path) else read_object(path, MAX_FILE_BYTES)
    if not data:
        raise UserError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise UserError(_too_many_bytes(f"more than {MAX_FILE_BYTES:,}"))
    return data


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UserError("the file is gone" if not path.exists() else "it is not a plain file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError(_too_many_bytes(f"{size:,}"))
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror or error}") from None


def read_rgb(path: File, max_pixels: int) -> Image.Image:
    """The picture in the file at `path`, as RGB. See `decode_rgb`.

    Raises:
        UserError: the file cannot be read or holds no single picture we can decode; names the file.
    """
    try:
        return decode_rgb(read_bytes(path), max_pixels)
    except UserError as error:
        raise UserError(f"{path.name!r} cannot be used: {error}.") from None


def decode_rgb(data: bytes, max_pixels: int) -> Image.Image:
    """The one picture in `data` (BMP, PNG, JPEG, TIFF or WebP) as 8-bit RGB.

    Sixteen-bit grey is scaled over its full range (65,535 becomes 255); transparency is laid on black, the
    colour of the frame around a cell.

    Raises:
        UserError: a reason as a clause without full stop, to be put behind the file's name.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise UserError(_too_large(f"{width} × {height} pixels", max_pixels))
            if getattr(picture, "n_frames", 1) > 1:
                raise UserError(
                    "it holds several pictures (an animation or pages): save one picture per file"
                )
            picture.load()
            return _to_rgb(picture)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(_too_large("far too many pixels", max_pixels)) from None
    except UnidentifiedImageError:
        raise UserError(_not_an_image(data)) from None
    except MemoryError:
        raise UserError("there is not enough memory to decode it") from None
    # Damaged headers make Pillow's readers raise nearly anything (struct.error, KeyError, SyntaxError, …).
    except Exception as error:
        raise UserError(f"the image is damaged or cut short ({error})") from None


def cell_pixels(image: Image.Image, preparation: Preparation) -> NDArray[np.uint8]:
    """What a network sees: uint8 of shape [size, size, 3].

    `crop` keeps the centre square of that many source pixels. Without it a picture that is not square gets
    black bars. Where the picture ends before the square does, the rest is black. A cell is never scaled by
    its own extent, because its size tells the classes apart. `normalized` colours are those of the source pixels:
    resizing comes after.
    """
    size, crop, colours = preparation
    width, height = image.size
    side = crop or max(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image if width == height == side else image.crop((left, top, left + side, top + side))
    if colours:
        square = Image.fromarray(normalized(np.array(square, dtype=np.uint8)))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(square, dtype=np.uint8)


def foreground(image: Image.Image) -> NDArray[np.bool_]:
    """True [height, width] where the cell is: False on the exactly black frame that touches the border.

    Black holes inside the cell stay True, and a picture with full background is True everywhere.
    """
    from scipy import ndimage

    black = ~np.asarray(image.convert("RGB")).any(axis=2)
    if not black.any():
        return np.ones(black.shape, dtype=bool)
    labelled: Any = ndimage.label(black)
    areas: NDArray[np.int32] = labelled[0]
    touches = np.zeros(labelled[1] + 1, dtype=bool)
    for edge in (areas[0], areas[-1], areas[:, 0], areas[:, -1]):
        touches[edge] = True
    touches[0] = False
    return ~touches[areas]


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        grey = np.asarray(picture, dtype=np.uint16)
        if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 65535 - grey
        return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise UserError("its pixels are 32-bit numbers without a known range: save it with 8 or 16 bits")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, seen).convert("RGB")
    return picture.convert("RGB") if picture.mode != "RGB" else picture


def _too_large(size: str, max_pixels: int) -> str:
    return f"it has {size}, more than the limit of {max_pixels:,} (ALLREVIEW_MAX_PIXELS)"


def _too_many_bytes(number: str) -> str:
    return f"the file has {number} bytes, more than one cell can need"


def _not_an_image(data: bytes) -> str:
    if data[:4] == b"GIF8":
        return "it is a GIF: save it as PNG"
    if b"\0" not in data[:512]:
        return "it is text, not an image"
    return "it is not a BMP, PNG, JPEG, TIFF or WebP image, or its header is damaged"
