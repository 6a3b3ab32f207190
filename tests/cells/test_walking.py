"""Pages found by their place against one plain list, for every filter and order, also while decisions are made."""

import hashlib
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy.orm import Session

import db
from allreview.cells import counting, searching, walking
from allreview.cells.browsing import Filters, Sort, cells_from, count_cells, ids_of_cells
from allreview.cells.summaries import labels_in_use
from allreview.labels import NOT_CLASSES, wrongly_kept
from allreview.review.log.annotations import decide, decide_many
from allreview.review.log.events import last_event_id
from db.tables import Cell
from tests.factory import Store, finished_run, small_store

SUBJECTS = {"P2": ("all", 7), "H1": ("hem", 9), "P1": ("all", 4), "H3": ("hem", 5)}
LABELS = ("all", "hem", "unsure", "unusable")
WAYS = ("few", "many")
PHASES = (Phase.explicit, Phase.generate)
"""Without shrinking: each example is many queries, and small as it is."""


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    """25 cells of four subjects, and four without one; a run over most of them; a third has decisions."""
    made = small_store(engine, SUBJECTS)
    cells = [cell for some in made.cells.values() for cell in some]
    with db.writing(engine) as session:
        session.execute(sa.update(Cell).where(Cell.id.in_(cells[3::6])).values(subject_id=None))
    parts = {cell: ("train", "validation", "test")[place % 3] for place, cell in enumerate(cells)}
    said = {
        cell: (LABELS[place % 2], 0.5 + (place % 4) / 10) for place, cell in enumerate(cells) if place % 8
    }
    finished_run(engine, made, said, parts=parts)
    for place, cell in enumerate(cells[::3]):
        decide(engine, cell_id=cell, label=LABELS[place % 4], reviewer_id=made.ann, seen=None)
    return made


def some_of(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=3).map(tuple)


@st.composite
def wanted(draw: Any) -> Filters:
    """Any filters: most of them restrict in one or two ways."""
    chosen = draw(
        st.sets(st.sampled_from(["labels", "subjects", "log", "text", "run", "said", "parts"]), max_size=3)
    )
    found = Filters()
    if "labels" in chosen:
        found = replace(found, labels=draw(some_of(*LABELS)))
    if "subjects" in chosen:
        found = replace(found, subjects=draw(some_of("P2", "H1", "P1", "nobody")))
    if "log" in chosen:
        found = replace(
            found,
            labelled=draw(st.sampled_from(["any", "labelled", "not labelled"])),
            relabelled=draw(st.sampled_from(["any", "changed", "unchanged"])),
        )
    if "text" in chosen:
        found = replace(found, text=draw(st.sampled_from(["h", "P", "1", "/", "3.BMP", "_", "0", "12"])))
    if chosen & {"run", "said", "parts"}:
        found = replace(found, run_id=1, test_predictions=draw(st.booleans()))
    if "parts" in chosen:
        found = replace(found, parts=draw(some_of("train", "validation", "test")))
    if "said" in chosen:
        found = replace(
            found,
            verdict=draw(st.sampled_from(["any", "right", "wrong"])),
            confidence=draw(st.sampled_from([(0.0, 1.0), (0.6, 0.7), (0.55, 1.0), (0.9, 1.0)])),
        )
    return found


Row = dict[str, Any]


def everything(session: Session) -> list[Row]:
    """All there is to know of each cell, read table by table."""
    tables = db_tables(session)
    said = {row["cell_id"]: row for row in tables["predictions"]}
    part = {row["cell_id"]: row["part"] for row in tables["snapshot_cells"]}
    subject = {row["id"]: row["name"] for row in tables["subjects"]}
    names = {row["cell_id"]: row["path"].rsplit("/", 1)[-1] for row in tables["cell_files"]}
    last = {row["cell_id"]: row for row in sorted(tables["annotations"], key=lambda row: row["sequence"])}
    return [
        {
            "id": cell["id"],
            "sha256": cell["sha256"],
            "source": cell["source_label"],
            "label": last[cell["id"]]["label"] if cell["id"] in last else cell["source_label"],
            "event": last[cell["id"]]["id"] if cell["id"] in last else None,
            "subject": subject.get(cell["subject_id"]),
            "part": part.get(cell["id"]),
            "said": said.get(cell["id"], {}).get("label"),
            "sure": said.get(cell["id"], {}).get("probability"),
            "name": names[cell["id"]],
        }
        for cell in sorted(tables["cells"], key=lambda row: row["id"])
    ]


