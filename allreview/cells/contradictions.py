"""What contradicts: files that say different things of one picture, and files that deny what is stored.

No side of a contradiction between new files is believed; what was imported before is never changed.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from allreview.cells.scanning import Candidate, Rejected


@dataclass(frozen=True)
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
        return str(self.candidate.path)


@dataclass
class Stored:
    """What the dataset holds: cells by SHA-256, files by path."""

    cells: dict[str, sa.Row]
    files: dict[str, sa.Row]
    subjects: dict[str, int]


def without_contradictions(
    readings: Iterable[Reading], stored: Stored, rejected: list[Rejected]
) -> list[Reading]:
    """The readings that agree with the store and with each other; the others go to `rejected`."""
    readings = _once_each(readings, rejected)
    path_of = {row.cell_id: path for path, row in reversed(stored.files.items())}
    subject_names = {subject_id: name for name, subject_id in stored.subjects.items()}
    fresh: dict[str, list[Reading]] = defaultdict(list)
    kept = []
    for reading in readings:
        reason = _against_store(reading, stored, path_of, subject_names)
        if reason:
            rejected.append(Rejected(reading.candidate.shown, reason))
        elif reading.sha256 in stored.cells:
            kept.append(reading)
        else:
            fresh[reading.sha256].append(reading)
    for same in fresh.values():
        if len({reading.label for reading in same}) == 1:
            kept.extend(same)
        else:
            rejected.extend(_contradictions(same))
    return kept


def _once_each(readings: Iterable[Reading], rejected: list[Rejected]) -> list[Reading]:
    """One reading a file: links can lead to one twice, which matters when they say different things."""
    by_path: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_path[reading.path].append(reading)
    kept = []
    for same in by_path.values():
        subjects = {reading.candidate.name.subject for reading in same} - {None}
        if len({reading.label for reading in same}) == 1 and len(subjects) <= 1:
            kept.append(next((r for r in same if r.candidate.name.subject), same[0]))
        else:
            rejected.extend(
                Rejected(reading.candidate.shown, "links give this one file different labels or subjects")
                for reading in same
            )
    return kept


def _against_store(
    reading: Reading, stored: Stored, path_of: dict[int, str], subject_names: dict[int, str]
) -> str | None:
    """Why a reading contradicts what was imported before, or None."""
    file = stored.files.get(reading.path)
    if file is not None and file.sha256 != reading.sha256:
        return (
            "the file has changed since it was imported; the cell it held is kept: "
            "save the new picture under another name"
        )
    cell = stored.cells.get(reading.sha256)
    if cell is not None and cell.source_label != reading.label:
        where = "it was imported" if file is not None else f"the identical {path_of[cell.id]!r} was imported"
        return (
            f"{where} with the label {cell.source_label!r}, not {reading.label!r}: correct labels by review"
        )
    subject = reading.candidate.name.subject
    if file is not None and file.subject_id is not None and subject is not None:
        known = subject_names[file.subject_id]
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
