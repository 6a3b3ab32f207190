"""The Data page with an address of object storage instead of a folder."""

from pathlib import Path

import sqlalchemy as sa

from tests.cells.pictures import put
from tests.objects.conftest import Bucket
from tests.pages.test_data_page import data_page, field, press, words


def test_a_bucket_is_imported_and_a_wrong_address_is_refused(
    sqlite_engine: sa.Engine, bucket: Bucket, tmp_path: Path
) -> None:
    for number in range(3):
        put(tmp_path / "C-NMC" / "fold_0" / "all" / f"UID_{number}_1_1_all.bmp", number)
    app = data_page()
    field(app, "Folder or zip").set_value(f"{bucket.address}/nothing")
    press(app, "Import")
    assert not app.exception
    (said,) = [error.value for error in app.error]
    assert "nothing" in said
    assert said.count(". ") == 0
    field(app, "Folder or zip").set_value("s3://no-such-bucket/cells")
    press(app, "Import")
    (said,) = [error.value for error in app.error]
    assert "no bucket 'no-such-bucket'" in said
    field(app, "Folder or zip").set_value(bucket.put_folder(tmp_path / "C-NMC", "C-NMC"))
    press(app, "Import")
    assert not app.exception
    assert not app.error
    assert "3 new cells went into C-NMC." in words(app)
