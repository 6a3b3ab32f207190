"""Folders, zips and CSV lists into the store.

First every file is hashed, decoded and given a thumbnail, in threads: nearly all of that is done in C, outside of
Python's lock. Then everything is written in one transaction. A kill at any moment leaves the store as it was, and
repeating the import completes it; the thumbnails that were made are not made again.
"""

import hashlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.cells.archives import Unpacked, unpack
from allreview.cells.contradictions import Reading
from allreview.cells.decoding import decode_rgb, read_bytes
from allreview.cells.naming import name_problem, shown
from allreview.cells.recording import record
from allreview.cells.scanning import Candidate, Rejected, Scan, scan_csv, scan_folder
from allreview.cells.thumbnails import is_made, thumbnail_below, write_thumbnail
from allreview.errors import UserError
from allreview.places import AT_ONCE, Place, StoreUnusable, download, files_in, is_object, kind
from allreview.settings import Settings
from db.tables import Cell, CellFile, Dataset, LeakGroup, Subject

_AT_ONCE = 8  # files that a thread takes: enough that handing them over costs nothing
_MORE_THREADS_THAN_CORES = 2  # so that no core idles while a disk is waited for
_SECONDS_BETWEEN_REPORTS = 0.1

Results = TypeVar("Results")


class Progress(Protocol):
    """Told how many steps are done, of how many (0 when that is not known yet), and what is being done."""

    def __call__(self, done: int, total: int, doing: str, /) -> None: ...


@dataclass(frozen=True)
class ImportReport:
    """What a dataset holds after an import, what this import added, and what stayed out.

    Attributes:
        added: cells this import brought; the other numbers are the dataset's totals.
        classes: cells of each class, by source label.
        duplicates: files identical to another file of the dataset, beyond the first.
        leak_groups: groups of subjects that a split may tell apart.
    """

    dataset: str
    dataset_id: int
    added: int
    cells: int
    subjects: int
    classes: dict[str, int]
    duplicates: int
    leak_groups: int
    rejected: tuple[Rejected, ...]

    def as_dict(self) -> dict:
        """The report as plain values, ready for JSON."""
        return asdict(self) | {"rejected": [entry.as_dict() for entry in self.rejected]}


