"""Filters, order, counts and details of cells, on SQLite and PostgreSQL."""

import hashlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

import db
from allreview.cells.browsing import Filters, Sort, cell_detail, count_cells, counts, find_cell, page_of_cells
from allreview.cells.summaries import (
    dataset_summaries,
    labels_in_use,
    runs_with_predictions,
    subject_names,
)
from allreview.errors import UserError
from allreview.labels import keep_standing
from db.tables import (
    Annotation,
    Cell,
    CellFile,
    Dataset,
    LeakGroup,
    Prediction,
    Recipe,
    Reviewer,
    Run,
    Snapshot,
    SnapshotCell,
    Subject,
)

# (subject, source label, part, predicted, probability of it)
CELLS = [
    ("1", "all", "train", "all", 0.99),
    ("1", "all", "train", "hem", 0.80),
    ("2", "all", "validation", "all", 0.55),
    ("H3", "hem", "train", "hem", 0.70),
    ("H3", "hem", "validation", "all", 0.95),
    ("H4", "hem", "test", "all", 0.90),
    ("H4", "hem", "test", "hem", 0.60),
    (None, "hem", None, None, None),
]


def sha(number: int) -> str:
    return hashlib.sha256(f"cell {number}".encode()).hexdigest()


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """Eight cells, a run over seven of them, and a short log: cell 2 was relabelled, cell 4 is unsure."""
    with db.writing(engine) as writer:
        fill(writer)
    with db.reading(engine) as reader:
        yield reader


def fill(session: Session) -> None:
    dataset = Dataset(name="cells", classes=["all", "hem"])
    group, own, lone = LeakGroup(), LeakGroup(), LeakGroup()
    session.add_all([dataset, Dataset(name="demo", classes=[], synthetic=True)])
    session.flush()
    for each in (group, own, lone):
        each.dataset_id = dataset.id
    session.add_all([group, own, lone])
    session.flush()
    subjects: dict[str | None, Subject] = {}
    for name, its_group in (("1", group), ("2", group), ("H3", own), ("H4", lone)):
        subjects[name] = Subject(dataset_id=dataset.id, name=name, leak_group_id=its_group.id)
    session.add_all(subjects.values())
    recipe = Recipe(hash="r", body={"backbone": "mobilenet_v2"})
    snapshot = Snapshot(dataset_id=dataset.id, hash="s")
    session.add_all([recipe, snapshot])
    session.flush()
    run = Run(
        dataset_id=dataset.id,
        recipe_id=recipe.id,
        snapshot_id=snapshot.id,
        classes=["all", "hem"],
        state="finished",
    )
    session.add(run)
    session.flush()
    for number, (subject, label, part, predicted, probability) in enumerate(CELLS, start=1):
        owner = subjects[subject].id if subject else None
        cell = Cell(
            dataset_id=dataset.id,
            sha256=sha(number),
            subject_id=owner,
            source_label=label,
            width=450,
            height=450,
            size_bytes=607_554,
        )
        session.add(cell)
        session.flush()
        path = f"/cells/fold_0/{label}/UID_{number}.bmp"
        session.add(CellFile(dataset_id=dataset.id, cell_id=cell.id, subject_id=owner, path=path))
        if part and predicted and probability:
            session.add(SnapshotCell(snapshot_id=snapshot.id, cell_id=cell.id, label=label, part=part))
            probabilities = {predicted: probability}
            session.add(
                Prediction(
                    run_id=run.id,
                    cell_id=cell.id,
                    label=predicted,
                    probability=probability,
                    probabilities=probabilities,
                )
            )
    session.add(
        CellFile(dataset_id=dataset.id, cell_id=1, subject_id=subjects["2"].id, path="/cells/copy 100%.bmp")
    )
    annotate(session)


def annotate(session: Session) -> None:
    anna, ben = Reviewer(name="Anna"), Reviewer(name="Ben")
    session.add_all([anna, ben])
    session.flush()
    log = [
        {"cell_id": 2, "sequence": 1, "kind": "decision", "label": "hem", "reviewer_id": anna.id},
        {"cell_id": 4, "sequence": 1, "kind": "decision", "label": "unsure", "reviewer_id": anna.id},
        {"cell_id": 1, "sequence": 1, "kind": "decision", "label": "hem", "reviewer_id": ben.id},
    ]
    for values in log:
        session.add(Annotation(**values))
        session.flush()
    session.add(Annotation(cell_id=1, sequence=2, kind="undo", undoes_id=3, reviewer_id=anna.id))
    session.add(
        Annotation(
            cell_id=1,
            sequence=3,
            kind="decision",
            label="all",
            reviewer_id=anna.id,
            visible_run_id=1,
            reason="chromatin",
            comment="fine and open",
        )
    )
    keep_standing(session, [1, 2, 4])


