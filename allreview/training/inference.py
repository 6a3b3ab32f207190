"""A run's model on images that were never imported: single files, or a labelled folder.

Keras is loaded only once there is a model to load, so a mistyped run or folder is answered at once.
"""

import csv
import os
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

import db
from allreview.artefacts import available
from allreview.cells.decoding import cell_pixels, decode_rgb, read_bytes
from allreview.cells.importing import find_labels
from allreview.cells.naming import class_key, class_problem, shown
from allreview.cells.scanning import Candidate, Rejected, scan_csv, scan_folder
from allreview.errors import UserError
from allreview.evaluation.metrics import evaluate, per_subject
from allreview.evaluation.new_patients import NewPatient, new_patient
from allreview.places import AT_ONCE, File, Place, is_object, kind
from allreview.settings import Settings
from allreview.store import open_store
from allreview.training.runs import RunRow, get_run
from db.tables import PARTS, Cell, Run, SnapshotCell, Subject

if TYPE_CHECKING:
    from allreview.models.saving import TrainedModel

Progress = Callable[[int, int], None]

COLUMNS = ("path", "subject", "label", "predicted", "probability")
_BATCH = 32
_BATCHES_AHEAD = 2  # decoded while the network works; more would only hold memory


@dataclass(frozen=True)
class _Image:
    """One image as the model sees it, uint8 [size, size, 3], or the reason why there is none."""

    sha256: str
    pixels: np.ndarray | None
    problem: str | None = None


def load_run_model(engine: sa.Engine, settings: Settings, run_id: int) -> "TrainedModel":
    """The model of a run.

    Raises:
        UserError: there is no such run, it has no model (yet), or the model is damaged.
    """
    run_with_model(engine, settings, run_id)
    from allreview.models.saving import load_model_of

    return load_model_of(settings, run_id)


def run_with_model(engine: sa.Engine, settings: Settings, run_id: int) -> RunRow:
    """The run, which has a model to load. Keras is not needed to know that.

    Raises:
        UserError: there is no such run, or it has no model (yet); says why.
    """
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
        saved = session.scalar(sa.select(Run.model_hash).where(Run.id == run_id))
    if saved is None and not available(settings, run_id, ["model.json"]):
        reasons = {
            "queued": "it has not begun: wait for its first epochs",
            "running": "it is still training: wait until it has ended, or stop it",
            "failed": "it failed before it had one: train again",
        }
        reason = reasons.get(run.state, "it was stopped before its first epoch was complete: train again")
        raise UserError(f"Run {run_id} has no model, because {reason}.")
    return run


def predict_files(
    settings: Settings, run_id: int, files: Sequence[Place], progress: Progress | None = None
) -> list[dict[str, Any]]:
    """What the run's model says of each file, in the order given.

    Entries have `path`, `label` and `probabilities` (by class name). A file that cannot be used has `path`
    and `error`, the reason, instead; the others are classified all the same.

    Raises:
        UserError: no such run or model, or not one file can be used.
    """
    if not files:
        raise UserError("Name at least one image to classify.")
    engine = open_store(settings)
    run_with_model(engine, settings, run_id)
    if not any(_is_file(path) for path in files):
        raise UserError(f"There is no file at {shown(str(files[0]))}.")
    model = load_run_model(engine, settings, run_id)
    found: list[dict[str, Any]] = []
    for path, image, row in _judged(model, files, settings.max_pixels, progress):
        entry: dict[str, Any] = {"path": shown(str(path))}
        if row is None:
            found.append(entry | {"error": image.problem})
        else:
            probabilities = dict(zip(model.classes, map(float, row), strict=True))
            found.append(entry | {"label": model.classes[int(row.argmax())], "probabilities": probabilities})
    if all("error" in entry for entry in found):
        first = f"{found[0]['path']!r} cannot be used: {found[0]['error']}"
        raise UserError(
            f"{first}." if len(found) == 1 else f"None of the {len(found)} files can be used; {first}."
        )
    return found


