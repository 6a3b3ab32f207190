"""What the figures show: traces, markers, ranges; and that nothing moves while a run grows."""

from typing import Any

import plotly.graph_objects as go
import pytest

from allreview.evaluation.figures import class_colours, confusion_figure, counts_figure, history_figure

ROWS = [
    {"epoch": 1, "loss": 2.0, "accuracy": 0.6, "val_loss": 2.5, "val_accuracy": 0.55},
    {"epoch": 2, "loss": 1.0, "accuracy": 0.8, "val_loss": 1.2, "val_accuracy": 0.85},
    {"epoch": 3, "loss": 0.5, "accuracy": 0.9, "val_loss": 0.9, "val_accuracy": 0.80},
    {"epoch": 4, "loss": 0.3, "accuracy": 0.95, "val_loss": 0.9, "val_accuracy": 0.85},
]


def _traces(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def test_history_shows_both_curves_in_both_panels() -> None:
    figure = history_figure(ROWS, 20)
    for name, keys in (("Training", ("loss", "accuracy")), ("Validation", ("val_loss", "val_accuracy"))):
        traces = _traces(figure, name)
        assert [list(trace.x) for trace in traces] == [[1, 2, 3, 4]] * 2
        assert [list(trace.y) for trace in traces] == [[row[key] for row in ROWS] for key in keys]


def test_history_marks_the_first_of_the_best_epochs() -> None:
    loss, accuracy = _traces(history_figure(ROWS, 20), "Best epoch")
    assert (loss.x, loss.y, loss.xaxis) == ((3,), (0.9,), "x")
    assert (accuracy.x, accuracy.y, accuracy.xaxis) == ((2,), (0.85,), "x2")
    texts = [note.text for note in history_figure(ROWS, 20).layout.annotations]
    assert texts == ["best epoch 3", "best epoch 2"]


def test_history_does_not_move_while_it_grows() -> None:
    figures = [history_figure(ROWS[:n], 20) for n in range(5)]
    for axis in ("xaxis", "xaxis2", "yaxis2"):
        assert len({figure.layout[axis].range for figure in figures}) == 1
    low, high = figures[0].layout.xaxis.range
    assert low < 1
    assert 20 < high < 21
    assert len({(figure.layout.height, str(figure.layout.margin)) for figure in figures}) == 1
    assert {figure.layout.uirevision for figure in figures} == {"history"}
    assert {figure.layout.yaxis.automargin for figure in figures} == {False}


def test_an_empty_history_is_laid_out() -> None:
    figure = history_figure([], 20)
    assert not _traces(figure, "Best epoch")
    assert not figure.layout.annotations
    assert [trace.name for trace in figure.data if trace.showlegend] == ["Training", "Validation"]


@pytest.mark.parametrize("total", [1, 2, 12, 13, 25, 100, 500])
def test_epoch_ticks_are_few_and_start_at_one(total: int) -> None:
    ticks = history_figure([], total).layout.xaxis.tickvals
    assert ticks[0] == 1
    assert ticks[-1] <= max(total, 2)
    assert len(ticks) <= 12


def test_confusion_writes_counts_and_row_shares() -> None:
    figure = confusion_figure(
        {"labels": ["all", "hem"], "matrix": [[9, 1], [0, 0]]}, "Run 3", {"all": "ALL blast"}
    )
    assert [list(row) for row in figure.data[0].z] == [[0.9, 0.1], [0.0, 0.0]]
    written = {(note.x, note.y): note.text for note in figure.layout.annotations}
    assert written == {
        ("ALL blast", "ALL blast"): "<b>9</b><br>90%",
        ("hem", "ALL blast"): "<b>1</b><br>10%",
        ("ALL blast", "hem"): "0",
        ("hem", "hem"): "0",
    }
    assert figure.layout.title.text == "Run 3"
    assert figure.layout.yaxis.autorange == "reversed"


def test_a_rare_mistake_is_never_rounded_away() -> None:
    figure = confusion_figure({"labels": ["all", "hem"], "matrix": [[999, 1], [0, 5]]})
    texts = [note.text for note in figure.layout.annotations]
    assert texts[:2] == ["<b>999</b><br>>99%", "<b>1</b><br><1%"]
    assert texts[3] == "<b>5</b><br>100%"


def test_counts_are_stacked_by_class_largest_first() -> None:
    figure = counts_figure([("A", "hem", 2), ("B", "all", 5), ("B", "hem", 1), ("A", "all", 1)], "Cells")
    bars = {trace.name: trace for trace in figure.data if trace.type == "bar"}
    assert figure.layout.barmode == "stack"
    assert list(bars["all"].y) == ["B", "A"]
    assert (list(bars["all"].x), list(bars["hem"].x)) == ([5, 1], [1, 2])
    totals = next(trace for trace in figure.data if trace.type == "scatter")
    assert [text.strip() for text in totals.text] == ["6", "3"]


def test_parts_keep_their_order() -> None:
    figure = counts_figure([("test", "all", 5), ("validation", "all", 2), ("train", "all", 1)])
    assert list(figure.data[0].y) == ["train", "validation", "test"]


def test_many_subjects_get_room_and_every_name() -> None:
    figure = counts_figure([(str(number), "all", number) for number in range(1, 74)])
    assert figure.layout.height > 73 * 20
    assert figure.layout.yaxis.dtick == 1
    assert figure.layout.yaxis.type == "category"
    assert figure.layout.yaxis.range == (72.5, -0.5)


def test_a_class_keeps_its_colour_when_others_are_filtered_away() -> None:
    classes = ["all", "hem", "monocyte"]
    one = counts_figure([("A", "hem", 2)], classes=classes)
    both = counts_figure([("A", "hem", 2), ("A", "all", 2)], classes=classes)
    colours = class_colours(classes)
    assert one.data[0].marker.color == colours["hem"]
    assert {trace.name: trace.marker.color for trace in both.data if trace.type == "bar"} == {
        "all": colours["all"],
        "hem": colours["hem"],
    }


def test_no_cells_give_an_empty_figure() -> None:
    assert not [trace for trace in counts_figure([]).data if trace.type == "bar"]
