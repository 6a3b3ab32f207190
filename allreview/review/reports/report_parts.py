"""What the HTML and the PDF report say alike: tables of words, and the lines about one answer."""

from allreview.cells.naming import class_title, shown
from allreview.review.record.record_words import seconds
from allreview.review.reports.session_report import Answer, ReadCell, ReaderSummary, SessionReport
from allreview.wording import percent, plural

Table = tuple[list[str], list[list[str]]]
"""Heads and rows; the first column is words, the others are numbers."""

SYNTHETIC = "Synthetic demo cells: not patients"
SIGNATURE = ("Name", "Date", "Signature")


def answers_table(report: SessionReport) -> Table:
    """Counts per answer, and the pace, one row a reader."""
    heads = ["Reader", "Answers", *(class_title(label) for label in report.labels), "Changed", "Taken back"]
    return [*heads, "Put aside", "Median time"], [_reader_row(report, reader) for reader in report.readers]


def moves_table(report: SessionReport) -> Table:
    """How many cells went from which source label to which answer."""
    sources = sorted({source for source, _ in report.moves})
    heads = ["Source label", *(class_title(label) for label in report.labels)]
    return heads, [
        [class_title(source), *(number(report.moves[source, label]) for label in report.labels)]
        for source in sources
    ]


def number(count: int) -> str:
    """A count; none is a dash."""
    return f"{count:,}" if count else "–"


def summary(report: SessionReport) -> list[str]:
    """What was read, in sentences."""
    given = sum(reader.given for reader in report.readers)
    changed = sum(reader.changed for reader in report.readers)
    said = [f"{plural(given, 'answer')} to {plural(len(report.cells), 'cell')}."]
    if given:
        share = f" ({percent(changed / given)})" if changed else ""
        said.append(f"{plural(changed, 'answer differs', 'answers differ')} from the source label{share}.")
    if report.unread:
        said.append(
            f"{plural(report.unread, 'cell of the worklist has', 'cells of the worklist have')} no answer here."
        )
    if report.withheld:
        answers = plural(report.withheld, "answer of other readers is", "answers of other readers are")
        said.append(f"{answers} withheld: who asked for this report has still to read here.")
    return said


def answer_words(answer: Answer) -> str:
    """The answer's label, with what is special about it."""
    special = [
        word for word, holds in (("again", answer.repeat), ("adjudicated", answer.adjudication)) if holds
    ]
    return class_title(answer.label) + (f" ({', '.join(special)})" if special else "")


def remark(answer: Answer) -> str:
    """Reason and note."""
    return shown(". ".join(text.strip().rstrip(".") for text in (answer.reason, answer.note) if text))


def moment(answer: Answer) -> str:
    """When the answer was given."""
    return f"{answer.moment:%Y-%m-%d %H:%M}"


def took(answer: Answer) -> str:
    """How long the answer took."""
    return (seconds(round(answer.seconds * 1000)) or "") if answer.seconds is not None else ""


def about(cell: ReadCell) -> tuple[str, str]:
    """The cell's number and subject, and its file."""
    subject = f", subject {shown(cell.subject)}" if cell.subject else ""
    return f"Cell {cell.cell_id}{subject}", cell.file


def changed(cell: ReadCell, answer: Answer) -> bool:
    """Whether the answer differs from the source label."""
    return answer.label != cell.source_label


def _reader_row(report: SessionReport, reader: ReaderSummary) -> list[str]:
    counts = [number(reader.answers[label]) for label in report.labels]
    rest = [number(value) for value in (reader.changed, reader.taken_back, reader.skipped)]
    pace = seconds(round(reader.seconds * 1000)) if reader.seconds is not None else None
    return [shown(reader.name), number(reader.given), *counts, *rest, pace or "–"]