def evaluate_folder(
    settings: Settings,
    engine: sa.Engine,
    run_id: int,
    folder: Place,
    *,
    labels: Place | None = None,
    predictions: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a labelled folder; nothing of it is imported.

    Labels and subjects are read as an import reads them: the C-NMC layout, a class tree, or the CSV `labels`
    (`path,label,subject`). Every file counts, identical ones too (`duplicates` says how many repeat another).
    Returned are the figures of `evaluation.metrics.evaluate`, with `per_subject`, `rejected`
    ([{path, reason}]), `known_cells`: how many of these cells the run itself used, by part, on which the figures
    flatter, and `new_patient`: see `evaluation.new_patients`, None where cells of a subject were used in
    training, or a cell has none.
    `predictions` is a CSV to write: a row for each cell, a column for each class.

    Raises:
        UserError: no such run, model, folder or CSV; no cell in it can be used; or a label that the model
            does not know.
    """
    folder = folder.expanduser()
    try:
        is_folder = kind(folder) == "folder"
    except UserError as error:
        raise UserError(f"{shown(str(folder))} cannot be scored: {error}.") from None
    if not is_folder:
        raise UserError(f"There is no folder at {shown(str(folder))}. (A zip must be unpacked first.)")
    if predictions is not None:
        _require_writable(predictions)
    run = run_with_model(engine, settings, run_id)
    candidates, rejected = _labelled(
        folder.resolve() if isinstance(folder, Path) else folder, labels, run.classes
    )
    model = load_run_model(engine, settings, run_id)
    rows: list[tuple[Candidate, str, np.ndarray]] = []
    paths = [candidate.path for candidate, _ in candidates]
    hashes: list[str] = []
    judged = _judged(model, paths, settings.max_pixels, progress)
    for (candidate, label), (_, image, row) in zip(candidates, judged, strict=True):
        if row is None:
            rejected.append(Rejected(candidate.shown, image.problem or ""))
        else:
            rows.append((candidate, label, row))
            hashes.append(image.sha256)
    if not rows:
        raise UserError(_nothing_usable(folder, rejected))
    probabilities = np.stack([row for _, _, row in rows])
    truth = [label for _, label, _ in rows]
    predicted = [model.classes[position] for position in probabilities.argmax(axis=1)]
    subjects = [candidate.name.subject for candidate, _, _ in rows]
    if predictions is not None:
        _write_predictions(predictions, rows, predicted, model.classes)
    known = _known_cells(engine, run_id, hashes)
    return {
        "run": run_id,
        **evaluate(truth, probabilities, model.classes),
        "per_subject": per_subject(subjects, truth, predicted),
        "new_patient": _new_patient(subjects, truth, predicted, _subjects_used(engine, run_id)),
        "duplicates": len(hashes) - len(set(hashes)),
        "known_cells": known,
        "rejected": [entry.as_dict() for entry in sorted(rejected, key=lambda entry: entry.path)],
    }


def _new_patient(
    subjects: Sequence[str | None], truth: Sequence[str], predicted: Sequence[str], used: Collection[str]
) -> NewPatient | None:
    """What to expect of a patient the model was not trained on; None where some of these were, by their names, or a
    cell has no subject."""
    named = [subject for subject in subjects if subject is not None]
    if len(named) < len(subjects) or not set(used).isdisjoint(named):
        return None
    return new_patient([said == label for said, label in zip(predicted, truth, strict=True)], named)


def _labelled(
    root: Place, labels: Place | None, classes: Sequence[str]
) -> tuple[list[tuple[Candidate, str]], list[Rejected]]:
    """Every candidate with its label in the model's spelling; files without a label are rejected."""
    scan = (
        scan_csv(find_labels(labels, root), root, classes)
        if labels is not None
        else scan_folder(root, classes)
    )
    spelling = {class_key(name): name for name in classes}
    kept: list[tuple[Candidate, str]] = []
    rejected = list(scan.rejected)
    strange: set[str] = set()
    for candidate in scan.candidates:
        label = candidate.name.label
        problem = class_problem(label) if label is not None else "nothing names its class"
        if label is None or problem is not None:
            rejected.append(Rejected(candidate.shown, shown(problem or "")))
        elif class_key(label) not in spelling:
            strange.add(label)
        else:
            kept.append((candidate, spelling[class_key(label)]))
    if strange:
        raise UserError(
            f"The folder has cells labelled {_names(sorted(strange))}, but the model knows only "
            f"{_names(classes)}: rename the class folders, or give the labels in a CSV."
        )
    if not kept:
        raise UserError(_nothing_usable(root, rejected))
    return kept, rejected


def _is_file(path: Place) -> bool:
    try:
        return path.is_file() if isinstance(path, Path) else kind(path) == "file"
    except UserError as error:
        raise UserError(f"{shown(str(path))!r} cannot be used: {error}.") from None
    except (OSError, ValueError):  # a name too long, a NUL
        return False


def _judged(
    model: "TrainedModel", paths: Sequence[File], max_pixels: int, progress: Progress | None
) -> Iterator[tuple[File, _Image, np.ndarray | None]]:
    """Each path with its image and its probabilities [classes], None where there is no image.

    Files are decoded in threads while the network works on the batch before; few batches are in memory.
    """
    done = 0
    for batch, images in _decoded(model, paths, max_pixels):
        good = [image.pixels for image in images if image.pixels is not None]
        scores = iter(model.probabilities(np.stack(good), _BATCH) if good else ())
        done += len(batch)
        for path, image in zip(batch, images, strict=True):
            yield path, image, None if image.pixels is None else next(scores)
        if progress is not None:
            progress(done, len(paths))


def _decoded(
    model: "TrainedModel", paths: Sequence[File], max_pixels: int
) -> Iterator[tuple[Sequence[File], list[_Image]]]:
    remote = any(map(is_object, paths))
    with ThreadPoolExecutor(AT_ONCE if remote else os.cpu_count() or 1, "decode") as pool:
        ahead: deque[tuple[Sequence[File], list[Future[_Image]]]] = deque()
        try:
            for start in range(0, len(paths), _BATCH):
                batch = paths[start : start + _BATCH]
                ahead.append((batch, [pool.submit(_read, model, path, max_pixels) for path in batch]))
                if len(ahead) > _BATCHES_AHEAD:
                    yield _complete(*ahead.popleft())
            while ahead:
                yield _complete(*ahead.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _complete(batch: Sequence[File], futures: list[Future[_Image]]) -> tuple[Sequence[File], list[_Image]]:
    return batch, [future.result() for future in futures]


def _read(model: "TrainedModel", path: File, max_pixels: int) -> _Image:
    try:
        data = read_bytes(path)
        pixels = cell_pixels(decode_rgb(data, max_pixels), model.recipe.preparation)
    except (UserError, ValueError) as error:  # a path with a NUL is a ValueError
        return _Image("", None, str(error))
    return _Image(sha256(data).hexdigest(), pixels)


def _subjects_used(engine: sa.Engine, run_id: int) -> set[str]:
    """The subjects that have cells in the run's training or validation part."""
    query = (
        sa.select(Subject.name)
        .join(Cell, Cell.subject_id == Subject.id)
        .join(SnapshotCell, SnapshotCell.cell_id == Cell.id)
        .join(Run, Run.snapshot_id == SnapshotCell.snapshot_id)
        .where(Run.id == run_id, SnapshotCell.part.in_(("train", "validation")))
        .distinct()
    )
    with db.reading(engine) as session:
        return set(session.scalars(query))


def _known_cells(engine: sa.Engine, run_id: int, hashes: Sequence[str]) -> dict[str, int]:
    """How many of the files hold a cell of the run's snapshot, by part."""
    with db.reading(engine) as session:
        query = (
            sa.select(Cell.sha256, SnapshotCell.part)
            .join(SnapshotCell, SnapshotCell.cell_id == Cell.id)
            .join(Run, Run.snapshot_id == SnapshotCell.snapshot_id)
            .where(Run.id == run_id)
        )
        part_of = {digest: part for digest, part in session.execute(query)}  # noqa: C416 - rows are no pairs
    found = [part_of[digest] for digest in hashes if digest in part_of]
    return {part: found.count(part) for part in PARTS}


def _require_writable(path: Path) -> None:
    folder = path.expanduser().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(
            f"The CSV {shown(os.fspath(path))} cannot be written: name a file in a folder of yours."
        )


def _write_predictions(
    path: Path,
    rows: Sequence[tuple[Candidate, str, np.ndarray]],
    predicted: Sequence[str],
    classes: Sequence[str],
) -> None:
    """The CSV appears whole or not at all."""
    path = path.expanduser()
    header = [*COLUMNS, *(f"class {name}" if name in COLUMNS else name for name in classes)]
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for (candidate, label, row), prediction in zip(rows, predicted, strict=True):
                subject = candidate.name.subject or ""
                figures = [f"{float(value):.9g}" for value in row]
                writer.writerow(
                    [candidate.shown, subject, label, prediction, f"{float(row.max()):.9g}", *figures]
                )
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise UserError(
            f"The CSV {shown(os.fspath(path))} cannot be written: {error.strerror or error}."
        ) from None


def _nothing_usable(folder: Place, rejected: Sequence[Rejected]) -> str:
    where = shown(str(folder))
    if not rejected:
        return f"There are no images in {where}: it should hold a folder for each class."
    first = min(rejected, key=lambda entry: entry.path)
    return (
        f"Nothing in {where} can be scored; the first file, {first.path!r}, stays out because {first.reason}."
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(shown(name)) for name in names)
