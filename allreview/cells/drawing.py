"""Drawing one synthetic lymphoid cell, stained after Wright and Giemsa, in a black frame as C-NMC has it.

Stain is laid on as optical density and seen through white light (Beer-Lambert law), so darker chromatin turns
deeper purple as on a slide. Blasts are larger on average with fine chromatin, nucleoli and scant cytoplasm;
normal lymphocytes smaller with coarse, clumped chromatin. Sizes and textures of the two overlap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

FRAME = 450
"""Side of the picture in pixels."""

Plane = NDArray[np.floating]

_LN10 = np.float32(np.log(10))
_ANGLES = np.linspace(-np.pi, np.pi, 1024, dtype=np.float32)


@dataclass(frozen=True)
class Stain:
    """How one subject's slide came out: optical densities [3] (red, green, blue) of nucleus and cytoplasm,
    the light [3] in 0-255, and the softness of the optics in pixels."""

    nucleus: Plane
    cytoplasm: Plane
    light: Plane
    blur: float


def subject_stain(random: np.random.Generator) -> Stain:
    """A stain of a hue, strength and light of its own."""
    hue = float(np.clip(random.normal(0, 1), -1.6, 1.6))
    strength = random.uniform(0.80, 1.12)
    basophilia = random.uniform(0.8, 1.2)
    warmth = random.normal(0, 0.02)
    brightness = random.uniform(0.86, 1.04)
    nucleus = np.array([0.44 - 0.035 * hue, 0.78, 0.30 + 0.02 * hue])
    cytoplasm = np.array([0.30 - 0.02 * hue, 0.32, 0.12 + 0.02 * hue])
    light = np.array([236 * (1 + warmth), 226, 238 * (1 - warmth)])
    return Stain(
        (nucleus * strength).astype(np.float32),
        (cytoplasm * strength * basophilia).astype(np.float32),
        (light * brightness).astype(np.float32),
        random.uniform(0.7, 1.2),
    )


def draw_cell(random: np.random.Generator, stain: Stain, *, blast: bool) -> Image.Image:
    """One cell as an RGB picture of `FRAME` × `FRAME` pixels; the frame around it is exactly black."""
    radius = float(np.clip(random.normal(93, 11) if blast else random.normal(79, 10), 56, 124))
    canvas = _Canvas(random, round(1.4 * radius), radius)
    cell, nucleus = _outlines(canvas, blast)
    chromatin = _chromatin(canvas, nucleus, blast)
    body = _cytoplasm(canvas, cell, nucleus)
    inside = _soft(nucleus, 2.2)
    density = (inside * chromatin)[..., None] * stain.nucleus
    density += ((1 - np.float32(0.55) * inside) * body)[..., None] * stain.cytoplasm
    seen = stain.light * canvas.uneven_light()[..., None] * np.exp(-_LN10 * density)
    picture = Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(stain.blur))
    pixels = np.clip(np.asarray(picture, dtype=np.float32) + canvas.grain(), 1, 255)
    pixels[cell < 0] = 0
    frame = np.zeros((FRAME, FRAME, 3), np.uint8)
    side = len(pixels)
    left, top = (FRAME - side) // 2 + random.integers(-6, 7, 2)
    frame[top : top + side, left : left + side] = pixels.astype(np.uint8)
    return Image.fromarray(frame)


class _Canvas:
    """The square a cell of mean `radius` is drawn on, and the chance that shapes it."""

    def __init__(self, random: np.random.Generator, half: int, radius: float) -> None:
        self.random = random
        self.radius = radius
        self.side = 2 * half
        axis = np.arange(self.side, dtype=np.float32) - np.float32(half - 0.5)
        self.across, self.down = axis[None, :], axis[:, None]

    def noise(self, scale: float) -> Plane:
        """Smooth noise of mean 0 and deviation about 1, with bumps of `scale` pixels."""
        nodes = int(np.ceil(self.side / scale)) + 3
        grid = Image.fromarray(
            np.float32(1.5) * self.random.standard_normal((nodes, nodes), dtype=np.float32)
        )
        box = (1.0, 1.0, 1.0 + self.side / scale, 1.0 + self.side / scale)
        return np.asarray(grid.resize((self.side, self.side), Image.Resampling.BICUBIC, box=box))

    def blob(self, radius: float, place: tuple[float, float], roughness: float, stretch: float) -> Plane:
        """Distance in pixels, about, to a smooth irregular outline of mean `radius`; above 0 inside."""
        outline = 1 + stretch * np.cos(2 * (_ANGLES - self.random.uniform(0, 2 * np.pi)))
        for wave in range(3, 9):
            size = self.random.normal(0, roughness) * (3 / wave) ** 1.2
            outline = outline + size * np.cos(wave * _ANGLES + self.random.uniform(0, 2 * np.pi))
        outline = (radius * outline).astype(np.float32)
        across, down = self.across - np.float32(place[0]), self.down - np.float32(place[1])
        step = np.float32(len(_ANGLES) / (2 * np.pi))
        index = ((np.arctan2(down, across) + np.float32(np.pi)) * step).astype(np.int32)
        return outline.take(index, mode="wrap") - np.hypot(across, down)

    def place(self, nearest: float, farthest: float) -> tuple[float, float]:
        """A random place, evenly spread between two distances from the centre (shares of the radius)."""
        angle = self.random.uniform(0, 2 * np.pi)
        off = self.radius * np.sqrt(self.random.uniform(nearest**2, farthest**2))
        return float(off * np.cos(angle)), float(off * np.sin(angle))

    def uneven_light(self) -> Plane:
        """About 1: each picture's exposure, and light that falls off to one side."""
        tilt = self.random.normal(0, 0.05, 2).astype(np.float32) / np.float32(300)
        return np.float32(self.random.uniform(0.93, 1.07)) * (1 + tilt[0] * self.across + tilt[1] * self.down)

    def grain(self) -> Plane:
        """The sensor's noise [side, side, 1], in grey levels."""
        return np.float32(1.7) * self.random.standard_normal((self.side, self.side, 1), dtype=np.float32)


