"""Importing: what goes in, what stays out and why, and that repeating it changes nothing."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import db
from allreview.cells import recording
from allreview.cells.importing import ImportReport, import_cells
from allreview.cells.leak_groups import join_members
from allreview.cells.scanning import scan_folder
from allreview.cells.thumbnails import thumbnail_path
from allreview.errors import UserError
from allreview.settings import Settings, current_settings
from db.tables import Cell, CellFile, Dataset, LeakGroup, Subject
from tests.cells.pictures import picture, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, three subjects, four cells."""
    folder = tmp_path / "cells"
    put(folder / "all" / "UID_1_1_1_all.bmp", 1)
    put(folder / "all" / "UID_1_1_2_all.bmp", 2)
    put(folder / "hem" / "UID_h3_1_1_hem.bmp", 3)
    put(folder / "hem" / "UID_H4_1_1_hem.bmp", 4)
    return folder


def reasons(report: ImportReport) -> dict[str, str]:
    return {entry.path: entry.reason for entry in report.rejected}


def groups(engine: sa.Engine, dataset: str) -> set[frozenset[str]]:
    """The names of the subjects of each leak group."""
    with db.reading(engine) as session:
        rows = session.execute(
            sa.select(Subject.leak_group_id, Subject.name).join(Dataset).where(Dataset.name == dataset)
        )
        found: dict[int, set[str]] = {}
        for group, name in rows:
            found.setdefault(group, set()).add(name)
        stored = set(session.scalars(sa.select(LeakGroup.id).join(Dataset).where(Dataset.name == dataset)))
    assert stored == set(found)
    return {frozenset(names) for names in found.values()}


def test_real_cells_go_in_and_a_repeat_adds_nothing(
    engine: sa.Engine, settings: Settings, cnmc: Path
) -> None:
    first = import_cells(engine, settings, cnmc, dataset="C-NMC")
    files = sorted(cnmc.rglob("*.bmp"))
    assert first.rejected == ()
    assert first.added == first.cells == sum(first.classes.values())
    assert first.cells + first.duplicates == len(files)
    assert first.subjects == 53
    assert set(first.classes) == {"all", "hem"}
    assert import_cells(engine, settings, cnmc, dataset="C-NMC").as_dict() == first.as_dict() | {"added": 0}
    with db.reading(engine) as session:
        assert set(session.scalars(sa.select(CellFile.path))) == {str(path.resolve()) for path in files}
        assert session.scalars(sa.select(Dataset.classes)).one() == ["all", "hem"]
        assert (
            set(session.scalars(sa.select(Cell.width)))
            == set(session.scalars(sa.select(Cell.height)))
            == {450}
        )
        assert set(session.scalars(sa.select(Cell.fold))) == {"fold_0", "fold_2"}
        assert "H3" in set(session.scalars(sa.select(Subject.name)))
        for sha256 in session.scalars(sa.select(Cell.sha256)):
            assert thumbnail_path(settings, sha256).is_file()


def test_eight_classes_without_subjects(sqlite_engine: sa.Engine, pbc: Path) -> None:
    report = import_cells(sqlite_engine, current_settings(), pbc)
    assert (report.dataset, report.cells, report.subjects, report.leak_groups) == ("pbc", 480, 0, 0)
    assert set(report.classes.values()) == {60}
    assert len(report.classes) == 8


def test_identical_cells_tie_their_subjects_across_imports(
    engine: sa.Engine, settings: Settings, root: Path
) -> None:
    first = import_cells(engine, settings, root, dataset="d")
    assert (first.leak_groups, first.duplicates) == (3, 0)
    put(root / "hem" / "UID_H5_1_1_hem.bmp", 3)
    second = import_cells(engine, settings, root, dataset="d")
    assert (second.added, second.cells, second.duplicates, second.leak_groups) == (0, 4, 1, 3)
    assert groups(engine, "d") == {frozenset({"1"}), frozenset({"H3", "H5"}), frozenset({"H4"})}
    put(root / "hem" / "UID_H5_1_2_hem.bmp", 4)
    import_cells(engine, settings, root, dataset="d")
    assert groups(engine, "d") == {frozenset({"1"}), frozenset({"H3", "H4", "H5"})}


