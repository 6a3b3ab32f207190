"""allreview: review single-cell images for acute lymphoblastic leukaemia, and train on the result."""

__version__ = "0.1.0"
