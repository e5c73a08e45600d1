"""Benchmarks of commentary: games, windows, and what can be counted without a judge."""