def db_tables(session: Session) -> dict[str, list[Row]]:
    names = ("cells", "subjects", "predictions", "snapshot_cells", "cell_files", "annotations")
    return {
        name: [dict(row._mapping) for row in session.execute(sa.text(f"select * from {name}"))]
        for name in names
    }


def plain(rows: list[Row], filters: Filters, sort: Sort) -> list[int]:
    """The ids in the order asked for, by sorting all of them: written apart from the query."""
    kept = []
    for each in rows:
        row = dict(each)
        if filters.run_id is None or (row["part"] == "test" and not filters.test_predictions):
            row["said"] = row["sure"] = None
        if lets_through(row, filters):
            kept.append(row)
    key: dict[Sort, Any] = {
        Sort.IMPORTED: lambda row: (0, row["id"]),
        Sort.SUBJECT: lambda row: (row["subject"] is None, row["subject"] or "", row["id"]),
        Sort.LAST_LABELLED: lambda row: (row["event"] is None, -(row["event"] or 0), row["id"]),
        Sort.LEAST_CONFIDENT: lambda row: (row["sure"] is None, row["sure"] or 0, row["id"]),
        Sort.MOST_CONFIDENT: lambda row: (
            (False, -row["sure"], -row["id"]) if row["sure"] is not None else (True, 0, row["id"])
        ),
    }
    return [row["id"] for row in sorted(kept, key=key[sort])]


def lets_through(row: Row, filters: Filters) -> bool:
    text = filters.text.lower()
    right = row["said"] == row["label"]
    return all(
        (
            not filters.labels or row["label"] in filters.labels,
            not filters.subjects or row["subject"] in filters.subjects,
            filters.labelled == "any" or (row["event"] is not None) == (filters.labelled == "labelled"),
            filters.relabelled == "any"
            or (row["label"] != row["source"]) == (filters.relabelled == "changed"),
            not text
            or text in row["name"]
            or text in (row["subject"] or "").lower()
            or text == str(row["id"]),
            filters.run_id is None or not filters.parts or row["part"] in filters.parts,
            filters.verdict == "any"
            or (
                row["said"] is not None
                and row["label"] not in NOT_CLASSES
                and right == (filters.verdict == "right")
            ),
            filters.confidence == (0.0, 1.0)
            or (row["sure"] is not None and filters.confidence[0] <= row["sure"] <= filters.confidence[1]),
        )
    )


def walked(session: Session, filters: Filters, sort: Sort, per_page: int, *, back: bool) -> list[int]:
    """All pages, one after the other, joined."""
    found: list[int] = []
    place = None
    while True:
        page = cells_from(session, 1, filters, sort, place, per_page, direction="before" if back else "after")
        ids = [row.cell_id for row in page.rows]
        found = ids + found if back else found + ids
        place = page.first if back else page.last
        if len(ids) < per_page:
            return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("examples", [15, pytest.param(300, marks=pytest.mark.slow)], ids=["short", "long"])
