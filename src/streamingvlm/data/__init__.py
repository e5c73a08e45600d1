"""Annotations of published formats, timed words and the videos that they belong to."""
