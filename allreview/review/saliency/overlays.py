"""Heat maps stored once and drawn over cells. Knows nothing of Keras, so that pages open quickly."""

import io
import os
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from allreview.artefacts import obtain_if_can
from allreview.cells.decoding import foreground
from allreview.errors import UserError
from allreview.settings import Settings

METHODS: dict[str, str] = {
    "gradcam": "Grad-CAM",
    "gradcam_plus_plus": "Grad-CAM++",
    "scorecam": "Score-CAM",
    "smoothgrad": "SmoothGrad",
}
"""Saliency methods, and how people call them."""

COLOURS = ("#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d")
"""The bright part of inferno (Smith and van der Walt 2015): it grows evenly lighter, is safe for the colour
blind, and from orange on is what purple stain never is."""

SOFT_EDGE = 2.0
"""Radius in pixels of the blur over which heat fades out towards the black background."""
GREATEST_STRETCH = 5.0
"""Heat on the cell is stretched by no more than this, so that a map that lies beside the cell stays cold."""

Heatmap = NDArray[np.floating]


def heatmap_path(settings: Settings, run_id: int, method: str, sha256: str) -> Path:
    """Where a heat map lies: `runs/<run>/saliency/<method>/<sha256>.png`.

    Raises:
        UserError: an unknown method.
    """
    if method not in METHODS:
        raise UserError(f"There is no saliency method {method!r}: choose one of {', '.join(METHODS)}.")
    return settings.run_folder(run_id) / "saliency" / method / f"{sha256}.png"


