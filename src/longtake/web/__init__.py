"""The studio: a server that keeps jobs, workers that do them, and a page. What is said over HTTP is data of its own."""
