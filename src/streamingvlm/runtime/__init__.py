"""The thread that owns an engine, its clock and its pipelines."""