def _outlines(canvas: _Canvas, blast: bool) -> tuple[Plane, Plane]:
    """Distances to the outlines of the cell and of its nucleus."""
    random, radius = canvas.random, canvas.radius
    cell = canvas.blob(radius, (0, 0), roughness=0.028, stretch=random.uniform(0, 0.10))
    share = float(np.clip(random.normal(0.90, 0.03) if blast else random.normal(0.85, 0.04), 0.72, 0.95))
    centre = canvas.place(0.2 * (1 - share), 0.9 * (1 - share))  # often against the border
    nucleus = canvas.blob(
        share * radius, centre, roughness=0.030 if blast else 0.016, stretch=random.uniform(0, 0.08)
    )
    if random.random() < (0.4 if blast else 0.12):
        nucleus = np.minimum(nucleus, _cleft(canvas, share * radius, centre))
    return cell, np.minimum(nucleus, cell - np.float32(1.5))


def _cleft(canvas: _Canvas, radius: float, centre: tuple[float, float]) -> Plane:
    """An indentation of the nucleus: distance from a rounded notch in its border; below 0 in the notch."""
    random = canvas.random
    turn = random.uniform(0, 2 * np.pi)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across, down = canvas.across - np.float32(centre[0]), canvas.down - np.float32(centre[1])
    along, aside = across * cosine + down * sine, down * cosine - across * sine
    depth = radius * random.uniform(0.14, 0.34)
    width = radius * random.uniform(0.16, 0.36)
    # A notch is an ellipse on the border, wider than it is deep or the other way round.
    reach = np.hypot((along - np.float32(radius * 1.12)) / np.float32(depth), aside / np.float32(width))
    return (reach - 1) * np.float32(min(depth, width))


def _chromatin(canvas: _Canvas, nucleus: Plane, blast: bool) -> Plane:
    """How much nuclear stain lies where: about 1, with texture, a denser rim, and nucleoli in blasts."""
    random = canvas.random
    clumping = float(np.clip(random.normal(0.31, 0.17) if blast else random.normal(0.70, 0.18), 0, 1))
    fine = 0.6 * canvas.noise(4.5) + 0.4 * canvas.noise(9)
    coarse = np.tanh(1.7 * (canvas.noise(22) + 0.45 * canvas.noise(11)))
    density = (
        1.0 + 0.1 * clumping + 0.075 * fine + (0.05 + 0.19 * clumping) * coarse + 0.06 * canvas.noise(60)
    )
    density += 0.10 * np.sqrt(np.clip(nucleus / (0.6 * canvas.radius), 0, 1)) - 0.05  # thicker in the middle
    density += 0.13 * np.exp(-(((nucleus - 3.0) / 2.8) ** 2))  # the nuclear membrane
    if blast:
        for _ in range(random.choice([0, 1, 2, 3], p=[0.2, 0.35, 0.3, 0.15])):
            density -= _nucleolus(canvas)
    return np.clip(density, 0.35, 1.7)


def _nucleolus(canvas: _Canvas) -> Plane:
    """A paler round body with a thin ring of condensed chromatin, as loss of density."""
    random = canvas.random
    size = canvas.radius * random.uniform(0.09, 0.16)
    away = canvas.blob(size, canvas.place(0, 0.6), roughness=0.05, stretch=random.uniform(0, 0.2))
    ring = 0.11 * np.exp(-(((away + 1.5) / 2.5) ** 2))
    return random.uniform(0.22, 0.38) * _soft(away, 2.5) - ring


def _cytoplasm(canvas: _Canvas, cell: Plane, nucleus: Plane) -> Plane:
    """How much cytoplasmic stain lies where: deeper towards the border, with a pale zone by the nucleus."""
    random = canvas.random
    depth = np.clip(cell, 0, None)
    body = 1.0 + 0.10 * canvas.noise(8) + 0.08 * canvas.noise(30)
    body += 0.35 * np.exp(-depth / (0.05 * canvas.radius))
    body -= 0.5 * np.exp(-depth / 2.0)  # the outermost pixels mix with the background
    body -= 0.25 * random.uniform(0, 1) * np.exp(-(((nucleus + 4) / 4) ** 2))
    if random.random() < 0.25:
        for _ in range(random.integers(1, 4)):
            size = canvas.radius * random.uniform(0.025, 0.05)
            vacuole = canvas.blob(size, canvas.place(0.8, 0.95), roughness=0.02, stretch=0.0)
            body -= 0.6 * _soft(vacuole, 1.2)
    return np.clip(body, 0.1, 2.0)


def _soft(distance: Plane, width: float) -> Plane:
    """1 inside, 0 outside, with an edge of about `width` pixels."""
    return 1 / (1 + np.exp(np.clip(distance * np.float32(-2 / width), -30, 30)))
