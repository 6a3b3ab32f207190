"""The Data page: importing real files, the report, and hostile names."""

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image
from streamlit.testing.v1 import AppTest

from allreview.cells.importing import import_cells
from allreview.settings import current_settings

APP = str(Path(__file__).parent.parent.parent / "app.py")


def data_page() -> AppTest:
    return AppTest.from_file(APP, default_timeout=120).run()


def field(app: AppTest, label: str, nth: int = 0):
    return [box for box in app.main.text_input if box.label == label][nth]


def press(app: AppTest, label: str, nth: int = 0) -> AppTest:
    return [button for button in app.main.button if button.label == label][nth].click().run()


def words(app: AppTest) -> str:
    return "\n".join(element.value for element in [*app.markdown, *app.success, *app.info])


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Six small cells of three subjects; 20 and 21 share one, and one file is no image."""
    folder = tmp_path / "mine"
    for number, (label, subject) in enumerate(
        [("all", "20"), ("all", "20"), ("all", "21"), ("hem", "H3"), ("hem", "h3"), ("hem", "H3")]
    ):
        path = folder / "fold_0" / label / f"UID_{subject}_1_{number}_{label}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (40 * number, 90, 120)).save(path)
    shutil.copy(
        folder / "fold_0" / "all" / "UID_20_1_0_all.bmp", folder / "fold_0" / "all" / "UID_21_1_9_all.bmp"
    )
    (folder / "fold_0" / "all" / "<img src=x onerror=alert(1)>.bmp").write_text("no image")
    return folder


def test_import_by_path_reports_in_words(sqlite_engine: sa.Engine, cells: Path) -> None:
    app = data_page()
    field(app, "Folder or zip").set_value(str(cells))
    press(app, "Import")
    assert not app.exception
    assert not app.error
    told = words(app)
    assert "6 new cells went into mine." in told
    assert "1 file is identical to another and counted once." in told
    assert "Subjects 20 and 21 share identical cells and are kept together in every split." in told
    assert "ALL 3, Normal (hem) 3" in told
    table = app.dataframe[0].value
    assert table["File"].tolist() == ["fold_0/all/<img src=x onerror=alert(1)>.bmp"]
    assert "text, not an image" in table["Why"].tolist()[0]
    assert "onerror" not in told


def test_the_same_import_again_says_nothing_is_new(sqlite_engine: sa.Engine, cells: Path) -> None:
    import_cells(sqlite_engine, current_settings(), cells)
    (cells / "fold_0" / "all" / "<img src=x onerror=alert(1)>.bmp").unlink()
    app = data_page()
    field(app, "Folder or zip").set_value(str(cells))
    press(app, "Import")
    assert "Nothing new: all of it was in mine already." in words(app)
    press(app, "Close report")
    assert "Nothing new" not in words(app)


def test_datasets_are_listed_with_their_numbers(sqlite_engine: sa.Engine, cells: Path) -> None:
    import_cells(sqlite_engine, current_settings(), cells, dataset="<b>bold</b> **set**")
    table = data_page().dataframe[0].value
    assert table.iloc[0].to_dict() == {
        "Dataset": "<b>bold</b> **set**",
        "Kind": "Real cells",
        "Cells": 6,
        "Subjects": 3,
        "Classes": "ALL, Normal (hem)",
        "Kept together": 1,
    }


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("", "Give the path of a folder or zip file"), ("/no/such_folder", "There is no folder or zip at")],
)
def test_a_bad_path_is_one_sentence(sqlite_engine: sa.Engine, path: str, sentence: str) -> None:
    app = data_page()
    field(app, "Folder or zip").set_value(path)
    press(app, "Import")
    assert len(app.error) == 1
    assert app.error[0].value.startswith(sentence)


def test_a_zip_from_the_computer(sqlite_engine: sa.Engine, cells: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "ward 7"), "zip", cells))
    app = data_page()
    app.file_uploader[0].set_value((archive.name, archive.read_bytes(), "application/zip"))
    press(app, "Import", 1)
    assert not app.exception
    assert "6 new cells went into ward 7." in words(app)


def test_import_from_the_computer_without_a_file(sqlite_engine: sa.Engine) -> None:
    app = press(data_page(), "Import", 1)
    assert [error.value for error in app.error] == ["Choose a zip file first."]
