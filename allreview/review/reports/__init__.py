"""Reports of sittings, for printing."""