def save_heatmap(settings: Settings, run_id: int, method: str, sha256: str, heatmap: Heatmap) -> None:
    """Store a heat map, float [s, s] in 0..1, as an 8-bit grey PNG; whole or not at all."""
    path = heatmap_path(settings, run_id, method, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.rint(np.clip(np.nan_to_num(heatmap), 0, 1) * 255).astype(np.uint8)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            Image.fromarray(levels).save(file, format="PNG")
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def load_heatmap(settings: Settings, run_id: int, method: str, sha256: str) -> Heatmap | None:
    """The stored heat map, float32 [s, s] in 0..1; None when there is none, or none that can be read."""
    try:
        with Image.open(heatmap_path(settings, run_id, method, sha256)) as image:
            return np.asarray(image.convert("L"), dtype=np.float32) / 255
    except (OSError, SyntaxError):
        return None


def missing(settings: Settings, run_id: int, method: str, shas: Iterable[str]) -> list[str]:
    """Those of the cells that have no stored heat map yet, in the order given. What another machine made counts."""
    shas = list(shas)
    obtain_if_can(settings, run_id, [f"saliency/{method}/{sha256}.png" for sha256 in shas])
    return [sha256 for sha256 in shas if not heatmap_path(settings, run_id, method, sha256).is_file()]


def overlay(image: Image.Image, heatmap: Heatmap, *, crop: int | None, opacity: float) -> Image.Image:
    """The cell with its heat map drawn over it; see `heat_layer`.

    Args:
        opacity: 0 leaves the cell as it is, 1 hides it where heat is highest.
    """
    result = image.convert("RGB").copy()
    layer = heat_layer(image, heatmap, crop=crop)
    share = float(np.clip(opacity, 0, 1))
    mask = layer.getchannel("A").point([round(level * share) for level in range(256)])
    result.paste(layer.convert("RGB"), None, mask)
    return result


def heat_layer(image: Image.Image, heatmap: Heatmap, *, crop: int | None) -> Image.Image:
    """The heat map as a transparent picture, RGBA, to be laid over the cell.

    Heat is the more opaque the higher it is, so that cold regions leave the cell visible, and the black
    background stays black. Since heat on the background is not shown, the rest is stretched to the hottest
    1 % of the cell, at most `GREATEST_STRETCH` times; `share_on_cell` tells how much is not shown.

    Args:
        image: RGB, as it lies in the source file.
        heatmap: float [s, s] in 0..1, over what the network saw (`cells.decoding.cell_pixels`).
        crop: the recipe's centre crop in source pixels, None where the network saw everything.
    """
    image = image.convert("RGB")
    result = Image.new("RGBA", image.size)
    box = _cell_box(image)
    if box is None:
        return result
    inside = foreground(image.crop(box))
    heat = _stretched(_part(source_heat(heatmap, image.size, crop), box), inside)
    levels = Image.fromarray(np.rint(heat * 255).astype(np.uint8))
    levels.putpalette(_palette())
    layer = levels.convert("RGB")
    layer.putalpha(Image.fromarray(np.rint(_visibility(heat) * _soft(inside) * 255).astype(np.uint8)))
    result.paste(layer, box)
    return result


def share_on_cell(image: Image.Image, heatmap: Heatmap, *, crop: int | None) -> float:
    """The share of the map's heat that lies on the cell and not on the black background, 0 to 1.

    A low share says that the overlay shows little of what the method found. 0 for a map without heat.
    """
    heat = source_heat(heatmap, image.size, crop)
    total = float(heat.sum())
    return float(heat[foreground(image)].sum()) / total if total else 0.0


def source_heat(heatmap: Heatmap, size: tuple[int, int], crop: int | None) -> Heatmap:
    """The heat map in the source image's frame: float32 [height, width], 0 where the network did not look.

    Undoes `cells.decoding.cell_pixels`: centre crop, or black bars up to a square; then resize.

    Args:
        heatmap: float [s, s] in 0..1.
        size: (width, height) of the source image.
        crop: side of the centre crop in source pixels, or None.
    """
    width, height = size
    side = crop or max(width, height)
    square = Image.fromarray(np.asarray(heatmap, dtype=np.float32))
    square = square.resize((side, side), Image.Resampling.BILINEAR)
    source = Image.new("F", size)
    source.paste(square, ((width - side) // 2, (height - side) // 2))
    return np.clip(np.asarray(source), 0, 1)


def picture(image: Image.Image, max_side: int) -> bytes:
    """The image as lossless PNG bytes, made smaller where a side is longer than `max_side` pixels."""
    image = image if image.mode == "RGBA" else image.convert("RGB")
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def view_box(image: Image.Image, factor: float) -> tuple[int, int, int, int]:
    """The centre of the image, 1/`factor` of its sides, to crop to so that it appears `factor` times as large.

    All cells are magnified alike, because size is a sign; a cell that would not fit whole is shown as it is.
    """
    whole = (0, 0, image.width, image.height)
    box = image.getbbox()
    width, height = (round(side / factor) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if factor <= 1 or box is None:
        return whole
    fits = box[0] >= left and box[1] >= top and box[2] <= left + width and box[3] <= top + height
    return (left, top, left + width, top + height) if fits else whole


def _cell_box(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The part that is not black, with a margin of background for the soft edge."""
    found = image.getbbox()
    if found is None:
        return None
    margin = int(4 * SOFT_EDGE)
    left, top, right, bottom = found
    width, height = image.size
    return (
        max(left - margin, 0),
        max(top - margin, 0),
        min(right + margin, width),
        min(bottom + margin, height),
    )


def _part(heat: Heatmap, box: tuple[int, int, int, int]) -> Heatmap:
    left, top, right, bottom = box
    return heat[top:bottom, left:right]


def _stretched(heat: Heatmap, inside: NDArray[np.bool_]) -> Heatmap:
    hottest = float(np.quantile(heat[inside], 0.99)) if inside.any() else 1.0
    return np.clip(heat / max(hottest, 1 / GREATEST_STRETCH), 0, 1)


def _visibility(heat: Heatmap) -> Heatmap:
    """How opaque heat is: nothing up to 0.15, everything from 0.85, smoothly in between."""
    ramp = np.clip((heat - 0.15) / 0.7, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _soft(inside: NDArray[np.bool_]) -> Heatmap:
    """1 inside the cell, 0 on the background, rising from the cell's very edge inwards."""
    if inside.all():
        return np.ones(inside.shape, dtype=np.float32)
    mask = Image.fromarray(inside.astype(np.uint8) * 255)
    blurred = np.asarray(mask.filter(ImageFilter.GaussianBlur(SOFT_EDGE)), dtype=np.float32) / 255
    return np.clip(2 * blurred - 1, 0, 1)


@lru_cache(maxsize=1)
def _palette() -> bytes:
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS])
    places = np.linspace(0, 255, len(stops))
    channels = [np.interp(np.arange(256), places, stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8).tobytes()
