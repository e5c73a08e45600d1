"""Streams as values, and what turns (states, inputs) into (states, tokens) for many of them at once."""
