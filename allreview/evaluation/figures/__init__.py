"""Plotly figures in one calm look: transparent, few lines, colours that the colour blind can tell apart."""

from allreview.evaluation.figures.confusion import confusion_figure
from allreview.evaluation.figures.counts import counts_figure
from allreview.evaluation.figures.history import history_figure
from allreview.evaluation.figures.look import CLASS_COLOURS, class_colours

__all__ = ["CLASS_COLOURS", "class_colours", "confusion_figure", "counts_figure", "history_figure"]
