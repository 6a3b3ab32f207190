"""Decisions, queues, sittings and saliency."""
