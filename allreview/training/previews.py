"""What the augmentation of a recipe does to real cells, to be looked at before anything is trained."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.orm import Session

from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.errors import UserError
from allreview.places import cell_file
from allreview.recipe import Recipe
from allreview.settings import Settings
from allreview.training.augmentation import augmented, cutmix, mixup
from db.tables import Cell, CellFile, Subject

_DRAWS = 200
_VISIBLY_MIXED = 0.95
"""In training many a cell is mixed with next to nothing; shown are draws in which the mixing can be seen."""


@dataclass(frozen=True)
class Preview:
    """One cell as the network gets it without augmentation, and versions as it would meet it in training.

    Pictures are WebP files of the network's input size. `mixed` is one version mixed with another cell, by
    MixUp or CutMix, with `own_share` of its label left; both are None when the recipe mixes nothing.
    """

    label: str
    subject: str | None
    original: bytes
    versions: list[bytes]
    mixed: bytes | None
    own_share: float | None


def previews(
    session: Session, settings: Settings, dataset_id: int, recipe: Recipe, *, versions: int = 4, draw: int = 0
) -> list[Preview]:
    """Four cells, the classes in turn, each with versions of it. Another `draw` gives other cells and versions.

    Raises:
        UserError: there are no cells, or a file cannot be read.
    """
    random = np.random.default_rng([recipe.seed, draw])
    chosen = _cells(session, dataset_id, random)
    if not chosen:
        raise UserError("There are no cells to show: import some first.")
    pixels = [
        cell_pixels(read_rgb(cell_file(path), settings.max_pixels), recipe.preparation)
        for _, _, path in chosen
    ]
    changed = np.stack([[augmented(cell, recipe, random) for _ in range(versions)] for cell in pixels])
    mixed, shares = _mixed(changed[:, 0], recipe, random)
    return [
        Preview(
            label=label,
            subject=subject,
            original=_picture(pixels[place]),
            versions=[_picture(version) for version in changed[place]],
            mixed=_picture(mixed[place]) if shares is not None else None,
            own_share=float(shares[place]) if shares is not None else None,
        )
        for place, (label, subject, _) in enumerate(chosen)
    ]


def _cells(
    session: Session, dataset_id: int, random: np.random.Generator, wanted: int = 4
) -> list[tuple[str, str | None, str]]:
    """(label, subject, path) of random cells, the classes in turn. No query looks at all cells."""
    of_dataset = sa.select(Cell.source_label).where(Cell.dataset_id == dataset_id)
    labels: Sequence[str] = session.scalars(of_dataset.distinct().order_by(Cell.source_label)).all()
    found: dict[int, tuple[str, str | None, str]] = {}  # by id, so that no cell comes twice
    for place in range(wanted if labels else 0):
        label = labels[place % len(labels)]
        here = sa.and_(Cell.dataset_id == dataset_id, Cell.source_label == label)
        first, last = session.execute(sa.select(sa.func.min(Cell.id), sa.func.max(Cell.id)).where(here)).one()
        query = (
            sa.select(Cell.id, Cell.source_label, Subject.name, CellFile.path)
            .join(CellFile, CellFile.cell_id == Cell.id)
            .outerjoin(Subject, Subject.id == Cell.subject_id)
            .where(here, Cell.id >= int(random.integers(first, last + 1)))
            .order_by(Cell.id, CellFile.id)
            .limit(1)
        )
        cell_id, _, subject, path = session.execute(query).one()
        found.setdefault(cell_id, (label, subject, path))
    return list(found.values())


def _mixed(
    batch: np.ndarray, recipe: Recipe, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """The batch mixed as the recipe says, and how much of its own label each cell keeps."""
    if not (recipe.mixup or recipe.cutmix) or len(batch) < 2:
        return batch, None
    own = np.eye(len(batch), dtype=np.float32)
    mix, alpha = (mixup, recipe.mixup) if recipe.mixup else (cutmix, recipe.cutmix)
    mixed, targets = batch.astype(np.float32), own
    for _ in range(_DRAWS):
        mixed, targets = mix(batch.astype(np.float32), own, alpha, random)
        if (targets.diagonal() < _VISIBLY_MIXED).all():
            break
    return np.clip(mixed, 0, 255).astype(np.uint8), targets.diagonal()


def _picture(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=90)
    return stream.getvalue()
