"""Small pictures for import tests, each number another picture."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A picture of its own for every number: a coloured disc in a black frame."""
    random = np.random.default_rng(number)
    pixels = random.integers(1, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:] = 0, 0, 0, 0
    return Image.fromarray(pixels)


def put(path: Path, number: int) -> Path:
    """Save picture `number` at `path`, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path)
    return path
