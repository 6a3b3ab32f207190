"""A reading report as a PDF for printing and signing, A4, in a typeface that has Latin, Greek and Cyrillic letters."""

import io
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from PIL import Image

from allreview.cells.naming import class_title, shown
from allreview.cells.thumbnails import thumbnail
from allreview.review.reports import report_parts
from allreview.review.reports.report_parts import Table
from allreview.review.reports.session_report import Answer, ReadCell, SessionReport
from allreview.settings import Settings

if TYPE_CHECKING:
    from fpdf import FPDF

_FONT = "Source Sans Pro"
_DARK, _GREY, _LINE = (31, 42, 51), (92, 106, 117), (200, 208, 214)
_MARGIN, _FOOT = 14.0, 16.0
_PICTURE = 17.0
_LINE_HEIGHT = 4.2
_WIDTHS = {
    "": 19.0, "Cell": 31.0, "Source label": 21.0, "Reader": 22.0, "Answer": 22.0, "Remark": 33.0, "When": 23.0,
    "Time": 11.0,
}  # fmt: skip
"""Columns of the list of cells and their widths in millimetres; together as wide as the page's text."""


def pdf_report(report: SessionReport, settings: Settings) -> bytes:
    """The report as a PDF document."""
    return bytes(_Writer(report, settings).document().output())


class _Writer:
    def __init__(self, report: SessionReport, settings: Settings) -> None:
        self.report = report
        self.settings = settings
        self.pdf = _blank(report.title, report.made_at)
        self.widths = _widths(report)

    def document(self) -> "FPDF":
        report, pdf = self.report, self.pdf
        pdf.add_page()
        self._words(report.title, size=18, bold=True)
        self._words(f"Made {report.made_at:%Y-%m-%d %H:%M} by allreview", colour=_GREY)
        if report.synthetic:
            self._words(report_parts.SYNTHETIC, bold=True)
        pdf.ln(3)
        for name, said in report.facts:
            self._fact(name, said)
        pdf.ln(3)
        self._words(" ".join(report_parts.summary(report)))
        self._heading("Answers")
        self._numbers(report_parts.answers_table(report))
        self._heading("From source label to answer")
        self._numbers(report_parts.moves_table(report))
        self._heading("Agreement")
        for said in report.agreement:
            self._words(said)
        self._heading("Cells")
        self._cells()
        self._signatures()
        return pdf

    def _font(self, size: float = 10, *, bold: bool = False, colour: tuple[int, int, int] = _DARK) -> None:
        self.pdf.set_font(_FONT, "B" if bold else "", size)
        self.pdf.set_text_color(*colour)

    def _words(
        self, text: str, *, size: float = 10, bold: bool = False, colour: tuple[int, int, int] = _DARK
    ) -> None:
        self._font(size, bold=bold, colour=colour)
        self.pdf.multi_cell(0, size * 0.48, text, align="L", new_x="LMARGIN", new_y="NEXT")

    def _heading(self, text: str) -> None:
        pdf = self.pdf
        if pdf.will_page_break(30):
            pdf.add_page()
        pdf.ln(5)
        self._words(text, size=12, bold=True)
        pdf.ln(1)

    def _fact(self, name: str, said: str) -> None:
        pdf = self.pdf
        self._font(colour=_GREY)
        pdf.cell(44, 5, name)
        self._font()
        pdf.multi_cell(0, 5, said, align="L", new_x="LMARGIN", new_y="NEXT")

    def _numbers(self, table: Table) -> None:
        heads, rows = table
        pdf = self.pdf
        rest = min(24.0, (pdf.epw - 40) / max(1, len(heads) - 1))
        size = 9 if rest > 17 else 7.5
        for row, bold in [(heads, True), *((row, False) for row in rows)]:
            self._font(size, bold=bold, colour=_GREY if bold else _DARK)
            lines = [self._lines(text, 40 if column == 0 else rest - 1) for column, text in enumerate(row)]
            height = max(map(len, lines)) * _LINE_HEIGHT + 1.6
            if pdf.will_page_break(height):
                pdf.add_page()
            top = pdf.get_y()
            for column, text in enumerate(lines):
                left = pdf.l_margin + (40 + (column - 1) * rest if column else 0)
                self._column(left, top, 40 if column == 0 else rest, text, "R" if column else "L")
            pdf.set_xy(pdf.l_margin, top + height)
            self._rule(40 + rest * (len(heads) - 1))

    def _cells(self) -> None:
        self._cell_heads()
        for cell in self.report.cells:
            self._cell(cell)

    def _cell_heads(self) -> None:
        pdf = self.pdf
        self._font(8, bold=True, colour=_GREY)
        top, left = pdf.get_y(), pdf.l_margin
        for name, width in self.widths.items():
            pdf.set_xy(left, top)
            pdf.cell(width, _LINE_HEIGHT, name)
            left += width
        pdf.set_xy(pdf.l_margin, top + _LINE_HEIGHT + 0.8)
        self._rule(pdf.epw)

    def _cell(self, cell: ReadCell) -> None:
        pdf = self.pdf
        self._font(8)
        number, file = report_parts.about(cell)
        texts = [self._answer(answer) for answer in cell.answers]
        heights = [max(map(len, lines)) * _LINE_HEIGHT for lines in texts]
        name, path = self._lines(number, self.widths["Cell"] - 2), self._lines(file, self.widths["Cell"] - 2)
        height = max(_PICTURE, sum(heights), (len(name) + len(path)) * _LINE_HEIGHT) + 2.4
        if pdf.will_page_break(height):
            pdf.add_page()
            self._cell_heads()
        top, left = pdf.get_y() + 1.2, pdf.l_margin
        pdf.image(self._picture(cell), left, top, _PICTURE, _PICTURE, alt_text=f"Cell {cell.cell_id}")
        left += self.widths[""]
        self._font(8)
        self._column(left, top, self.widths["Cell"], name)
        self._font(8, colour=_GREY)
        self._column(left, top + len(name) * _LINE_HEIGHT, self.widths["Cell"], path)
        self._font(8)
        left += self.widths["Cell"]
        source = self._lines(class_title(cell.source_label), self.widths["Source label"] - 2)
        self._column(left, top, self.widths["Source label"], source)
        line = top
        for answer, lines, high in zip(cell.answers, texts, heights, strict=True):
            at = left + self.widths["Source label"]
            for words, (title, width) in zip(lines, self._answer_columns(), strict=True):
                bold = title == "Answer" and report_parts.changed(cell, answer)
                self._font(8, bold=bold, colour=_GREY if title in ("When", "Time") else _DARK)
                self._column(at, line, width, words)
                at += width
            line += high
        pdf.set_xy(pdf.l_margin, top - 1.2 + height)
        self._rule(pdf.epw)

    def _answer(self, answer: Answer) -> list[list[str]]:
        texts = {
            "Reader": shown(answer.reader),
            "Answer": report_parts.answer_words(answer),
            "Remark": report_parts.remark(answer),
            "When": report_parts.moment(answer),
            "Time": report_parts.took(answer),
        }
        self._font(8, bold=True)  # the widest it may be drawn in
        return [self._lines(texts[title], width - 1.5) for title, width in self._answer_columns()]

    def _answer_columns(self) -> list[tuple[str, float]]:
        return list(self.widths.items())[3:]

    def _lines(self, text: str, width: float) -> list[str]:
        """The text in lines that fit the width, in the font that is set."""
        if not text:
            return [""]
        found: Any = self.pdf.multi_cell(width, _LINE_HEIGHT, text, dry_run=True, output="LINES", align="L")
        return list(found)

    def _column(self, left: float, top: float, width: float, lines: list[str], align: str = "L") -> None:
        for index, text in enumerate(lines):
            self.pdf.set_xy(left, top + index * _LINE_HEIGHT)
            self.pdf.cell(width, _LINE_HEIGHT, text, align=align)

    def _rule(self, width: float) -> None:
        pdf = self.pdf
        pdf.set_draw_color(*_LINE)
        pdf.set_line_width(0.15)
        pdf.line(pdf.l_margin, pdf.get_y(), pdf.l_margin + width, pdf.get_y())

    def _picture(self, cell: ReadCell) -> io.BytesIO:
        """The thumbnail as JPEG, which goes into the file as it is."""
        picture = Image.open(io.BytesIO(thumbnail(self.settings, cell.sha256, cell.path))).convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        buffer.seek(0)
        return buffer

    def _signatures(self) -> None:
        pdf = self.pdf
        self._heading("Signed")
        for name in self.report.signatures:
            if pdf.will_page_break(22):
                pdf.add_page()
            top = pdf.get_y() + 15
            left = pdf.l_margin
            pdf.set_draw_color(*_DARK)
            self._font(8, colour=_GREY)
            for text, width in ((shown(name), 60.0), ("Date", 40.0), ("Signature", pdf.epw - 100)):
                pdf.line(left, top, left + width - 6, top)
                self._column(left, top + 0.8, width - 6, self._lines(text, width - 6))
                left += width
            pdf.set_xy(pdf.l_margin, top + 2 * _LINE_HEIGHT)


