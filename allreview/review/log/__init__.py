"""The log of decisions: writing to it, and what stands by it."""
