"""Plotly figures in one calm look: transparent, few lines, colours that the colour blind can tell apart."""

from allreview.evaluation.figures.agreement import agreement_figure
from allreview.evaluation.figures.confusion import confusion_figure
from allreview.evaluation.figures.counts import counts_figure
from allreview.evaluation.figures.curves import precision_recall_figure, reliability_figure, roc_figure
from allreview.evaluation.figures.differences import differences_figure, in_points, leak_figure
from allreview.evaluation.figures.history import histories_figure, history_figure
from allreview.evaluation.figures.look import CLASS_COLOURS, class_colours, marked
from allreview.evaluation.figures.subjects import subjects_figure

__all__ = [
    "CLASS_COLOURS",
    "agreement_figure",
    "class_colours",
    "confusion_figure",
    "counts_figure",
    "differences_figure",
    "histories_figure",
    "history_figure",
    "in_points",
    "leak_figure",
    "marked",
    "precision_recall_figure",
    "reliability_figure",
    "roc_figure",
    "subjects_figure",
]
