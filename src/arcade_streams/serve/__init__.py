"""A match as a live stream that any program can be pointed at."""