def test_identical_files_with_two_labels_are_all_refused(
    engine: sa.Engine, settings: Settings, root: Path
) -> None:
    put(root / "all" / "UID_9_1_1_all.bmp", 9)
    put(root / "hem" / "UID_H9_1_1_hem.bmp", 9)
    report = import_cells(engine, settings, root, dataset="d")
    told = reasons(report)
    assert report.cells == 4
    assert "hem/UID_H9_1_1_hem.bmp" in told["all/UID_9_1_1_all.bmp"]
    assert "all/UID_9_1_1_all.bmp" in told["hem/UID_H9_1_1_hem.bmp"]
    assert report.subjects == 3
    assert import_cells(engine, settings, root, dataset="d").as_dict() == report.as_dict() | {"added": 0}


def test_what_was_imported_before_is_believed(engine: sa.Engine, settings: Settings, root: Path) -> None:
    import_cells(engine, settings, root, dataset="d")
    put(root / "hem" / "UID_H9_1_1_hem.bmp", 1)
    report = import_cells(engine, settings, root, dataset="d")
    assert "'all', not 'hem'" in reasons(report)["hem/UID_H9_1_1_hem.bmp"]
    assert report.cells == 4


def test_a_file_that_changed_is_refused_and_the_old_cell_stays(
    engine: sa.Engine, settings: Settings, root: Path
) -> None:
    import_cells(engine, settings, root, dataset="d")
    put(root / "all" / "UID_1_1_1_all.bmp", 77)
    report = import_cells(engine, settings, root, dataset="d")
    assert "changed since it was imported" in reasons(report)["all/UID_1_1_1_all.bmp"]
    assert (report.cells, report.added) == (4, 0)


def test_bad_files_are_listed_and_the_rest_goes_in(sqlite_engine: sa.Engine, root: Path) -> None:
    (root / "all" / "empty.bmp").touch()
    (root / "all" / "text.bmp").write_text("no")
    (root / "all" / "short.bmp").write_bytes((root / "all" / "UID_1_1_1_all.bmp").read_bytes()[:300])
    (root / "all" / ".DS_Store").write_bytes(b"x")
    (root / "hem" / "Thumbs.db").write_bytes(b"x")
    (root / "README.txt").write_text("hello")
    put(root / "lost.png", 8)
    report = import_cells(sqlite_engine, current_settings(), root)
    told = reasons(report)
    assert report.cells == 4
    assert set(told) == {"all/empty.bmp", "all/text.bmp", "all/short.bmp", "README.txt", "lost.png"}
    assert "nothing names its class" in told["lost.png"]
    assert "not a BMP" in told["README.txt"]


NAMES = [
    'it\'s "quoted".png',
    "<script>alert(1)<.png",
    "two\nlines.png",
    "细胞 клетка.png",
    "%00 {x} $y ;--.png",
    "-rf.png",
]


