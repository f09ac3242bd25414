"""The coordinator over HTTP: the second way for nodes, the public API, the page."""
