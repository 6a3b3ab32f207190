"""Ways to say which cells deserve a look: a small class each, registered under its name."""

from allreview.review.strategies.base import STRATEGIES, Evidence, QueueEntry, Strategy, strategy

# Pages and the command line list them in the order in which they are registered here.
# isort: off
from allreview.review.strategies.misclassified import Misclassified
from allreview.review.strategies.label_error import LabelError
from allreview.review.strategies.uncertain import Uncertain
from allreview.review.strategies.runs_disagree import RunsDisagree
from allreview.review.strategies.readers_disagree import ReadersDisagree
from allreview.review.strategies.outlier import Outlier
from allreview.review.strategies.at_random import Random
# isort: on

__all__ = [
    "STRATEGIES",
    "Evidence",
    "LabelError",
    "Misclassified",
    "Outlier",
    "QueueEntry",
    "Random",
    "ReadersDisagree",
    "RunsDisagree",
    "Strategy",
    "Uncertain",
    "strategy",
]
