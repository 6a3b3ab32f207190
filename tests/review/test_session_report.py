"""Reading reports: what they say, what they withhold, and that they can be opened and printed."""

import re
import time
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from font_source_sans_pro import font_files_ttf
from fontTools.ttLib import TTFont

import db
from allreview.errors import UserError
from allreview.labels import keep_standing
from allreview.review.log import reverting
from allreview.review.log.annotations import reviewer_named
from allreview.review.reading import sittings, undoing, worklists
from allreview.review.reports import report_parts
from allreview.review.reports.session_report import SessionReport, report_of
from allreview.review.reports.session_report_html import html_report
from allreview.review.reports.session_report_pdf import pdf_report
from allreview.settings import current_settings
from db.tables import Annotation, ReviewSession
from tests.factory import Store, entries_of, finished_run, small_store

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine)


def blind(engine: sa.Engine, store: Store, *readers: int, cells: int = 8, **more) -> int:
    """A blind worklist of the first cells of two subjects, half of them test cells of a run."""
    chosen = [*store.cells["1"], *store.cells["H1"]][:cells]
    run = finished_run(
        engine, store, dict.fromkeys(chosen, ("all", 0.9375)), parts=dict.fromkeys(chosen[::2], "test")
    )
    with db.reading(engine) as session:
        entries = entries_of(session, chosen, part="test")
    return worklists.create(
        engine, dataset_id=store.dataset, run_id=run, name=f"Second reading {SCRIPT}", strategy="chosen",
        entries=entries, parts=("test",), hidden=("others",), overlap=len(readers), readers=readers, **more,
    )  # fmt: skip


def read(engine: sa.Engine, worklist: int, reader: int, *labels: str, **more) -> int:
    """A sitting in which the next cells are answered so; the first with a note."""
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=reader)
    for label in labels:
        (cell,) = sittings.upcoming(engine, sitting)
        sittings.answer(engine, sitting, cell, label, seen=cell.last_event_id, duration_ms=4000, **more)
        more = {}
    sittings.upcoming(engine, sitting)  # the desk moves on, and lets go of the last cell
    return sitting


def report(engine: sa.Engine, **asked) -> SessionReport:
    with db.reading(engine) as session:
        return report_of(session, **asked)


def test_a_sitting_in_numbers_and_cell_by_cell(engine: sa.Engine) -> None:
    store = small_store(engine)
    lukasz = reviewer_named(engine, "Łukasz Öz")
    worklist = blind(engine, store, lukasz, repeat_rate=0.0)
    sitting = read(engine, worklist, lukasz, *["hem"] * 4, "hem", "unsure", reason="Size", comment="dark")
    undoing.undo_last(engine, sitting)
    found = report(engine, session_id=sitting, zone=ZoneInfo("Europe/Berlin"))
    (reader,) = found.readers
    assert (reader.name, reader.given, reader.changed, reader.taken_back) == ("Łukasz Öz", 5, 4, 1)
    assert (reader.seconds, found.unread, len(found.cells)) == (4.0, 3, 5)
    assert found.moves == {("all", "hem"): 4, ("hem", "hem"): 1}
    facts = dict(found.facts)
    assert facts["Hidden from readers"] == (
        "other reviewers' answers; of test cells also the model's opinion and the source label"
    )
    assert (facts["Ended"], facts["Started"].endswith("(CET)") or facts["Started"].endswith("(CEST)")) == (
        "still open when this report was made", True,
    )  # fmt: skip
    assert found.agreement == [
        "The worklist has one reader so far and no cell that was read twice: there is nothing to compare."
    ]
    assert report_parts.remark(found.cells[0].answers[0]) == "Size. dark"
    sittings.end(engine, sitting)
    assert "open" not in dict(report(engine, session_id=sitting).facts)["Ended"]


def test_all_sittings_of_a_worklist_together_with_agreement(sqlite_engine: sa.Engine, store: Store) -> None:
    worklist = blind(sqlite_engine, store, store.ann, store.ben)
    with pytest.raises(UserError, match="Nobody has read"):
        report(sqlite_engine, worklist_id=worklist)
    one = read(sqlite_engine, worklist, store.ann, *["all"] * 4, *["hem"] * 4)
    read(sqlite_engine, worklist, store.ben, *["all"] * 3, *["hem"] * 5)
    found = report(sqlite_engine, worklist_id=worklist)
    assert [(reader.name, reader.given) for reader in found.readers] == [("Ann", 8), ("Ben", 8)]
    assert {len(cell.answers) for cell in found.cells} == {2}
    (agreement,) = found.agreement
    assert agreement.startswith("Ann and Ben: 88\N{NO-BREAK SPACE}% equal in 8 cells, Cohen’s kappa 0.75")
    assert report(sqlite_engine, session_id=one).agreement == [agreement]


