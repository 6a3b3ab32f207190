"""Runs as Table I of the paper, beside the paper's own four rows; as CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from allreview.errors import UserError
from allreview.evaluation.naming import SHARED_PATIENTS, model_title
from allreview.evaluation.new_patients import NewPatient
from allreview.evaluation.reports import On, Report, run_reports

COLUMNS = (
    "Models",
    "Test Accuracy",
    "Validation Accuracy",
    "Accuracy",
    "Precision",
    "Recall",
    "F1 Score",
)
"""The paper's columns. Accuracy is the mean of the two before it."""

AVERAGES_NOTE = (
    "Figures in %. Accuracy is the mean of test and validation accuracy. Precision, recall and F1 are macro averages "
    "on test cells: the paper does not say which it gives, but only these fit its numbers. (Weighted recall would "
    "equal its test accuracy, and one class's F1 would be the harmonic mean of its precision and recall.)"
)
PAPER_NOTE = (
    "Rows marked 'paper' are those of Pushpalatha et al., Detection and Classification of Acute Lymphoblastic "
    "Leukemia using CNN. It does not say that the patients of its test cells were kept out of training."
)
SHARED_NOTE = (
    f"Where it says '{SHARED_PATIENTS}', the model knows the patients it is tested on: such figures flatter, and "
    "say nothing of the next patient."
)
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
    }
)


@dataclass(frozen=True)
class TableRow:
    """One system. Figures are shares in [0, 1], None where undefined; `run` is None for the paper's.

    `new_patient` is what to expect of a patient it was not trained on, which the paper's columns do not have.
    """

    model: str
    test_accuracy: float | None
    validation_accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    run: int | None = None
    split: str = ""
    shares_patients: bool = False
    new_patient: NewPatient | None = None

    @property
    def accuracy(self) -> float | None:
        """The mean of test and validation accuracy, as the paper gives it."""
        if self.test_accuracy is None or self.validation_accuracy is None:
            return None
        return (self.test_accuracy + self.validation_accuracy) / 2

    @property
    def title(self) -> str:
        """'ResNet50 (paper)', or 'ResNet50 (run 3, split by leak group)', with the mark where patients are shared."""
        if self.run is None:
            return f"{self.model} (paper)"
        mark = f"; {SHARED_PATIENTS}" if self.shares_patients else ""
        return f"{self.model} (run {self.run}, {self.split}{mark})"

    @property
    def figures(self) -> tuple[float | None, ...]:
        """The figures in the order of the columns."""
        return (
            self.test_accuracy,
            self.validation_accuracy,
            self.accuracy,
            self.precision,
            self.recall,
            self.f1,
        )


PAPER_TABLE = (
    TableRow("ResNet50", 0.9825, 0.9900, 0.98, 0.975, 0.98),
    TableRow("EfficientNetB3", 0.9606, 0.9624, 0.96, 0.945, 0.955),
    TableRow("VGG16", 0.9112, 0.8924, 0.92, 0.875, 0.895),
    TableRow("AlexNet", 0.8274, 0.8212, 0.875, 0.735, 0.765),
)
"""Table I of the paper, row by row."""


@dataclass(frozen=True)
class Table:
    """A table as text: `rows` below `columns`, and `notes` that belong under it."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]


def table_rows(engine: sa.Engine, run_ids: Sequence[int], on: On = "source") -> list[TableRow]:
    """A row for each run, in the order given.

    Raises:
        UserError: a run does not exist, or has no figures on test and validation cells.
    """
    tests = run_reports(engine, run_ids, "test", on)
    validations = run_reports(engine, run_ids, "validation", on)
    return [_row(test, validation) for test, validation in zip(tests, validations, strict=True)]


def table_one(rows: Sequence[TableRow], *, with_paper: bool = True) -> Table:
    """The rows as the paper's Table I, its own rows first.

    Raises:
        UserError: there is no row.
    """
    if not rows:
        raise UserError("The table has no run: choose at least one.")
    shown = [*(PAPER_TABLE if with_paper else ()), *rows]
    notes = [AVERAGES_NOTE]
    if with_paper:
        notes.append(PAPER_NOTE)
    if any(row.shares_patients for row in rows):
        notes.append(SHARED_NOTE)
    return Table(COLUMNS, [(row.title, *(_percent(value) for value in row.figures)) for row in shown], notes)


def as_csv(table: Table) -> str:
    """The columns and rows as CSV; what is undefined is empty. The notes are left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(["" if cell == "–" else cell for cell in row] for row in table.rows)
    return text.getvalue()


def as_latex(table: Table) -> str:
    """A plain `tabular`, which needs no package, with the notes under it."""
    width = len(table.columns)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\hline",
        _latex_row(table.columns),
        r"\hline",
        *(_latex_row(row) for row in table.rows),
        r"\hline",
        *(
            rf"\multicolumn{{{width}}}{{p{{0.9\linewidth}}}}{{\footnotesize {_escaped(note)}}} \\"
            for note in table.notes
        ),
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _row(test: Report, validation: Report) -> TableRow:
    return TableRow(
        model=model_title(test.recipe),
        test_accuracy=test.figures["accuracy"],
        validation_accuracy=validation.figures["accuracy"],
        precision=test.figures["macro_precision"],
        recall=test.figures["macro_recall"],
        f1=test.figures["macro_f1"],
        run=test.runs[0],
        split=test.split,
        shares_patients=test.shares_patients,
        new_patient=test.new_patient,
    )


def _percent(share: float | None) -> str:
    """Per cent with two decimals, and a third where the paper's mean has one: 98.625."""
    if share is None:
        return "–"
    exact = f"{100 * share:.3f}"
    return (
        exact
        if exact.endswith("5") and abs(100_000 * share - round(100_000 * share)) < 1e-6
        else f"{100 * share:.2f}"
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_escaped(cell) for cell in cells) + r" \\"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