def test_strange_names_go_in_as_they_are(engine: sa.Engine, settings: Settings, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        put(tmp_path / "cells" / ["<b>one\n'\"", "细胞_2"][number % 2] / name, number)
    report = import_cells(engine, settings, tmp_path / "cells")
    assert report.rejected == ()
    assert report.classes == {"<b>one\n'\"": 3, "细胞_2": 3}
    with db.reading(engine) as session:
        assert {Path(path).name for path in session.scalars(sa.select(CellFile.path))} == set(NAMES)


def test_names_that_are_not_text_are_refused(engine: sa.Engine, settings: Settings, root: Path) -> None:
    source = (root / "all" / "UID_1_1_1_all.bmp").read_bytes()
    with open(os.fsencode(root / "all") + b"/caf\xe9.bmp", "wb") as file:
        file.write(source + b"x")
    os.mkdir(os.fsencode(root) + b"/cl\xe9")
    with open(os.fsencode(root) + b"/cl\xe9/a.bmp", "wb") as file:
        file.write(source + b"y")
    report = import_cells(engine, settings, root)
    assert report.cells == 4
    assert set(reasons(report)) == {"all/caf\\udce9.bmp", "cl\\udce9/a.bmp"}
    assert all("not UTF-8" in reason for reason in reasons(report).values())


def test_words_kept_for_reviewers_are_no_classes(sqlite_engine: sa.Engine, root: Path) -> None:
    put(root / "Unsure" / "a.png", 20)
    put(root / ("c" * 201) / "b.png", 21)
    report = import_cells(sqlite_engine, current_settings(), root)
    assert sorted(report.classes) == ["all", "hem"]
    assert [("rename" in r or "shorten" in r) for r in reasons(report).values()] == [True, True]


def test_one_class_in_two_spellings_is_one_class(sqlite_engine: sa.Engine, root: Path) -> None:
    import_cells(sqlite_engine, current_settings(), root, dataset="d")
    put(root.parent / "more" / "ALL" / "a.png", 30)
    put(root.parent / "more" / "Normal (hem)" / "b.png", 31)
    report = import_cells(sqlite_engine, current_settings(), root.parent / "more", dataset="d")
    assert report.classes == {"all": 3, "hem": 3}


def test_a_csv_overrides_folders_and_names(engine: sa.Engine, settings: Settings, root: Path) -> None:
    labels = root.parent / "labels.csv"
    labels.write_text(
        "\ufeffPath,label,subject\n"
        "all/UID_1_1_1_all.bmp,hem,\n"
        f"{root}/all/UID_1_1_2_all.bmp,,p7\n"
        "cells/hem/UID_h3_1_1_hem.bmp,blast,P8\n"
        "none.bmp,all,1\n"
        ",all,1\n",
        encoding="utf-8",
    )
    report = import_cells(engine, settings, root, labels=labels)
    assert report.classes == {"all": 1, "blast": 1, "hem": 1}
    assert "no such file" in reasons(report)["none.bmp"]
    assert "names no file" in reasons(report)["labels.csv, line 6"]
    with db.reading(engine) as session:
        assert set(session.scalars(sa.select(Subject.name))) == {"1", "P7", "P8"}


def test_a_csv_that_contradicts_itself(sqlite_engine: sa.Engine, root: Path) -> None:
    labels = root / "labels.csv"
    name = "all/UID_1_1_1_all.bmp"
    labels.write_text(
        f"path;label;subject\n{name};all;\n{name};hem;\nhem/UID_H4_1_1_hem.bmp;hem;\nhem/UID_H4_1_1_hem.bmp;hem;"
    )
    report = import_cells(sqlite_engine, current_settings(), root, labels=Path("labels.csv"))
    assert report.cells == 1
    assert "twice" in reasons(report)[name]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"file,class\na,b\n", "no column 'path'"),
        (b"", "no column 'path'"),
        (b"path,label,subject\n\xff\xfe,a,b\n", "not UTF-8"),
    ],
)
def test_a_csv_that_cannot_be_read(sqlite_engine: sa.Engine, root: Path, content: bytes, reason: str) -> None:
    (root / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        import_cells(sqlite_engine, current_settings(), root, labels=root / "labels.csv")


def test_nul_in_a_csv_never_reaches_the_store(engine: sa.Engine, settings: Settings, root: Path) -> None:
    name = "UID_1_1_1_all.bmp"
    (root / "l.csv").write_text(
        f"path,label,subject\nall/{name},a\0b,\nhem/UID_H4_1_1_hem.bmp,,s\0\nall/UID_1_1_2_all.bmp,,\n"
    )
    report = import_cells(engine, settings, root, labels=root / "l.csv")
    assert report.cells == 1
    assert len(report.rejected) == 2


@pytest.mark.parametrize("case", ["missing", "empty", "only text", "only bad"])
def test_sources_with_nothing_in_them(sqlite_engine: sa.Engine, tmp_path: Path, case: str) -> None:
    source = tmp_path / "source"
    if case != "missing":
        source.mkdir()
    if case == "only text":
        (source / "a.txt").write_text("x")
    if case == "only bad":
        (source / "all").mkdir()
        (source / "all" / "a.bmp").write_bytes(b"x")
    with pytest.raises(UserError):
        import_cells(sqlite_engine, current_settings(), source)
    with db.reading(sqlite_engine) as session:
        assert session.scalars(sa.select(Dataset.id)).all() == []


@pytest.mark.parametrize("name", ["", "  ", "n" * 201, "a\0b", "\udce9"])
def test_dataset_names_the_store_cannot_hold(sqlite_engine: sa.Engine, root: Path, name: str) -> None:
    with pytest.raises(UserError, match="name"):
        import_cells(sqlite_engine, current_settings(), root, dataset=name)


def test_links_are_followed_once(sqlite_engine: sa.Engine, root: Path) -> None:
    (root / "all" / "loop").symlink_to(root)
    (root / "hem" / "again.bmp").symlink_to(root / "hem" / "UID_H4_1_1_hem.bmp")
    (root / "hem" / "broken.bmp").symlink_to(root / "nothing.bmp")
    report = import_cells(sqlite_engine, current_settings(), root)
    assert report.cells == 4
    assert "hem/broken.bmp" in reasons(report)


def test_a_subject_that_was_unknown_is_filled_in(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    put(tmp_path / "cells" / "all" / "a.png", 1)
    put(tmp_path / "cells" / "hem" / "b.png", 2)
    import_cells(engine, settings, tmp_path / "cells")
    (tmp_path / "l.csv").write_text("path,label,subject\ncells/all/a.png,,p1\n")
    report = import_cells(engine, settings, tmp_path / "cells", labels=tmp_path / "l.csv")
    assert (report.added, report.subjects, report.leak_groups, report.rejected) == (0, 1, 1, ())
    with db.reading(engine) as session:
        known = session.scalar(sa.select(sa.func.count(Cell.id)).where(Cell.subject_id.is_not(None)))
    assert known == 1


def test_progress_reaches_the_end(sqlite_engine: sa.Engine, root: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    import_cells(sqlite_engine, current_settings(), root, progress=lambda *at: seen.append(at))
    assert list(dict.fromkeys(doing for _, _, doing in seen)) == [
        "Listing the files",
        "Reading the cells",
        "Writing to the store",
    ]
    assert (4, 4, "Reading the cells") in seen
    assert seen[-1] == (8, 8, "Writing to the store")


@pytest.mark.parametrize("doing_then", ["Listing the files", "Reading the cells", "Writing to the store"])
def test_an_interrupted_import_leaves_nothing_half_done(
    sqlite_engine: sa.Engine, root: Path, doing_then: str
) -> None:
    def stop(done: int, total: int, doing: str) -> None:
        if doing == doing_then:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_cells(sqlite_engine, current_settings(), root, progress=stop)
    with db.reading(sqlite_engine) as session:
        assert session.scalars(sa.select(Dataset.id)).all() == []
    assert import_cells(sqlite_engine, current_settings(), root).added == 4


def test_what_is_stored_is_what_a_plain_loop_finds(
    engine: sa.Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_CHUNK", 7)
    plain: dict[str, tuple[str, int, int, int]] = {}
    for number in range(60):
        size = (20 + number, 30)
        path = tmp_path / "cells" / ("all", "hem")[number % 2] / f"s{number % 5}" / f"{number:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, size).save(path)
        data = path.read_bytes()
        plain[str(path)] = (hashlib.sha256(data).hexdigest(), *size, len(data))
    report = import_cells(engine, settings, tmp_path / "cells")
    assert (report.cells, report.subjects, report.duplicates) == (60, 5, 0)
    with db.reading(engine) as session:
        rows = session.execute(
            sa.select(CellFile.path, Cell, Subject.name)
            .join(Cell, Cell.id == CellFile.cell_id)
            .join(Subject, Subject.id == Cell.subject_id)
            .order_by(Cell.id)
        ).all()
    assert [path for path, *_ in rows] == sorted(plain)
    for path, cell, subject in rows:
        assert (cell.sha256, cell.width, cell.height, cell.size_bytes) == plain[path]
        assert Path(path).parts[-3:-1] == (cell.source_label, subject.lower())


def test_a_resumed_import_makes_only_the_thumbnails_that_are_missing(
    sqlite_engine: sa.Engine, root: Path
) -> None:
    def stop(done: int, total: int, doing: str) -> None:
        if doing == "Writing to the store":
            raise KeyboardInterrupt

    settings = current_settings()
    with pytest.raises(KeyboardInterrupt):
        import_cells(sqlite_engine, settings, root, progress=stop)
    gone, broken, *whole = sorted(settings.thumbnails.rglob("*.webp"))
    good, written = broken.read_bytes(), [path.stat().st_ino for path in whole]
    gone.unlink()
    broken.write_bytes(good[:40])
    assert import_cells(sqlite_engine, settings, root).added == 4
    assert gone.is_file()
    assert broken.read_bytes() == good
    assert [path.stat().st_ino for path in whole] == written


def test_candidates_come_in_the_order_of_their_folders_and_share_what_is_said_of_them(root: Path) -> None:
    for name in ("all-b/1.png", "all/z/1.png", "all/z.png", "all.png/2.png", "Ä/3.png"):
        put(root / name, 1)
    candidates = scan_folder(root).candidates
    parts = [Path(candidate.shown).parts for candidate in candidates]
    assert parts == sorted(parts)
    assert len(parts) == 9
    assert [candidate.path for candidate in candidates] == [
        root / candidate.shown for candidate in candidates
    ]
    first, second = (c.name for c in candidates if c.shown.startswith("all/UID_1_"))
    assert first is second


KILLED = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from allreview.cells.importing import import_cells
from allreview.settings import current_settings
from allreview.store import open_store

engine = open_store(current_settings())

@sa.event.listens_for(engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    if statement.startswith("INSERT INTO cell_files"):
        os.kill(os.getpid(), signal.SIGKILL)

import_cells(engine, current_settings(), Path(sys.argv[1]), dataset="d")
"""


def test_a_kill_while_writing_leaves_a_store_that_a_repeat_completes(
    engine: sa.Engine, settings: Settings, root: Path
) -> None:
    import_cells(engine, settings, root, dataset="d")
    put(root / "all" / "UID_5_1_1_all.bmp", 50)
    put(root / "all" / "UID_6_1_1_all.bmp", 1)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with db.reading(engine) as session:
        assert session.scalar(sa.select(sa.func.count(Cell.id))) == 4
        assert session.scalar(sa.select(sa.func.count(Subject.id))) == 3
    report = import_cells(engine, settings, root, dataset="d")
    assert (report.added, report.cells, report.duplicates) == (1, 5, 1)
    assert frozenset({"1", "6"}) in groups(engine, "d")


FILES = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8)), min_size=1, max_size=14)


@given(st.lists(FILES, min_size=1, max_size=3))
@hypothesis_settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_leak_groups_are_what_identical_files_make_them(
    sqlite_engine: sa.Engine, tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]]
) -> None:
    root = tmp_path_factory.mktemp("cells")
    subjects_of: dict[int, set[str]] = {}
    report = None
    for batch, files in enumerate(batches):
        for index, (subject, number) in enumerate(files):
            put(root / "all" / f"UID_{subject}_{batch}_{index}_all.bmp", number)
            subjects_of.setdefault(number, set()).add(str(subject))
        report = import_cells(sqlite_engine, current_settings(), root, dataset=root.name)
    joined = join_members({name for names in subjects_of.values() for name in names}, subjects_of.values())
    expected: dict[str, set[str]] = {}
    for name, smallest in joined.items():
        expected.setdefault(smallest, set()).add(name)
    assert groups(sqlite_engine, root.name) == {frozenset(names) for names in expected.values()}
    assert report is not None
    assert report.cells == len(subjects_of)
    assert report.duplicates == sum(map(len, batches)) - len(subjects_of)
