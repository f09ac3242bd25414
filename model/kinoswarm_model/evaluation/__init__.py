"""Measuring releases: video features, Fréchet distances and the report of a release beside its seed."""
