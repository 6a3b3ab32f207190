"""Table I: the paper's own numbers, what kind of average they are, and runs beside them."""

import csv
import io
import re

import pytest
import sqlalchemy as sa

from allreview.errors import UserError
from allreview.evaluation.naming import SHARED_PATIENTS
from allreview.evaluation.reports import run_report
from allreview.evaluation.tables import (
    COLUMNS,
    PAPER_TABLE,
    TableRow,
    as_csv,
    as_latex,
    table_one,
    table_rows,
)
from allreview.recipe import Recipe
from tests.factory import finished_run, small_store

OWN = TableRow(
    "VGG16", 0.7, None, 0.5, 0.625, 1 / 3, run=4, split="split by single images", shares_patients=True
)


def test_the_papers_rows_are_as_printed() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(table_one([OWN])))))
    assert tuple(rows[0]) == COLUMNS
    assert rows[1] == ["ResNet50 (paper)", "98.25", "99.00", "98.625", "98.00", "97.50", "98.00"]
    assert rows[2] == ["EfficientNetB3 (paper)", "96.06", "96.24", "96.15", "96.00", "94.50", "95.50"]
    assert rows[3] == ["VGG16 (paper)", "91.12", "89.24", "90.18", "92.00", "87.50", "89.50"]
    assert rows[4] == ["AlexNet (paper)", "82.74", "82.12", "82.43", "87.50", "73.50", "76.50"]


def test_the_papers_rates_are_macro_averages_and_nothing_else() -> None:
    """Of two classes with the data set's shares, accuracy and macro recall give both recalls, and those give macro
    precision and F1: they are the printed ones within what rounding to half per cents allows."""
    blasts = 7272 / (7272 + 3389)
    for row in PAPER_TABLE:
        accuracy, recall = row.test_accuracy or 0, row.recall or 0
        assert abs(accuracy - recall) > 0.007  # so it is not weighted
        found = (accuracy - 2 * recall * (1 - blasts)) / (2 * blasts - 1)
        missed = 2 * recall - found
        right, right_other = blasts * found, (1 - blasts) * missed
        claimed = right + (1 - blasts) - right_other
        precisions = right / claimed, right_other / (1 - claimed)
        f1s = 2 * right / (blasts + claimed), 2 * right_other / (2 - blasts - claimed)
        assert sum(precisions) / 2 == pytest.approx(row.precision, abs=0.012), row.model
        assert sum(f1s) / 2 == pytest.approx(row.f1, abs=0.012), row.model
    alexnet = PAPER_TABLE[3]
    precision, recall = alexnet.precision or 0, alexnet.recall or 0
    harmonic = 2 * precision * recall / (precision + recall)
    assert abs(harmonic - (alexnet.f1 or 0)) > 0.03  # so it is not one class's


def test_runs_stand_beside_the_paper_with_their_split_in_words(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    said, whole, single = {}, {}, {}
    for number, (subject, cells) in enumerate(store.cells.items()):
        for place, cell in enumerate(cells):
            said[cell] = ("hem" if subject.startswith("H") and place else "all", 0.8)
            whole[cell] = ("train", "validation", "test")[number % 3]
            single[cell] = ("train", "validation", "test", "train")[place]
    recipes = (
        Recipe(backbone="resnet50"),
        Recipe(split="image", backbone="resnet50", partner="efficientnet_b3", combine="average"),
    )
    apart, shared = (
        finished_run(sqlite_engine, store, said, parts=parts, recipe=recipe)
        for parts, recipe in zip((whole, single), recipes, strict=True)
    )
    rows = table_rows(sqlite_engine, [shared, apart])
    assert [row.run for row in rows] == [shared, apart]
    assert rows[0].title == (
        f"ResNet50 + EfficientNetB3, mean of probabilities (run {shared}, split by single images; "
        f"{SHARED_PATIENTS})"
    )
    assert rows[1].title == f"ResNet50 (run {apart}, split by leak group)"
    figures = run_report(sqlite_engine, apart).figures
    validation = run_report(sqlite_engine, apart, "validation").figures["accuracy"] or 0
    assert rows[1].figures == (
        figures["accuracy"],
        validation,
        pytest.approx(((figures["accuracy"] or 0) + validation) / 2),
        figures["macro_precision"],
        figures["macro_recall"],
        figures["macro_f1"],
    )
    table = table_one(rows)
    assert len(table.rows) == 6
    assert len(table.notes) == 3
    assert len(table_one(rows[1:], with_paper=False).rows) == 1
    assert len(table_one(rows[1:]).notes) == 2


def test_what_is_undefined_is_empty_in_csv_and_a_dash_elsewhere() -> None:
    table = table_one([OWN], with_paper=False)
    assert table.rows[0][1:] == ("70.00", "–", "–", "50.00", "62.50", "33.33")
    assert as_csv(table).splitlines()[1].endswith(",70.00,,,50.00,62.50,33.33")
    assert f"; {SHARED_PATIENTS})" in table.rows[0][0]


def test_latex_is_plain_and_escaped() -> None:
    strange = TableRow(r"50_% & $x$ #1 {~^\}", 0.5, 0.5, 0.5, 0.5, 0.5, run=1, split="by hand")
    text = as_latex(table_one([strange]))
    assert text.startswith(r"\begin{tabular}{lrrrrrr}")
    assert text.rstrip().endswith(r"\end{tabular}")
    assert r"50\_\% \& \$x\$ \#1 \{\textasciitilde{}\textasciicircum{}\textbackslash{}\} (run 1" in text
    assert not re.search(r"(?<!\\)[%#$]", text)
    rows = [line for line in text.splitlines() if "&" in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {6}
    assert all(line.endswith(r" \\") for line in rows)
    assert "toprule" not in text
    assert text.isascii()


def test_a_table_without_runs_is_refused() -> None:
    with pytest.raises(UserError, match="at least one"):
        table_one([])