def ids(session: Session, filters: Filters = Filters(), sort: Sort = Sort.IMPORTED) -> list[int]:  # noqa: B008
    rows = page_of_cells(session, 1, filters, sort, 1, 100)
    assert count_cells(session, 1, filters) == len(rows)
    return [row.cell_id for row in rows]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), [1, 2, 3, 4, 5, 6, 7, 8]),
        (Filters(labels=("all",)), [1, 3]),
        (Filters(labels=("hem", "unsure")), [2, 4, 5, 6, 7, 8]),
        (Filters(relabelled="changed"), [2, 4]),
        (Filters(relabelled="unchanged", labels=("all",)), [1, 3]),
        (Filters(labelled="labelled"), [1, 2, 4]),
        (Filters(labelled="not labelled"), [3, 5, 6, 7, 8]),
        (Filters(subjects=("1", "H4")), [1, 2, 6, 7]),
        (Filters(run_id=1, parts=("train",)), [1, 2, 4]),
        (Filters(run_id=1, parts=("test", "validation")), [3, 5, 6, 7]),
        (Filters(run_id=1, verdict="wrong"), [5]),
        (Filters(run_id=1, verdict="right"), [1, 2, 3]),
        (Filters(run_id=1, verdict="wrong", test_predictions=True), [5, 6]),
        (Filters(run_id=1, confidence=(0.75, 0.96)), [2, 5]),
        (Filters(run_id=1, confidence=(0.55, 0.6), test_predictions=True), [3, 7]),
        (Filters(text="uid_7"), [7]),
        (Filters(text=" h3 "), [4, 5]),
        (Filters(text=sha(6)[:12].upper()), [6]),
        (Filters(text="100%"), [1]),
        (Filters(text="%"), [1]),
        (Filters(text="99999999999999999999"), []),
        (Filters(text="a\0b"), []),
    ],
)
def test_filters(session: Session, filters: Filters, expected: list[int]) -> None:
    assert ids(session, filters) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (Sort.IMPORTED, [1, 2, 3, 4, 5, 6, 7, 8]),
        (Sort.SUBJECT, [1, 2, 3, 4, 5, 6, 7, 8]),
        (Sort.MOST_CONFIDENT, [1, 5, 2, 4, 3, 6, 7, 8]),
        (Sort.LEAST_CONFIDENT, [3, 4, 2, 5, 1, 6, 7, 8]),
        (Sort.LAST_LABELLED, [1, 4, 2, 3, 5, 6, 7, 8]),
    ],
)
def test_order_leaves_test_cells_to_the_end(session: Session, sort: Sort, expected: list[int]) -> None:
    assert ids(session, Filters(run_id=1), sort) == expected


