"""One thin script a page: lay out, call, show."""
