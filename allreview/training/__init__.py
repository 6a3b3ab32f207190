"""Snapshots, features, fitting, and the jobs that run them."""