def test_pages_joined_are_the_plain_list(
    engine: sa.Engine, store: Store, way: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways to look: through the few cells of one filter, and along an index."""
    if way == "many":
        monkeypatch.setattr(walking, "FEW", 0)
        monkeypatch.setattr(searching, "MOST", 0)
    with db.reading(engine) as session:
        rows = everything(session)

        @settings(
            max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=PHASES
        )
        @given(wanted(), st.sampled_from(list(Sort)), st.integers(4, 9), st.integers(0, 30))
        def check(filters: Filters, sort: Sort, per_page: int, skip: int) -> None:
            by = sort if filters.run_id is not None or "confident" not in sort else Sort.IMPORTED
            expected = plain(rows, filters, by)
            searching._found.clear()
            assert walked(session, filters, sort, per_page, back=False) == expected
            assert walked(session, filters, sort, per_page, back=True) == expected
            assert count_cells(session, 1, filters) == len(expected)
            assert count_cells(session, 1, filters, limit=3) == min(3, len(expected))
            assert ids_of_cells(session, 1, filters) == set(expected)
            jumped = cells_from(session, 1, filters, sort, None, per_page, skip=skip)
            assert [row.cell_id for row in jumped.rows] == expected[skip : skip + per_page]
            if jumped.rows and jumped.first:
                again = cells_from(session, 1, filters, sort, jumped.first, per_page, direction="at")
                assert again == jumped
                further = cells_from(session, 1, filters, sort, jumped.last, per_page, skip=2)
                start = skip + per_page + 2
                assert [row.cell_id for row in further.rows] == expected[start : start + per_page]

        check()


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("filters", [Filters(run_id=1), Filters(run_id=1, labels=("all", "hem"))])
def test_no_cell_is_lost_when_decisions_are_made_between_pages(
    engine: sa.Engine, store: Store, sort: Sort, filters: Filters
) -> None:
    """After each page its cells are decided upon, so that they leave the filter or move in the order."""
    with db.reading(engine) as session:
        before = plain(everything(session), filters, sort)
    seen: list[int] = []
    decided: set[int] = set()
    place = None
    for _ in range(20):
        with db.reading(engine) as session:
            page = cells_from(session, 1, filters, sort, place, 4)
        seen += [row.cell_id for row in page.rows]
        for row in page.rows[::2]:
            with db.reading(engine) as session:
                last = last_event_id(session, row.cell_id)
            decide(engine, cell_id=row.cell_id, label="unusable", reviewer_id=store.ben, seen=last)
            decided.add(row.cell_id)
        if not page.rows:
            break
        place = page.last
    assert [cell for cell in seen if cell in before] == before
    assert len(seen) == len(set(seen))
    assert decided


def test_a_count_is_remembered_until_something_changes(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small_store(sqlite_engine, SUBJECTS)
    asked: list[Filters] = []

    def counted(session: Session, dataset_id: int, filters: Filters) -> int:
        asked.append(filters)
        return count_cells(session, dataset_id, filters)

    monkeypatch.setattr(counting, "count_cells", counted)
    hem = Filters(labels=("hem",))
    cell = store.cells["P1"][0]
    for _ in range(3):
        assert counting.found_cells(sqlite_engine, store.dataset, hem) == counting.Found(14)
    assert len(asked) == 1
    decide(sqlite_engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    assert counting.found_cells(sqlite_engine, store.dataset, hem) == counting.Found(15)
    assert counting.counts_of(sqlite_engine, store.dataset, None).by_class == [("all", 10), ("hem", 15)]
    decide_many(sqlite_engine, cells=dict.fromkeys(store.cells["H3"]), label="all", reviewer_id=store.ann)
    assert counting.counts_of(sqlite_engine, store.dataset, None).by_class == [("all", 15), ("hem", 10)]


def test_a_large_dataset_is_counted_behind_the_page(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small_store(sqlite_engine, SUBJECTS)
    work: list[Any] = []
    monkeypatch.setattr(counting, "AT_ONCE", 10)
    monkeypatch.setattr(counting, "_in_background", work.append)
    everything_there = Filters()
    look = lambda: counting.found_cells(sqlite_engine, store.dataset, everything_there)  # noqa: E731
    assert look() == look() == counting.Found(None, counting=True)
    assert len(work) == 1
    work.pop()()
    assert look() == counting.Found(25)
    decide(sqlite_engine, cell_id=store.cells["P1"][0], label="hem", reviewer_id=store.ann, seen=None)
    assert look() == counting.Found(25, counting=True)
    work.pop()()
    assert look() == counting.Found(25)


def test_labels_in_use_are_read_from_label_to_label(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine, SUBJECTS)
    decide(sqlite_engine, cell_id=store.cells["P1"][0], label="unsure", reviewer_id=store.ann, seen=None)
    with db.reading(sqlite_engine) as session:
        assert labels_in_use(session, store.dataset) == ["all", "hem", "unsure"]
        assert labels_in_use(session, 99) == []


def test_what_is_kept_beside_a_cell_and_not_in_its_log_is_found(engine: sa.Engine, store: Store) -> None:
    wrong = store.cells["H1"][1:3]
    with db.writing(engine) as session:
        assert wrongly_kept(session) == []
        session.execute(sa.update(Cell).where(Cell.id == wrong[0]).values(current_label="unusable"))
        session.execute(sa.update(Cell).where(Cell.id == wrong[1]).values(standing_id=1))
    with db.reading(engine) as session:
        assert wrongly_kept(session) == wrong


def test_text_finds_many_cells_and_few_alike(sqlite_engine: sa.Engine) -> None:
    """More ids than a statement may name."""
    small_store(sqlite_engine, {"P1": ("all", 700), "H1": ("hem", 100)})
    with db.reading(sqlite_engine) as session:
        found = searching.mentioned(session, 1, "p1")
        assert found is not None
        assert len(found) == 700
        assert count_cells(session, 1, Filters(text="P1")) == 700
        assert len(cells_from(session, 1, Filters(text="p1"), Sort.SUBJECT, None, 48, skip=690).rows) == 10
        digest = hashlib.sha256(b"cells/H1/7").hexdigest()
        assert count_cells(session, 1, Filters(text=digest[:10])) == 1
