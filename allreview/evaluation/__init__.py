"""Metrics, comparisons and figures."""
