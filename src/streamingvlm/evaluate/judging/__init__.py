"""Pairwise judging: calls, votes, and the figures made of them."""