def test_a_reader_does_not_learn_from_a_report_what_others_said(engine: sa.Engine) -> None:
    store = small_store(engine)
    worklist = blind(engine, store, store.ann, store.ben)
    other = read(engine, worklist, store.ann, *["unsure"] * 8)
    own = read(engine, worklist, store.ben, *["all"] * 3)
    settings = current_settings()
    for asked in ({"worklist_id": worklist}, {"session_id": other}, {"session_id": own}):
        found = report(engine, **asked, viewer_id=store.ben)
        assert "unsure" not in {answer.label for cell in found.cells for answer in cell.answers}
        assert "Unsure" not in html_report(found, settings)
        assert found.agreement[0].startswith("Agreement is left out")
    assert report(engine, worklist_id=worklist, viewer_id=store.ben).withheld == 8
    assert "8 answers of other readers are withheld" in html_report(
        report(engine, worklist_id=worklist, viewer_id=store.ben), settings
    )
    assert report(engine, worklist_id=worklist, viewer_id=store.ann).withheld == 0
    read(engine, worklist, store.ben, *["all"] * 5)
    assert report(engine, worklist_id=worklist, viewer_id=store.ben).withheld == 0


def test_answers_that_somebody_else_brought_back_are_still_the_readers(
    sqlite_engine: sa.Engine, store: Store
) -> None:
    sitting = read(sqlite_engine, blind(sqlite_engine, store, store.ann), store.ann, "hem", "hem")
    batch = reverting.revert_session(sqlite_engine, session_id=sitting, reviewer_id=store.ben)
    assert report(sqlite_engine, session_id=sitting).readers[0].taken_back == 2
    reverting.restore(sqlite_engine, batch=batch, reviewer_id=store.ben)
    (reader,) = report(sqlite_engine, session_id=sitting).readers
    assert (reader.name, reader.given, reader.taken_back, reader.seconds) == ("Ann", 2, 0, 4.0)


class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_needs_no_other_file_and_shows_names_as_they_are(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    evil = reviewer_named(sqlite_engine, f"Eve {SCRIPT}")
    sitting = read(
        sqlite_engine,
        blind(sqlite_engine, store, evil),
        evil,
        "hem",
        "all",
        reason=SCRIPT,
        comment="<img src=x>",
    )
    page = Reader(html_report(report(sqlite_engine, session_id=sitting), current_settings()))
    assert "script" not in page.tags
    assert page.text.count(SCRIPT) >= 4  # title, worklist, reader, reason
    assert "<img src=x>" in page.text
    assert page.tags.count("img") == 2
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not re.search(r"94\s*%|0\.94|0\.9375", page.text)  # the model's probability
    assert "Signature" in page.text


def test_pdf_embeds_letters_of_many_scripts(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    name = "Łukasz Öz Ψ Жуков"
    reader = reviewer_named(sqlite_engine, name)
    sitting = read(
        sqlite_engine, blind(sqlite_engine, store, reader), reader, "hem", comment="細胞 " + "long " * 60
    )
    pdf = pdf_report(report(sqlite_engine, session_id=sitting), current_settings())
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/FontFile2") == 2
    has = TTFont(font_files_ttf["SourceSansPro"]).getBestCmap()
    for letter in set(name):
        assert ord(letter) in has
        assert f"> <{ord(letter):04X}>".encode() in pdf, letter  # what is drawn can be searched and copied


@pytest.mark.slow
def test_five_hundred_cells_take_seconds(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine, {"1": ("all", 300), "H1": ("hem", 200)})
    worklist = blind(sqlite_engine, store, store.ann, cells=500)
    sitting = sittings.start(sqlite_engine, worklist_id=worklist, reviewer_id=store.ann)
    with db.writing(sqlite_engine) as session:
        session.get_one(ReviewSession, sitting).ended_at = None
        for cells in store.cells.values():
            session.add_all(
                Annotation(
                    cell_id=cell, sequence=1, kind="decision", label="all", reviewer_id=store.ann,
                    session_id=sitting, duration_ms=3000,
                )
                for cell in cells
            )  # fmt: skip
            keep_standing(session, cells)
    found = report(sqlite_engine, session_id=sitting)
    started = time.perf_counter()
    made = pdf_report(found, current_settings())
    page = html_report(found, current_settings())
    assert time.perf_counter() - started < 30
    assert len(found.cells) == 500
    assert max(len(made), len(page)) < 10_000_000
    assert 30 < len(re.findall(rb"/Type /Page\b", made)) < 60


def test_there_is_no_such_sitting(sqlite_engine: sa.Engine) -> None:
    with pytest.raises(UserError, match="no sitting 7"):
        report(sqlite_engine, session_id=7)
    with pytest.raises(UserError, match="no worklist 7"):
        report(sqlite_engine, worklist_id=7)
