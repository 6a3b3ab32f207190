"""The same colours for every cell: stain and brightness differ between slides far more than between classes."""

import numpy as np
from numpy.typing import NDArray

MEAN_DENSITIES = (0.62, 0.95, 0.42)
"""The mean optical density of red, green and blue that every cell is given: that of a cell in good light, so that
levels spread over the range that networks were pretrained on."""
DENSITY_SPREADS = (0.25, 0.28, 0.12)
"""The standard deviations that go with them."""

_LEAST_SPREAD = 0.02
_LEVELS = -np.log(np.arange(1, 257) / 256)


def normalized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A cell uint8 [height, width, 3] in normalised colours, an array of the same shape; black stays black.

    For each colour the optical density of the cell's pixels is shifted and scaled to a fixed mean and standard
    deviation, by one table of 256 levels. Exactly black pixels are the frame around the cell: they count for
    nothing and stay as they are, and no other pixel becomes black. A picture without any other pixel stays as it is.

    Reinhard et al. 2001, "Color transfer between images", with optical densities (Ruifrok and Johnston 2001) in place
    of their colour space: a weaker stain is a factor of the density.
    """
    inside = pixels.any(axis=2)
    if not inside.any():
        return pixels.copy()
    found = np.zeros_like(pixels)
    for channel, (mean, spread) in enumerate(zip(MEAN_DENSITIES, DENSITY_SPREADS, strict=True)):
        levels = pixels[..., channel]
        counts = np.bincount(levels[inside], minlength=256)
        own_mean = np.average(_LEVELS, weights=counts)
        own_spread = np.sqrt(np.average((_LEVELS - own_mean) ** 2, weights=counts))
        densities = (_LEVELS - own_mean) * (spread / max(own_spread, _LEAST_SPREAD)) + mean
        table = np.clip(np.rint(256 * np.exp(-densities) - 1), 1, 255).astype(np.uint8)
        found[..., channel] = np.where(inside, table[levels], 0)
    return found