@pytest.mark.parametrize("sort", list(Sort))
def test_every_order_works_without_a_run(session: Session, sort: Sort) -> None:
    assert sorted(ids(session, Filters(), sort)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_pages_meet_without_gap_or_overlap(session: Session) -> None:
    pages = [page_of_cells(session, 1, Filters(), Sort.SUBJECT, page, 3) for page in (1, 2, 3, 4)]
    assert [[row.cell_id for row in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7, 8], []]


def test_row_says_what_is_known(session: Session) -> None:
    row = page_of_cells(session, 1, Filters(run_id=1), Sort.IMPORTED, 1, 100)[1]
    assert (row.source_label, row.current_label, row.predicted) == ("all", "hem", "hem")
    assert row.relabelled
    assert not row.wrong
    assert row.path == "/cells/fold_0/all/UID_2.bmp"
    assert row.sha256 == sha(2)


def test_predictions_of_test_cells_are_withheld_until_asked_for(session: Session) -> None:
    blind = page_of_cells(session, 1, Filters(run_id=1, parts=("test",)), Sort.IMPORTED, 1, 9)
    asked = Filters(run_id=1, parts=("test",), test_predictions=True)
    seen = page_of_cells(session, 1, asked, Sort.IMPORTED, 1, 9)
    assert [(row.predicted, row.probability, row.wrong) for row in blind] == [(None, None, False)] * 2
    assert [(row.predicted, row.probability, row.wrong) for row in seen] == [
        ("all", 0.9, True),
        ("hem", 0.6, False),
    ]


def test_counts(session: Session) -> None:
    plain = counts(session, 1)
    assert plain.by_class == [("all", 2), ("hem", 5), ("unsure", 1)]
    assert plain.by_part == []
    assert ("1", "hem", 1) in plain.by_subject
    assert plain.by_subject[-1] == (None, "hem", 1)
    with_run = counts(session, 1, 1)
    assert with_run.by_class == plain.by_class
    assert with_run.by_part == [
        ("test", "hem", 2),
        ("train", "all", 1),
        ("train", "hem", 1),
        ("train", "unsure", 1),
        ("validation", "all", 1),
        ("validation", "hem", 1),
    ]


def test_detail_tells_the_whole_log_in_order(session: Session) -> None:
    detail = cell_detail(session, 1, run_id=1)
    assert [(e.sequence, e.kind, e.label, e.reviewer, e.undone, e.about) for e in detail.log] == [
        (1, "decision", "hem", "Ben", True, None),
        (2, "undo", None, "Anna", False, 1),
        (3, "decision", "all", "Anna", False, None),
    ]
    assert (detail.log[2].reason, detail.log[2].comment) == ("chromatin", "fine and open")
    assert detail.log[2].visible_run_id == 1
    assert detail.files == [("/cells/fold_0/all/UID_1.bmp", "1"), ("/cells/copy 100%.bmp", "2")]
    assert detail.group == ["2"]
    assert [row.cell_id for row in detail.others] == [2]
    assert detail.others_total == 1
    assert [(p.run_id, p.recipe.backbone, p.part, p.label) for p in detail.predictions] == [
        (1, "mobilenet_v2", "train", "all")
    ]


def test_detail_of_a_test_cell_is_blind_until_asked(session: Session) -> None:
    blind, seen = cell_detail(session, 6, run_id=1), cell_detail(session, 6, run_id=1, test_predictions=True)
    assert (blind.cell.predicted, blind.predictions[0].label, blind.predictions[0].hidden) == (
        None,
        None,
        True,
    )
    assert all(row.predicted is None for row in blind.others)
    assert (seen.cell.predicted, seen.predictions[0].label, seen.predictions[0].hidden) == (
        "all",
        "all",
        False,
    )


def test_detail_of_a_cell_without_subject(session: Session) -> None:
    detail = cell_detail(session, 8)
    assert (detail.cell.subject, detail.group, detail.others, detail.predictions, detail.log) == (
        None,
        [],
        [],
        [],
        [],
    )
    with pytest.raises(UserError, match="no cell 99"):
        cell_detail(session, 99)


def test_find_cell(session: Session) -> None:
    assert find_cell(session, "3").id == 3
    assert find_cell(session, sha(5)[:6]).id == 5
    assert find_cell(session, sha(5).upper()).id == 5
    assert find_cell(session, "/cells/fold_0/hem/UID_4.bmp").id == 4
    assert find_cell(session, "hem/UID_4.bmp", 1).id == 4
    assert find_cell(session, "copy 100%.bmp").id == 1


@pytest.mark.parametrize("text", ["", "99", "abcdef", "UID", "_ID_4.bmp", "9" * 30, "\0"])
def test_find_cell_finds_nothing(session: Session, text: str) -> None:
    with pytest.raises(UserError, match="No cell is known as"):
        find_cell(session, text)


def test_find_cell_lists_what_an_ambiguous_text_may_mean(engine: sa.Engine, session: Session) -> None:
    with db.writing(engine) as writer:
        copy = Cell(
            dataset_id=2, sha256=sha(3), source_label="all", width=450, height=450, size_bytes=607_554
        )
        writer.add(copy)
    with pytest.raises(UserError, match=f"more than one cell: 3 .*, {copy.id} "):
        find_cell(session, sha(3))
    assert find_cell(session, sha(3), dataset_id=2).id == copy.id
    with pytest.raises(UserError, match="No cell is known"):
        find_cell(session, "1", dataset_id=2)


def test_summaries(session: Session) -> None:
    first, second = dataset_summaries(session)
    assert (first.name, first.cells, first.subjects, first.leak_groups) == ("cells", 8, 4, 1)
    assert (second.name, second.synthetic, second.cells, second.leak_groups) == ("demo", True, 0, 0)
    assert subject_names(session, 1) == ["1", "2", "H3", "H4"]
    assert labels_in_use(session, 1) == ["all", "hem", "unsure"]
    assert [(run.run_id, run.recipe.backbone, run.state) for run in runs_with_predictions(session, 1)] == [
        (1, "mobilenet_v2", "finished")
    ]
    assert runs_with_predictions(session, 2) == []


def test_a_page_takes_a_fixed_number_of_queries(engine: sa.Engine, session: Session) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    session.connection()  # so that BEGIN is out of the way
    asked = []
    for per_page in (2, 5):
        statements.clear()
        page_of_cells(session, 1, Filters(run_id=1), Sort.MOST_CONFIDENT, 1, per_page)
        asked.append(len([each for each in statements if "set_config" not in each]))
    assert asked == [4, 4]