def _widths(report: SessionReport) -> dict[str, float]:
    """The columns; where one reader read, remarks take the place of the reader's name."""
    if len(report.readers) > 1:
        return _WIDTHS
    widths = _WIDTHS | {"Remark": _WIDTHS["Remark"] + _WIDTHS["Reader"]}
    return {name: width for name, width in widths.items() if name != "Reader"}


def _blank(title: str, made_at: datetime) -> "FPDF":
    from font_source_sans_pro import font_files_ttf
    from fpdf import FPDF

    class Paged(FPDF):
        def footer(self) -> None:
            self.set_y(-12)
            self.set_font(_FONT, "", 8)
            self.set_text_color(*_GREY)
            self.cell(self.epw - 30, 4, _shortened(title))
            self.cell(30, 4, f"{self.page_no()} / {{nb}}", align="R")

    # Names may hold letters that no typeface has; a box stands for them, and nobody needs to be told.
    logging.getLogger("fpdf").setLevel(logging.ERROR)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    pdf = Paged(format="A4")
    pdf.c_margin = 0  # text, rules and pictures begin at one line
    pdf.set_margins(_MARGIN, _MARGIN)
    pdf.set_auto_page_break(True, _FOOT)
    pdf.add_font(_FONT, "", font_files_ttf["SourceSansPro"])
    pdf.add_font(_FONT, "B", font_files_ttf["SourceSansProBold"])
    pdf.set_title(title)
    pdf.set_creator("allreview")
    pdf.set_creation_date(made_at)
    pdf.set_lang("en")
    return pdf


def _shortened(title: str) -> str:
    return title if len(title) <= 90 else title[:89] + "…"
