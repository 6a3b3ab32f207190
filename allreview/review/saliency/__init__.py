"""Heat maps: made by the worker, shown by the pages."""
