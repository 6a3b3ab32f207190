"""Worklists and the sittings in which they are read."""
