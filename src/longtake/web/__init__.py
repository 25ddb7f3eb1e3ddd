"""The studio: a server that keeps jobs, workers that make them, and a page to watch them."""
