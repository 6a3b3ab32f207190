"""Several readers of the same cells: who reads what, how far they agree, what stands."""
