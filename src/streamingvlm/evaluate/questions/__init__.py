"""Benchmarks of questions about a video: items, parsers, metrics, and the two ways to ask."""
