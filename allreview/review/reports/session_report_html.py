"""A reading report as one HTML file that needs no other: pictures and styles are inside, and it prints well."""

import base64
from html import escape

from allreview.cells.naming import class_title, shown
from allreview.cells.thumbnails import thumbnail
from allreview.review.reports import report_parts
from allreview.review.reports.report_parts import Table
from allreview.review.reports.session_report import ReadCell, SessionReport
from allreview.settings import Settings

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.5 "Source Sans Pro", "Source Sans 3", system-ui, sans-serif; color: #1f2a33; background: #fff;
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.muted { color: #5c6a75; }
.synthetic { background: #fff3e0; border: 1px solid #f0b96b; border-radius: 4px; padding: .3rem .7rem; margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1.2rem 0; }
dt { color: #5c6a75; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: #5c6a75; border-bottom: 1.5px solid #b9c4cc; }
th, td { padding: .3rem .6rem .3rem 0; vertical-align: top; }
td { border-bottom: 1px solid #e3e8ec; overflow-wrap: break-word; }
.numbers { width: auto; } .numbers th:not(:first-child), .numbers td:not(:first-child) { text-align: right;
  padding-left: 1.4rem; }
.cells img { width: 76px; height: 76px; border-radius: 3px; background: #000; display: block; }
.cells .file { color: #5c6a75; font-size: .85em; } .cells .when, .cells .took { white-space: nowrap; }
.cells .picture { width: 88px; } .cells .cell { min-width: 10.5em; max-width: 15em; overflow-wrap: anywhere; }
.cells tbody { break-inside: avoid; }
.changed { font-weight: 700; }
.signatures td { border: 0; padding-top: 2.6rem; } .signatures span { display: block; border-top: 1px solid #1f2a33;
  padding-top: .2rem; color: #5c6a75; font-size: .85em; min-height: 1.6em; }
@media print { @page { size: A4; margin: 16mm 14mm; } body { font-size: 9pt; max-width: none; margin: 0; padding: 0; }
  .cells img { width: 17mm; height: 17mm; } .cells .picture { width: 19mm; }
  thead { display: table-header-group; } h2 { break-after: avoid; }
  .signatures { break-inside: avoid; }
  .synthetic, img { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def html_report(report: SessionReport, settings: Settings) -> str:
    """The report as one HTML document."""
    several = len(report.readers) > 1
    reader = ["Reader"] if several else []
    heads = ["", "Cell", "Source label", *reader, "Answer", "Remark", "When", "Time"]
    cells = "\n".join(_cell(cell, settings, several=several) for cell in report.cells)
    synthetic = f'<p class="synthetic">{report_parts.SYNTHETIC}</p>' if report.synthetic else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(report.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(report.title)}</h1>
<p class="muted">Made {report.made_at:%Y-%m-%d %H:%M} by allreview</p>
{synthetic}
<dl>{"".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in report.facts)}</dl>
<p>{escape(" ".join(report_parts.summary(report)))}</p>
<h2>Answers</h2>
{_numbers(report_parts.answers_table(report))}
<h2>From source label to answer</h2>
{_numbers(report_parts.moves_table(report))}
<h2>Agreement</h2>
{"".join(f"<p>{escape(said)}</p>" for said in report.agreement)}
<h2>Cells</h2>
<table class="cells">
<thead><tr>{"".join(f"<th>{head}</th>" for head in heads)}</tr></thead>
{cells}
</table>
<h2>Signed</h2>
{_signatures(report)}
</body>
</html>
"""


def _numbers(table: Table) -> str:
    heads, rows = table
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in row)}</tr>" for row in rows)
    return f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(cell: ReadCell, settings: Settings, *, several: bool) -> str:
    picture = base64.b64encode(thumbnail(settings, cell.sha256, cell.path)).decode()
    number, file = report_parts.about(cell)
    spans = f' rowspan="{len(cell.answers)}"'
    first = (
        f'<td{spans} class="picture"><img src="data:image/webp;base64,{picture}" alt="Cell {cell.cell_id}"></td>'
        f'<td{spans} class="cell">{escape(number)}<div class="file">{escape(file)}</div></td>'
        f"<td{spans}>{escape(class_title(cell.source_label))}</td>"
    )
    rows = []
    for answer in cell.answers:
        reader = f"<td>{escape(shown(answer.reader))}</td>" if several else ""
        mark = ' class="changed"' if report_parts.changed(cell, answer) else ""
        rows.append(
            f"<tr>{'' if rows else first}{reader}"
            f"<td{mark}>{escape(report_parts.answer_words(answer))}</td>"
            f"<td>{escape(report_parts.remark(answer))}</td>"
            f'<td class="when">{report_parts.moment(answer)}</td>'
            f'<td class="took">{report_parts.took(answer)}</td></tr>'
        )
    return f"<tbody>{''.join(rows)}</tbody>"


def _signatures(report: SessionReport) -> str:
    rows = "".join(
        f"<tr><td><span>{escape(shown(name))}</span></td><td><span>Date</span></td><td><span>Signature</span></td></tr>"
        for name in report.signatures
    )
    return f'<table class="signatures">{rows}</table>'
