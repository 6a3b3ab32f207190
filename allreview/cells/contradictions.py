"""What contradicts: files that say different things of one picture, and files that deny what is stored.

No side of a contradiction between new files is believed; what was imported before is never changed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import sqlalchemy as sa

from allreview.cells.scanning import Candidate, Rejected


@dataclass(frozen=True, slots=True)
class Reading:
    """A candidate whose bytes were read. Sizes are 0 when the cell was known and not decoded again."""

    candidate: Candidate
    sha256: str
    width: int
    height: int
    size_bytes: int

    @property
    def label(self) -> str:
        return self.candidate.name.label or ""

    @property
    def path(self) -> str:
        return self.candidate.file


@dataclass
class Stored:
    """What the dataset holds: cells by SHA-256, files by path."""

    cells: dict[str, sa.Row]
    files: dict[str, sa.Row]
    subjects: dict[str, int]

    @cached_property
    def path_of(self) -> dict[int, str]:
        """The first file of each cell, by the cell's id."""
        return {row.cell_id: path for path, row in reversed(self.files.items())}

    @cached_property
    def subject_names(self) -> dict[int, str]:
        return {subject_id: name for name, subject_id in self.subjects.items()}


def without_contradictions(
    readings: Iterable[Reading], stored: Stored, rejected: list[Rejected]
) -> list[Reading]:
    """The readings that agree with the store and with each other; the others go to `rejected`."""
    agreed: list[Reading] = []
    label_of: dict[str, str] = {}
    disputed: dict[str, list[Reading]] = {}
    for reading in _once_each(readings, rejected):
        reason = _against_store(reading, stored)
        if reason:
            rejected.append(Rejected(reading.candidate.shown, reason))
            continue
        agreed.append(reading)
        if reading.sha256 not in stored.cells and (
            label_of.setdefault(reading.sha256, reading.label) != reading.label
        ):
            disputed[reading.sha256] = []
    if not disputed:
        return agreed
    for reading in agreed:
        if reading.sha256 in disputed:
            disputed[reading.sha256].append(reading)
    for same in disputed.values():
        rejected.extend(_contradictions(same))
    return [reading for reading in agreed if reading.sha256 not in disputed]


def _once_each(readings: Iterable[Reading], rejected: list[Rejected]) -> list[Reading]:
    """One reading a file: links can lead to one twice, which matters when they say different things."""
    first: dict[str, Reading] = {}
    repeated: dict[str, list[Reading]] = {}
    for reading in readings:
        earlier = first.setdefault(reading.path, reading)
        if earlier is not reading:
            repeated.setdefault(reading.path, [earlier]).append(reading)
    for path, same in repeated.items():
        subjects = {reading.candidate.name.subject for reading in same} - {None}
        if len({reading.label for reading in same}) == 1 and len(subjects) <= 1:
            first[path] = next((r for r in same if r.candidate.name.subject), same[0])
        else:
            del first[path]
            rejected.extend(
                Rejected(reading.candidate.shown, "links give this one file different labels or subjects")
                for reading in same
            )
    return list(first.values())


def _against_store(reading: Reading, stored: Stored) -> str | None:
    """Why a reading contradicts what was imported before, or None."""
    file, cell = stored.files.get(reading.path), stored.cells.get(reading.sha256)
    if file is not None and (cell is None or cell.id != file.cell_id):
        return (
            "the file has changed since it was imported; the cell it held is kept: "
            "save the new picture under another name"
        )
    if cell is not None and cell.source_label != reading.label:
        where = (
            "it was imported"
            if file is not None
            else f"the identical {stored.path_of[cell.id]!r} was imported"
        )
        return (
            f"{where} with the label {cell.source_label!r}, not {reading.label!r}: correct labels by review"
        )
    subject = reading.candidate.name.subject
    if file is not None and file.subject_id is not None and subject is not None:
        known = stored.subject_names[file.subject_id]
        if known != subject:
            return f"it was imported as a cell of subject {known!r}, not {subject!r}"
    return None


def _contradictions(same: list[Reading]) -> list[Rejected]:
    """Identical files with different labels: none can be believed, and each is told of the others."""
    listed = []
    for reading in same:
        others = [other for other in same if other.label != reading.label]
        named = ", ".join(f"{other.candidate.shown!r} ({other.label})" for other in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        listed.append(
            Rejected(
                reading.candidate.shown,
                f"labelled {reading.label!r}, but identical to {named}{more}: keep one",
            )
        )
    return listed