def import_cells(
    engine: sa.Engine,
    settings: Settings,
    source: Place,
    *,
    dataset: str | None = None,
    labels: Place | None = None,
    synthetic: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import the images of a folder or a zip into a dataset, which is made when it does not exist.

    Images below `s3://…` stay there, and are read from there ever after; a zip is unpacked in the home folder.

    `dataset` defaults to the name of the folder or zip. A CSV `labels` (`path,label,subject`) decides which
    files are imported and overrides what their names and folders say. Files that cannot be imported are
    listed in the report with a reason, and the rest goes in. Repeating an import adds nothing. `progress` is
    called a few times a second.

    Raises:
        UserError: the source or the CSV cannot be read, nothing in it can be imported, or the dataset exists
            and is synthetic where these cells are not, or the other way round; or object storage cannot be used.
    """
    source = source.expanduser()
    is_folder = _is_folder(source)
    source = source.resolve() if isinstance(source, Path) else source
    name = _dataset_name(dataset, source, is_folder)
    known_classes = _known_classes(engine, name, synthetic)
    report = _Throttled(progress)
    root, unpacking_rejected = source, ()
    if not is_folder:
        unpacked = _unpacked(settings, source, report)
        root, unpacking_rejected = unpacked.folder.resolve(), unpacked.rejected
    scan = (
        scan_csv(find_labels(labels, root), root, known_classes)
        if labels
        else scan_folder(root, known_classes, lambda done: report(done, 0, "Listing the files"))
    )
    rejected = [*unpacking_rejected, *scan.rejected]
    if not scan.candidates:
        raise UserError(_nothing_found(source, rejected))
    readings = _read_all(engine, settings, name, scan, rejected, report)
    del scan
    with db.writing(engine) as session:
        dataset_id, added = record(
            session,
            name,
            synthetic,
            readings,
            rejected,
            lambda done, total: report(done, total, "Writing to the store"),
        )
        if dataset_id is None:
            raise UserError(_nothing_imported(source, rejected))
        return _report(session, dataset_id, added, rejected)


def _is_folder(source: Place) -> bool:
    """Whether cells lie in it, and not in a zip."""
    try:
        found = kind(source)
    except UserError as error:
        raise UserError(f"{shown(str(source))} cannot be imported: {error}.") from None
    if found is None:
        raise UserError(f"There is no folder or zip at {shown(str(source))}.")
    return found == "folder"


def _unpacked(settings: Settings, archive: Place, report: "_Throttled") -> Unpacked:
    def unpacking(done: int, total: int) -> None:
        report(done, total, "Unpacking the zip")

    if isinstance(archive, Path):
        return unpack(settings, archive, unpacking)
    settings.uploads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.uploads, prefix=".fetching-") as folder:
        file = Path(folder) / archive.name
        report(0, 0, "Fetching the zip")
        try:
            download(archive, file, files_in(archive.parent)[archive.name])
        except UserError as error:
            raise UserError(f"{shown(str(archive))} cannot be imported: {error}.") from None
        return unpack(settings, file, unpacking)


def _dataset_name(dataset: str | None, source: Place, is_folder: bool) -> str:
    """As it is asked for, or as the source is called; a whole bucket has no other name than its address."""
    called = (source.name if is_folder else source.stem) or str(source).rpartition("//")[2].strip("/")
    name = (dataset if dataset is not None else called).strip()
    if not name:
        raise UserError("The dataset needs a name.")
    problem = name_problem(name, "dataset")
    if problem:
        raise UserError(f"The dataset {shown(name)[:50]!r} cannot be made: {problem}.")
    return name


def _known_classes(engine: sa.Engine, name: str, synthetic: bool) -> list[str]:
    with db.reading(engine) as session:
        found = session.scalar(sa.select(Dataset).where(Dataset.name == name))
    if found is None:
        return []
    if found.synthetic != synthetic:
        held, offered = ("synthetic", "real") if found.synthetic else ("real", "synthetic")
        raise UserError(
            f"{name!r} holds {held} cells and these are {offered}: import them under another dataset name."
        )
    return found.classes


def find_labels(labels: Place, root: Place) -> Place:
    """The CSV where it is named, or inside the imported folder or zip.

    Raises:
        UserError: it is in neither place, or object storage cannot be used.
    """
    labels = labels.expanduser()
    inside = () if is_object(labels) or labels.is_absolute() else (root / str(labels),)
    for path in (labels, *inside):
        try:
            if kind(path) == "file":
                return path.resolve() if isinstance(path, Path) else path
        except UserError as error:
            raise UserError(f"The CSV {shown(str(path))} cannot be read: {error}.") from None
    raise UserError(f"There is no CSV at {shown(str(labels))}.")


def _read_all(
    engine: sa.Engine,
    settings: Settings,
    dataset: str,
    scan: Scan,
    rejected: list[Rejected],
    report: "_Throttled",
) -> list[Reading]:
    """Hash, decode and picture every candidate; those that fail go to `rejected`."""
    known = _known_hashes(engine, dataset)
    pictures = settings.thumbnails
    candidates = scan.candidates
    readings: list[Reading] = []
    done = 0

    def read(start: int) -> list[Reading | Rejected]:
        some = candidates[start : start + _AT_ONCE]
        return [_read(settings, pictures, candidate, known) for candidate in some]

    threads = (os.cpu_count() or 1) + _MORE_THREADS_THAN_CORES
    if is_object(candidates[0].path):
        threads = AT_ONCE
    for results in _in_threads(read, range(0, len(candidates), _AT_ONCE), threads):
        for result in results:
            if isinstance(result, Rejected):
                rejected.append(result)
            else:
                readings.append(result)
        done += len(results)
        report(done, len(candidates), "Reading the cells")
    return readings


def _in_threads(function: Callable[[int], Results], starts: Iterable[int], threads: int) -> Iterator[Results]:
    """The function's results in the order of `starts`.

    Only so many calls are ahead as keep the threads busy: memory stays flat, and an interruption is not held up.
    """
    waiting: deque[Future[Results]] = deque()
    with ThreadPoolExecutor(threads, "import") as pool:
        try:
            for start in starts:
                waiting.append(pool.submit(function, start))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(
    settings: Settings, pictures: Path, candidate: Candidate, known: Collection[str]
) -> Reading | Rejected:
    try:
        data = read_bytes(candidate.path)
        sha256 = hashlib.sha256(data).hexdigest()
        picture = thumbnail_below(pictures, sha256)
        if sha256 in known and picture.is_file():
            return Reading(candidate, sha256, 0, 0, len(data))
        image = decode_rgb(data, settings.max_pixels)
        if not is_made(picture):
            write_thumbnail(picture, image)
        return Reading(candidate, sha256, image.width, image.height, len(data))
    except StoreUnusable as error:  # nor will the others be read
        raise UserError(f"{candidate.file!r} cannot be read: {error}. Nothing was imported.") from None
    except UserError as error:
        return Rejected(candidate.shown, str(error))


def _known_hashes(engine: sa.Engine, dataset: str) -> set[str]:
    with db.reading(engine) as session:
        query = (
            sa.select(Cell.sha256).join(Dataset, Dataset.id == Cell.dataset_id).where(Dataset.name == dataset)
        )
        return set(session.scalars(query))


def _report(session: Session, dataset_id: int, added: int, rejected: list[Rejected]) -> ImportReport:
    def count(table: type[Cell] | type[CellFile] | type[Subject] | type[LeakGroup]) -> int:
        return session.scalars(sa.select(sa.func.count(table.id)).where(table.dataset_id == dataset_id)).one()

    classes = session.execute(
        sa.select(Cell.source_label, sa.func.count(Cell.id).label("cells"))
        .where(Cell.dataset_id == dataset_id)
        .group_by(Cell.source_label)
    )
    cells = count(Cell)
    return ImportReport(
        dataset=session.get_one(Dataset, dataset_id).name,
        dataset_id=dataset_id,
        added=added,
        cells=cells,
        subjects=count(Subject),
        classes=dict(sorted((row.source_label, row.cells) for row in classes)),
        duplicates=count(CellFile) - cells,
        leak_groups=count(LeakGroup),
        rejected=tuple(sorted(rejected, key=lambda entry: (entry.path, entry.reason))),
    )


def _nothing_found(source: Place, rejected: list[Rejected]) -> str:
    if rejected:
        return _nothing_imported(source, rejected)
    return (
        f"There are no images in {shown(str(source))}: "
        "it should hold a folder for each class, with BMP, PNG, JPEG, TIFF or WebP files."
    )


def _nothing_imported(source: Place, rejected: list[Rejected]) -> str:
    first = min(rejected, key=lambda entry: entry.path)
    return (
        f"Nothing in {shown(str(source))} could be imported; of {len(rejected)} files the first, "
        f"{first.path!r}, stays out because {first.reason}."
    )


class _Throttled:
    """Progress, reported a few times a second, and whenever another thing is being done."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.reported_at = 0.0
        self.doing = ""

    def __call__(self, done: int, total: int, doing: str) -> None:
        moment = time.monotonic()
        due = moment - self.reported_at >= _SECONDS_BETWEEN_REPORTS or done == total or doing != self.doing
        if self.progress and due:
            self.reported_at, self.doing = moment, doing
            self.progress(done, total, doing)
